//! All SQL of sessions. (The sessions themselves are ephemeral.)

use futures_util::TryFutureExt;
use uuid::Uuid;

use crate::db::{Conn, StoreResult, Timestamp, Tx, on};

/// Remembers that a session is over. `false` when that was remembered already.
pub(super) async fn end(tx: &mut Tx, session: Uuid, person: Uuid, until: Timestamp) -> StoreResult<bool> {
    tx.touches(person);
    on!(tx, |c| sqlx::query(
        "INSERT INTO ended_sessions (session_id, user_id, \"until\") VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    )
    .bind(session)
    .bind(person)
    .bind(until)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// The sessions of this person whose ends are remembered.
pub(super) async fn ended(conn: &mut Conn, person: Uuid) -> StoreResult<Vec<Uuid>> {
    on!(conn, |c| sqlx::query_scalar("SELECT session_id FROM ended_sessions WHERE user_id = $1")
        .bind(person)
        .fetch_all(c))
}

/// Drops ends that are past their `until`.
pub(super) async fn forget_ends(tx: &mut Tx) -> StoreResult<u64> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "DELETE FROM ended_sessions WHERE session_id IN
             (SELECT session_id FROM ended_sessions WHERE \"until\" < $1 LIMIT 1000)"
    )
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected()))
}
