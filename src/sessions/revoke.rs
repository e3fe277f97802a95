//! `DELETE /me/sessions/{id}` and `DELETE /me/sessions`: a person ends sessions from another one.
//!
//! One session: only a living one of this person is there to be ended; anything else is the same 404. Which it is, both
//! stores are asked before; of two who end it at once one writes the event. All others: the epoch moves, as at a change
//! of the password, and the session that asked moves along with it; so codes that were mailed before do not work after.

use axum::{extract::State, http::StatusCode};

use super::Ledger;
use crate::{
    accounts::Caller,
    app::App,
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    http::{PathId, finish},
};

problems!(RevokeProblems: InvalidRequest, MissingToken, InvalidToken, NotFound);

/// Ends one session of the person.
#[utoipa::path(delete, path = "/me/sessions/{id}", tag = "me", security(("bearer" = [])),
    params(("id" = uuid::Uuid, Path, description = "A session out of `GET /me/sessions`")),
    responses((status = 204, description = "It is over on every node"), RevokeProblems))]
pub(super) async fn revoke_session(
    State(app): State<App>,
    origin: Origin,
    caller: Caller,
    PathId(session): PathId,
) -> Result<StatusCode, ApiError> {
    finish(async move {
        let (ledger, person) = (Ledger::of(&app), &caller.person);
        let living = ledger.living(person.id, person.epoch).await?;
        if !living.iter().any(|(id, _)| *id == session) {
            return Err(Code::NotFound.into());
        }
        let event = Event::new(Kind::SignedOut)
            .person(person.id)
            .session(session)
            .from(&origin)
            .with("by", caller.session.to_string());
        ledger.end(person.id, session, event).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

problems!(RevokeOthersProblems: InvalidRequest, MissingToken, InvalidToken);

/// Ends every session of the person but the current one.
#[utoipa::path(delete, path = "/me/sessions", tag = "me", security(("bearer" = [])),
    responses((status = 204, description = "All others are over on every node"), RevokeOthersProblems))]
pub(super) async fn revoke_others(
    State(app): State<App>,
    origin: Origin,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    finish(async move {
        let event = Event::new(Kind::SignedOut)
            .person(caller.person.id)
            .session(caller.session)
            .from(&origin)
            .with("all", "others");
        Ledger::of(&app).end_all(caller.person.id, Some(caller.session), event).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
