//! The outbox table: claims, outcomes, and what operators see of it.
//!
//! ```text
//! pending ──claim──▶ pending, claimed ──▶ sent | dropped
//!    ▲                     │
//!    └──── refused: 5 s, 10 s, 20 s … 5 min ──┤ a day over, or twice unknown ──▶ dead ──`mail retry`──▶ pending
//! ```
//!
//! A claim moves `next_attempt_at` into the future, so the row of a worker that died comes up again by itself. One that
//! is further in the future than any wait was put there by a clock that was set since, and is due as well. Who finishes a row must still hold it. Rows that came to their end keep no facts about anybody but the recipient.

use std::time::Duration;

use futures_util::TryFutureExt;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Mail, MailKind};
use crate::db::{APART, Conn, Db, StoreResult, Timestamp, Tx, on};

/// How long a claim holds. Longer than anything a worker does with a row, and short enough that with a poll in between
/// another worker is at it within a minute.
const CLAIM: Duration = Duration::from_secs(45);
/// The wait after the first refusal; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait, so that mails leave soon after the mail server is back.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// The longest wait when the server says that it will never take the mail. It may be the server's fault and be mended,
/// but who asks hundreds of times a day for a mailbox that is not there looks like a spammer.
const LONGEST_WAIT_AFTER_NO: Duration = Duration::from_secs(60 * 60);
/// The wait after an outcome that nobody knows: the server may still be at it.
const WAIT_AFTER_SILENCE: Duration = Duration::from_secs(50);
/// After that long nobody waits for the mail any more.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than any wait for the sake of another mail: who waits so long waits for the mail server.
pub(super) const USUAL: Duration = Duration::from_secs(15 * 60);
/// A notice of a kind is not followed by another one for that long.
const NOTICE_PERIOD: Duration = Duration::from_secs(10 * 60);
/// Before that many claims no wait is longer than [`NOTICE_PERIOD`].
const MANY: i64 = 8;
/// How long finished rows are kept for `mail list`.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long somebody may take to look after the dead ones.
const DEAD_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A row that this worker holds.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    /// Its id; also what the `Message-ID` is made of.
    pub id: Uuid,
    /// The word of a [`MailKind`].
    pub kind: String,
    /// Whom it is about, if that was known.
    pub person_id: Option<Uuid>,
    /// The canonical address.
    pub recipient: String,
    /// The language that was asked for.
    pub locale: Option<String>,
    /// Facts. Any JSON: one row of a newer node must not keep the others from being read.
    pub data: Json<Value>,
    /// Claims so far, this one included.
    pub attempts: i64,
    /// When the act was done.
    pub created_at: Timestamp,
    /// Deliveries of which nobody knows whether they arrived.
    pub unacknowledged: i64,
    /// When an operator asked for it once more.
    pub retried_at: Option<Timestamp>,
}

/// A row as operators see it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Listed {
    /// Its id, for `mail retry`.
    pub id: Uuid,
    /// What it tells.
    pub kind: String,
    /// Whom it goes to.
    pub recipient: String,
    /// `pending`, `sent`, `dropped` or `dead`.
    pub state: String,
    /// Claims so far.
    pub attempts: i64,
    /// When the act was done.
    pub created_at: Timestamp,
    /// When it is tried next, while it is pending.
    pub next_attempt_at: Timestamp,
    /// What the last fault was.
    pub last_error: Option<String>,
}

pub(super) async fn insert(tx: &mut Tx, id: Uuid, mail: &Mail<'_>) -> StoreResult<()> {
    let now = tx.now();
    on!(tx, |c| {
        sqlx::query(
        "INSERT INTO outbox (id, kind, person_id, recipient, locale, data, state, attempts, created_at, next_attempt_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, $7)"
    )
    .bind(id)
    .bind(mail.kind.as_str())
    .bind(mail.person)
    .bind(mail.recipient)
    .bind(mail.locale)
    .bind(Json(&mail.data))
    .bind(now)
    .execute(c)
    .map_ok(drop)
    })
}

/// Whether something waits to be claimed: a read, so that looking does not hold the one writer of SQLite.
///
/// # Errors
/// When the database does not answer.
pub async fn is_due(db: &Db, now: Timestamp) -> StoreResult<bool> {
    let mut conn = db.read().await?;
    on!(&mut conn, |c| sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 'pending' AND (next_attempt_at <= $1 OR next_attempt_at >
             CASE WHEN claimed_by IS NOT NULL THEN $2 WHEN attempts < $5 THEN $3 ELSE $4 END))"
    )
    .bind(now)
    .bind(now.after(CLAIM).after(APART))
    .bind(now.after(NOTICE_PERIOD).after(APART))
    .bind(now.after(LONGEST_WAIT_AFTER_NO).after(APART))
    .bind(MANY)
    .fetch_one(c))
}

/// Claims up to `most` rows that are due for this worker.
///
/// # Errors
/// When the database does not answer; rows that were claimed then come up again.
pub async fn claim(db: &Db, now: Timestamp, worker: Uuid, most: i64) -> StoreResult<Vec<Row>> {
    let mut tx = db.begin(now).await?;
    // SQLite has one writer and no row locks to skip; PostgreSQL has many writers, and without SKIP LOCKED they would
    // queue behind each other for the same rows. As an array the inner query runs once; as a set PostgreSQL may run it
    // again for every row that it looks at, and so claim them all.
    let rows = if tx.is_embedded() {
        on!(&mut tx, |c| sqlx::query_as(
            "UPDATE outbox SET claimed_by = $1, next_attempt_at = $2, attempts = attempts + 1
             WHERE id IN (SELECT id FROM outbox WHERE state = 'pending' AND (next_attempt_at <= $3 OR next_attempt_at >
                              CASE WHEN claimed_by IS NOT NULL THEN $5 WHEN attempts < $8 THEN $6 ELSE $7 END)
                          ORDER BY next_attempt_at LIMIT $4)
             RETURNING id, kind, person_id, recipient, locale, data, attempts, created_at, unacknowledged,
                       retried_at"
        )
        .bind(worker)
        .bind(now.after(CLAIM))
        .bind(now)
        .bind(most)
        .bind(now.after(CLAIM).after(APART))
        .bind(now.after(NOTICE_PERIOD).after(APART))
        .bind(now.after(LONGEST_WAIT_AFTER_NO).after(APART))
        .bind(MANY)
        .fetch_all(c))?
    } else {
        on!(&mut tx, |c| sqlx::query_as(
            "UPDATE outbox SET claimed_by = $1, next_attempt_at = $2, attempts = attempts + 1
             WHERE id = ANY (ARRAY(SELECT id FROM outbox WHERE state = 'pending' AND (next_attempt_at <= $3 OR
                                       next_attempt_at > CASE WHEN claimed_by IS NOT NULL THEN $5
                                                              WHEN attempts < $8 THEN $6 ELSE $7 END)
                                   ORDER BY next_attempt_at LIMIT $4 FOR UPDATE SKIP LOCKED))
             RETURNING id, kind, person_id, recipient, locale, data, attempts, created_at, unacknowledged,
                       retried_at"
        )
        .bind(worker)
        .bind(now.after(CLAIM))
        .bind(now)
        .bind(most)
        .bind(now.after(CLAIM).after(APART))
        .bind(now.after(NOTICE_PERIOD).after(APART))
        .bind(now.after(LONGEST_WAIT_AFTER_NO).after(APART))
        .bind(MANY)
        .fetch_all(c))?
    };
    tx.commit().await?;
    Ok(rows)
}

/// What became of a claimed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was handed over.
    Sent,
    /// There was nothing to send, for this reason.
    Dropped(&'static str),
    /// It was not handed over and may be tried again.
    Refused(String),
    /// As before, and the server said that trying again is of no use.
    RefusedForGood(String),
    /// Nobody knows.
    Unknown(String),
    /// It waits for another mail's sake, and no try is counted.
    Postponed(Timestamp),
}

/// Writes down what became of a row, if this worker still holds it.
///
/// # Errors
/// When the database does not answer; the row comes up again then.
pub async fn conclude(db: &Db, now: Timestamp, worker: Uuid, row: &Row, outcome: &Outcome) -> StoreResult<()> {
    let is_over = row.is_over(now);
    let (state, wait, error, unacknowledged) = match outcome {
        Outcome::Sent => ("sent", None, None, 0),
        Outcome::Dropped(reason) => ("dropped", None, Some((*reason).to_owned()), 0),
        Outcome::Refused(error) | Outcome::RefusedForGood(error) if is_over => ("dead", None, Some(error.clone()), 0),
        Outcome::Refused(error) => {
            ("pending", Some(now.after(wait_after(row.attempts, LONGEST_WAIT))), Some(error.clone()), 0)
        }
        Outcome::RefusedForGood(error) => {
            ("pending", Some(now.after(wait_after(row.attempts, LONGEST_WAIT_AFTER_NO))), Some(error.clone()), 0)
        }
        Outcome::Unknown(error) if is_over || row.unacknowledged > 0 => ("dead", None, Some(error.clone()), 1),
        Outcome::Unknown(error) => ("pending", Some(now.after(WAIT_AFTER_SILENCE)), Some(error.clone()), 1),
        Outcome::Postponed(until) => ("pending", Some(*until), None, 0),
    };
    // Facts go as soon as nobody needs them: a dead row can be tried again, the others are history.
    let is_history = matches!(outcome, Outcome::Sent | Outcome::Dropped(_));
    let uncounted = i64::from(matches!(outcome, Outcome::Postponed(_)));
    let finished_at = (state != "pending").then_some(now);
    let mut tx = db.begin(now).await?;
    on!(&mut tx, |c| {
        sqlx::query(
        "UPDATE outbox SET state = $3, next_attempt_at = COALESCE($4, next_attempt_at), last_error = $5, finished_at = $6,
             unacknowledged = unacknowledged + $7, attempts = attempts - $8, claimed_by = NULL,
             data = CASE WHEN $9 THEN '{}' ELSE data END
         WHERE id = $1 AND claimed_by = $2 AND state = 'pending'"
    )
    .bind(row.id)
    .bind(worker)
    .bind(state)
    .bind(wait)
    .bind(error)
    .bind(finished_at)
    .bind(i64::from(unacknowledged))
    .bind(uncounted)
    .bind(is_history)
    .execute(c)
    .map_ok(drop)
    })?;
    tx.commit().await
}

fn wait_after(attempts: i64, longest: Duration) -> Duration {
    let doublings = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or(0);
    FIRST_WAIT.saturating_mul(1 << doublings).min(longest)
}

/// What stands in the way of a notice, among those to the same address (a warning to an old address must not give way to
/// one to the new address): `Some(Ok)` is a later one of its kind that replaces it, `Some(Err)` the instant
/// from which on it may go, as another one went a moment ago.
///
/// # Errors
/// When the database does not answer.
pub async fn rival(conn: &mut Conn, now: Timestamp, row: &Row) -> StoreResult<Option<Result<(), Timestamp>>> {
    let (later, sent_at): (bool, Option<Timestamp>) = on!(conn, |c| {
        sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE person_id = $1 AND kind = $2 AND recipient = $6
                            AND state IN ('pending', 'sent') AND created_at <= $7 AND (created_at > $3 OR (created_at = $3 AND id > $4))),
                (SELECT MAX(finished_at) FROM outbox WHERE person_id = $1 AND kind = $2 AND recipient = $6
                            AND state = 'sent' AND finished_at > $5 AND finished_at <= $7)",
        )
        .bind(row.person_id)
        .bind(&row.kind)
        .bind(row.created_at)
        .bind(row.id)
        .bind(now.before(NOTICE_PERIOD))
        .bind(&row.recipient)
        .bind(now.after(APART))
        .fetch_one(c)
    })?;
    Ok(if later { Some(Ok(())) } else { sent_at.map(|sent_at| Err(sent_at.after(NOTICE_PERIOD))) })
}

/// What lies in the outbox in this state (or in any), the newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(db: &Db, state: Option<&str>) -> StoreResult<Vec<Listed>> {
    let mut conn = db.read().await?;
    on!(&mut conn, |c| sqlx::query_as(
        "SELECT id, kind, recipient, state, attempts, created_at, next_attempt_at, last_error FROM outbox
         WHERE $1 IS NULL OR state = $1 ORDER BY created_at DESC, id DESC LIMIT 1000"
    )
    .bind(state)
    .fetch_all(c))
}

/// Lets the dead be tried again from now on, one of them or all; also what is pending and waits. Tells how many.
///
/// Their day begins anew, since somebody asked for them now.
///
/// # Errors
/// When the database does not answer.
pub async fn retry(db: &Db, now: Timestamp, id: Option<Uuid>) -> StoreResult<u64> {
    let mut tx = db.begin(now).await?;
    let retried = on!(&mut tx, |c| {
        sqlx::query(
        "UPDATE outbox SET state = 'pending', next_attempt_at = $1, retried_at = $1, attempts = 0, unacknowledged = 0,
             finished_at = NULL
         WHERE (state = 'dead' OR (state = 'pending' AND attempts > 0 AND claimed_by IS NULL)) AND ($2 IS NULL OR id = $2)"
    )
    .bind(now)
    .bind(id)
    .execute(c)
    .map_ok(|done| done.rows_affected())
    })?;
    tx.commit().await?;
    Ok(retried)
}

/// Removes a batch of rows that came to their end a while ago, and tells how many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep(db: &Db, now: Timestamp) -> StoreResult<u64> {
    let mut tx = db.begin(now).await?;
    let swept = on!(&mut tx, |c| sqlx::query(
        "DELETE FROM outbox WHERE id IN
             (SELECT id FROM outbox WHERE finished_at < $1 AND (state <> 'dead' OR finished_at < $2) LIMIT 1000)"
    )
    .bind(now.before(KEPT))
    .bind(now.before(DEAD_KEPT))
    .execute(c)
    .map_ok(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(swept)
}

impl Row {
    /// What it tells; `None` when a newer node wrote it.
    #[must_use]
    pub fn kind(&self) -> Option<MailKind> {
        MailKind::parse(&self.kind)
    }

    /// Whether nobody waits for it any more.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.retried_at.unwrap_or(self.created_at).after(GIVE_UP) <= now
    }

    /// One of its facts.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.data.0.get(name).and_then(Value::as_str)
    }
}
