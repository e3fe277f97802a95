//! All SQL of sessions. (The sessions themselves are ephemeral.)

use futures_util::TryFutureExt;
use sqlx::types::Json;
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

/// Which of these sessions are remembered as over. Asked by their ids and not by the person, of whom years of ends may be
/// remembered.
pub(super) async fn ended(conn: &mut Conn, sessions: &[Uuid]) -> StoreResult<Vec<Uuid>> {
    // PostgreSQL takes an array; SQLite has none, and takes one apart that is written as JSON.
    if conn.is_embedded() {
        let ids: Vec<String> = sessions.iter().map(|session| session.simple().to_string()).collect();
        on!(conn, |c| sqlx::query_scalar(
            "SELECT session_id FROM ended_sessions WHERE session_id IN (SELECT unhex(value) FROM json_each($1))"
        )
        .bind(Json(&ids))
        .fetch_all(c))
    } else {
        let ids: Vec<String> = sessions.iter().map(Uuid::to_string).collect();
        on!(conn, |c| sqlx::query_scalar(
            "SELECT session_id FROM ended_sessions WHERE session_id = ANY (
                 ARRAY(SELECT CAST(id AS UUID) FROM jsonb_array_elements_text($1) AS id))"
        )
        .bind(Json(&ids))
        .fetch_all(c))
    }
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
