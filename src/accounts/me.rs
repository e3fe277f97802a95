//! `GET /me`.

use axum::Json as JsonBody;

use super::{Caller, User};

/// Who the access token belongs to.
#[utoipa::path(get, path = "/me", responses((status = 200, body = User)))]
pub(super) async fn me(caller: Caller) -> JsonBody<User> {
    JsonBody(caller.person.into())
}
