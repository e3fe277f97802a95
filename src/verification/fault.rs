//! What keeps the worker behind the outbox from bringing a row to its outcome.

use crate::{db::StoreError, ephemeral::EphemeralError};

/// What kept a row from its outcome; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    #[error("the ephemeral store did not answer")]
    Ephemeral(#[from] EphemeralError),
    #[error("the template failed: {0}")]
    Template(#[from] minijinja::Error),
    #[error("nobody waits for this code any more")]
    TooLate,
    #[error("this program knows no mail of this kind")]
    UnknownKind,
}
