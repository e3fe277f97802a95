//! `/.well-known/`: what other services need to verify our tokens.

use aws_lc_rs::digest;
use axum::{
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, keys::JWKS_MAX_AGE};

/// The routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(jwks)).routes(routes!(metadata))
}

/// The public keys that access tokens are verified with (RFC 7517 §5).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "keys",
    responses((status = 200, description = "The JWK set", body = serde_json::Value), (status = 304, description = "Not modified")))]
async fn jwks(State(app): State<App>, headers: HeaderMap) -> Response {
    cached(&headers, &app.keys.jwks(app.ambient.now()))
}

/// RFC 8414 §2, true for what is there: no endpoint that does not exist.
#[derive(Serialize, ToSchema)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
    response_types_supported: [String; 0],
    grant_types_supported: [String; 0],
    token_endpoint_auth_methods_supported: [String; 0],
    service_documentation: String,
}

/// What this authorization server is (RFC 8414).
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server", tag = "keys",
    responses((status = 200, body = Metadata), (status = 304, description = "Not modified")))]
async fn metadata(State(app): State<App>, headers: HeaderMap) -> Response {
    let issuer = app.config.public_url.as_str();
    let metadata = Metadata {
        issuer: issuer.to_owned(),
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        response_types_supported: [],
        grant_types_supported: [],
        token_endpoint_auth_methods_supported: [],
        service_documentation: format!("{issuer}/docs"),
    };
    cached(&headers, &metadata)
}

/// JSON with a strong validator over its bytes (RFC 9110 §8.8.3), or 304 to who has them.
fn cached(headers: &HeaderMap, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let digest = digest::digest(&digest::SHA256, &bytes);
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]));
    let given = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // If-None-Match compares weakly (RFC 9110 §13.1.2).
    let known = given.flat_map(|list| list.split(',')).map(str::trim);
    let is_known = known.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == "*" || tag == etag);
    let validators = [(CACHE_CONTROL, format!("public, max-age={}", JWKS_MAX_AGE.as_secs())), (ETAG, etag)];
    if is_known {
        (StatusCode::NOT_MODIFIED, validators).into_response()
    } else {
        (validators, [(CONTENT_TYPE, "application/json")], bytes).into_response()
    }
}
