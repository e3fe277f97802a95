//! `PATCH /me`, a JSON merge patch (RFC 7396) of the names others see.
//!
//! A username is what somebody signs in with, so changing it needs the password beside it; `null` takes a name away.

use axum::{Json as JsonBody, extract::State};
use utoipa::ToSchema;

use super::{Caller, Confirmed, NotConfirmed, Person, User, confirm, store};
use crate::{
    app::App,
    db::StoreError,
    error::{ApiError, Code, FieldFault, problems},
    events::{Event, Kind, Origin},
    http::{Fields, FromFields, Json, finish},
    names,
    passwords::policy,
    secret::SecretText,
};

/// What is to change; a member that is missing stays as it is.
#[derive(Debug, ToSchema)]
pub(super) struct UpdateRequest {
    #[schema(value_type = Option<String>, example = "Alice L.")]
    display_name: Option<Option<String>>,
    /// Only with `password` beside it.
    #[schema(value_type = Option<String>, example = "alice_l")]
    username: Option<Option<String>>,
    #[schema(value_type = Option<String>, example = "correct horse battery")]
    password: Option<SecretText>,
}

impl FromFields for UpdateRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (display_name, username) = (fields.patch("display_name"), fields.patch("username"));
        let password = fields.optional_secret("password");
        if username.is_some() && password.is_none() {
            fields.fault::<()>("password", "missing", "A new username needs the password beside it.");
        }
        Some(Self { display_name, username, password })
    }
}

/// The names to change, in canonical form; a username with its key.
#[derive(Debug, Default)]
pub(super) struct Patch {
    pub display_name: Option<Option<String>>,
    pub username: Option<Option<(String, String)>>,
}

impl Patch {
    fn check(request: &UpdateRequest) -> Result<Self, ApiError> {
        let mut faults: Vec<(Code, &'static str)> = Vec::new();
        let display_name = request.display_name.as_ref().map(|name| {
            name.as_deref().and_then(|text| {
                let name = names::display_name(text);
                if name.is_none() {
                    faults.push((Code::InvalidDisplayName, "display_name"));
                }
                name
            })
        });
        let username = request.username.as_ref().map(|name| {
            name.as_deref().and_then(|text| {
                let key = names::username_key(text);
                if key.is_none() {
                    faults.push((Code::InvalidUsername, "username"));
                }
                key.map(|key| (text.to_owned(), key))
            })
        });
        match faults.first() {
            None => Ok(Self { display_name, username }),
            Some((code, _)) => {
                let reasons = faults.iter().map(|(code, field)| FieldFault::new(field, code.as_str(), code.detail()));
                Err(ApiError::fields(*code, reasons.collect()))
            }
        }
    }

    fn fields(&self) -> String {
        let (display_name, username) = (self.display_name.is_some(), self.username.is_some());
        let named = [("display_name", display_name), ("username", username)];
        named.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect::<Vec<_>>().join(",")
    }
}

problems!(UpdateProblems: InvalidBody, UnknownField, InvalidDisplayName, InvalidUsername, MissingToken, InvalidToken,
    InvalidRequest, InvalidCredentials, TooManyAttempts, UsernameTaken, Busy);

/// Changes the names others see.
#[utoipa::path(patch, path = "/me", tag = "me", security(("bearer" = [])), request_body = Option<UpdateRequest>,
    responses((status = 200, body = User), UpdateProblems))]
pub(super) async fn update_me(
    State(app): State<App>,
    origin: Origin,
    caller: Result<Caller, ApiError>,
    Json(request): Json<UpdateRequest>,
) -> Result<JsonBody<User>, ApiError> {
    let patch = Patch::check(&request)?;
    let password = request.password.as_ref().map(|text| policy::presented_as("password", text)).transpose()?;
    let caller = caller?;
    finish(async move { Ok(JsonBody(change(&app, &origin, caller, patch, password).await?.into())) }).await
}

/// Why nothing changed.
#[derive(Debug)]
enum Refused {
    NotConfirmed(NotConfirmed),
    UsernameTaken,
    /// The session ended while the password was being checked.
    Gone,
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        // Two people who take one name at the same instant: the index lets one of them have it.
        if error.is_conflict() { Self::UsernameTaken } else { Self::Store(error) }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotConfirmed(refused) => refused.into(),
            Refused::UsernameTaken => Code::UsernameTaken.into(),
            Refused::Gone => Code::InvalidToken.into(),
            Refused::Store(error) => error.into(),
        }
    }
}

async fn change(
    app: &App,
    origin: &Origin,
    caller: Caller,
    patch: Patch,
    password: Option<SecretText>,
) -> Result<Person, Refused> {
    let (id, mut epoch) = (caller.person.id, caller.person.epoch);
    if patch.display_name.is_none() && patch.username.is_none() {
        return Ok(caller.person);
    }
    if let (Some(_), Some(password)) = (&patch.username, password) {
        let confirmed: Confirmed = confirm(app, id, caller.session, password).await.map_err(Refused::NotConfirmed)?;
        epoch = confirmed.epoch;
    }
    let mut tx = app.db.begin(app.ambient.now()).await?;
    let Some(person) = store::update(&mut tx, id, epoch, &patch).await? else {
        let taken = match &patch.username {
            Some(Some((_, key))) => store::username_is_taken(&mut tx, id, key).await?,
            _ => false,
        };
        tx.commit().await?;
        return Err(if taken { Refused::UsernameTaken } else { Refused::Gone });
    };
    Event::new(Kind::ProfileChanged)
        .person(id)
        .session(caller.session)
        .from(origin)
        .with("fields", patch.fields())
        .record(&mut tx, &app.ambient)
        .await?;
    tx.commit().await?;
    Ok(person)
}
