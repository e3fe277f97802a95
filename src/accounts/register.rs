//! `POST /register`.

use axum::{
    Json as JsonBody,
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Person, User, store};
use crate::{
    app::App,
    config::{Config, EmailVerification},
    db::{StoreError, StoreResult, Tx},
    error::{ApiError, Code, FieldFault, problems},
    events::{Event, Kind, Origin},
    hashing::Busy,
    http::{AcceptLanguage, Fields, FromFields, Json, finish},
    mail::MailKind,
    metrics::Registration,
    names,
    passwords::policy::{self, Context},
    secret::SecretText,
    verification::{self, Accepted, Request, Started},
};

/// Who wants an account.
#[derive(Debug, ToSchema)]
pub(super) struct RegisterRequest {
    /// Where mail for the person goes.
    #[schema(example = "alice@example.com")]
    email: String,
    /// 8 to 128 characters.
    #[schema(value_type = String, example = "correct horse battery")]
    password: SecretText,
    #[schema(example = "alice")]
    username: Option<String>,
    #[schema(example = "Alice")]
    display_name: Option<String>,
    /// Language of mails.
    #[schema(example = "en")]
    locale: Option<String>,
}

impl FromFields for RegisterRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (email, password) = (fields.required("email"), fields.secret("password"));
        let username = fields.optional("username");
        let display_name = fields.optional("display_name");
        let locale = fields.optional("locale");
        Some(Self { email: email?, password: password?, username, display_name, locale })
    }
}

impl RegisterRequest {
    fn asked(&self) -> Asked<'_> {
        Asked {
            email: &self.email,
            username: self.username.as_deref(),
            display_name: self.display_name.as_deref(),
            locale: self.locale.as_deref(),
        }
    }
}

/// The person that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Registered {
    user: User,
    /// Where the code goes that the person gets by mail; `null` when addresses are not verified here.
    verification: Option<Started>,
}

/// What is said of a registration where addresses must be verified: the same whoever has the address.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pending {
    #[schema(example = "accepted")]
    status: &'static str,
    verification: Started,
}

problems!(RegisterProblems: InvalidEmail, InvalidUsername, InvalidDisplayName, InvalidLocale, WeakPassword,
    EmailTaken, UsernameTaken, RegistrationClosed, RateLimited, Busy);

/// Makes an account.
#[utoipa::path(post, path = "/register", tag = "sessions", request_body = RegisterRequest,
    responses((status = 201, body = Registered),
        (status = 202, body = Pending, description = "Addresses must be verified first: a mail tells how to go on"),
        RegisterProblems))]
pub(super) async fn register(
    State(app): State<App>,
    origin: Origin,
    AcceptLanguage(language): AcceptLanguage,
    Json(request): Json<RegisterRequest>,
) -> Result<Response, ApiError> {
    let (mut wanted, password) =
        Wanted::check(&app.config, &request.asked(), |context| policy::check("password", &request.password, context))?;
    wanted.locale = wanted.locale.or(language);
    finish(async move {
        Ok(if app.config.email_verification == EmailVerification::Required {
            let left = leave_pending(&app, &origin, wanted, password).await;
            app.metrics.registrations.add(left.as_ref().map_or_else(Refused::outcome, |_| Registration::Pending));
            let verification = left?;
            (StatusCode::ACCEPTED, JsonBody(Pending { status: Accepted::STATUS, verification })).into_response()
        } else {
            let made = make_person(&app, &origin, wanted, password).await;
            app.metrics.registrations.add(made.as_ref().map_or_else(Refused::outcome, |_| Registration::Created));
            let (person, verification) = made?;
            let body = Registered { user: person.into(), verification };
            (StatusCode::CREATED, [(LOCATION, "/me")], JsonBody(body)).into_response()
        })
    })
    .await
}

/// A person to be made, every field in its canonical form.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The address, canonical.
    pub email: String,
    /// As typed.
    pub username: Option<String>,
    /// Its unique key.
    pub username_key: Option<String>,
    /// What others are shown.
    pub display_name: Option<String>,
    /// The language of mails.
    pub locale: Option<String>,
}

/// What a person is to be made of, as typed.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Where mail for the person goes.
    pub email: &'a str,
    /// What the person may sign in with besides.
    pub username: Option<&'a str>,
    /// What others are shown.
    pub display_name: Option<&'a str>,
    /// The language of mails.
    pub locale: Option<&'a str>,
}

/// Which key of a person is somebody's already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The address.
    Email,
    /// The username.
    Username,
}

impl Wanted {
    /// Checks every field, the password by `judge`, and tells every fault at once; the first one gives the answer its
    /// code.
    ///
    /// # Errors
    /// 422, with a reason for each field.
    pub fn check<P>(
        config: &Config,
        asked: &Asked<'_>,
        judge: impl FnOnce(&Context<'_>) -> Result<P, Vec<FieldFault>>,
    ) -> Result<(Self, P), ApiError> {
        let mut faults: Vec<(Code, FieldFault)> = Vec::new();
        let mut fault = |field, code: Code| faults.push((code, FieldFault::new(field, code.as_str(), code.detail())));

        let email = names::canonical_email(asked.email);
        if email.is_none() {
            fault("email", Code::InvalidEmail);
        }
        let username_key = asked.username.map(names::username_key);
        if username_key == Some(None) {
            fault("username", Code::InvalidUsername);
        }
        let display_name = asked.display_name.map(names::display_name);
        if display_name == Some(None) {
            fault("display_name", Code::InvalidDisplayName);
        }
        let locale = asked.locale.map(names::locale);
        if locale == Some(None) {
            fault("locale", Code::InvalidLocale);
        }
        let password = judge(&Context {
            min_length: config.passwords.min_length,
            product_name: &config.product_name,
            email: email.as_deref(),
            names: [asked.username, asked.display_name],
        });
        if let Err(reasons) = &password {
            faults.extend(reasons.iter().map(|reason| (Code::WeakPassword, reason.clone())));
        }
        match (faults.first(), email, password) {
            (None, Some(email), Ok(password)) => {
                let wanted = Self {
                    email,
                    username: asked.username.map(str::to_owned),
                    username_key: username_key.flatten(),
                    display_name: display_name.flatten(),
                    locale: locale.flatten(),
                };
                Ok((wanted, password))
            }
            (first, ..) => {
                let code = first.map_or(Code::InvalidBody, |(code, _)| *code);
                Err(ApiError::fields(code, faults.into_iter().map(|(_, fault)| fault).collect()))
            }
        }
    }

    /// Makes the person, unless somebody has the address or the username; then nothing is written.
    pub(super) async fn insert(
        &self,
        tx: &mut Tx,
        id: Uuid,
        hash: Option<&str>,
        email_verified: bool,
    ) -> StoreResult<Result<Person, Taken>> {
        if let Some(person) = store::insert(tx, id, self, hash, email_verified).await? {
            return Ok(Ok(person));
        }
        // A key that was taken a moment ago and is free again now (a deletion in between) is told as the name: trying
        // again is then right in either case.
        let email_taken = store::email_is_taken(tx, &self.email).await?;
        Ok(Err(if email_taken || self.username_key.is_none() { Taken::Email } else { Taken::Username }))
    }
}

/// Why nobody was made.
#[derive(Debug)]
enum Refused {
    Closed,
    Taken(Taken),
    Busy(Busy),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Refused {
    fn outcome(&self) -> Registration {
        match self {
            Self::Closed => Registration::Closed,
            Self::Taken(Taken::Email) => Registration::EmailTaken,
            Self::Taken(Taken::Username) => Registration::UsernameTaken,
            Self::Busy(_) => Registration::Busy,
            Self::Store(_) => Registration::Failed,
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed => Code::RegistrationClosed.into(),
            Refused::Taken(Taken::Email) => Code::EmailTaken.into(),
            Refused::Taken(Taken::Username) => Code::UsernameTaken.into(),
            Refused::Busy(busy) => busy.into(),
            Refused::Store(error) => error.into(),
        }
    }
}

/// Whether this address may register here at all.
fn welcome(app: &App, email: &str) -> Result<(), Refused> {
    let registration = &app.config.registration;
    let domain = email.rsplit_once('@').map(|(_, domain)| domain);
    let is_listed = |domain: &str| registration.domains.iter().any(|listed| listed == domain);
    if registration.open && (registration.domains.is_empty() || domain.is_some_and(is_listed)) {
        Ok(())
    } else {
        Err(Refused::Closed)
    }
}

async fn make_person(
    app: &App,
    origin: &Origin,
    wanted: Wanted,
    password: SecretText,
) -> Result<(Person, Option<Started>), Refused> {
    welcome(app, &wanted.email)?;
    let hash = app.hasher.hash(password).await.map_err(Refused::Busy)?;
    let mut tx = app.db.begin(app.ambient.now()).await?;
    let person = match wanted.insert(&mut tx, app.ambient.uuid(), Some(&hash), false).await? {
        Ok(person) => person,
        Err(taken) => {
            tx.commit().await?;
            return Err(Refused::Taken(taken));
        }
    };
    Event::new(Kind::Registered).person(person.id).from(origin).record(&mut tx, &app.ambient).await?;
    let verification = match app.config.email_verification {
        EmailVerification::Off => None,
        EmailVerification::Optional | EmailVerification::Required => {
            let request = Request::new(MailKind::VerifyAddress, &wanted.email, wanted.locale.as_deref(), origin);
            Some(verification::start(&mut tx, app, request.person(person.id)).await?)
        }
    };
    tx.commit().await?;
    tracing::Span::current().record("person", tracing::field::display(person.id));
    Ok((person, verification))
}

/// The same work and the same answer for a new and a taken address. Only a username that a real person has is refused:
/// others see usernames anyhow.
async fn leave_pending(app: &App, origin: &Origin, wanted: Wanted, password: SecretText) -> Result<Started, Refused> {
    welcome(app, &wanted.email)?;
    let hash = app.hasher.hash(password).await.map_err(Refused::Busy)?;
    let mut tx = app.db.begin(app.ambient.now()).await?;
    if let Some(key) = &wanted.username_key
        && super::username_is_taken(&mut tx, key).await?
    {
        tx.commit().await?;
        return Err(Refused::Taken(Taken::Username));
    }
    let started = verification::start_registration(&mut tx, app, origin, &wanted, &hash).await?;
    tx.commit().await?;
    Ok(started)
}
