//! `DELETE /me`, and `POST /me/delete` for clients that cannot send a body with DELETE.

use axum::{extract::State, http::StatusCode};
use utoipa::ToSchema;

use super::{Caller, confirm, store};
use crate::{
    app::App,
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    http::{Fields, FromFields, Json, finish},
    passwords::policy,
    secret::SecretText,
};

/// The password, once more.
#[derive(Debug, ToSchema)]
pub(super) struct DeleteRequest {
    #[schema(value_type = String, example = "correct horse battery")]
    password: SecretText,
}

impl FromFields for DeleteRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { password: fields.secret("password")? })
    }
}

problems!(DeleteProblems: InvalidBody, UnknownField, MissingToken, InvalidToken, InvalidRequest, InvalidCredentials,
    TooManyAttempts, Busy);

/// Ends the account of the person who asks.
#[utoipa::path(delete, path = "/me", tag = "me", security(("bearer" = [])), request_body = DeleteRequest,
    responses((status = 204, description = "Every session ended; the address is free again"), DeleteProblems))]
pub(super) async fn delete_me(
    State(app): State<App>,
    origin: Origin,
    caller: Result<Caller, ApiError>,
    Json(request): Json<DeleteRequest>,
) -> Result<StatusCode, ApiError> {
    end_account(app, origin, caller, request).await
}

/// Ends the account of the person who asks; the same as `DELETE /me`.
#[utoipa::path(post, path = "/me/delete", tag = "me", security(("bearer" = [])), request_body = DeleteRequest,
    responses((status = 204, description = "Every session ended; the address is free again"), DeleteProblems))]
pub(super) async fn post_delete_me(
    State(app): State<App>,
    origin: Origin,
    caller: Result<Caller, ApiError>,
    Json(request): Json<DeleteRequest>,
) -> Result<StatusCode, ApiError> {
    end_account(app, origin, caller, request).await
}

async fn end_account(
    app: App,
    origin: Origin,
    caller: Result<Caller, ApiError>,
    request: DeleteRequest,
) -> Result<StatusCode, ApiError> {
    let password = policy::presented_as("password", &request.password)?;
    let caller = caller?;
    finish(async move {
        let person = caller.person.id;
        let confirmed = confirm(&app, person, caller.session, password).await?;
        let now = app.ambient.now();
        let mut tx = app.db.begin(now).await?;
        if !store::delete(&mut tx, person, confirmed.epoch).await? {
            // The epoch moved while the password was being checked, so this session is over.
            return Err(Code::InvalidToken.into());
        }
        Event::new(Kind::PersonDeleted)
            .person(person)
            .session(caller.session)
            .from(&origin)
            .record(&mut tx, &app.ambient)
            .await?;
        tx.commit().await?;
        // The epoch ended every session; the records are only tidied away.
        if let Err(error) = app.ephemeral.close_others(now, person, None).await {
            tracing::warn!(%error, "the records of ended sessions stay until they expire");
        }
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
