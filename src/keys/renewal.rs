//! A ring that begins anew, for a database that was restored.
//!
//! Any key of the backup may have been retired since, because it leaked, and the backup knows nothing of that. So none of
//! them stays: all are retired, those included that only lie in the folder (the next start would take them in as an
//! operator's), and a new `active` and a new `next` take their place. What they signed is dead anyway, since every session
//! is.
//!
//! The same goes for the server secrets: everything that they made (refresh tokens, codes, device tokens) is dead, so a
//! restore needs none of the old ones. From now on those of this node are the database's.

use std::io;

use super::{FileFaults, KeyFiles, KeyState, PrivateKey, store};
use crate::{
    ambient::Ambient,
    db::{StoreResult, Tx},
    events::{Event, Kind},
    secret::ServerSecrets,
};

/// The keys that take over, and those that may not.
#[derive(Debug)]
pub struct Renewal {
    active: PrivateKey,
    next: PrivateKey,
    old: Vec<PrivateKey>,
}

impl Renewal {
    /// Makes new keys and looks at those of the folder. Nothing is written yet.
    ///
    /// # Errors
    /// Every unusable file at once.
    pub fn prepare(files: &KeyFiles, ambient: &Ambient) -> Result<Self, FileFaults> {
        let old = files.load()?;
        Ok(Self { active: PrivateKey::generate(ambient), next: PrivateKey::generate(ambient), old })
    }

    /// The key that signs afterwards.
    #[must_use]
    pub fn active(&self) -> &str {
        &self.active.kid
    }

    /// Writes the new ring, in the transaction of the restore.
    ///
    /// # Errors
    /// When the database does not.
    pub async fn record(&self, tx: &mut Tx, secrets: &ServerSecrets, ambient: &Ambient) -> StoreResult<()> {
        for kid in store::retire_all(tx).await? {
            Event::new(Kind::KeyRetired).with("kid", kid).with("cause", "restore").record(tx, ambient).await?;
        }
        for key in &self.old {
            store::publish(tx, &key.kid, &key.jwk, KeyState::Retired).await?;
        }
        for (key, state) in [(&self.active, KeyState::Active), (&self.next, KeyState::Next)] {
            store::publish(tx, &key.kid, &key.jwk, state).await?;
            Event::new(Kind::KeyPublished).with("kid", &key.kid).record(tx, ambient).await?;
        }
        store::forget_secrets(tx).await?;
        for (number, check) in secrets.checks().enumerate() {
            store::remember_secret(tx, &check, number == 0).await?;
        }
        Ok(())
    }

    /// Writes the new private keys into the folder: before the database that names them is in force, since a crash in
    /// between would otherwise leave an active key that nobody holds.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, files: &KeyFiles, ambient: &Ambient) -> io::Result<()> {
        files.save(&self.active, ambient)?;
        files.save(&self.next, ambient)
    }
}
