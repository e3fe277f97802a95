//! The server secrets: where they come from, and whether they are those of this database.
//!
//! They live beside the private keys since every node needs both, and a folder whose secret is foreign to the database
//! has no business in its key ring.

use super::{KeyFiles, RingError, store};
use crate::{
    ambient::Ambient,
    db::{Db, StoreResult, Timestamp},
    secret::{SecretBytes, ServerSecrets},
};

/// The server secrets from the settings, else from the folder, else (if `may_make`) made there.
///
/// # Errors
/// When there is none, or the file is unusable.
pub fn server_secrets(
    configured: Option<&[SecretBytes]>,
    files: &KeyFiles,
    may_make: bool,
    ambient: &Ambient,
) -> Result<ServerSecrets, RingError> {
    // Looked at in any case: a file that others can read is a fault, whether or not it is used.
    let in_folder = files.secrets()?;
    if let Some(secrets) = configured {
        return Ok(ServerSecrets::new(secrets));
    }
    if let Some(secrets) = in_folder {
        return Ok(ServerSecrets::new(&secrets));
    }
    if !may_make {
        return Err(RingError::NoSecret);
    }
    files.make_secret(ambient)?;
    // Read back rather than kept: another node on the same folder may have been first.
    files.secrets()?.map(|secrets| ServerSecrets::new(&secrets)).ok_or(RingError::NoSecret)
}

/// The server secrets, if they are those of this database; made in the folder where `may_make` and the database knows
/// none yet.
///
/// # Errors
/// See [`RingError`]; then no file was made.
pub async fn open_secrets(
    db: &Db,
    configured: Option<&[SecretBytes]>,
    files: &KeyFiles,
    may_make: bool,
    ambient: &Ambient,
) -> Result<ServerSecrets, RingError> {
    // The table before the folder: who makes a secret writes the file before it commits the check value, so whoever finds
    // the value finds the file of a shared folder too.
    let mut conn = db.read().await?;
    let is_used = !store::secret_checks(&mut conn).await?.is_empty();
    drop(conn);
    let secrets = match server_secrets(configured, files, may_make && !is_used, ambient) {
        // One made now would be foreign, and would lie in the way of the right one.
        Err(RingError::NoSecret) if may_make => return Err(RingError::ForeignSecret),
        secrets => secrets?,
    };
    check_secrets(db, &secrets, ambient.now()).await?;
    Ok(secrets)
}

/// Whether one of these secrets is known to the database, or it knows none yet. Looking changes nothing.
///
/// # Errors
/// When the database does not answer.
pub async fn knows_secrets(db: &Db, secrets: &ServerSecrets) -> StoreResult<bool> {
    let mut conn = db.read().await?;
    let known = store::secret_checks(&mut conn).await?;
    Ok(known.is_empty() || secrets.checks().any(|check| known.iter().any(|known| *known == check)))
}

/// Refuses secrets that are foreign to this database; remembers those that came beside a known one.
///
/// # Errors
/// [`RingError::ForeignSecret`].
pub async fn check_secrets(db: &Db, secrets: &ServerSecrets, now: Timestamp) -> Result<(), RingError> {
    let mut conn = db.read().await?;
    let known = store::secret_checks(&mut conn).await?;
    drop(conn);
    if secrets.checks().all(|check| known.iter().any(|known| *known == check)) {
        return Ok(());
    }
    let mut tx = db.begin(now).await?;
    if let Some(first) = secrets.checks().next() {
        store::remember_secret(&mut tx, &first, true).await?;
    }
    let known = store::secret_checks(&mut tx).await?;
    if !secrets.checks().any(|check| known.iter().any(|known| *known == check)) {
        return Err(RingError::ForeignSecret);
    }
    for check in secrets.checks() {
        store::remember_secret(&mut tx, &check, false).await?;
    }
    Ok(tx.commit().await?)
}
