//! Who is calling: a person in a living session. A handler that takes a [`Caller`] or a [`RecentCaller`] cannot be
//! reached by anybody else.

use std::{sync::Arc, time::Duration};

use axum::{extract::FromRequestParts, http::request::Parts};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    Person, person_in_session,
    recent::{Arrival, Outcome, Seen},
};
use crate::{
    app::App,
    error::{ApiError, Code},
    http::{Bearer, finish},
    keys::{TokenFault, VerifiedToken},
};

/// How long a session that an act spared may take to get its new epoch, as a rule: one trip to the session store.
pub const STAMP_PAUSE: Duration = Duration::from_millis(50);
/// How often a session one epoch beside its person is looked at before it counts as dead: for as long as a call to the
/// session store may take.
pub const LOOKS: u32 = 9;
/// The same where somebody is known to have moved the epoch this moment: as long as the store may take.
const MOST_LOOKS: u32 = 10;

/// A signed-in person, as both stores have it now: for acts.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The person.
    pub person: Person,
    /// The session of the access token.
    pub session: Uuid,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let bearer = <Bearer as FromRequestParts<App>>::from_request_parts(parts, app).await?;
        Self::authenticate(app, &bearer).await
    }
}

impl Caller {
    /// Checks an access token and everything it depends on.
    ///
    /// # Errors
    /// `invalid_token`, or `unavailable` when a store does not answer: then nobody is let in.
    pub async fn authenticate(app: &App, bearer: &Bearer) -> Result<Self, ApiError> {
        let token = verify(app, bearer).await?;
        let seen = read(app.clone(), token.person, token.session, LOOKS).await?.ok_or(Code::InvalidToken)?;
        Ok(Self { person: seen.person.clone(), session: token.session })
    }

    /// The same caller, read anew: somebody moved the epoch meanwhile, and may have spared this session.
    ///
    /// # Errors
    /// As [`Caller::authenticate`].
    pub async fn again(app: &App, caller: &Self) -> Result<Self, ApiError> {
        let seen = read(app.clone(), caller.person.id, caller.session, MOST_LOOKS).await?.ok_or(Code::InvalidToken)?;
        Ok(Self { person: seen.person.clone(), session: caller.session })
    }
}

/// A signed-in person, as both stores had it less than half a second ago: for looking at oneself (`recent.rs`).
#[derive(Clone, Debug)]
pub(super) struct RecentCaller(Arc<Seen>);

impl RecentCaller {
    /// The person as JSON.
    pub(super) fn shown(&self) -> Bytes {
        self.0.shown()
    }
}

impl FromRequestParts<App> for RecentCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let bearer = <Bearer as FromRequestParts<App>>::from_request_parts(parts, app).await?;
        let VerifiedToken { person, session, .. } = verify(app, &bearer).await?;
        let arrival =
            Arrival { at: app.ambient.elapsed(), changes: app.db.changes().of(person), now: app.ambient.now() };
        let seen = app.recent.find(person, session, arrival, || read(app.clone(), person, session, LOOKS)).await?;
        seen.map(Self).ok_or_else(|| Code::InvalidToken.into())
    }
}

/// Reads both stores at the same time: neither answer depends on the other. In a task of its own, since a statement that
/// is dropped half-way costs its connection.
///
/// A record one epoch beside its person may be that of the session that an act spares: it gets the new epoch after the
/// commit, and the two are not read at one instant. So both are looked at again before it counts as dead.
fn read(app: App, person: Uuid, session: Uuid, looks: u32) -> impl Future<Output = Outcome> + Send + 'static {
    finish(async move {
        for left in (0..looks).rev() {
            let read_person = async {
                let mut conn = app.db.read().await?;
                person_in_session(&mut conn, person, session).await
            };
            let now = app.ambient.now();
            let (record, found) = tokio::join!(app.ephemeral.find(now, person, session), read_person);
            let (Some(record), Some(found)) = (record?, found?) else { return Ok(None) };
            if record.epoch == found.epoch {
                return Ok(Some(Arc::new(Seen::new(found, record.expires_at()))));
            }
            if left == 0 || record.epoch.abs_diff(found.epoch) > 1 {
                break;
            }
            // The record is the newer one when the person was read a moment before the act.
            if record.epoch < found.epoch {
                tokio::time::sleep(STAMP_PAUSE).await;
            }
        }
        Ok(None)
    })
}

/// What an access token says that may be used here now, whether or not its session lives.
///
/// A token whose key is unknown is judged after one more look at the table: another node may have signed it with a key
/// that came into the ring since. If that look fails it is 503: nobody is let in, and nobody is told to throw a token away
/// that may be good. With the database away every other token is 503 as well.
///
/// # Errors
/// `invalid_token`, or `unavailable` when its key cannot be looked up.
pub async fn verify(app: &App, bearer: &Bearer) -> Result<VerifiedToken, ApiError> {
    let mut verified = app.keys.verify(bearer.token(), app.ambient.now());
    if verified == Err(TokenFault::UnknownKey) {
        if !app.keys.look_again(&app.db).await {
            return Err(Code::Unavailable.into());
        }
        verified = app.keys.verify(bearer.token(), app.ambient.now());
    }
    let token = verified.map_err(|fault| ApiError::new(Code::InvalidToken).caused_by(fault))?;
    let span = tracing::Span::current();
    span.record("person", tracing::field::display(token.person));
    span.record("session", tracing::field::display(token.session));
    Ok(token)
}
