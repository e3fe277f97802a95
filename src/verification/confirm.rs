//! `POST /email/verify`: the code that proves an address, of a person or of a registration that waits.

use axum::{extract::State, http::StatusCode};
use utoipa::ToSchema;

use super::{Purpose, flow, store};
use crate::{
    accounts::{self, Wanted},
    app::App,
    db::StoreResult,
    error::{ApiError, Code, problems},
    events::{Event, Kind, Origin},
    http::{Fields, FromFields, Json, finish},
    metrics::Registration,
    secret::SecretText,
};

/// A flow and its code.
#[derive(Debug, ToSchema)]
pub(super) struct CodeRequest {
    #[schema(example = "pmX1Rk3bC0yJ8n2uQ1s5mXo7vW4")]
    pub flow_id: String,
    /// Eight digits; spaces and hyphens do not matter.
    #[schema(value_type = String, example = "1234 5678")]
    pub code: SecretText,
}

impl FromFields for CodeRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (flow_id, code) = (fields.required("flow_id"), fields.secret("code"));
        Some(Self { flow_id: flow_id?, code: code? })
    }
}

problems!(VerifyProblems: InvalidBody, UnknownField, InvalidCode, RateLimited);

/// Proves an address with the code that was mailed to it.
#[utoipa::path(post, path = "/email/verify", tag = "codes", request_body = CodeRequest,
    responses((status = 204, description = "The address is proved; a pending registration is a person now"), VerifyProblems))]
pub(super) async fn verify_email(
    State(app): State<App>,
    origin: Origin,
    Json(request): Json<CodeRequest>,
) -> Result<StatusCode, ApiError> {
    finish(async move {
        let purposes = [Purpose::Verify, Purpose::Register];
        let claimed = flow::claim(&app, &purposes, &request.flow_id, request.code.expose()).await?;
        let subject = claimed.ok_or(Code::InvalidCode)?.subject;
        let done = match subject.purpose {
            Purpose::Register => complete(&app, &origin, &subject).await,
            _ => prove(&app, &origin, &subject).await,
        };
        if done? { Ok(StatusCode::NO_CONTENT) } else { Err(Code::InvalidCode.into()) }
    })
    .await
}

/// The address of a person. `false` when the person changed since the mail was built.
async fn prove(app: &App, origin: &Origin, subject: &flow::Subject) -> StoreResult<bool> {
    let mut tx = app.db.begin(app.ambient.now()).await?;
    if !accounts::verify_address(&mut tx, subject.id, subject.epoch, &subject.address).await? {
        tx.commit().await?;
        return Ok(false);
    }
    Event::new(Kind::AddressVerified).person(subject.id).from(origin).record(&mut tx, &app.ambient).await?;
    tx.commit().await?;
    tracing::Span::current().record("person", tracing::field::display(subject.id));
    Ok(true)
}

/// A registration that waited. `false` when it is gone, or somebody has the address by now.
async fn complete(app: &App, origin: &Origin, subject: &flow::Subject) -> StoreResult<bool> {
    let mut tx = app.db.begin(app.ambient.now()).await?;
    let Some(pending) = store::take_pending(&mut tx, subject.id).await? else {
        tx.commit().await?;
        return Ok(false);
    };
    let wanted = Wanted {
        email: pending.email,
        username: pending.username,
        username_key: pending.username_key,
        display_name: pending.display_name,
        locale: pending.locale,
    };
    let made = accounts::make_verified(&mut tx, app.ambient.uuid(), &wanted, &pending.password_hash).await;
    let person = match made {
        Ok(Some(person)) => person,
        Ok(None) => {
            tx.commit().await?;
            return Ok(false);
        }
        // Two registrations of one address that are completed at the same instant: the index lets one of them be it.
        Err(error) => return if error.is_conflict() { Ok(false) } else { Err(error) },
    };
    for kind in [Kind::Registered, Kind::AddressVerified] {
        Event::new(kind).person(person.id).from(origin).record(&mut tx, &app.ambient).await?;
    }
    tx.commit().await?;
    app.metrics.registrations.add(Registration::Completed);
    tracing::Span::current().record("person", tracing::field::display(person.id));
    Ok(true)
}
