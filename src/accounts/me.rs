//! `GET /me`.

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};

use super::{User, caller::RecentCaller};
use crate::error::problems;

problems!(MeProblems: InvalidRequest, MissingToken, InvalidToken);

/// Who the access token belongs to.
#[utoipa::path(get, path = "/me", tag = "me", security(("bearer" = [])),
    responses((status = 200, body = User), MeProblems))]
pub(super) async fn me(caller: RecentCaller) -> Response {
    ([(CONTENT_TYPE, "application/json")], caller.shown()).into_response()
}
