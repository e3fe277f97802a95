//! The ring as a node holds it: a snapshot of the table with keys parsed, swapped whole when the table changes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, RwLock},
};

use aws_lc_rs::signature::ParsedPublicKey;
use jsonwebtoken::jwk::{Jwk, JwkSet};

use super::{
    FileFaults, KeyFiles, PrivateKey, TokenFault, VerifiedToken,
    reading::Reading,
    store::{self, KeyRow},
    token::{self, Signer},
    verified::{Fingerprint, Verified},
};
use crate::{
    ambient::Ambient,
    db::{Db, StoreError, StoreResult, Timestamp},
    error::{ApiError, Code},
    events::{Event, Kind},
};

/// What a key of the ring is for at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published, so that verifiers know it before it signs.
    Next,
    /// Signs.
    Active,
    /// Verifies until the last token it signed is dead.
    Retiring,
    /// History.
    Retired,
}

impl KeyState {
    /// The word in the table and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
    }

    /// Whether a node may sign with it, if need be.
    #[must_use]
    pub const fn may_sign(self) -> bool {
        matches!(self, Self::Next | Self::Active)
    }
}

impl TryFrom<String> for KeyState {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        [Self::Next, Self::Active, Self::Retiring, Self::Retired]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("no key state: {text}"))
    }
}

/// One key of the ring, for lists.
#[derive(Clone, Debug)]
pub struct RingKey {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// What it is for.
    pub state: KeyState,
    /// When verifiers could first see it.
    pub published_at: Timestamp,
    /// When it began to sign.
    pub active_at: Option<Timestamp>,
    /// Until when it verifies, once it no longer signs.
    pub verify_until: Option<Timestamp>,
    /// Whether this node has the private key.
    pub held: bool,
}

/// The ring could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Unusable files.
    #[error(transparent)]
    Files(#[from] FileFaults),
    /// The folder cannot be written.
    #[error("cannot write to the folder of keys")]
    Write(#[from] std::io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No key, and none may be made.
    #[error("there is no signing key, and with this public URL none is made by itself: run `latchkey keys generate`")]
    NoKey,
    /// No secret, and none may be made.
    #[error(
        "there is no server secret, and with this public URL none is made by itself: \
         set LATCHKEY_SECRET or run `latchkey keys generate`"
    )]
    NoSecret,
    /// The database was used with other secrets.
    #[error(
        "none of the server secrets is one that this database was used with: \
         take LATCHKEY_SECRET (or the file `secret`) from the other nodes or from the backup; \
         to change it, list the new one beside the old one as `old,new`"
    )]
    ForeignSecret,
}

/// This node holds no private key of the ring, so it can verify and not sign.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this node holds no private key of the ring")]
pub struct NoSigningKey;

impl From<NoSigningKey> for ApiError {
    fn from(error: NoSigningKey) -> Self {
        Self::new(Code::Unavailable).caused_by(error)
    }
}

/// The key ring of this node.
#[derive(Clone)]
pub struct KeyRing {
    issuer: Arc<str>,
    snapshot: Arc<RwLock<Arc<Snapshot>>>,
    pub(super) reading: Arc<Reading>,
}

/// The private keys of this node by their kids.
pub(super) type Private = HashMap<String, Arc<Signer>>;

pub(super) struct Snapshot {
    pub(super) rows: Vec<KeyRow>,
    /// What this node holds, whatever it is for at present.
    pub(super) private: Arc<Private>,
    verifying: HashMap<String, (Arc<ParsedPublicKey>, Option<Timestamp>)>,
    signer: Option<Arc<Signer>>,
    verified: Verified,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.snapshot().rows.len())
    }
}

impl KeyRing {
    /// Takes in the files, makes what may be made, and reads the ring.
    ///
    /// # Errors
    /// See [`RingError`].
    pub async fn open(
        db: &Db,
        files: &KeyFiles,
        issuer: &str,
        may_make: bool,
        ambient: &Ambient,
    ) -> Result<Self, RingError> {
        // Rows before files: who makes a ring writes its files before it commits its rows.
        let mut conn = db.read().await?;
        let rows = store::ring(&mut conn).await?;
        drop(conn);
        let mut keys = files.load()?;
        for key in keys.iter().filter(|key| rows.iter().all(|row| row.kid != key.kid)) {
            take_in(db, key, ambient).await?;
        }
        if rows.is_empty() && keys.is_empty() {
            if !may_make {
                return Err(RingError::NoKey);
            }
            make_ring(db, files, ambient).await?;
        }
        if rows.is_empty() {
            // Read back rather than kept: another node may have been first, and be writing to this very folder. What was
            // taken in or made above waited for its commit, so all its files are there now.
            keys = files.load()?;
        }
        let ring = Self::read(db, files, &keys, issuer).await?;
        ring.tell_what_lacks().await;
        Ok(ring)
    }

    /// The ring as the table has it and these private keys; nothing is taken in or made.
    ///
    /// # Errors
    /// See [`RingError`].
    pub async fn read(db: &Db, files: &KeyFiles, keys: &[PrivateKey], issuer: &str) -> Result<Self, RingError> {
        let private: Private =
            keys.iter().filter_map(Signer::new).map(|signer| (signer.kid.clone(), Arc::new(signer))).collect();
        let mut conn = db.read().await?;
        let snapshot = Snapshot::new(store::ring(&mut conn).await?, Arc::new(private));
        Ok(Self {
            issuer: issuer.into(),
            snapshot: Arc::new(RwLock::new(Arc::new(snapshot))),
            reading: Arc::new(Reading::of(files)),
        })
    }

    /// Makes a `next` key where this node holds none; in an empty ring it becomes `active`.
    ///
    /// # Errors
    /// See [`RingError`].
    pub async fn complete(&self, db: &Db, files: &KeyFiles, ambient: &Ambient) -> Result<(), RingError> {
        let ring = self.list();
        if !ring.iter().any(|key| key.held && key.state == KeyState::Next) {
            let key = PrivateKey::generate(ambient);
            files.save(&key, ambient)?;
            take_in(db, &key, ambient).await?;
        }
        self.reload(db).await?;
        Ok(())
    }

    /// The key that signs at present.
    ///
    /// Asked for *before* a session is opened or moved: a node that moved a refresh chain and then could not sign would
    /// let its client come back with a token that looks stolen.
    ///
    /// # Errors
    /// [`NoSigningKey`].
    pub fn signer(&self) -> Result<Arc<Signer>, NoSigningKey> {
        self.snapshot().signer.clone().ok_or(NoSigningKey)
    }

    /// What a token says that is authentic and may be used at Latchkey's own endpoints now.
    ///
    /// # Errors
    /// Why not, for the log.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<VerifiedToken, TokenFault> {
        let (snapshot, fingerprint) = (self.snapshot(), Fingerprint::of(token));
        if let Some(known) = snapshot.verified.get(&fingerprint) {
            return known.judge(now).map(|()| known);
        }
        let mut key_until = None;
        let claims = token::authentic(token, |kid| {
            let (key, until) = snapshot.verifying_key(kid, now)?;
            key_until = until;
            Ok(key)
        })?;
        token::judge(&claims, &self.issuer)?;
        let verified = VerifiedToken::new(&claims, key_until);
        verified.judge(now)?;
        snapshot.verified.remember(fingerprint, verified);
        Ok(verified)
    }

    /// Forgets tokens that were not used since the last time, so that memory comes back.
    pub fn forget_unused(&self) {
        self.snapshot().verified.turn();
    }

    /// The public keys that may verify at `now`, `next` included (RFC 7517 §5).
    #[must_use]
    pub fn jwks(&self, now: Timestamp) -> JwkSet {
        let snapshot = self.snapshot();
        let keys =
            snapshot.rows.iter().filter(|row| may_verify(row) && row.verify_until.is_none_or(|until| now < until));
        JwkSet { keys: keys.map(|row| row.public_jwk.0.clone()).collect() }
    }

    /// The ring, oldest key first.
    #[must_use]
    pub fn list(&self) -> Vec<RingKey> {
        let snapshot = self.snapshot();
        let keys = snapshot.rows.iter().map(|row| RingKey {
            kid: row.kid.clone(),
            state: row.state,
            published_at: row.published_at,
            active_at: row.active_at,
            verify_until: row.verify_until,
            held: snapshot.private.contains_key(&row.kid),
        });
        keys.collect()
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        match self.snapshot.read() {
            Ok(held) => Arc::clone(&held),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }

    pub(super) fn swap(&self, fresh: Snapshot) {
        match self.snapshot.write() {
            Ok(mut held) => *held = Arc::new(fresh),
            Err(poisoned) => *poisoned.into_inner() = Arc::new(fresh),
        }
    }
}

impl Snapshot {
    pub(super) fn new(rows: Vec<KeyRow>, private: Arc<Private>) -> Self {
        let verifying = rows
            .iter()
            .filter(|row| may_verify(row))
            .filter_map(|row| {
                let key = parse(&row.public_jwk)?;
                Some((row.kid.clone(), (Arc::new(key), row.verify_until)))
            })
            .collect();
        let held = |row: &&KeyRow| private.contains_key(&row.kid);
        let active = rows.iter().find(|row| row.state == KeyState::Active);
        // Rows are ordered by `published_at`: the newest published one is the last. Never one that is on its way out: its
        // tokens would outlive it.
        let signs = active.filter(held).or_else(|| rows.iter().filter(|row| row.state.may_sign()).rfind(held));
        let signer = signs.and_then(|row| private.get(&row.kid)).cloned();
        Self { rows, private, verifying, signer, verified: Verified::default() }
    }

    fn verifying_key(
        &self,
        kid: &str,
        now: Timestamp,
    ) -> Result<(Arc<ParsedPublicKey>, Option<Timestamp>), TokenFault> {
        match self.verifying.get(kid) {
            Some((key, until)) if until.is_none_or(|until| now < until) => Ok((Arc::clone(key), *until)),
            // Known and over is not unknown: reading the table again would change nothing.
            None if self.rows.iter().all(|row| row.kid != kid) => Err(TokenFault::UnknownKey),
            _ => Err(TokenFault::RetiredKey),
        }
    }
}

fn parse(jwk: &Jwk) -> Option<ParsedPublicKey> {
    let key = token::verifying_key(jwk);
    if key.is_none() {
        tracing::error!(kid = jwk.common.key_id.as_deref(), "a public key in the ring cannot be read");
    }
    key
}

fn may_verify(row: &KeyRow) -> bool {
    row.state != KeyState::Retired
}

/// Takes a key from a file into the ring.
pub(super) async fn take_in(db: &Db, key: &PrivateKey, ambient: &Ambient) -> StoreResult<()> {
    let mut tx = db.begin(ambient.now()).await?;
    let published = store::publish(&mut tx, &key.kid, &key.jwk, KeyState::Active).await?
        || store::publish(&mut tx, &key.kid, &key.jwk, KeyState::Next).await?;
    if published {
        tracing::info!(kid = key.kid, "a private key from a file was taken into the ring");
        Event::new(Kind::KeyPublished).with("kid", &key.kid).record(&mut tx, ambient).await?;
    }
    tx.commit().await
}

/// Makes `active` and `next` in an empty ring, unless another node does first.
///
/// The files are written between winning and committing. Before, and a node that finds them takes them for an
/// operator's keys; after, and a crash leaves an active key that nobody holds. It is the one place where a transaction
/// waits for something else than the database, once in the life of an installation.
async fn make_ring(db: &Db, files: &KeyFiles, ambient: &Ambient) -> Result<(), RingError> {
    let (active, next) = (PrivateKey::generate(ambient), PrivateKey::generate(ambient));
    let mut tx = db.begin(ambient.now()).await?;
    if store::publish(&mut tx, &active.kid, &active.jwk, KeyState::Active).await? {
        store::publish(&mut tx, &next.kid, &next.jwk, KeyState::Next).await?;
        for key in [&active, &next] {
            Event::new(Kind::KeyPublished).with("kid", &key.kid).record(&mut tx, ambient).await?;
            files.save(key, ambient)?;
        }
    }
    Ok(tx.commit().await?)
}
