//! The server secrets: where they come from, and whether they are those of this database.
//!
//! They live beside the private keys since every node needs both, and a folder whose secret is foreign to the database
//! has no business in its key ring.

use super::{KeyFiles, RingError, store};
use crate::{
    ambient::Ambient,
    db::{Db, Timestamp},
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
