//! `POST /login`.

use std::time::Duration;

use axum::{
    Json as JsonBody,
    extract::State,
    http::{HeaderMap, header::USER_AGENT},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    DeviceToken, Ledger, RefreshToken, device, device_token, store, tokens,
    transport::{self, Transport},
};
use crate::{
    accounts::{self, Credentials, Login, Status, attempts},
    app::App,
    config::EmailVerification,
    db::StoreError,
    ephemeral::{Attempts, Device, EphemeralError, Key, SessionRecord},
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    hashing::{Busy, Verdict},
    http::{Fields, FromFields, Json, cookie, finish},
    mail::{Mail, MailKind},
    metrics, names,
    passwords::policy,
    secret::SecretText,
    verification::{FlowId, flow},
};

/// Who signs in: exactly one of `email` and `username`.
#[derive(Debug, ToSchema)]
pub(super) struct LoginRequest {
    #[schema(example = "alice@example.com")]
    email: Option<String>,
    username: Option<String>,
    #[schema(value_type = String, example = "correct horse battery")]
    password: SecretText,
    /// From an earlier sign-in of this person on this device; failed attempts of strangers then do not count.
    #[schema(value_type = Option<String>, example = "lkd_…")]
    device_token: Option<SecretText>,
    /// How refresh token and device token come back: `body`, or `cookie` for pages of this site.
    #[schema(value_type = Option<String>, example = "body")]
    refresh_transport: Transport,
}

impl FromFields for LoginRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (email, username) = (fields.optional("email"), fields.optional("username"));
        let password = fields.secret("password");
        let device_token = fields.optional_secret("device_token");
        let refresh_transport = fields.optional("refresh_transport");
        let transport = refresh_transport.as_deref().map_or(Some(Transport::Body), Transport::parse);
        if transport.is_none() {
            fields.fault::<()>("refresh_transport", "unsupported", "This must be \"body\" or \"cookie\".");
        }
        for (name, text) in [("email", &email), ("username", &username)] {
            if text.as_ref().is_some_and(|text| text.chars().any(names::is_forbidden)) {
                fields.fault::<()>(name, "forbidden_character", "Leave out line breaks, NUL and invisible marks.");
            }
        }
        if email.is_some() == username.is_some() {
            fields.fault::<()>("email", "exactly_one", "Give exactly one of email and username.");
        }
        Some(Self { email, username, password: password?, device_token, refresh_transport: transport? })
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

problems!(LoginProblems: InvalidBody, InvalidCredentials, EmailNotVerified, BadOrigin, RateLimited, TooManyAttempts, Busy);

/// Signs a person in.
#[utoipa::path(post, path = "/login", tag = "sessions", request_body = LoginRequest,
    responses((status = 200, body = tokens::Tokens), LoginProblems))]
pub(super) async fn login(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Json(request): Json<LoginRequest>,
) -> Result<(HeaderMap, JsonBody<tokens::Tokens>), ApiError> {
    let transport = request.refresh_transport;
    let password = policy::presented_as("password", &request.password)?;
    let cookie = || cookie(&headers, device_token::COOKIE).map(SecretText::new);
    let shown = request.device_token.clone().or_else(cookie);
    let login = request.login();
    let device = device::of(headers.get(USER_AGENT).map(axum::http::HeaderValue::as_bytes).unwrap_or_default());
    let signer = app.keys.signer()?;
    let replaced = transport::replaced(&app, transport, &headers)?;
    finish(async move {
        let signed_in = sign_in(&app, &origin, &login, password, device, shown, replaced).await;
        app.metrics.logins.add(signed_in.as_ref().map_or_else(Refused::outcome, |_| metrics::Login::Success));
        let SignedIn { token, record, roles, device_token } = signed_in?;
        let tokens = tokens::issue(&app, &signer, record.created_at, &token, &record, roles)?;
        Ok(transport.answer(tokens.with_device(device_token)))
    })
    .await
}

/// A session that was just opened.
struct SignedIn {
    token: RefreshToken,
    record: SessionRecord,
    roles: Vec<String>,
    /// A new one, when none of this person came along.
    device_token: Option<SecretText>,
}

/// Why nobody was signed in.
#[derive(Debug)]
enum Refused {
    /// Unknown, wrong, disabled or password-less: nobody is told which.
    Credentials,
    /// Too many attempts failed; the wait.
    TooMany(Duration),
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

impl Refused {
    fn outcome(&self) -> metrics::Login {
        match self {
            Self::Credentials => metrics::Login::WrongCredentials,
            Self::TooMany(_) => metrics::Login::TooManyAttempts,
            Self::NotVerified => metrics::Login::NotVerified,
            Self::Busy(_) => metrics::Login::Busy,
            Self::Store(_) | Self::Sessions(_) => metrics::Login::Failed,
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Credentials => Code::InvalidCredentials.into(),
            Refused::TooMany(wait) => ApiError::after(Code::TooManyAttempts, wait),
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
    shown: Option<SecretText>,
    replaced: Option<RefreshToken>,
) -> Result<SignedIn, Refused> {
    app.hasher.has_room().map_err(Refused::Busy)?;
    // Looked at before the person is known and whoever it is: what it costs must not tell who has an account.
    let (found, shown) = tokio::join!(accounts::credentials(&app.db, login), look_at(app, shown.as_ref()));
    let (found, shown) = (found?, shown.map_err(Refused::Sessions)?);
    // The hash of somebody who may not sign in is not even looked at: a match could cost a second hash, for the new
    // one, and that would tell.
    let may_sign_in = |found: &&Credentials| found.person.status == Status::Active;
    let stored = found.as_ref().filter(may_sign_in).and_then(|found| found.password_hash.clone());
    let known = shown.filter(|shown| found.as_ref().is_some_and(|found| shown.is_of(found)));
    let buckets = reserve(app, login, found.as_ref(), known).await?;
    let verdict = match app.hasher.verify(password, stored.clone()).await {
        Ok(verdict) => verdict,
        Err(busy) => {
            // It was never judged, so it is no failure.
            take_back(app, buckets);
            return Err(Refused::Busy(busy));
        }
    };

    // Judged after the hash, which costs the same for all.
    let (Some(found), Some(checked), Verdict::Right { rehash }) = (found, stored, verdict) else {
        return Err(Refused::Credentials);
    };
    let opened = open(app, origin, found, &checked, rehash.as_deref(), device, known, &buckets, replaced).await;
    if let Err(Refused::Store(_) | Refused::Sessions(_)) = &opened {
        // The password was right: who tries again while a store is away must not come to wait for it.
        take_back(app, buckets);
    }
    opened
}

/// Takes the attempt back behind the answer, which must not wait for a store that is away.
fn take_back(app: &App, buckets: Vec<Key<Attempts>>) {
    let app = app.clone();
    tokio::spawn(async move {
        if let Some(bucket) = buckets.first() {
            let _ = app.ephemeral.take_back(app.ambient.now(), bucket).await;
        }
    });
}

/// Opens the session of somebody whose password was right.
#[expect(clippy::too_many_arguments, reason = "it is the second half of signing in, and shares what the first found")]
async fn open(
    app: &App,
    origin: &Origin,
    found: Credentials,
    checked: &str,
    rehash: Option<&str>,
    device: Device,
    known: Option<Shown>,
    buckets: &[Key<Attempts>],
    replaced: Option<RefreshToken>,
) -> Result<SignedIn, Refused> {
    let (person, devices) = (found.person, found.devices.0);
    if app.config.email_verification == EmailVerification::Required && person.email.is_some() && !person.email_verified
    {
        app.ephemeral.clear(buckets).await.map_err(Refused::Sessions)?;
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
    let (devices, is_remembered) = device::remember(app, person.id, record.device, origin.address, devices);
    let mut tx = app.db.begin(now).await?;
    let epoch_stands = accounts::note_sign_in(&mut tx, person.id, checked, rehash, (person.epoch, &devices)).await?;
    Event::new(Kind::SignedIn)
        .person(person.id)
        .session(token.session)
        .from(origin)
        .record(&mut tx, &app.ambient)
        .await?;
    if let Some(recipient) = person.email.as_deref().filter(|_| !is_first && !is_remembered && known.is_none()) {
        let data = [("address", origin.address.to_string()), ("device", device::words(record.device))].into();
        let kind = MailKind::NewDevice;
        Mail { kind, person: Some(person.id), recipient, locale: None, data }.post(&mut tx, &app.ambient).await?;
    }
    if let Some(replaced) = &replaced
        && store::end(&mut tx, replaced.session, replaced.person, Ledger::of(app).end_until(now)).await?
    {
        Event::new(Kind::SignedOut)
            .person(replaced.person)
            .session(replaced.session)
            .from(origin)
            .with("cause", "replaced")
            .record(&mut tx, &app.ambient)
            .await?;
    }
    tx.commit().await?;
    let close = async {
        if let Some(replaced) = replaced
            && let Err(error) = app.ephemeral.close(replaced.person, replaced.session).await
        {
            // SQL has its end, so it is over all the same.
            tracing::warn!(%error, "the record of a replaced session stays until it expires");
        }
    };
    let open = app.ephemeral.open(now, person.id, token.session, &record, settings.max_sessions, buckets);
    let (opened, ()) = tokio::join!(open, close);
    opened.map_err(Refused::Sessions)?;
    // The least recently used session may have gone.
    app.db.changes().note(person.id);

    let span = tracing::Span::current();
    span.record("person", tracing::field::display(person.id));
    span.record("session", tracing::field::display(token.session));
    let device_token = match known {
        Some(Shown::Device(_)) => None,
        // The session is dead from its start, and the device may be a stranger's whom a reset has just put out.
        _ if !epoch_stands => None,
        Some(Shown::Reset(..)) | None => {
            let device = DeviceToken { person: person.id, device: app.ambient.bytes(), made_at: now };
            Some(device.render(&app.secrets))
        }
    };
    Ok(SignedIn { token, record, roles: person.roles.0, device_token })
}

/// What is to show that a person was here before.
#[derive(Clone, Copy, Debug)]
enum Shown {
    /// A device token.
    Device(DeviceToken),
    /// The flow of a reset that this person completed a moment ago.
    Reset(Uuid, [u8; 16]),
}

impl Shown {
    fn is_of(&self, found: &Credentials) -> bool {
        match self {
            Self::Device(token) => token.person == found.person.id && token.made_at >= found.devices_since,
            Self::Reset(person, _) => *person == found.person.id,
        }
    }

    fn device(&self) -> &[u8; 16] {
        match self {
            Self::Device(token) => &token.device,
            Self::Reset(_, nonce) => nonce,
        }
    }
}

async fn look_at(app: &App, shown: Option<&SecretText>) -> Result<Option<Shown>, EphemeralError> {
    let Some(shown) = shown else { return Ok(None) };
    if let Some(token) = DeviceToken::parse(shown.expose(), &app.secrets, app.ambient.now()) {
        return Ok(Some(Shown::Device(token)));
    }
    let Some(id) = FlowId::parse(shown.expose()) else { return Ok(None) };
    Ok(flow::vouches_for(app, &id).await?.map(|person| Shown::Reset(person, id.nonce())))
}

/// Counts the attempt before it is judged; what is to be emptied when it turns out right. A known device has attempts of
/// its own, and signing in from it ends the long waits of everybody else.
async fn reserve(
    app: &App,
    login: &Login,
    found: Option<&Credentials>,
    known: Option<Shown>,
) -> Result<Vec<Key<Attempts>>, Refused> {
    if !app.config.limits.account {
        return Ok(Vec::new());
    }
    let (buckets, lock) = match (known, found) {
        (Some(shown), Some(Credentials { person, .. })) => {
            let mut buckets = vec![attempts::of_device(app, person.id, shown.device())];
            buckets.extend(attempts::of_names(app, person.email.as_deref(), person.username.as_deref()));
            (buckets, None)
        }
        _ => (vec![attempts::of_name(app, login)], Some(attempts::LOCK)),
    };
    let reserved = app.ephemeral.reserve(app.ambient.now(), &buckets[0], lock).await.map_err(Refused::Sessions)?;
    reserved.map_err(|wait| {
        app.metrics.limits.add(metrics::Policy::Attempts);
        Refused::TooMany(wait)
    })?;
    Ok(buckets)
}
