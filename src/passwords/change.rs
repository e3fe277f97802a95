//! `PUT /me/password`.

use axum::{extract::State, http::StatusCode};
use utoipa::ToSchema;

use super::policy::{self, Context};
use crate::{
    accounts::{Caller, confirm, post_notice, replace_password},
    app::App,
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    http::{Fields, FromFields, Json, finish},
    mail::MailKind,
    secret::SecretText,
};

/// The password that is, and the one that is to be.
#[derive(Debug, ToSchema)]
pub(super) struct ChangeRequest {
    #[schema(value_type = String, example = "correct horse battery")]
    current_password: SecretText,
    #[schema(value_type = String, example = "a staple for the horse")]
    new_password: SecretText,
}

impl FromFields for ChangeRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (current, new) = (fields.secret("current_password"), fields.secret("new_password"));
        Some(Self { current_password: current?, new_password: new? })
    }
}

problems!(ChangeProblems: InvalidBody, UnknownField, WeakPassword, MissingToken, InvalidToken, InvalidRequest,
    InvalidCredentials, TooManyAttempts, Busy);

/// Chooses a new password; every other session ends.
#[utoipa::path(put, path = "/me/password", tag = "me", security(("bearer" = [])), request_body = ChangeRequest,
    responses((status = 204, description = "Every other session ended; a notice is mailed"), ChangeProblems))]
pub(super) async fn change_password(
    State(app): State<App>,
    origin: Origin,
    caller: Result<Caller, ApiError>,
    Json(request): Json<ChangeRequest>,
) -> Result<StatusCode, ApiError> {
    let current = policy::presented_as("current_password", &request.current_password)?;
    let person = caller.as_ref().ok().map(|caller| &caller.person);
    let context = Context {
        min_length: app.config.passwords.min_length,
        product_name: &app.config.product_name,
        email: person.and_then(|person| person.email.as_deref()),
        names: [
            person.and_then(|person| person.username.as_deref()),
            person.and_then(|person| person.display_name.as_deref()),
        ],
    };
    // Without a person only the rules that need none are judged: 422 comes before 401.
    let new = policy::check("new_password", &request.new_password, &context)
        .map_err(|reasons| ApiError::fields(Code::WeakPassword, reasons))?;
    let caller = caller?;
    finish(async move {
        change(&app, &origin, &caller, current, new).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

async fn change(
    app: &App,
    origin: &Origin,
    caller: &Caller,
    current: SecretText,
    new: SecretText,
) -> Result<(), ApiError> {
    let person = caller.person.id;
    let confirmed = confirm(app, person, caller.session, current).await?;
    let hash = app.hasher.hash(new).await?;
    let now = app.ambient.now();
    let mut tx = app.db.begin(now).await?;
    let Some(epoch) = replace_password(&mut tx, person, &confirmed, &hash).await? else {
        // The epoch moved while the hashes were made, so this session is over.
        return Err(Code::InvalidToken.into());
    };
    Event::new(Kind::PasswordChanged)
        .person(person)
        .session(caller.session)
        .from(origin)
        .record(&mut tx, &app.ambient)
        .await?;
    post_notice(&mut tx, &app.ambient, MailKind::PasswordChanged, person, origin, None, &[]).await?;
    tx.commit().await?;
    app.ephemeral.close_others(now, person, Some((caller.session, epoch))).await?;
    Ok(())
}
