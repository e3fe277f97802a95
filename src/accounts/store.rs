//! All SQL of people.

use futures_util::TryFutureExt;
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Confirmed,
    model::{Addressee, Credentials, Person},
    register::Wanted,
    update::Patch,
};
use crate::db::{Conn, StoreResult, Timestamp, Tx, on};

/// Inserts the person, unless the address or the username is taken.
pub(super) async fn insert(
    tx: &mut Tx,
    id: Uuid,
    wanted: &Wanted,
    password_hash: Option<&str>,
    email_verified: bool,
) -> StoreResult<Option<Person>> {
    let now = tx.now();
    on!(tx, |c| sqlx::query_as(
        "INSERT INTO users (id, email, email_verified, username, username_key, display_name, locale, roles, status,
                            epoch, password_hash, created_at, updated_at)
         VALUES ($1, $2, $9, $3, $4, $5, $6, '[]', 'active', 0, $7, $8, $8)
         ON CONFLICT DO NOTHING
         RETURNING id, email, email_verified, username, display_name, roles, status, epoch,
                   created_at, updated_at, last_login_at"
    )
    .bind(id)
    .bind(&wanted.email)
    .bind(wanted.username.as_deref())
    .bind(wanted.username_key.as_deref())
    .bind(wanted.display_name.as_deref())
    .bind(wanted.locale.as_deref())
    .bind(password_hash)
    .bind(now)
    .bind(email_verified)
    .fetch_optional(c))
}

pub(super) async fn email_is_taken(conn: &mut Conn, email: &str) -> StoreResult<bool> {
    on!(conn, |c| sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users WHERE email = $1 AND deleted_at IS NULL)")
        .bind(email)
        .fetch_one(c))
}

pub(super) async fn credentials_by_email(conn: &mut Conn, email: &str) -> StoreResult<Option<Credentials>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at, password_hash, devices, devices_since
         FROM users WHERE email = $1 AND deleted_at IS NULL"
    )
    .bind(email)
    .fetch_optional(c))
}

pub(super) async fn credentials_by_username(conn: &mut Conn, key: &str) -> StoreResult<Option<Credentials>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at, password_hash, devices, devices_since
         FROM users WHERE username_key = $1 AND deleted_at IS NULL"
    )
    .bind(key)
    .fetch_optional(c))
}

pub(super) async fn person_in_session(conn: &mut Conn, person: Uuid, session: Uuid) -> StoreResult<Option<Person>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at
         FROM users
         WHERE id = $1 AND deleted_at IS NULL AND status = 'active'
           AND NOT EXISTS (SELECT 1 FROM ended_sessions WHERE session_id = $2)"
    )
    .bind(person)
    .bind(session)
    .fetch_optional(c))
}

/// `new_hash` only replaces the hash that was checked: a password that was changed meanwhile stays changed. And devices
/// that were wiped meanwhile stay wiped, since that moved the epoch; tells whether it stands.
pub(super) async fn note_sign_in(
    tx: &mut Tx,
    person: Uuid,
    checked: &str,
    new_hash: &str,
    (epoch, devices): (i64, &[String]),
) -> StoreResult<bool> {
    tx.touches(person);
    let now = tx.now();
    on!(tx, |c| sqlx::query_scalar(
        "UPDATE users SET last_login_at = $2,
             devices = CASE WHEN epoch = $6 THEN $5 ELSE devices END,
             password_hash = CASE WHEN password_hash = $3 THEN $4 ELSE password_hash END
         WHERE id = $1 RETURNING epoch = $6"
    )
    .bind(person)
    .bind(now)
    .bind(checked)
    .bind(new_hash)
    .bind(Json(devices))
    .bind(epoch)
    .fetch_optional(c)
    .map_ok(|stands: Option<bool>| stands == Some(true)))
}

pub(super) async fn credentials_by_id(conn: &mut Conn, person: Uuid) -> StoreResult<Option<Confirmed>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT epoch, password_hash FROM users
         WHERE id = $1 AND deleted_at IS NULL AND status = 'active' AND password_hash IS NOT NULL"
    )
    .bind(person)
    .fetch_optional(c))
}

/// Changes the names that `patch` gives, while the epoch is `epoch` and the username is nobody else's.
pub(super) async fn update(tx: &mut Tx, person: Uuid, epoch: i64, patch: &Patch) -> StoreResult<Option<Person>> {
    tx.touches(person);
    let now = tx.now();
    let (username, key) = patch.username.clone().flatten().unzip();
    on!(tx, |c| sqlx::query_as(
        "UPDATE users SET updated_at = $3,
             display_name = CASE WHEN $4 THEN $5 ELSE display_name END,
             username = CASE WHEN $6 THEN $7 ELSE username END,
             username_key = CASE WHEN $6 THEN $8 ELSE username_key END
         WHERE id = $1 AND epoch = $2 AND deleted_at IS NULL AND status = 'active'
           AND NOT EXISTS (SELECT 1 FROM users AS other
                           WHERE other.username_key = $8 AND other.deleted_at IS NULL AND other.id <> $1)
         RETURNING id, email, email_verified, username, display_name, roles, status, epoch,
                   created_at, updated_at, last_login_at"
    )
    .bind(person)
    .bind(epoch)
    .bind(now)
    .bind(patch.display_name.is_some())
    .bind(patch.display_name.clone().flatten())
    .bind(patch.username.is_some())
    .bind(username.as_deref())
    .bind(key.as_deref())
    .fetch_optional(c))
}

pub(super) async fn username_is_taken(conn: &mut Conn, person: Uuid, key: &str) -> StoreResult<bool> {
    on!(conn, |c| sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM users WHERE username_key = $1 AND deleted_at IS NULL AND id <> $2)"
    )
    .bind(key)
    .bind(person)
    .fetch_one(c))
}

pub(super) async fn replace_password(
    tx: &mut Tx,
    person: Uuid,
    confirmed: &Confirmed,
    hash: &str,
) -> StoreResult<Option<i64>> {
    tx.touches(person);
    let now = tx.now();
    on!(tx, |c| sqlx::query_scalar(
        "UPDATE users SET password_hash = $4, epoch = epoch + 1, updated_at = $5
         WHERE id = $1 AND epoch = $2 AND password_hash = $3 AND deleted_at IS NULL AND status = 'active'
         RETURNING epoch"
    )
    .bind(person)
    .bind(confirmed.epoch)
    .bind(&confirmed.password_hash)
    .bind(hash)
    .bind(now)
    .fetch_optional(c))
}

/// Ends the account: no hash, no sessions, and the keys are free. `false` when the person changed meanwhile.
pub(super) async fn delete(tx: &mut Tx, person: Uuid, epoch: i64) -> StoreResult<bool> {
    tx.touches(person);
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "UPDATE users SET deleted_at = $3, updated_at = $3, password_hash = NULL, devices = '[]', epoch = epoch + 1
         WHERE id = $1 AND epoch = $2 AND deleted_at IS NULL"
    )
    .bind(person)
    .bind(epoch)
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// Removes people deleted before `instant`; what events and mails say of them goes with them.
pub(super) async fn purge(tx: &mut Tx, instant: Timestamp) -> StoreResult<u64> {
    // The same people in all three: in one transaction, in the order of their ids.
    on!(tx, |c| sqlx::query(
        "UPDATE events SET address = NULL, data = '{}' WHERE person_id IN
             (SELECT id FROM users WHERE deleted_at < $1 ORDER BY id LIMIT 1000)"
    )
    .bind(instant)
    .execute(c)
    .map_ok(drop))?;
    on!(tx, |c| sqlx::query(
        "DELETE FROM outbox WHERE person_id IN (SELECT id FROM users WHERE deleted_at < $1 ORDER BY id LIMIT 1000)"
    )
    .bind(instant)
    .execute(c)
    .map_ok(drop))?;
    on!(tx, |c| sqlx::query(
        "DELETE FROM users WHERE id IN (SELECT id FROM users WHERE deleted_at < $1 ORDER BY id LIMIT 1000)"
    )
    .bind(instant)
    .execute(c)
    .map_ok(|done| done.rows_affected()))
}

pub(super) async fn next_epoch(tx: &mut Tx, person: Uuid, stands: Option<i64>) -> StoreResult<Option<i64>> {
    tx.touches(person);
    on!(tx, |c| sqlx::query_scalar(
        "UPDATE users SET epoch = epoch + 1 WHERE id = $1 AND epoch = COALESCE($2, epoch) AND deleted_at IS NULL
         RETURNING epoch"
    )
    .bind(person)
    .bind(stands)
    .fetch_optional(c))
}

pub(super) async fn addressee_by_email(conn: &mut Conn, email: &str) -> StoreResult<Option<Addressee>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, epoch, email, email_verified, username, display_name, locale, devices_since,
                status = 'active' AS is_active
         FROM users WHERE email = $1 AND deleted_at IS NULL"
    )
    .bind(email)
    .fetch_optional(c))
}

pub(super) async fn addressee_by_id(conn: &mut Conn, person: Uuid) -> StoreResult<Option<Addressee>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, epoch, email, email_verified, username, display_name, locale, devices_since,
                status = 'active' AS is_active
         FROM users WHERE id = $1 AND deleted_at IS NULL"
    )
    .bind(person)
    .fetch_optional(c))
}

/// `false` when the person changed meanwhile.
pub(super) async fn verify_address(tx: &mut Tx, person: Uuid, epoch: i64, email: &str) -> StoreResult<bool> {
    tx.touches(person);
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "UPDATE users SET email_verified = TRUE, updated_at = $4
         WHERE id = $1 AND epoch = $2 AND email = $3 AND deleted_at IS NULL AND status = 'active'"
    )
    .bind(person)
    .bind(epoch)
    .bind(email)
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// A first proof of the address wipes what was set by whoever registered it. In an UPDATE every expression sees the row
/// as it was, so the wiping is decided by the old `email_verified`.
pub(super) async fn reset_password(
    tx: &mut Tx,
    person: Uuid,
    epoch: i64,
    email: &str,
    hash: &str,
) -> StoreResult<bool> {
    tx.touches(person);
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "UPDATE users SET password_hash = $4, epoch = epoch + 1, updated_at = $5, email_verified = TRUE,
             username = CASE WHEN email_verified THEN username END,
             username_key = CASE WHEN email_verified THEN username_key END,
             display_name = CASE WHEN email_verified THEN display_name END,
             devices = CASE WHEN email_verified THEN devices ELSE '[]' END,
             devices_since = CASE WHEN email_verified THEN devices_since ELSE $5 END
         WHERE id = $1 AND epoch = $2 AND email = $3 AND deleted_at IS NULL AND status = 'active'"
    )
    .bind(person)
    .bind(epoch)
    .bind(email)
    .bind(hash)
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// Tells the new epoch; `None` when the person changed meanwhile or the address is somebody's.
pub(super) async fn change_address(tx: &mut Tx, person: Uuid, epoch: i64, email: &str) -> StoreResult<Option<i64>> {
    tx.touches(person);
    let now = tx.now();
    on!(tx, |c| sqlx::query_scalar(
        "UPDATE users SET email = $3, email_verified = TRUE, epoch = epoch + 1, updated_at = $4
         WHERE id = $1 AND epoch = $2 AND deleted_at IS NULL AND status = 'active'
           AND NOT EXISTS (SELECT 1 FROM users AS other WHERE other.email = $3 AND other.deleted_at IS NULL)
         RETURNING epoch"
    )
    .bind(person)
    .bind(epoch)
    .bind(email)
    .bind(now)
    .fetch_optional(c))
}
