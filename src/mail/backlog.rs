//! How much lies in the outbox: for operators who want to know whether mails leave.

use super::outbox;
use crate::db::{Db, StoreResult, Timestamp, on};

/// What lies in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Backlog {
    /// Mails that wait, or are on their way.
    pub pending: i64,
    /// Since when the oldest of them waits, if one does.
    pub oldest: Option<Timestamp>,
    /// Mails that were given up.
    pub dead: i64,
}

impl Backlog {
    /// Looks.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn of(db: &Db) -> StoreResult<Self> {
        let mut conn = db.read().await?;
        on!(&mut conn, |c| sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM outbox WHERE state = 'pending') AS pending,
                    (SELECT MIN(COALESCE(retried_at, created_at)) FROM outbox WHERE state = 'pending') AS oldest,
                    (SELECT COUNT(*) FROM outbox WHERE state = 'dead') AS dead"
        )
        .fetch_one(c))
    }

    /// Whether the oldest waits for longer than a mail server that is there lets it wait.
    #[must_use]
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.oldest.is_some_and(|oldest| oldest.after(outbox::USUAL) < now)
    }
}
