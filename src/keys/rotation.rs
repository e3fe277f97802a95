//! A key's way through the ring, and the acts that move it on.
//!
//! ```text
//!            rotate            rotate               verify_until
//! next ─────────────▶ active ─────────────▶ retiring ─────────────▶ retired
//!   └──────────────────────────── retire ───────┴──────────────────────▲
//! ```
//!
//! 1. A rotation is one transaction of conditional updates: the active key steps down, the oldest `next` key whose file
//!    is here takes its place, a new `next` key is published. Of two rotations at the same instant one finds its keys
//!    moved and does nothing, and the partial unique index allows no second active key whatever happens.
//! 2. Who takes over should have been published for [`PUBLISHED_FIRST`]: until then a verifier may still go by a set of
//!    keys that lacks it. Our own nodes are not concerned, they look again (`keys/reading.rs`).
//! 3. The key that steps down verifies until its last token is dead. That token may be signed by a node that has not
//!    noticed yet, hence [`NOTICE`]; its lifetime is taken from the settings of the process that rotates, since nodes do
//!    not tell theirs: they have to agree, and whoever shortens the lifetime rotates after the old one has passed.
//! 4. Retiring is for keys that leaked or that nobody holds. The active key cannot be retired: a ring always has one.

use std::{io, time::Duration};

use super::{KeyFiles, KeyState, PrivateKey, RingKey, store, token};
use crate::{
    ambient::Ambient,
    db::{Db, StoreError, StoreResult, Timestamp},
    events::{Event, Kind},
};

/// How long others may keep the published keys.
pub const JWKS_MAX_AGE: Duration = Duration::from_secs(300);
/// How long a key should have been published before it signs: an answer may have been on its way.
const PUBLISHED_FIRST: Duration = Duration::from_secs(JWKS_MAX_AGE.as_secs() + 10);
/// How long a node may go on signing with a key that stepped down: until it notices, and what it is at is done.
const NOTICE: Duration = Duration::from_secs(60);

/// Which key would sign next.
#[derive(Clone, Debug)]
pub struct Rotation {
    from: Option<String>,
    to: RingKey,
}

/// Nothing was rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Nobody could take over.
    #[error(
        "this folder holds no `next` key of the ring that could take over: \
         run `latchkey keys generate`, or copy the folder of keys from another node"
    )]
    NoNextKey,
    /// The keys were moved meanwhile.
    #[error("another rotation or `keys retire` came first, so nothing was done; look at `latchkey keys list`")]
    Overtaken,
    /// The folder cannot be written.
    #[error("cannot write the new key into the folder of keys, so nothing was done")]
    Write(#[source] io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the wish to retire a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// It verifies no more.
    Retired,
    /// It did not before.
    WasRetired,
    /// It signs at present.
    Signs,
    /// The ring has no such key.
    Unknown,
}

impl Rotation {
    /// From the ring as it is, oldest key first.
    ///
    /// # Errors
    /// [`RotationError::NoNextKey`].
    pub fn of(ring: &[RingKey]) -> Result<Self, RotationError> {
        let to = ring.iter().find(|key| key.state == KeyState::Next && key.held).ok_or(RotationError::NoNextKey)?;
        let from = ring.iter().find(|key| key.state == KeyState::Active);
        Ok(Self { from: from.map(|key| key.kid.clone()), to: to.clone() })
    }

    /// The key that will sign.
    #[must_use]
    pub fn successor(&self) -> &str {
        &self.to.kid
    }

    /// How long at `now` until every verifier can know the key that will sign.
    #[must_use]
    pub fn wait(&self, now: Timestamp) -> Duration {
        let left = self.to.published_at.after(PUBLISHED_FIRST).millis().saturating_sub(now.millis());
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    /// Does it. `token_life` is how long access tokens live.
    ///
    /// As in a first start, the file is written between winning and committing: before, and a loser leaves a key that the
    /// next start takes for an operator's; after, and a crash leaves a row that nobody holds.
    ///
    /// # Errors
    /// See [`RotationError`]; then nothing was done, unless the database did not say whether it committed.
    pub async fn run(
        &self,
        db: &Db,
        files: &KeyFiles,
        token_life: Duration,
        ambient: &Ambient,
    ) -> Result<(), RotationError> {
        let (fresh, now) = (PrivateKey::generate(ambient), ambient.now());
        let mut tx = db.begin(now).await?;
        if let Some(from) = &self.from
            && !store::step_down(&mut tx, from, now.after(token_life + token::LEEWAY + NOTICE)).await?
        {
            return Err(RotationError::Overtaken);
        }
        match store::promote(&mut tx, &self.to.kid).await {
            Ok(true) => {}
            Ok(false) => return Err(RotationError::Overtaken),
            Err(error) if error.is_conflict() => return Err(RotationError::Overtaken),
            Err(error) => return Err(error.into()),
        }
        let mut rotated = Event::new(Kind::KeyRotated).with("to", &self.to.kid);
        if let Some(from) = &self.from {
            rotated = rotated.with("from", from);
        }
        rotated.record(&mut tx, ambient).await?;
        if store::publish(&mut tx, &fresh.kid, &fresh.jwk, KeyState::Next).await? {
            Event::new(Kind::KeyPublished).with("kid", &fresh.kid).record(&mut tx, ambient).await?;
        }
        files.save(&fresh, ambient).map_err(RotationError::Write)?;
        Ok(tx.commit().await?)
    }
}

/// Has every node refuse what the key `kid` signed.
///
/// # Errors
/// When the database does not answer.
pub async fn retire(db: &Db, kid: &str, ambient: &Ambient) -> StoreResult<Retirement> {
    let mut tx = db.begin(ambient.now()).await?;
    let retirement = if store::retire(&mut tx, kid).await? {
        Event::new(Kind::KeyRetired).with("kid", kid).with("cause", "command").record(&mut tx, ambient).await?;
        Retirement::Retired
    } else {
        match store::ring(&mut tx).await?.iter().find(|row| row.kid == kid).map(|row| row.state) {
            Some(KeyState::Retired) => Retirement::WasRetired,
            // Whatever else it was, it is the active key by now.
            Some(_) => Retirement::Signs,
            None => Retirement::Unknown,
        }
    };
    tx.commit().await?;
    Ok(retirement)
}

/// Writes down that keys whose last token is dead are history, and tells how many there were. They verify nothing since
/// `verify_until`, whether or not this has run.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep(db: &Db, ambient: &Ambient) -> StoreResult<u64> {
    let mut tx = db.begin(ambient.now()).await?;
    let mut swept = 0;
    for kid in store::retire_outlived(&mut tx).await? {
        Event::new(Kind::KeyRetired).with("kid", kid).with("cause", "lifetime").record(&mut tx, ambient).await?;
        swept += 1;
    }
    tx.commit().await?;
    Ok(swept)
}
