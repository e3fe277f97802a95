//! The access token of a request (RFC 6750 §2.1). Tokens in a query or a form are not looked at.

use std::fmt;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::{HeaderValue, header::AUTHORIZATION, request::Parts},
};

use crate::error::{ApiError, Code};

/// The text behind `Authorization: Bearer`. It stays where the connection put it: a copy would have to be wiped, and wipes
/// nothing of what was received.
#[derive(Clone)]
pub struct Bearer(HeaderValue);

impl Bearer {
    /// The token, to be judged. What is no ASCII is no token either, and empty.
    #[must_use]
    pub fn token(&self) -> &str {
        self.0.to_str().ok().and_then(|text| text.get(SCHEME.len()..)).unwrap_or_default().trim_matches(' ')
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(…)")
    }
}

const SCHEME: &[u8] = b"bearer";

impl<S: Sync> OptionalFromRequestParts<S> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, ApiError> {
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Code::InvalidRequest.into());
        }
        let Some((scheme, token)) = value.as_bytes().split_at_checked(SCHEME.len()) else { return Ok(None) };
        if !scheme.eq_ignore_ascii_case(SCHEME) || !(token.is_empty() || token.starts_with(b" ")) {
            return Ok(None);
        }
        Ok(Some(Self(value.clone())))
    }
}

impl<S: Sync> FromRequestParts<S> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        <Self as OptionalFromRequestParts<S>>::from_request_parts(parts, state)
            .await?
            .ok_or_else(|| Code::MissingToken.into())
    }
}
