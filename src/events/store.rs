//! All SQL of events.

use futures_util::TryFutureExt;
use sqlx::types::Json;
use uuid::Uuid;

use super::Event;
use crate::db::{StoreResult, Timestamp, Tx, on};

pub(super) async fn insert(tx: &mut Tx, id: Uuid, event: &Event) -> StoreResult<()> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "INSERT INTO events (id, at, kind, person_id, session_id, client_id, address, request_id, data)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
    )
    .bind(id)
    .bind(now)
    .bind(event.kind.as_str())
    .bind(event.person)
    .bind(event.session)
    .bind(event.client)
    .bind(event.address.map(|address| address.to_string()))
    .bind(event.request_id.as_deref())
    .bind(Json(&event.data))
    .execute(c)
    .map_ok(drop))
}

pub(super) async fn delete_before(tx: &mut Tx, instant: Timestamp) -> StoreResult<u64> {
    on!(tx, |c| sqlx::query("DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < $1 LIMIT 1000)")
        .bind(instant)
        .execute(c)
        .map_ok(|done| done.rows_affected()))
}
