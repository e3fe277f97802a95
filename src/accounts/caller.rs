//! Who is calling: a person in a living session. A handler that takes a [`Caller`] cannot be reached by anybody else.

use axum::{extract::FromRequestParts, http::request::Parts};
use uuid::Uuid;

use super::{Person, person_in_session};
use crate::{
    app::App,
    error::{ApiError, Code},
    http::{Bearer, finish},
    keys::AccessClaims,
    secret::SecretText,
};

/// A signed-in person.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The person.
    pub person: Person,
    /// The session of the access token.
    pub session: Uuid,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Bearer(token) = <Bearer as FromRequestParts<App>>::from_request_parts(parts, app).await?;
        Self::authenticate(app, &token).await
    }
}

impl Caller {
    /// Checks an access token and everything it depends on.
    ///
    /// # Errors
    /// `invalid_token`, or `unavailable` when a store does not answer: then nobody is let in.
    pub async fn authenticate(app: &App, token: &SecretText) -> Result<Self, ApiError> {
        let claims = verify(app, token)?;
        let (person, session) = (claims.sub, claims.sid);
        let app = app.clone();
        // A task of its own, since a statement that is dropped half-way costs its connection.
        let read = finish(async move {
            let read_person = async {
                let mut conn = app.db.read().await?;
                person_in_session(&mut conn, person, session).await
            };
            // Both stores at the same time: neither answer depends on the other.
            let now = app.ambient.now();
            let (record, person) = tokio::join!(app.ephemeral.find(now, person, session), read_person);
            Ok((record?, person?))
        });
        let (Some(record), Some(person)) = read.await? else { return Err(Code::InvalidToken.into()) };
        if record.epoch != person.epoch {
            return Err(Code::InvalidToken.into());
        }
        Ok(Self { person, session })
    }
}

/// The claims of an access token that may be used here now, whether or not its session lives.
///
/// # Errors
/// `invalid_token`.
pub fn verify(app: &App, token: &SecretText) -> Result<AccessClaims, ApiError> {
    let claims = app
        .keys
        .verify(token.expose(), app.ambient.now())
        .map_err(|fault| ApiError::new(Code::InvalidToken).caused_by(fault))?;
    let span = tracing::Span::current();
    span.record("person", tracing::field::display(claims.sub));
    span.record("session", tracing::field::display(claims.sid));
    Ok(claims)
}
