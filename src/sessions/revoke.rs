//! `DELETE /me/sessions/{id}` and `DELETE /me/sessions`: a person ends sessions from another one.
//!
//! One session: what has a record of this person's is there to be ended; anything else is the same 404. A record whose end
//! is remembered already goes as well, since an answer may have been lost half-way; of all who end a session one writes
//! the event.
//!
//! All others: the epoch moves, as at a change of the password, and the session that asked moves along with it; so codes
//! that were mailed before do not work after. Only while the epoch stands that the caller was let in with: of two
//! sessions that put each other out at once one stays, and who comes second in one session finds it done.

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
        let person = &caller.person;
        let record = app.ephemeral.find(app.ambient.now(), person.id, session).await?;
        if record.is_none_or(|record| record.epoch != person.epoch) {
            return Err(Code::NotFound.into());
        }
        let event = Event::new(Kind::SignedOut)
            .person(person.id)
            .session(session)
            .from(&origin)
            .with("by", caller.session.to_string());
        Ledger::of(&app).end(person.id, session, event).await?;
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
        let (person, epoch) = (caller.person.id, caller.person.epoch);
        let by = caller.session.to_string();
        let event = Event::new(Kind::SignedOut).person(person).from(&origin).with("all", "others").with("by", by);
        if !Ledger::of(&app).end_all(person, Some(epoch), Some(caller.session), event).await? {
            // The epoch moved since the caller was let in. If this session was spared, that act has ended all the others;
            // if not, the caller is nobody any more.
            Caller::again(&app, &caller).await?;
        }
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
