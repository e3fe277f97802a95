//! How much lies in the outbox, for metrics and operators: one statement that reads no more than [`MOST`] rows of a state, so that
//! looking costs the same on a bad day.

use super::outbox;
use crate::db::{Db, StoreResult, Timestamp, on};

/// Rows of one state that are counted; beyond it is that many.
pub const MOST: i64 = 10_000;

/// What lies in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Depth {
    /// Mails that are to be sent.
    pub pending: i64,
    /// Mails that were given up and nobody looked after.
    pub dead: i64,
    /// Since when the oldest of those to be sent waits.
    pub oldest: Option<Timestamp>,
    /// When the first of those to be sent is, or was, due.
    pub due: Option<Timestamp>,
}

/// Looks.
///
/// # Errors
/// When the database does not answer.
pub async fn depth(db: &Db) -> StoreResult<Depth> {
    let mut conn = db.read().await?;
    on!(&mut conn, |c| sqlx::query_as(
        "SELECT COUNT(*) AS pending, MIN(since) AS oldest, MIN(next_attempt_at) AS due,
             (SELECT COUNT(*) FROM (SELECT 1 FROM outbox WHERE state = 'dead' LIMIT $1) AS given_up) AS dead
         FROM (SELECT COALESCE(retried_at, created_at) AS since, next_attempt_at FROM outbox WHERE state = 'pending'
               ORDER BY next_attempt_at LIMIT $1) AS waiting"
    )
    .bind(MOST)
    .fetch_one(c))
}

impl Depth {
    /// Whether the oldest waits for longer than a mail server that is there lets it wait.
    #[must_use]
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.oldest.is_some_and(|oldest| oldest.after(outbox::USUAL) < now)
    }
}
