//! Passwords: which ones are taken, changing one, and choosing a new one when it is forgotten. (How they are hashed is
//! the kernel's `hashing`; how a code comes by mail is the slice `verification`.)
//!
//! Changing (`PUT /me/password`): 1. The rules, before any hash. 2. The current password, one hash. 3. The new hash, another
//! one. 4. One transaction: new hash and next epoch while the old ones stand, event, notice. From its commit on every
//! session is dead, on every node. 5. One script removes the others and stamps the current session with the new epoch.
//! Between 4 and 5 a refresh of the current session is refused; a client that refreshes under one lock never sees it.
//!
//! Forgotten (OWASP Forgot Password Cheat Sheet): `/password/forgot` leaves a row in the outbox, whoever has the address.
//! `/password/reset`: 1. The rules that need no person, and the hash, before the code is looked at: so no try is spent on
//! a weak password or a busy server, and every guess costs the guesser a hash. 2. The code is claimed. 3. The rules that
//! need the person; a password made of the person's own words gives the code back. 4. One transaction: new hash, next
//! epoch, address proved, event, notice. Nobody is signed in by it. 5. The session store is tidied.
//!
//! `/reset` is the page behind the link of the mail; opening it changes nothing (`page.rs`).

mod change;
mod forgot;
mod page;
pub mod policy;
mod reset;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    http::{Limit, Limits},
};

/// The routes of this slice.
pub fn routes(limits: &Limits) -> OpenApiRouter<App> {
    let codes = OpenApiRouter::new().routes(routes!(forgot::forgot)).routes(routes!(reset::reset));
    OpenApiRouter::new()
        .routes(routes!(change::change_password))
        .merge(Limit::before(limits.codes.as_ref(), codes))
        .merge(page::routes())
}
