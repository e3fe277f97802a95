//! How a running node keeps up with the table and with its folder.
//!
//! 1. Every two seconds the table is read ([`KeyRing::reload`]); what changed is in force at once. One reading at a time,
//!    so that an older one never comes after a newer one.
//! 2. Where the table names a key that may sign and is not held, the folder is looked into as well: once when rows
//!    changed, and at every reading as long as the active key is missing (a mounted secret may come later than the row).
//!    What is held stays held, and a fault in the folder is told and passed over: a folder that is being rewritten takes
//!    nothing away from a node that runs.
//! 3. An operator who put a key of his own there asks for a look at once ([`KeyRing::take_in_files`], by SIGHUP).
//! 4. With rotations faster than the poll, a token can name a key that this node has not heard of. Before it is refused
//!    the table is read once more ([`KeyRing::look_again`]): one reading for all who ask, and none within a second of
//!    the one before, so that forged names cost no statement each. Who comes within that second waits for its end rather
//!    than being refused, else forgers could have honest tokens refused.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::{
    FileFault, FileFaults, KeyFiles, KeyRing, KeyState, PrivateKey,
    ring::{self, Private, Snapshot},
    store::{self, KeyRow},
    token::Signer,
};
use crate::{
    ambient::Ambient,
    db::{Db, PATIENCE, StoreResult},
};

/// Between two readings that tokens asked for.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How long the folder may take to be read.
const FOLDER_PATIENCE: Duration = Duration::from_secs(1);

/// What readings need and leave behind.
pub(super) struct Reading {
    files: KeyFiles,
    told: Mutex<Told>,
    /// Held while somebody looks into the folder.
    looking: Arc<Mutex<()>>,
    looked: Mutex<Option<Looked>>,
}

/// What the log was told already, so that it is not told every two seconds.
#[derive(Default)]
struct Told {
    /// The active key that is not held.
    lacking: Option<String>,
    faults: Vec<FileFault>,
}

/// The last reading that a token asked for.
#[derive(Clone, Copy)]
struct Looked {
    began: Instant,
    answered: bool,
}

impl Reading {
    pub(super) fn of(files: &KeyFiles) -> Self {
        Self { files: files.clone(), told: Mutex::default(), looking: Arc::default(), looked: Mutex::new(None) }
    }
}

impl KeyRing {
    /// Reads the table again, and the folder if it may hold what is missing; what changed is in force at once.
    ///
    /// # Errors
    /// When the database does not answer; the ring stays as it was.
    pub async fn reload(&self, db: &Db) -> StoreResult<()> {
        let mut told = self.reading.told.lock().await;
        self.read_again(db, &mut told, None).await
    }

    /// Looks into the folder whatever the table says: keys that are in no row are taken into the ring as at a start, and
    /// those that may sign are held from now on. What is wrong with the rest is told.
    ///
    /// # Errors
    /// When the database does not answer; the ring stays as it was.
    pub async fn take_in_files(&self, db: &Db, ambient: &Ambient) -> StoreResult<()> {
        let mut told = self.reading.told.lock().await;
        told.faults.clear();
        let Some(found) = self.look_into_folder(&mut told).await else { return Ok(()) };
        let mut conn = db.read().await?;
        let rows = store::ring(&mut conn).await?;
        drop(conn);
        for key in found.iter().filter(|key| rows.iter().all(|row| row.kid != key.kid)) {
            ring::take_in(db, key, ambient).await?;
        }
        tracing::info!(keys = found.len(), faults = told.faults.len(), "the folder of keys was read again");
        self.read_again(db, &mut told, Some(found)).await
    }

    /// Reads the table. `found` is what the folder has, if somebody looked already.
    async fn read_again(&self, db: &Db, told: &mut Told, found: Option<Vec<PrivateKey>>) -> StoreResult<()> {
        let mut conn = db.read().await?;
        let rows = store::ring(&mut conn).await?;
        drop(conn);
        let known = self.snapshot();
        let is_new = rows != known.rows;
        let lacks = |row: &KeyRow| !known.private.contains_key(&row.kid);
        let look = |row: &KeyRow| lacks(row) && (row.state == KeyState::Active || is_new && row.state.may_sign());
        let found = match found {
            None if rows.iter().any(look) => self.look_into_folder(told).await,
            found => found,
        };
        let private = found.map_or_else(|| Arc::clone(&known.private), |found| hold(&rows, &known.private, &found));
        if is_new || private.len() != known.private.len() {
            self.swap(Snapshot::new(rows, private));
            told.tell(&self.snapshot());
        }
        Ok(())
    }

    /// Says so if this node lacks the active key.
    pub(super) async fn tell_what_lacks(&self) {
        self.reading.told.lock().await.tell(&self.snapshot());
    }

    /// Reads the table for a token whose key is in no row. `false` when the table did not answer in time.
    pub async fn look_again(&self, db: &Db) -> bool {
        let (ring, db, asked) = (self.clone(), db.clone(), Instant::now());
        // A task of its own: a client that hangs up must not take the reading away from the others.
        let look = tokio::spawn(async move {
            let mut looked = ring.reading.looked.lock().await;
            if let Some(last) = *looked {
                // It began after this token was shown, so it has seen all that could speak for it.
                if last.began > asked {
                    return last.answered;
                }
                tokio::time::sleep_until(last.began + LOOK_PAUSE).await;
            }
            let began = Instant::now();
            let outcome = ring.reload(&db).await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, "cannot look up a signing key that a token names");
            }
            *looked = Some(Looked { began, answered: outcome.is_ok() });
            outcome.is_ok()
        });
        matches!(tokio::time::timeout(PATIENCE, look).await, Ok(Ok(true)))
    }

    /// The keys in the folder, or `None` when it does not answer.
    async fn look_into_folder(&self, told: &mut Told) -> Option<Vec<PrivateKey>> {
        let files = self.reading.files.clone();
        // A folder may lie on a network and not answer: that must not keep this node from hearing of the ring, nor pile up
        // threads that wait for it.
        let one_at_a_time = Arc::clone(&self.reading.looking).try_lock_owned().ok()?;
        let look = tokio::task::spawn_blocking(move || {
            let found = files.look();
            drop(one_at_a_time);
            found
        });
        let Ok(Ok((found, faults))) = tokio::time::timeout(FOLDER_PATIENCE, look).await else {
            tracing::warn!("the folder of keys does not answer; going on with the keys that are held");
            return None;
        };
        if !faults.is_empty() && faults != told.faults {
            tracing::warn!("going on without some files: {}", FileFaults(faults.clone()));
        }
        told.faults = faults;
        Some(found)
    }
}

/// What is held, and what was found of these rows beside it.
fn hold(rows: &[KeyRow], held: &Arc<Private>, found: &[PrivateKey]) -> Arc<Private> {
    let is_wanted = |kid: &str| rows.iter().any(|row| row.kid == kid && row.state.may_sign());
    let mut private = Private::clone(held);
    for key in found.iter().filter(|key| is_wanted(&key.kid) && !held.contains_key(&key.kid)) {
        if let Some(signer) = Signer::new(key) {
            tracing::info!(kid = key.kid, "a private key was found in the folder");
            private.insert(key.kid.clone(), Arc::new(signer));
        }
    }
    Arc::new(private)
}

impl Told {
    fn tell(&mut self, snapshot: &Snapshot) {
        let active = snapshot.rows.iter().find(|row| row.state == KeyState::Active);
        let lacking = active.map(|row| &row.kid).filter(|kid| !snapshot.private.contains_key(*kid));
        if lacking.is_some() && lacking != self.lacking.as_ref() {
            tracing::warn!(
                kid = lacking,
                "this node does not hold the active signing key; copy the folder of keys from another node"
            );
        }
        self.lacking = lacking.cloned();
    }
}
