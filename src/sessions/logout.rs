//! `POST /logout`.
//!
//! The end is accepted from whoever holds a credential of the session, dead or alive (RFC 7009 §2.2 answers a token that
//! is unknown like one that was revoked): the client wanted to be signed out, and it is. A refresh token that is none of
//! ours names no session, so there is nothing to do and nothing to tell.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header::SET_COOKIE},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Ledger, RefreshToken,
    refresh::claim,
    transport::{self, Transport},
};
use crate::{
    accounts::{self, Caller, person_in_session},
    app::App,
    ephemeral::Decision,
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    http::{Bearer, Fields, FromFields, Json, finish},
    secret::SecretText,
};

/// A refresh token, or nothing beside its cookie or an access token.
#[derive(Debug, ToSchema)]
pub(super) struct LogoutRequest {
    #[schema(value_type = Option<String>, example = "lkr_…")]
    refresh_token: Option<SecretText>,
    /// End every session of the person.
    #[schema(value_type = Option<bool>)]
    all: bool,
}

impl FromFields for LogoutRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { refresh_token: fields.optional_secret("refresh_token"), all: fields.flag("all") })
    }
}

problems!(LogoutProblems: NoCredential, InvalidRequest, InvalidToken, InvalidRefreshToken, BadOrigin, RateLimited);

/// Signs a person out.
#[utoipa::path(post, path = "/logout", tag = "sessions", security((), ("refresh_cookie" = []), ("bearer" = [])), request_body = Option<LogoutRequest>,
    responses((status = 204), LogoutProblems))]
pub(super) async fn logout(
    State(app): State<App>,
    origin: Origin,
    bearer: Result<Option<Bearer>, ApiError>,
    headers: HeaderMap,
    Json(request): Json<LogoutRequest>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    // Judged after the body: 413, 415, 400 and 422 come before 401.
    let bearer = bearer?;
    let shown = transport::presented(&app, request.refresh_token, &headers)?;
    let by_cookie = matches!(shown, Some((_, Transport::Cookie)));
    let credential = match (shown, bearer) {
        (Some((text, _)), _) => Credential::Refresh(RefreshToken::parse(text.expose(), &app.secrets)),
        (None, Some(bearer)) => Credential::Access(bearer),
        (None, None) => return Err(Code::NoCredential.into()),
    };
    finish(async move {
        if request.all {
            // Between the two looks it may have ended; then it may end nothing any more.
            let (person, epoch) = credential.live(&app).await?;
            if !end_all(&app, &origin, person, epoch).await? {
                return Err(credential.refused().into());
            }
        } else if let Some((person, session)) = credential.named(&app).await? {
            end_one(&app, &origin, person, session).await?;
        }
        let cookie = by_cookie.then(transport::cleared).flatten();
        Ok((StatusCode::NO_CONTENT, cookie.into_iter().map(|cookie| (SET_COOKIE, cookie)).collect()))
    })
    .await
}

/// What the client showed. Exactly one counts: the token in the body before the cookie before the header.
enum Credential {
    /// `None` when it is none of ours.
    Refresh(Option<RefreshToken>),
    Access(Bearer),
}

impl Credential {
    /// Person and session that it names, living or not.
    async fn named(&self, app: &App) -> Result<Option<(Uuid, Uuid)>, ApiError> {
        match self {
            Self::Refresh(token) => Ok(token.as_ref().map(|token| (token.person, token.session))),
            Self::Access(bearer) => {
                accounts::verify(app, bearer).await.map(|token| Some((token.person, token.session)))
            }
        }
    }

    /// How it is refused when it is dead.
    fn refused(&self) -> Code {
        match self {
            Self::Access(_) => Code::InvalidToken,
            Self::Refresh(_) => Code::InvalidRefreshToken,
        }
    }

    /// Person and epoch, if it would still be taken for what it is.
    async fn live(&self, app: &App) -> Result<(Uuid, i64), ApiError> {
        match self {
            Self::Access(bearer) => {
                let caller = Caller::authenticate(app, bearer).await?;
                Ok((caller.person.id, caller.person.epoch))
            }
            Self::Refresh(token) => {
                let token = token.as_ref().filter(|token| token.grant == 0).ok_or(Code::InvalidRefreshToken)?;
                let (person, session, now) = (token.person, token.session, app.ambient.now());
                let mut conn = app.db.read().await?;
                let known = person_in_session(&mut conn, person, session).await?;
                drop(conn);
                let record = app.ephemeral.find(now, person, session).await?.ok_or(Code::InvalidRefreshToken)?;
                match record.rotate(now, &claim(app, token, known.map(|known| known.epoch))) {
                    Decision::Moved(record) | Decision::Repeated(record) | Decision::Healed(record) => {
                        Ok((person, record.epoch))
                    }
                    Decision::Unknown | Decision::Reused(_) | Decision::Limited(_) => {
                        Err(Code::InvalidRefreshToken.into())
                    }
                }
            }
        }
    }
}

async fn end_one(app: &App, origin: &Origin, person: Uuid, session: Uuid) -> Result<(), ApiError> {
    let span = tracing::Span::current();
    span.record("person", tracing::field::display(person));
    span.record("session", tracing::field::display(session));
    let event = Event::new(Kind::SignedOut).person(person).session(session).from(origin);
    Ok(Ledger::of(app).end(person, session, event).await?)
}

async fn end_all(app: &App, origin: &Origin, person: Uuid, epoch: i64) -> Result<bool, ApiError> {
    let event = Event::new(Kind::SignedOut).person(person).from(origin).with("all", "true");
    Ok(Ledger::of(app).end_all(person, Some(epoch), None, event).await?)
}
