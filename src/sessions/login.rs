//! `POST /login`.

use axum::{
    Json as JsonBody,
    extract::State,
    http::{HeaderMap, header::USER_AGENT},
};
use utoipa::ToSchema;

use super::{RefreshToken, device, tokens};
use crate::{
    accounts::{self, Credentials, Login, Status},
    app::App,
    config::EmailVerification,
    db::StoreError,
    ephemeral::{Device, EphemeralError, SessionRecord},
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    hashing::{Busy, Verdict},
    http::{Fields, FromFields, Json, finish},
    mail::{Mail, MailKind},
    names,
    passwords::policy,
    secret::SecretText,
};

/// Who signs in: exactly one of `email` and `username`.
#[derive(Debug, ToSchema)]
pub(super) struct LoginRequest {
    #[schema(example = "alice@example.com")]
    email: Option<String>,
    username: Option<String>,
    #[schema(value_type = String, example = "correct horse battery")]
    password: SecretText,
    /// How the refresh token comes back.
    #[schema(example = "body")]
    #[expect(dead_code, reason = "there is one transport so far: it is checked and documented, and decides nothing")]
    refresh_transport: Option<String>,
}

impl FromFields for LoginRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (email, username) = (fields.optional("email"), fields.optional("username"));
        let password = fields.secret("password");
        let refresh_transport = fields.optional("refresh_transport");
        if refresh_transport.as_ref().is_some_and(|transport| transport != "body") {
            fields.fault::<()>("refresh_transport", "unsupported", "This must be \"body\".");
        }
        for (name, text) in [("email", &email), ("username", &username)] {
            if text.as_ref().is_some_and(|text| text.chars().any(names::is_forbidden)) {
                fields.fault::<()>(name, "forbidden_character", "Leave out line breaks, NUL and invisible marks.");
            }
        }
        if email.is_some() == username.is_some() {
            fields.fault::<()>("email", "exactly_one", "Give exactly one of email and username.");
        }
        Some(Self { email, username, password: password?, refresh_transport })
    }
}

impl LoginRequest {
    /// The one name that was given.
    fn login(self) -> Login {
        match self.email {
            Some(email) => Login::Email(email),
            None => Login::Username(self.username.unwrap_or_default()),
        }
    }
}

problems!(LoginProblems: InvalidBody, InvalidCredentials, EmailNotVerified, Busy);

/// Signs a person in.
#[utoipa::path(post, path = "/login", tag = "sessions", request_body = LoginRequest,
    responses((status = 200, body = tokens::Tokens), LoginProblems))]
pub(super) async fn login(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Json(request): Json<LoginRequest>,
) -> Result<JsonBody<tokens::Tokens>, ApiError> {
    let password = policy::presented_as("password", &request.password)?;
    let login = request.login();
    let device = device::of(headers.get(USER_AGENT).map(axum::http::HeaderValue::as_bytes).unwrap_or_default());
    let signer = app.keys.signer()?;
    finish(async move {
        let signed_in = sign_in(&app, &origin, &login, password, device).await?;
        tokens::issue(&app, &signer, signed_in.record.created_at, &signed_in.token, &signed_in.record, signed_in.roles)
    })
    .await
}

/// A session that was just opened.
struct SignedIn {
    token: RefreshToken,
    record: SessionRecord,
    roles: Vec<String>,
}

/// Why nobody was signed in.
#[derive(Debug)]
enum Refused {
    /// Unknown, wrong, disabled or password-less: nobody is told which.
    Credentials,
    /// The password was right, and this server wants the address proved first.
    NotVerified,
    Busy(Busy),
    Store(StoreError),
    Sessions(EphemeralError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Credentials => Code::InvalidCredentials.into(),
            Refused::NotVerified => Code::EmailNotVerified.into(),
            Refused::Busy(busy) => busy.into(),
            Refused::Store(error) => error.into(),
            Refused::Sessions(error) => error.into(),
        }
    }
}

async fn sign_in(
    app: &App,
    origin: &Origin,
    login: &Login,
    password: SecretText,
    device: Device,
) -> Result<SignedIn, Refused> {
    let found = accounts::credentials(&app.db, login).await?;
    // The hash of somebody who may not sign in is not even looked at: a match could cost a second hash, for the new
    // one, and that would tell.
    let may_sign_in = |found: &&Credentials| found.person.status == Status::Active;
    let stored = found.as_ref().filter(may_sign_in).and_then(|found| found.password_hash.clone());
    let verdict = app.hasher.verify(password, stored.clone()).await.map_err(Refused::Busy)?;

    // Judged after the hash, which costs the same for all.
    let (Some(found), Some(checked), Verdict::Right { rehash }) = (found, stored, verdict) else {
        return Err(Refused::Credentials);
    };
    let (person, devices) = (found.person, found.devices.0);
    if app.config.email_verification == EmailVerification::Required && person.email.is_some() && !person.email_verified
    {
        return Err(Refused::NotVerified);
    }

    let now = app.ambient.now();
    let settings = &app.config.tokens;
    let token = RefreshToken {
        person: person.id,
        session: app.ambient.uuid(),
        grant: 0,
        generation: 0,
        nonce: app.ambient.bytes(),
    };
    let record = SessionRecord {
        epoch: person.epoch,
        created_at: now,
        made_at: now,
        idle: settings.refresh_idle_ttl,
        absolute: settings.refresh_absolute_ttl,
        generation: 0,
        nonce_hash: token.nonce_hash(),
        device,
        address: origin.address,
    };
    // The first sign-in of all is from a new device too, and nobody needs to be told.
    let is_first = devices.is_empty();
    let (devices, is_known) = device::remember(app, person.id, record.device, origin.address, devices);
    let mut tx = app.db.begin(now).await?;
    accounts::note_sign_in(&mut tx, person.id, &checked, rehash.as_deref(), (person.epoch, &devices)).await?;
    Event::new(Kind::SignedIn)
        .person(person.id)
        .session(token.session)
        .from(origin)
        .record(&mut tx, &app.ambient)
        .await?;
    if let Some(recipient) = person.email.as_deref().filter(|_| !is_first && !is_known) {
        let data = [("address", origin.address.to_string()), ("device", device::words(record.device))].into();
        let kind = MailKind::NewDevice;
        Mail { kind, person: Some(person.id), recipient, locale: None, data }.post(&mut tx, &app.ambient).await?;
    }
    tx.commit().await?;
    app.ephemeral
        .open(now, person.id, token.session, &record, settings.max_sessions)
        .await
        .map_err(Refused::Sessions)?;

    let span = tracing::Span::current();
    span.record("person", tracing::field::display(person.id));
    span.record("session", tracing::field::display(token.session));
    Ok(SignedIn { token, record, roles: person.roles.0 })
}
