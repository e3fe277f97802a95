//! `/.well-known/`: what other services need to verify our tokens.

use axum::{Json, extract::State, http::header::CACHE_CONTROL, response::IntoResponse};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(jwks))
}

/// The public keys that access tokens are verified with (RFC 7517 §5).
#[utoipa::path(get, path = "/.well-known/jwks.json", responses((status = 200, description = "The JWK set")))]
async fn jwks(State(app): State<App>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=300")], Json(app.keys.jwks(app.ambient.now())))
}
