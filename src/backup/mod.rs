//! Backups: taking one of the embedded database, and what must happen to any database that was restored from one.
//!
//! **Taking one** ([`file::take`]): SQLite writes what the database is at one moment into a new file, while a server goes
//! on writing. The file holds people, hashes, events and the public halves of keys; no private key and no server secret,
//! and a restore needs neither.
//!
//! **The rule** ([`renew`]). A backup knows nothing of what was ended since: sign-outs, changed passwords, keys that
//! leaked. So that none of it lives again, one transaction
//!
//! 1. moves every person's epoch past any that was given out so far, so sessions, refresh tokens and codes are dead,
//!    those in Redis as well, which a restore does not touch;
//! 2. voids device tokens, empties the tables of what dies by itself, and drops mails that wait: they may have gone out
//!    after the backup was taken;
//! 3. lets the key ring begin anew ([`crate::keys::Renewal`]);
//! 4. writes the event.
//!
//! **Restoring** ([`file::restore`]) applies the rule to a copy before the copy takes the place of the database. With
//! PostgreSQL its own tools restore, into another database than the one that is served, and the rule comes after them.
//!
//! Why the epoch is moved to the clock and not by one: sessions live on in Redis when the database goes back. Somebody
//! whose epoch was 0 in the backup and who changed the password since has sessions of epoch 1 there; `0 + 1` would be
//! theirs. Seconds since 1970 are more than anybody's changes of a password can have counted, in the next restore too.

pub mod file;
mod store;

use std::{io, time::Duration};

use crate::{
    ambient::Ambient,
    db::{Db, StoreError, StoreResult, Timestamp},
    events::{Event, Kind},
    keys::{KeyFiles, Renewal},
    secret::ServerSecrets,
};

/// How long the rule may take: it writes every person's row.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Session records keep 32 bits of the epoch; this is in the year 2096.
const MOST_EPOCH: i64 = 4_000_000_000;

/// What the rule did.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// How many people there are.
    pub people: u64,
    /// Until when the backup knows what happened.
    pub until: Option<Timestamp>,
    /// Mails that waited and will not be sent.
    pub dropped_mails: u64,
    /// The key that signs from now on.
    pub active: String,
}

/// The rule could not be applied; then nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The folder of keys cannot be written.
    #[error("cannot write the new keys into the folder of keys")]
    Write(#[source] io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Applies the rule to a database that was restored, and writes the new private keys into `files` before it commits.
///
/// # Errors
/// See [`RenewError`].
pub async fn renew(
    db: &Db,
    renewal: &Renewal,
    files: &KeyFiles,
    secrets: &ServerSecrets,
    ambient: &Ambient,
) -> Result<Renewed, RenewError> {
    let (tx, renewed) = prepare(db, renewal, secrets, ambient).await?;
    renewal.save(files, ambient).map_err(RenewError::Write)?;
    tx.commit().await?;
    Ok(renewed)
}

async fn prepare(
    db: &Db,
    renewal: &Renewal,
    secrets: &ServerSecrets,
    ambient: &Ambient,
) -> StoreResult<(crate::db::Tx, Renewed)> {
    let mut tx = db.begin_patiently(ambient.now(), PATIENCE).await?;
    let until = store::newest_event(&mut tx).await?;
    let epoch = tx.now().seconds().min(MOST_EPOCH);
    let people = store::end_everything(&mut tx, epoch).await?;
    store::empty_ephemeral(&mut tx).await?;
    let dropped_mails = store::drop_mails(&mut tx).await?;
    renewal.record(&mut tx, secrets, ambient).await?;
    let mut restored = Event::new(Kind::DatabaseRestored).with("people", people.to_string());
    if let Some(until) = until {
        restored = restored.with("until", until.to_string());
    }
    restored.record(&mut tx, ambient).await?;
    Ok((tx, Renewed { people, until, dropped_mails, active: renewal.active().to_owned() }))
}
