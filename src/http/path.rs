//! The part of a path that names one thing by its id.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use uuid::Uuid;

use crate::error::{ApiError, Code};

/// The id in the path. What is no id names nothing, which is the same 404 as an id that nobody has.
#[derive(Clone, Copy, Debug)]
pub struct PathId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found = RawPathParams::from_request_parts(parts, state).await;
        let id = found.ok().and_then(|found| {
            let (_, text) = found.iter().next()?;
            // The one form that we write: hyphenated, without braces or `urn:`.
            Uuid::parse_str(text).ok().filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH)
        });
        id.map(Self).ok_or_else(|| Code::NotFound.into())
    }
}
