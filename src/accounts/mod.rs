//! People: registering, and seeing oneself.
//!
//! Registering (`/register`):
//! 1. Every field is checked, all faults at once; the password by `passwords::policy`, which costs no hash.
//! 2. The password is hashed, before any transaction: a hash is 20 ms in which nothing should be held.
//! 3. One transaction inserts the person unless address or name is taken, and writes the event and, unless verification
//!    is `off`, the row of the mail with the code. The partial unique indexes decide the race of two registrations; no
//!    reading first, since what was read would be old by then. In `required` mode the transaction leaves a pending
//!    registration and the row of a mail instead, whoever has the address; see the slice `verification`.
//!
//! Acts of a signed-in person that need the password again ([`confirm()`]): a new username, deletion, and in `passwords` a
//! new password. 1. One read gives hash and epoch together. 2. One hash. 3. One transaction that only acts while the
//! epoch is still the one that was read; deletion and a new password move it, which ends sessions on every node.
//! 4. Then the session store is tidied. A deletion wipes the hash at once and frees the address; the rest of the row goes
//! after `LATCHKEY_DELETED_RETENTION` ([`sweep`]).
//!
//! What an operator may do to people stands in [`operator`].
//!
//! A signed-in request ([`Caller`]): token → session record and person, both stores at once → same epoch, not ended. Who
//! looks at oneself gets what was read less than half a second ago (`recent.rs`).
//! `Caller` lives here and not in `http/`, because it reads a person, and the kernel knows no slice.

pub mod attempts;
mod caller;
mod confirm;
mod delete;
mod me;
mod model;
mod notice;
pub mod operator;
mod recent;
mod register;
mod store;
mod update;

use std::time::Duration;

use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub use caller::{Caller, LOOKS, STAMP_PAUSE, verify};
pub use confirm::{Confirmed, NotConfirmed, confirm};
pub use model::{Addressee, Credentials, Person, Status, User};
pub use notice::post_notice;
pub use recent::Recent;
pub use register::{Asked, Taken, Wanted};

use crate::{
    app::App,
    db::{Conn, Db, StoreResult, Timestamp, Tx},
    http::{Limit, Limits},
    names,
};

/// The routes of this slice.
pub fn routes(limits: &Limits) -> OpenApiRouter<App> {
    let register = OpenApiRouter::new().routes(routes!(register::register));
    Limit::before(limits.register.as_ref(), register)
        .routes(routes!(me::me, update::update_me, delete::delete_me))
        .routes(routes!(delete::post_delete_me))
}

/// How somebody says who they are at a login.
#[derive(Clone, Debug)]
pub enum Login {
    /// By address, as typed.
    Email(String),
    /// By username, as typed.
    Username(String),
}

/// The person of that name with the hash and the epoch, all from one statement.
///
/// What cannot be a name costs the same statement as one that nobody has.
///
/// # Errors
/// When the database does not answer.
pub async fn credentials(db: &Db, login: &Login) -> StoreResult<Option<Credentials>> {
    let mut conn = db.read().await?;
    match login {
        Login::Email(text) => {
            let key = names::canonical_email(text).unwrap_or_default();
            store::credentials_by_email(&mut conn, &key).await
        }
        Login::Username(text) => {
            let key = names::username_key(text).unwrap_or_default();
            store::credentials_by_username(&mut conn, &key).await
        }
    }
}

/// The person, unless deleted, disabled, or the session was ended: one statement.
///
/// # Errors
/// When the database does not answer.
pub async fn person_in_session(conn: &mut Conn, person: Uuid, session: Uuid) -> StoreResult<Option<Person>> {
    store::person_in_session(conn, person, session).await
}

/// Notes a sign-in and, while the epoch that was read stands, the devices known from then on; and puts `rehash` in the
/// place of the hash that was checked, if that still stands. Tells whether the epoch does.
///
/// # Errors
/// When the database does not answer.
pub async fn note_sign_in(
    tx: &mut Tx,
    person: Uuid,
    checked: &str,
    rehash: Option<&str>,
    devices: (i64, &[String]),
) -> StoreResult<bool> {
    store::note_sign_in(tx, person, checked, rehash.unwrap_or(checked), devices).await
}

/// Puts a new hash in the place of the confirmed one and moves the epoch, which it tells. `None` when the person changed
/// meanwhile.
///
/// # Errors
/// When the database does not answer.
pub async fn replace_password(
    tx: &mut Tx,
    person: Uuid,
    confirmed: &Confirmed,
    hash: &str,
) -> StoreResult<Option<i64>> {
    store::replace_password(tx, person, confirmed, hash).await
}

/// Removes a batch of people who were deleted before `now - retention`, with what tells of them elsewhere, and tells how
/// many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep(db: &Db, now: Timestamp, retention: Duration) -> StoreResult<u64> {
    let mut tx = db.begin(now).await?;
    let swept = store::purge(&mut tx, now.before(retention)).await?;
    tx.commit().await?;
    Ok(swept)
}

/// Adds one to the person's epoch, which ends every session that carries the old one. `None` when there is nobody, or the
/// epoch is not `stands`.
///
/// # Errors
/// When the database does not answer.
pub async fn next_epoch(tx: &mut Tx, person: Uuid, stands: Option<i64>) -> StoreResult<Option<i64>> {
    store::next_epoch(tx, person, stands).await
}

/// Who has this address.
///
/// # Errors
/// When the database does not answer.
pub async fn addressee(conn: &mut Conn, email: &str) -> StoreResult<Option<Addressee>> {
    store::addressee_by_email(conn, email).await
}

/// The person of this id, as far as mail is concerned.
///
/// # Errors
/// When the database does not answer.
pub async fn addressee_of(conn: &mut Conn, person: Uuid) -> StoreResult<Option<Addressee>> {
    store::addressee_by_id(conn, person).await
}

/// Marks the address as proved, while the person has it and the epoch stands.
///
/// # Errors
/// When the database does not answer.
pub async fn verify_address(tx: &mut Tx, person: Uuid, epoch: i64, email: &str) -> StoreResult<bool> {
    store::verify_address(tx, person, epoch, email).await
}

/// Puts a new hash in, moves the epoch and counts the address as proved, while the epoch stands. What was set before a
/// first proof of the address is wiped: it may be somebody else's.
///
/// # Errors
/// When the database does not answer.
pub async fn reset_password(tx: &mut Tx, person: Uuid, epoch: i64, email: &str, hash: &str) -> StoreResult<bool> {
    store::reset_password(tx, person, epoch, email, hash).await
}

/// Gives the person another, proved address and moves the epoch, which it tells. `None` when the epoch does not stand or
/// somebody has the address.
///
/// # Errors
/// When the database does not answer.
pub async fn change_address(tx: &mut Tx, person: Uuid, epoch: i64, email: &str) -> StoreResult<Option<i64>> {
    store::change_address(tx, person, epoch, email).await
}

/// Makes a person out of a registration whose address was proved; a username that was taken meanwhile is left out.
/// `None` when somebody has the address.
///
/// # Errors
/// When the database does not answer.
pub async fn make_verified(tx: &mut Tx, id: Uuid, wanted: &Wanted, hash: &str) -> StoreResult<Option<Person>> {
    if let Some(person) = store::insert(tx, id, wanted, Some(hash), true).await? {
        return Ok(Some(person));
    }
    let nameless = Wanted { username: None, username_key: None, ..wanted.clone() };
    store::insert(tx, id, &nameless, Some(hash), true).await
}

/// Whether a real person has this username.
///
/// # Errors
/// When the database does not answer.
pub async fn username_is_taken(conn: &mut Conn, key: &str) -> StoreResult<bool> {
    store::username_is_taken(conn, Uuid::nil(), key).await
}
