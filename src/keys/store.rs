//! All SQL of the key ring and of the secret's check values. A key moves from state to state by conditional updates, so
//! of two processes that move it one wins.

use futures_util::TryFutureExt;
use jsonwebtoken::jwk::Jwk;
use sqlx::types::Json;

use super::ring::KeyState;
use crate::db::{Conn, StoreResult, Timestamp, Tx, on};

/// A row of the ring.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct KeyRow {
    pub kid: String,
    pub public_jwk: Json<Jwk>,
    #[sqlx(try_from = "String")]
    pub state: KeyState,
    pub published_at: Timestamp,
    pub active_at: Option<Timestamp>,
    pub verify_until: Option<Timestamp>,
}

pub(super) async fn ring(conn: &mut Conn) -> StoreResult<Vec<KeyRow>> {
    on!(conn, |c| {
        sqlx::query_as(
        "SELECT kid, public_jwk, state, published_at, active_at, verify_until FROM signing_keys ORDER BY published_at, kid"
    )
    .fetch_all(c)
    })
}

/// Publishes a key as `state`. `false` when it is there already, or `active` is taken.
pub(super) async fn publish(tx: &mut Tx, kid: &str, jwk: &Jwk, state: KeyState) -> StoreResult<bool> {
    let now = tx.now();
    let active_at = (state == KeyState::Active).then_some(now);
    on!(tx, |c| sqlx::query(
        "INSERT INTO signing_keys (kid, alg, \"use\", public_jwk, state, published_at, active_at, verify_until)
         VALUES ($1, 'ES256', 'sig', $2, $3, $4, $5, NULL) ON CONFLICT DO NOTHING"
    )
    .bind(kid)
    .bind(Json(jwk))
    .bind(state.as_str())
    .bind(now)
    .bind(active_at)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// Lets the active key `kid` sign no more. `false` when it is not the active one.
pub(super) async fn step_down(tx: &mut Tx, kid: &str, verify_until: Timestamp) -> StoreResult<bool> {
    on!(tx, |c| sqlx::query(
        "UPDATE signing_keys SET state = 'retiring', verify_until = $2 WHERE kid = $1 AND state = 'active'"
    )
    .bind(kid)
    .bind(verify_until)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// Lets the next key `kid` sign. `false` when it is no next one.
pub(super) async fn promote(tx: &mut Tx, kid: &str) -> StoreResult<bool> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "UPDATE signing_keys SET state = 'active', active_at = $2 WHERE kid = $1 AND state = 'next'"
    )
    .bind(kid)
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// Lets the key `kid` verify no more. `false` when it signs, or is retired, or is none.
pub(super) async fn retire(tx: &mut Tx, kid: &str) -> StoreResult<bool> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "UPDATE signing_keys SET state = 'retired', verify_until = $2
         WHERE kid = $1 AND state IN ('next', 'retiring')"
    )
    .bind(kid)
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// Retires every key that no longer verifies, and tells which.
pub(super) async fn retire_outlived(tx: &mut Tx) -> StoreResult<Vec<String>> {
    let now = tx.now();
    on!(tx, |c| sqlx::query_scalar(
        "UPDATE signing_keys SET state = 'retired' WHERE state = 'retiring' AND verify_until <= $1 RETURNING kid"
    )
    .bind(now)
    .fetch_all(c))
}

/// Retires every key, the active one included, and tells which.
pub(super) async fn retire_all(tx: &mut Tx) -> StoreResult<Vec<String>> {
    let now = tx.now();
    on!(tx, |c| sqlx::query_scalar(
        "UPDATE signing_keys SET state = 'retired', verify_until = $1 WHERE state <> 'retired' RETURNING kid"
    )
    .bind(now)
    .fetch_all(c))
}

/// Forgets which secrets the database was used with.
pub(super) async fn forget_secrets(tx: &mut Tx) -> StoreResult<()> {
    on!(tx, |c| sqlx::query("DELETE FROM secret_checks").execute(c).map_ok(drop))
}

/// Every check value of the secrets this database was used with.
pub(super) async fn secret_checks(conn: &mut Conn) -> StoreResult<Vec<Vec<u8>>> {
    on!(conn, |c| sqlx::query_scalar("SELECT check_value FROM secret_checks").fetch_all(c))
}

/// Remembers a check value; as `genesis` only if none is there.
pub(super) async fn remember_secret(tx: &mut Tx, check: &[u8], genesis: bool) -> StoreResult<()> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "INSERT INTO secret_checks (check_value, genesis, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    )
    .bind(check)
    .bind(genesis)
    .bind(now)
    .execute(c)
    .map_ok(drop))
}
