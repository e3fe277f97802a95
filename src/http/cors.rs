//! Cross-origin requests (the Fetch standard's CORS protocol), for an exact list of origins.
//!
//! A few lines of our own, because tower-http's layer answers *every* OPTIONS request as a preflight, those to unknown
//! paths and those that are none included. Here a preflight is a request with all it takes, from a listed origin;
//! everything else goes on to the routes. No header is ever sent to an origin that is not listed.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::config::PublicUrl;

/// The origins whose pages may call the API, the public URL's own not among them: it needs no permission.
#[derive(Clone, Debug)]
pub struct Cors(Arc<[HeaderValue]>);

impl Cors {
    /// For these origins.
    #[must_use]
    pub fn new(origins: &[PublicUrl]) -> Self {
        Self(origins.iter().filter_map(|origin| HeaderValue::from_str(origin.origin()).ok()).collect())
    }

    /// Answers a preflight, or lets a request on and its answer be read where that is allowed.
    pub async fn pass(&self, request: Request, next: Next) -> Response {
        if self.0.is_empty() {
            return next.run(request).await;
        }
        let origin = request.headers().get(ORIGIN).filter(|origin| self.0.contains(origin)).cloned();
        let is_preflight =
            request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let mut response = match &origin {
            Some(_) if is_preflight => preflight(),
            _ => next.run(request).await,
        };
        let headers = response.headers_mut();
        // The answer is another one for another origin, whether or not this one was listed.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            allow(headers, origin);
        }
        response
    }
}

fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-request-id"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"),
    );
}
