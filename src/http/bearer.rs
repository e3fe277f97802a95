//! The access token of a request (RFC 6750 §2.1). Tokens in a query or a form are not looked at.

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::{header::AUTHORIZATION, request::Parts},
};

use crate::{
    error::{ApiError, Code},
    secret::SecretText,
};

/// The text behind `Authorization: Bearer`.
#[derive(Clone, Debug)]
pub struct Bearer(pub SecretText);

impl<S: Sync> OptionalFromRequestParts<S> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, ApiError> {
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Code::InvalidRequest.into());
        }
        let Some((scheme, token)) = value.as_bytes().split_at_checked(6) else { return Ok(None) };
        if !scheme.eq_ignore_ascii_case(b"bearer") || !(token.is_empty() || token.starts_with(b" ")) {
            return Ok(None);
        }
        // What is no UTF-8 is no token either; it is refused where tokens are judged.
        Ok(Some(Self(SecretText::new(String::from_utf8_lossy(token).trim_matches(' ')))))
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
