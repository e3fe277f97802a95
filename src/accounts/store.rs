//! All SQL of people.

use futures_util::TryFutureExt;
use uuid::Uuid;

use super::{
    model::{Credentials, Person},
    register::Wanted,
};
use crate::db::{Conn, StoreResult, Tx, on};

/// Inserts the person, unless the address or the username is taken.
pub(super) async fn insert(tx: &mut Tx, id: Uuid, wanted: &Wanted, password_hash: &str) -> StoreResult<Option<Person>> {
    let now = tx.now();
    on!(tx, |c| sqlx::query_as(
        "INSERT INTO users (id, email, email_verified, username, username_key, display_name, locale, roles, status,
                            epoch, password_hash, created_at, updated_at)
         VALUES ($1, $2, FALSE, $3, $4, $5, $6, '[]', 'active', 0, $7, $8, $8)
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
                created_at, updated_at, last_login_at, password_hash
         FROM users WHERE email = $1 AND deleted_at IS NULL"
    )
    .bind(email)
    .fetch_optional(c))
}

pub(super) async fn credentials_by_username(conn: &mut Conn, key: &str) -> StoreResult<Option<Credentials>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at, password_hash
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

/// `new_hash` only replaces the hash that was checked: a password that was changed meanwhile stays changed.
pub(super) async fn note_sign_in(tx: &mut Tx, person: Uuid, checked: &str, new_hash: &str) -> StoreResult<()> {
    let now = tx.now();
    on!(tx, |c| {
        sqlx::query(
        "UPDATE users SET last_login_at = $2, password_hash = CASE WHEN password_hash = $3 THEN $4 ELSE password_hash END
         WHERE id = $1"
    )
    .bind(person)
    .bind(now)
    .bind(checked)
    .bind(new_hash)
    .execute(c)
    .map_ok(drop)
    })
}

pub(super) async fn next_epoch(tx: &mut Tx, person: Uuid) -> StoreResult<Option<i64>> {
    on!(tx, |c| sqlx::query_scalar("UPDATE users SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch")
        .bind(person)
        .fetch_optional(c))
}

pub(super) async fn mailbox(conn: &mut Conn, person: Uuid) -> StoreResult<Option<(String, Option<String>)>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT email, locale FROM users WHERE id = $1 AND deleted_at IS NULL AND email IS NOT NULL"
    )
    .bind(person)
    .fetch_optional(c))
}
