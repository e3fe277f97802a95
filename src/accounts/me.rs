//! `GET /me`.

use axum::Json as JsonBody;

use super::{User, caller::RecentCaller};
use crate::error::problems;

problems!(MeProblems: InvalidRequest, MissingToken, InvalidToken);

/// Who the access token belongs to.
#[utoipa::path(get, path = "/me", tag = "me", security(("bearer" = [])), 
    responses((status = 200, body = User), MeProblems))]
pub(super) async fn me(caller: RecentCaller) -> JsonBody<User> {
    JsonBody(caller.person().clone().into())
}
