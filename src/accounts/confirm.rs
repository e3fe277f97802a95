//! The password once more, from somebody who is signed in: an access token alone may not take an account over.

use uuid::Uuid;

use super::store;
use crate::{
    app::App,
    db::StoreError,
    error::{ApiError, Code},
    hashing::{Busy, Verdict},
    secret::SecretText,
};

/// What was true of a person when the password was right.
#[derive(Clone, sqlx::FromRow)]
pub struct Confirmed {
    /// The epoch read beside the hash: an act is done only while it stands.
    pub epoch: i64,
    /// The hash that was checked.
    pub password_hash: String,
}

/// Why the password was not confirmed.
#[derive(Debug)]
pub enum NotConfirmed {
    /// It is wrong, or the person has none.
    Wrong,
    /// No hashing capacity.
    Busy(Busy),
    /// The database did not answer.
    Store(StoreError),
}

impl From<NotConfirmed> for ApiError {
    fn from(refused: NotConfirmed) -> Self {
        match refused {
            NotConfirmed::Wrong => Code::InvalidCredentials.into(),
            NotConfirmed::Busy(busy) => busy.into(),
            NotConfirmed::Store(error) => error.into(),
        }
    }
}

/// Checks the password of a person, at the cost of one hash whatever comes out.
///
/// # Errors
/// See [`NotConfirmed`].
pub async fn confirm(app: &App, person: Uuid, password: SecretText) -> Result<Confirmed, NotConfirmed> {
    let mut conn = app.db.read().await.map_err(NotConfirmed::Store)?;
    let found = store::credentials_by_id(&mut conn, person).await.map_err(NotConfirmed::Store)?;
    drop(conn);
    let stored = found.as_ref().map(|found| found.password_hash.clone());
    match (found, app.hasher.verify(password, stored).await.map_err(NotConfirmed::Busy)?) {
        (Some(confirmed), Verdict::Right { .. }) => Ok(confirmed),
        _ => Err(NotConfirmed::Wrong),
    }
}
