//! `POST /me/email` and `POST /me/email/confirm`: another address for the person who is signed in.
//!
//! The password is asked for first, since an access token alone may not take an account over; then the new mailbox
//! proves itself. The old one is told twice: that it was asked for, and that it was done.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Accepted, Purpose, Request, ask::invalid_email, confirm::CodeRequest, flow, start};
use crate::{
    accounts::{self, Caller, confirm, post_notice},
    app::App,
    db::StoreResult,
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    http::{AcceptLanguage, Bearer, Fields, FromFields, Json, finish},
    mail::MailKind,
    names,
    passwords::policy,
    secret::SecretText,
};

/// The address that is to be, and the password once more.
#[derive(Debug, ToSchema)]
pub(super) struct ChangeEmailRequest {
    #[schema(example = "alice@example.org")]
    new_email: String,
    #[schema(value_type = String, example = "correct horse battery")]
    password: SecretText,
}

impl FromFields for ChangeEmailRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (new_email, password) = (fields.required("new_email"), fields.secret("password"));
        Some(Self { new_email: new_email?, password: password? })
    }
}

problems!(RequestProblems: InvalidBody, UnknownField, InvalidEmail, MissingToken, InvalidToken, InvalidRequest,
    InvalidCredentials, RateLimited, TooManyAttempts, Busy);

/// Asks for a code that proves another address. The answer is the same whoever has it.
#[utoipa::path(post, path = "/me/email", tag = "codes", security(("bearer" = [])), request_body = ChangeEmailRequest,
    responses((status = 202, body = Accepted), RequestProblems))]
pub(super) async fn request_change(
    State(app): State<App>,
    origin: Origin,
    AcceptLanguage(language): AcceptLanguage,
    caller: Result<Caller, ApiError>,
    Json(request): Json<ChangeEmailRequest>,
) -> Result<(StatusCode, JsonBody<Accepted>), ApiError> {
    let new_email = names::canonical_email(&request.new_email).ok_or_else(|| invalid_email("new_email"))?;
    let password = policy::presented_as("password", &request.password)?;
    let caller = caller?;
    let person = caller.person.id;
    finish(async move {
        let confirmed = confirm(&app, person, caller.session, password).await?;
        let mut tx = app.db.begin(app.ambient.now()).await?;
        let request = Request::new(MailKind::ChangeAddress, &new_email, language.as_deref(), &origin);
        let started = start(&mut tx, &app, request.person(person).with("epoch", confirmed.epoch)).await?;
        let facts = [("new_email", new_email.as_str())];
        let kind = MailKind::AddressChangeRequested;
        post_notice(&mut tx, &app.ambient, kind, person, &origin, None, &facts).await?;
        tx.commit().await?;
        Ok((StatusCode::ACCEPTED, JsonBody(started.into())))
    })
    .await
}

problems!(ConfirmProblems: InvalidBody, UnknownField, InvalidToken, InvalidRequest, InvalidCode, RateLimited);

/// Changes the address with the code that was mailed to the new one.
#[utoipa::path(post, path = "/me/email/confirm", tag = "codes", security((), ("bearer" = [])), request_body = CodeRequest,
    responses((status = 204, description = "Every session ended but the one of the access token that came along"),
        ConfirmProblems))]
pub(super) async fn confirm_change(
    State(app): State<App>,
    origin: Origin,
    bearer: Result<Option<Bearer>, ApiError>,
    Json(request): Json<CodeRequest>,
) -> Result<StatusCode, ApiError> {
    let bearer = bearer?;
    finish(async move {
        // Before the code: a client whose token ran out refreshes it and comes again with the same code.
        let caller = match &bearer {
            Some(bearer) => Some(Caller::authenticate(&app, bearer).await?),
            None => None,
        };
        let claimed = flow::claim(&app, &[Purpose::Change], &request.flow_id, request.code.expose()).await?;
        let subject = claimed.ok_or(Code::InvalidCode)?.subject;
        let epoch = change(&app, &origin, &subject).await?.ok_or(Code::InvalidCode)?;
        let spared = caller.filter(|caller| caller.person.id == subject.id).map(|caller| caller.session);
        end_others(&app, subject.id, spared, epoch).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Tells the new epoch; `None` when the person changed since, or somebody has the address by now.
async fn change(app: &App, origin: &Origin, subject: &flow::Subject) -> StoreResult<Option<i64>> {
    let mut tx = app.db.begin(app.ambient.now()).await?;
    let before = accounts::addressee_of(&mut tx, subject.id).await?;
    let epoch = match accounts::change_address(&mut tx, subject.id, subject.epoch, &subject.address).await {
        Ok(Some(epoch)) => epoch,
        Ok(None) => {
            tx.commit().await?;
            return Ok(None);
        }
        // Two who take one address at the same instant: the index lets one of them have it.
        Err(error) if error.is_conflict() => return Ok(None),
        Err(error) => return Err(error),
    };
    Event::new(Kind::AddressChanged).person(subject.id).from(origin).record(&mut tx, &app.ambient).await?;
    if let Some((old, was_proved)) = before.and_then(|person| Some((person.email?, person.email_verified))) {
        let proved = if was_proved { "true" } else { "false" };
        let facts = [("new_email", subject.address.as_str()), ("proved", proved)];
        let kind = MailKind::AddressChanged;
        post_notice(&mut tx, &app.ambient, kind, subject.id, origin, Some(&old), &facts).await?;
    }
    tx.commit().await?;
    tracing::Span::current().record("person", tracing::field::display(subject.id));
    Ok(Some(epoch))
}

/// The epoch ended them all; the one that is spared must be stamped, the others are only tidied away.
async fn end_others(app: &App, person: Uuid, spared: Option<Uuid>, epoch: i64) -> Result<(), ApiError> {
    let now = app.ambient.now();
    match app.ephemeral.close_others(now, person, spared.map(|session| (session, epoch))).await {
        Err(error) if spared.is_some() => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "the records of ended sessions stay until they expire");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
