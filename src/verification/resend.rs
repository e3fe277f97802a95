//! `POST /email/verify/resend`.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use utoipa::ToSchema;

use super::{Accepted, Request, start};
use crate::{
    app::App,
    error::{ApiError, Code, FieldFault, problems},
    events::Origin,
    http::{AcceptLanguage, Fields, FromFields, Json, finish},
    mail::MailKind,
    names,
};

/// Whose address is to be proved.
#[derive(Debug, ToSchema)]
pub(super) struct ResendRequest {
    #[schema(example = "alice@example.com")]
    email: String,
}

impl FromFields for ResendRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { email: fields.required("email")? })
    }
}

problems!(ResendProblems: InvalidBody, UnknownField, InvalidEmail);

/// Asks for a code that proves an address. The answer is the same whoever has it.
#[utoipa::path(post, path = "/email/verify/resend", tag = "codes", request_body = ResendRequest,
    responses((status = 202, body = Accepted), ResendProblems))]
pub(super) async fn resend(
    State(app): State<App>,
    origin: Origin,
    AcceptLanguage(language): AcceptLanguage,
    Json(request): Json<ResendRequest>,
) -> Result<(StatusCode, JsonBody<Accepted>), ApiError> {
    let email = names::canonical_email(&request.email).ok_or_else(|| invalid_email("email"))?;
    finish(async move {
        let mut tx = app.db.begin(app.ambient.now()).await?;
        let request = Request::new(MailKind::VerifyAddress, &email, language.as_deref(), &origin);
        let started = start(&mut tx, &app, request).await?;
        tx.commit().await?;
        Ok((StatusCode::ACCEPTED, JsonBody(started.into())))
    })
    .await
}

/// The refusal for what no mail can go to.
pub(super) fn invalid_email(field: &'static str) -> ApiError {
    let code = Code::InvalidEmail;
    ApiError::fields(code, vec![FieldFault::new(field, code.as_str(), code.detail())])
}
