//! All SQL of pending registrations. (Flows are ephemeral, mails are the outbox's.)

use std::time::Duration;

use futures_util::TryFutureExt;
use uuid::Uuid;

use crate::{
    accounts::Wanted,
    db::{Conn, StoreResult, Timestamp, Tx, on},
};

/// How long a registration waits for its code.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A registration that waits.
#[derive(sqlx::FromRow)]
pub(super) struct Pending {
    pub email: String,
    pub username: Option<String>,
    pub username_key: Option<String>,
    pub display_name: Option<String>,
    pub locale: Option<String>,
    pub password_hash: String,
}

pub(super) async fn insert_pending(tx: &mut Tx, id: Uuid, wanted: &Wanted, hash: &str) -> StoreResult<()> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "INSERT INTO pending_registrations (id, email, username, username_key, display_name, locale, password_hash,
                                            created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
    )
    .bind(id)
    .bind(&wanted.email)
    .bind(wanted.username.as_deref())
    .bind(wanted.username_key.as_deref())
    .bind(wanted.display_name.as_deref())
    .bind(wanted.locale.as_deref())
    .bind(hash)
    .bind(now)
    .bind(now.after(LIFETIME))
    .execute(c)
    .map_ok(drop))
}

pub(super) async fn is_pending(conn: &mut Conn, id: Uuid, now: Timestamp) -> StoreResult<bool> {
    on!(conn, |c| sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pending_registrations WHERE id = $1 AND expires_at > $2)"
    )
    .bind(id)
    .bind(now)
    .fetch_one(c))
}

/// Takes a registration out, once.
pub(super) async fn take_pending(tx: &mut Tx, id: Uuid) -> StoreResult<Option<Pending>> {
    let now = tx.now();
    on!(tx, |c| sqlx::query_as(
        "DELETE FROM pending_registrations WHERE id = $1 AND expires_at > $2
         RETURNING email, username, username_key, display_name, locale, password_hash"
    )
    .bind(id)
    .bind(now)
    .fetch_optional(c))
}

pub(super) async fn forget_pending(tx: &mut Tx) -> StoreResult<u64> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "DELETE FROM pending_registrations WHERE id IN
             (SELECT id FROM pending_registrations WHERE expires_at <= $1 LIMIT 1000)"
    )
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected()))
}
