//! `POST /password/reset`.

use axum::{extract::State, http::StatusCode};
use utoipa::ToSchema;

use super::policy::{self, Context};
use crate::{
    accounts::{self, Addressee, attempts, post_notice},
    app::App,
    db::StoreResult,
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    http::{Fields, FromFields, Json, finish},
    mail::MailKind,
    secret::SecretText,
    verification::{
        Claimed, Purpose,
        flow::{self, Subject},
    },
};

/// A flow, its code, and the password that is to be.
#[derive(Debug, ToSchema)]
pub(super) struct ResetRequest {
    #[schema(example = "pmX1Rk3bC0yJ8n2uQ1s5mXo7vW4")]
    flow_id: String,
    /// Eight digits; spaces and hyphens do not matter.
    #[schema(value_type = String, example = "1234 5678")]
    code: SecretText,
    #[schema(value_type = String, example = "a staple for the horse")]
    new_password: SecretText,
}

impl FromFields for ResetRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (flow_id, code) = (fields.required("flow_id"), fields.secret("code"));
        let new_password = fields.secret("new_password");
        Some(Self { flow_id: flow_id?, code: code?, new_password: new_password? })
    }
}

problems!(ResetProblems: InvalidBody, UnknownField, WeakPassword, InvalidCode, RateLimited, Busy);

/// Chooses a new password with the code that was mailed. Every session ends, and nobody is signed in.
#[utoipa::path(post, path = "/password/reset", tag = "codes", request_body = ResetRequest,
    responses((status = 204, description = "Every session ended; the address counts as proved; a notice is mailed"),
        ResetProblems))]
pub(super) async fn reset(
    State(app): State<App>,
    origin: Origin,
    Json(request): Json<ResetRequest>,
) -> Result<StatusCode, ApiError> {
    let password = check(&app, &request.new_password, None)?;
    finish(async move {
        let hash = app.hasher.hash(password).await?;
        let claimed = flow::claim(&app, &[Purpose::Reset], &request.flow_id, request.code.expose()).await?;
        let claimed = claimed.ok_or(Code::InvalidCode)?;
        let mut conn = app.db.read().await?;
        let person = accounts::addressee_of(&mut conn, claimed.subject.id).await?.ok_or(Code::InvalidCode)?;
        drop(conn);
        // Only now, since before the code was right this would tell strangers whether they guess a name.
        if let Err(weak) = check(&app, &request.new_password, Some(&person)) {
            flow::give_back(&app, &claimed).await?;
            return Err(weak);
        }
        if !replace(&app, &origin, &claimed.subject, &person, &hash).await? {
            return Err(Code::InvalidCode.into());
        }
        forgive(&app, &claimed, &person).await;
        // The epoch ended every session; the records are only tidied away.
        if let Err(error) = app.ephemeral.close_others(app.ambient.now(), person.id, None).await {
            tracing::warn!(%error, "the records of ended sessions stay until they expire");
        }
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Who could read the mail need not wait for what strangers did; the flow counts as a device token for a while.
async fn forgive(app: &App, claimed: &Claimed, person: &Addressee) {
    let mut buckets = attempts::of_names(app, person.email.as_deref(), person.username.as_deref());
    buckets.extend(attempts::of_devices(app, person.id));
    for outcome in [flow::done(app, claimed).await, app.ephemeral.clear(&buckets).await] {
        if let Err(error) = outcome {
            tracing::warn!(%error, "failed attempts before a reset may still be counted");
        }
    }
}

fn check(app: &App, password: &SecretText, person: Option<&Addressee>) -> Result<SecretText, ApiError> {
    // Names that are about to be wiped are not the person's.
    let own = person.filter(|person| person.email_verified);
    let context = Context {
        min_length: app.config.passwords.min_length,
        product_name: &app.config.product_name,
        email: person.and_then(|person| person.email.as_deref()),
        names: [
            own.and_then(|person| person.username.as_deref()),
            own.and_then(|person| person.display_name.as_deref()),
        ],
    };
    policy::check("new_password", password, &context).map_err(|reasons| ApiError::fields(Code::WeakPassword, reasons))
}

/// `false` when the person changed since the mail was built.
async fn replace(app: &App, origin: &Origin, subject: &Subject, person: &Addressee, hash: &str) -> StoreResult<bool> {
    let mut tx = app.db.begin(app.ambient.now()).await?;
    if !accounts::reset_password(&mut tx, subject.id, subject.epoch, &subject.address, hash).await? {
        tx.commit().await?;
        return Ok(false);
    }
    Event::new(Kind::PasswordReset).person(subject.id).from(origin).record(&mut tx, &app.ambient).await?;
    if !person.email_verified {
        Event::new(Kind::AddressVerified).person(subject.id).from(origin).record(&mut tx, &app.ambient).await?;
    }
    post_notice(&mut tx, &app.ambient, MailKind::PasswordReset, subject.id, origin, None, &[]).await?;
    tx.commit().await?;
    tracing::Span::current().record("person", tracing::field::display(subject.id));
    Ok(true)
}
