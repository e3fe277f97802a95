//! `POST /refresh`.

use std::time::Duration;

use axum::{Json as JsonBody, extract::State, http::HeaderMap};
use utoipa::ToSchema;

use super::{Ledger, RefreshToken, store, tokens, transport};
use crate::{
    accounts::{self, Person, post_notice},
    app::App,
    db::{StoreError, StoreResult, Timestamp},
    ephemeral::{Decision, EphemeralError, Rotate, SessionRecord},
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    http::{Fields, FromFields, Json, finish},
    mail::MailKind,
    metrics,
    secret::SecretText,
};

/// Refreshes of one session within a minute; a client in a loop would otherwise sign all day.
const MOST_A_MINUTE: u32 = 30;
const HEAL_ATTEMPTS: u32 = 10;
const HEAL_PAUSE: Duration = Duration::from_secs(3);

/// The refresh token.
#[derive(Debug, ToSchema)]
pub(super) struct RefreshRequest {
    #[schema(value_type = Option<String>, example = "lkr_…")]
    refresh_token: Option<SecretText>,
}

impl FromFields for RefreshRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { refresh_token: fields.optional_secret("refresh_token") })
    }
}

problems!(RefreshProblems: InvalidBody, MissingToken, InvalidRefreshToken, RefreshTokenReused, BadOrigin, RateLimited,
    TooManyAttempts);

/// Gives new tokens for a refresh token.
#[utoipa::path(post, path = "/refresh", tag = "sessions", security((), ("refresh_cookie" = [])), request_body = Option<RefreshRequest>,
    responses((status = 200, body = tokens::Tokens), RefreshProblems))]
pub(super) async fn refresh(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Json(request): Json<RefreshRequest>,
) -> Result<(HeaderMap, JsonBody<tokens::Tokens>), ApiError> {
    let shown = transport::presented(&app, request.refresh_token, &headers)?;
    let (text, transport) = shown.ok_or(Code::MissingToken)?;
    let Some(token) = RefreshToken::parse(text.expose(), &app.secrets) else {
        app.metrics.refreshes.add(metrics::Refresh::Invalid);
        return Err(Code::InvalidRefreshToken.into());
    };
    let signer = app.keys.signer()?;
    finish(async move {
        let now = app.ambient.now();
        let rotated = rotate(&app, &origin, now, &token).await;
        app.metrics.refreshes.add(rotated.as_ref().map_or_else(Refused::outcome, |(_, _, outcome)| *outcome));
        let (record, roles, _) = rotated?;
        Ok(transport.answer(tokens::issue(&app, &signer, now, &token, &record, roles)?))
    })
    .await
}

/// Why there are no new tokens.
#[derive(Debug)]
enum Refused {
    Unknown,
    Reused,
    TooOften(Duration),
    Store(StoreError),
    Sessions(EphemeralError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<EphemeralError> for Refused {
    fn from(error: EphemeralError) -> Self {
        Self::Sessions(error)
    }
}

impl Refused {
    fn outcome(&self) -> metrics::Refresh {
        match self {
            Self::Unknown => metrics::Refresh::Invalid,
            Self::Reused => metrics::Refresh::Reused,
            Self::TooOften(_) => metrics::Refresh::TooOften,
            Self::Store(_) | Self::Sessions(_) => metrics::Refresh::Failed,
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown => Code::InvalidRefreshToken.into(),
            Refused::Reused => Code::RefreshTokenReused.into(),
            Refused::TooOften(wait) => ApiError::after(Code::TooManyAttempts, wait),
            Refused::Store(error) => error.into(),
            Refused::Sessions(error) => error.into(),
        }
    }
}

async fn rotate(
    app: &App,
    origin: &Origin,
    now: Timestamp,
    token: &RefreshToken,
) -> Result<(SessionRecord, Vec<String>, metrics::Refresh), Refused> {
    let span = tracing::Span::current();
    span.record("person", tracing::field::display(token.person));
    span.record("session", tracing::field::display(token.session));
    // Only grant 0, of the built-in client, is there yet; a token of another grant is of a later program.
    if token.grant != 0 {
        return Err(Refused::Unknown);
    }
    let (mut person, mut decision) = decide(app, now, token).await?;
    for _ in 1..accounts::LOOKS {
        let epoch = person.as_ref().map(|person| person.epoch);
        if decision != Decision::Unknown || !is_being_spared(app, token, epoch).await? {
            break;
        }
        (person, decision) = decide(app, now, token).await?;
    }
    let roles = person.map(|person| person.roles.0).unwrap_or_default();
    match decision {
        Decision::Moved(record) => Ok((record, roles, metrics::Refresh::Success)),
        Decision::Repeated(record) => Ok((record, roles, metrics::Refresh::Repeated)),
        Decision::Healed(record) => {
            tracing::warn!("the session store had lost writes; a session was moved on to its client's generation");
            keep_heal(app, origin, token).await;
            Ok((record, roles, metrics::Refresh::Healed))
        }
        Decision::Unknown => Err(Refused::Unknown),
        Decision::Limited(wait) => {
            app.metrics.limits.add(metrics::Policy::Session);
            Err(Refused::TooOften(wait))
        }
        Decision::Reused(_) => {
            end_stolen(app, origin, token).await?;
            app.ephemeral.close(token.person, token.session).await?;
            Err(Refused::Reused)
        }
    }
}

/// What the token gets: one SQL read and one script.
async fn decide(app: &App, now: Timestamp, token: &RefreshToken) -> Result<(Option<Person>, Decision), Refused> {
    let mut conn = app.db.read().await?;
    let person = accounts::person_in_session(&mut conn, token.person, token.session).await?;
    drop(conn);
    let claim = claim(app, token, person.as_ref().map(|person| person.epoch));
    let decision = app.ephemeral.rotate(now, token.person, token.session, &claim).await?;
    Ok((person, decision))
}

/// Whether the session was one epoch beside its person: the act that moved the epoch may be taking it along this moment.
/// If it has not come to that, its trip to the session store is waited for.
async fn is_being_spared(app: &App, token: &RefreshToken, epoch: Option<i64>) -> Result<bool, Refused> {
    let Some(epoch) = epoch else { return Ok(false) };
    let Some(record) = app.ephemeral.find(app.ambient.now(), token.person, token.session).await? else {
        return Ok(false);
    };
    if record.epoch + 1 == epoch {
        tokio::time::sleep(accounts::STAMP_PAUSE).await;
    }
    Ok(record.epoch.abs_diff(epoch) == 1)
}

/// What `token` claims, for the rule of refresh.
pub(super) fn claim(app: &App, token: &RefreshToken, epoch: Option<i64>) -> Rotate {
    let settings = &app.config.tokens;
    Rotate {
        generation: token.generation,
        nonce_hash: token.nonce_hash(),
        epoch,
        idle: settings.refresh_idle_ttl,
        grace: settings.refresh_grace,
        most_a_minute: if app.config.limits.account { MOST_A_MINUTE } else { 0 },
    }
}

/// Writes the event, and goes on trying behind the answer if that fails: the session has moved, so no later request
/// would find anything to heal.
async fn keep_heal(app: &App, origin: &Origin, token: &RefreshToken) {
    if note_heal(app, origin, token).await.is_ok() {
        return;
    }
    let (app, origin, token) = (app.clone(), origin.clone(), token.clone());
    tokio::spawn(async move {
        for _ in 0..HEAL_ATTEMPTS {
            tokio::time::sleep(HEAL_PAUSE).await;
            match note_heal(&app, &origin, &token).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "cannot write the event of a healed session"),
            }
        }
    });
}

async fn note_heal(app: &App, origin: &Origin, token: &RefreshToken) -> StoreResult<()> {
    let mut tx = app.db.begin(app.ambient.now()).await?;
    Event::new(Kind::SessionHealed)
        .person(token.person)
        .session(token.session)
        .from(origin)
        .record(&mut tx, &app.ambient)
        .await?;
    tx.commit().await
}

/// The end, the event and the mail, in one transaction and once, however many use the stolen token at the same time.
async fn end_stolen(app: &App, origin: &Origin, token: &RefreshToken) -> StoreResult<()> {
    let now = app.ambient.now();
    let mut tx = app.db.begin(now).await?;
    if store::end(&mut tx, token.session, token.person, Ledger::of(app).end_until(now)).await? {
        tracing::warn!("a refresh token was used twice; its session is ended");
        Event::new(Kind::SessionEnded)
            .person(token.person)
            .session(token.session)
            .from(origin)
            .with("cause", "refresh_token_reused")
            .record(&mut tx, &app.ambient)
            .await?;
        let session = token.session.to_string();
        let facts = [("session", session.as_str())];
        post_notice(&mut tx, &app.ambient, MailKind::SessionStolen, token.person, origin, None, &facts).await?;
    }
    tx.commit().await
}
