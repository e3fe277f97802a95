//! `GET /me/sessions`: what a person is signed in with.

use axum::{Json as JsonBody, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Ledger, device};
use crate::{
    accounts::Caller,
    app::App,
    db::Timestamp,
    ephemeral::SessionRecord,
    error::{ApiError, problems},
};

/// The living sessions of a person, the last used first.
#[derive(Serialize, ToSchema)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
}

/// One sign-in of a person.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    id: Uuid,
    /// Whether it is the one of the access token that came along.
    current: bool,
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T10:56:00.123Z")]
    created_at: Timestamp,
    /// The sign-in or the last refresh.
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T10:56:00.123Z")]
    last_used_at: Timestamp,
    /// When it ends unless refreshed before.
    #[schema(value_type = String, format = DateTime, example = "2026-11-29T10:56:00.123Z")]
    expires_at: Timestamp,
    /// Where the person signed in from.
    #[schema(example = "192.0.2.7")]
    ip: String,
    /// What with, in words; `null` when nothing is known of it.
    #[schema(example = "Firefox on Linux")]
    user_agent: Option<String>,
}

impl Session {
    fn new(id: Uuid, record: &SessionRecord, current: Uuid) -> Self {
        Self {
            id,
            current: id == current,
            created_at: record.created_at,
            last_used_at: record.made_at,
            expires_at: record.expires_at(),
            ip: record.address.to_string(),
            user_agent: device::in_words(record.device),
        }
    }
}

problems!(SessionsProblems: InvalidRequest, MissingToken, InvalidToken);

/// What the person is signed in with.
#[utoipa::path(get, path = "/me/sessions", tag = "me", security(("bearer" = [])),
    responses((status = 200, body = Sessions), SessionsProblems))]
pub(super) async fn list_sessions(State(app): State<App>, caller: Caller) -> Result<JsonBody<Sessions>, ApiError> {
    let living = Ledger::of(&app).living(caller.person.id, caller.person.epoch).await?;
    let sessions = living.iter().map(|(id, record)| Session::new(*id, record, caller.session)).collect();
    Ok(JsonBody(Sessions { sessions }))
}
