//! Passwords: which ones are taken, and changing one. (How they are hashed is the kernel's `hashing`.)
//!
//! Changing (`PUT /me/password`): 1. The rules, before any hash. 2. The current password, one hash. 3. The new hash, another
//! one. 4. One transaction: new hash and next epoch while the old ones stand, event, notice. From its commit on every
//! session is dead, on every node. 5. One script removes the others and stamps the current session with the new epoch.
//! Between 4 and 5 a refresh of the current session is refused; a client that refreshes under one lock never sees it.

mod change;
pub mod policy;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The routes of this slice.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(change::change_password))
}
