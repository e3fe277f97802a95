//! The password once more, from somebody who is signed in: an access token alone may not take an account over.

use std::time::Duration;

use uuid::Uuid;

use super::{attempts, store};
use crate::{
    app::App,
    db::StoreError,
    ephemeral::EphemeralError,
    error::{ApiError, Code},
    hashing::{Busy, Verdict},
    metrics::{Confirmation, Policy},
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
    /// Too many were wrong; the wait.
    TooMany(Duration),
    /// No hashing capacity.
    Busy(Busy),
    /// The database did not answer.
    Store(StoreError),
    /// The attempts could not be counted.
    Uncounted(EphemeralError),
}

impl NotConfirmed {
    fn outcome(&self) -> Confirmation {
        match self {
            Self::Wrong => Confirmation::Wrong,
            Self::TooMany(_) => Confirmation::TooManyAttempts,
            Self::Busy(_) => Confirmation::Busy,
            Self::Store(_) | Self::Uncounted(_) => Confirmation::Failed,
        }
    }
}

impl From<NotConfirmed> for ApiError {
    fn from(refused: NotConfirmed) -> Self {
        match refused {
            NotConfirmed::Wrong => Code::InvalidCredentials.into(),
            NotConfirmed::TooMany(wait) => ApiError::after(Code::TooManyAttempts, wait),
            NotConfirmed::Busy(busy) => busy.into(),
            NotConfirmed::Store(error) => error.into(),
            NotConfirmed::Uncounted(error) => error.into(),
        }
    }
}

/// Checks the password of a person in this session, at the cost of one hash whatever comes out. Attempts are counted by
/// session: who stole an access token may not guess with it for as long as it lives.
///
/// # Errors
/// See [`NotConfirmed`].
pub async fn confirm(app: &App, person: Uuid, session: Uuid, password: SecretText) -> Result<Confirmed, NotConfirmed> {
    let outcome = judge(app, person, session, password).await;
    app.metrics.confirmations.add(outcome.as_ref().map_or_else(NotConfirmed::outcome, |_| Confirmation::Right));
    outcome
}

async fn judge(app: &App, person: Uuid, session: Uuid, password: SecretText) -> Result<Confirmed, NotConfirmed> {
    app.hasher.has_room().map_err(NotConfirmed::Busy)?;
    let mut conn = app.db.read().await.map_err(NotConfirmed::Store)?;
    let found = store::credentials_by_id(&mut conn, person).await.map_err(NotConfirmed::Store)?;
    drop(conn);
    let bucket = app.config.limits.account.then(|| attempts::of_session(app, session));
    let now = app.ambient.now();
    if let Some(bucket) = &bucket {
        let reserved = app.ephemeral.reserve(now, bucket, None).await.map_err(NotConfirmed::Uncounted)?;
        reserved.map_err(|wait| {
            app.metrics.limits.add(Policy::Attempts);
            NotConfirmed::TooMany(wait)
        })?;
    }
    let stored = found.as_ref().map(|found| found.password_hash.clone());
    let verdict = match (app.hasher.verify(password, stored).await, &bucket) {
        (Ok(verdict), _) => verdict,
        (Err(busy), bucket) => {
            // It was never judged.
            if let Some(bucket) = bucket {
                let _ = app.ephemeral.take_back(now, bucket).await;
            }
            return Err(NotConfirmed::Busy(busy));
        }
    };
    match (found, verdict) {
        (Some(confirmed), Verdict::Right { .. }) => {
            if let Some(bucket) = bucket {
                app.ephemeral.clear(&[bucket]).await.map_err(NotConfirmed::Uncounted)?;
            }
            Ok(confirmed)
        }
        _ => Err(NotConfirmed::Wrong),
    }
}
