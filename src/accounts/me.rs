//! `GET /me`.

use axum::Json as JsonBody;

use super::{Caller, User};
use crate::error::problems;

problems!(MeProblems: InvalidRequest, MissingToken, InvalidToken);

/// Who the access token belongs to.
#[utoipa::path(get, path = "/me", tag = "me", security(("bearer" = [])), 
    responses((status = 200, body = User), MeProblems))]
pub(super) async fn me(caller: Caller) -> JsonBody<User> {
    JsonBody(caller.person.into())
}
