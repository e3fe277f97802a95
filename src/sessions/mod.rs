//! Sessions: signing in, refreshing, signing out. A session is one sign-in of a person; its grant is the chain of
//! refresh tokens in it (RFC 6749 §1.5; rotation and reuse detection RFC 9700 §4.14.2). The states are in
//! `ephemeral::SessionRecord::rotate`, the token in `refresh_token.rs`.
//!
//! Login: 1. one SQL read gives person, hash and epoch together. 2. The attempt is counted as a failure in advance, one
//! ephemeral write, by name or by device (`accounts::attempts`); too many are 429. 3. One hash, whoever it is. 4. One
//! transaction: last login, new hash if the old one is weaker, event, perhaps the mail that tells of a new device. 5. One
//! ephemeral write takes the failure back and opens the session with the epoch of step 1:
//! if the person's epoch moved meanwhile (password reset, disabled), the session is dead from the start, and no time is
//! compared between nodes. The event comes before the session, since an event too many does less harm than a session
//! that no record tells of.
//!
//! Refresh: 1. form and MAC of the token, no I/O. 2. One SQL read: the person, unless disabled, deleted, or the session
//! ended. 3. One script decides, counts and moves. 4. A new access token is signed. Theft is written to SQL (end, event, mail in
//! one transaction) before the record goes and the client is told.
//!
//! Tokens travel in bodies or, for pages in browsers, in cookies (`transport.rs`).
//!
//! Logout: 1. the credential names the session. 2. SQL remembers the end, with the event. 3. The record goes. 204 only
//! after both: Redis alone can lose a deletion, and a session that somebody was told is over may not come back. The same
//! way ([`Ledger`]) go all other ends: of one session out of the list (`revoke.rs`), of all others, by an operator.

mod device;
pub mod device_token;
mod ledger;
mod list;
mod login;
mod logout;
pub mod operator;
mod refresh;
mod refresh_token;
mod revoke;
mod store;
mod tokens;
mod transport;

use utoipa_axum::{router::OpenApiRouter, routes};

pub use device::in_words as device_words;
pub use device_token::DeviceToken;
pub use ledger::Ledger;
pub use refresh_token::RefreshToken;

use crate::{
    app::App,
    db::{Db, StoreResult, Timestamp},
    http::{Limit, Limits},
};

/// The routes of this slice.
pub fn routes(limits: &Limits) -> OpenApiRouter<App> {
    let limited = |limit: &Option<Limit>, routes| Limit::before(limit.as_ref(), OpenApiRouter::new().routes(routes));
    limited(&limits.login, routes!(login::login))
        .merge(limited(&limits.refresh, routes!(refresh::refresh)))
        .merge(limited(&limits.logout, routes!(logout::logout)))
        .routes(routes!(list::list_sessions, revoke::revoke_others))
        .routes(routes!(revoke::revoke_session))
}

/// Forgets a batch of ends of sessions that could not be alive any more, and tells how many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep(db: &Db, now: Timestamp) -> StoreResult<u64> {
    let mut tx = db.begin(now).await?;
    let swept = store::forget_ends(&mut tx).await?;
    tx.commit().await?;
    Ok(swept)
}
