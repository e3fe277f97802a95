//! The language a client asks for.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{header::ACCEPT_LANGUAGE, request::Parts},
};

use crate::app::App;

/// The best of the `Accept-Language` ranges (RFC 9110 §12.5.4) that mails and pages are written in, if any.
#[derive(Clone, Debug)]
pub struct AcceptLanguage(pub Option<String>);

impl FromRequestParts<App> for AcceptLanguage {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let asked = parts.headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        Ok(Self(asked.and_then(|asked| app.post.templates.negotiate(asked)).map(str::to_owned)))
    }
}
