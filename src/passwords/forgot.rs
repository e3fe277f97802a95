//! `POST /password/forgot`.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use utoipa::ToSchema;

use crate::{
    app::App,
    error::{ApiError, Code, FieldFault, problems},
    events::Origin,
    http::{AcceptLanguage, Fields, FromFields, Json, finish},
    mail::MailKind,
    names,
    verification::{self, Accepted, Request},
};

/// Who forgot the password.
#[derive(Debug, ToSchema)]
pub(super) struct ForgotRequest {
    #[schema(example = "alice@example.com")]
    email: String,
}

impl FromFields for ForgotRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { email: fields.required("email")? })
    }
}

problems!(ForgotProblems: InvalidBody, UnknownField, InvalidEmail);

/// Asks for a mail with which a new password can be chosen. The answer is the same whoever has the address.
#[utoipa::path(post, path = "/password/forgot", tag = "codes", request_body = ForgotRequest,
    responses((status = 202, body = Accepted), ForgotProblems))]
pub(super) async fn forgot(
    State(app): State<App>,
    origin: Origin,
    AcceptLanguage(language): AcceptLanguage,
    Json(request): Json<ForgotRequest>,
) -> Result<(StatusCode, JsonBody<Accepted>), ApiError> {
    let code = Code::InvalidEmail;
    let email = names::canonical_email(&request.email)
        .ok_or_else(|| ApiError::fields(code, vec![FieldFault::new("email", code.as_str(), code.detail())]))?;
    finish(async move {
        let mut tx = app.db.begin(app.ambient.now()).await?;
        let request = Request::new(MailKind::ResetPassword, &email, language.as_deref(), &origin);
        let started = verification::start(&mut tx, &app, request).await?;
        tx.commit().await?;
        Ok((StatusCode::ACCEPTED, JsonBody(started.into())))
    })
    .await
}
