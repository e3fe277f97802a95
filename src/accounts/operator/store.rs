//! All SQL of what an operator may do to people.

use futures_util::TryFutureExt;
use uuid::Uuid;

use crate::{
    accounts::Person,
    db::{Conn, StoreResult, Tx, on},
};

pub(super) async fn by_id(conn: &mut Conn, person: Uuid) -> StoreResult<Option<Person>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at
         FROM users WHERE id = $1 AND deleted_at IS NULL"
    )
    .bind(person)
    .fetch_optional(c))
}

pub(super) async fn by_email(conn: &mut Conn, email: &str) -> StoreResult<Option<Person>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at
         FROM users WHERE email = $1 AND deleted_at IS NULL"
    )
    .bind(email)
    .fetch_optional(c))
}

pub(super) async fn by_username(conn: &mut Conn, key: &str) -> StoreResult<Option<Person>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at
         FROM users WHERE username_key = $1 AND deleted_at IS NULL"
    )
    .bind(key)
    .fetch_optional(c))
}

/// The people below this id, the greatest id first.
pub(super) async fn below(conn: &mut Conn, id: Uuid, most: i64) -> StoreResult<Vec<Person>> {
    on!(conn, |c| sqlx::query_as(
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at
         FROM users WHERE id < $1 AND deleted_at IS NULL ORDER BY id DESC LIMIT $2"
    )
    .bind(id)
    .bind(most)
    .fetch_all(c))
}

/// As [`below`], of those whose address or username is from `first` on and below `end`.
pub(super) async fn below_between(
    conn: &mut Conn,
    id: Uuid,
    (first, end): (&str, &str),
    most: i64,
) -> StoreResult<Vec<Person>> {
    // PostgreSQL compares text as the database's language has it unless told otherwise, SQLite byte by byte.
    let sql = if conn.is_embedded() {
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at
         FROM users
         WHERE id < $1 AND id IN
             (SELECT id FROM users WHERE email >= $2 AND email < $3 AND deleted_at IS NULL
              UNION SELECT id FROM users WHERE username_key >= $2 AND username_key < $3 AND deleted_at IS NULL)
         ORDER BY id DESC LIMIT $4"
    } else {
        "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                created_at, updated_at, last_login_at
         FROM users
         WHERE id < $1 AND id IN
             (SELECT id FROM users
              WHERE email COLLATE \"C\" >= $2 AND email COLLATE \"C\" < $3 AND deleted_at IS NULL
              UNION SELECT id FROM users
              WHERE username_key COLLATE \"C\" >= $2 AND username_key COLLATE \"C\" < $3 AND deleted_at IS NULL)
         ORDER BY id DESC LIMIT $4"
    };
    on!(conn, |c| sqlx::query_as(sql).bind(id).bind(first).bind(end).bind(most).fetch_all(c))
}

/// Moves the epoch too. `false` when there is nobody, or nobody to keep out.
pub(super) async fn disable(tx: &mut Tx, person: Uuid) -> StoreResult<bool> {
    let now = tx.now();
    tx.touches(person);
    on!(tx, |c| sqlx::query(
        "UPDATE users SET status = 'disabled', epoch = epoch + 1, updated_at = $2
         WHERE id = $1 AND status <> 'disabled' AND deleted_at IS NULL"
    )
    .bind(person)
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// `false` when there is nobody, or nobody who was kept out.
pub(super) async fn enable(tx: &mut Tx, person: Uuid) -> StoreResult<bool> {
    let now = tx.now();
    tx.touches(person);
    on!(tx, |c| sqlx::query(
        "UPDATE users SET status = 'active', updated_at = $2
         WHERE id = $1 AND status = 'disabled' AND deleted_at IS NULL"
    )
    .bind(person)
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

/// How many people have a hash of another kind than Argon2.
pub(super) async fn foreign_hashes(conn: &mut Conn) -> StoreResult<i64> {
    on!(conn, |c| sqlx::query_scalar(
        "SELECT COUNT(*) FROM users WHERE deleted_at IS NULL AND password_hash NOT LIKE '$argon2%'"
    )
    .fetch_one(c))
}
