//! `POST /password/forgot`.

use axum::{
    Json as JsonBody,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use utoipa::ToSchema;

use crate::{
    app::App,
    error::{ApiError, Code, FieldFault, problems},
    events::Origin,
    http::{AcceptLanguage, Fields, FromFields, Json, finish},
    mail::MailKind,
    names,
    secret::SecretText,
    sessions::DeviceToken,
    verification::{self, Accepted, Request},
};

/// Who forgot the password.
#[derive(Debug, ToSchema)]
pub(super) struct ForgotRequest {
    #[schema(example = "alice@example.com")]
    email: String,
    /// From an earlier sign-in: some mails a day are kept for devices that a person signed in from.
    #[schema(value_type = Option<String>, example = "lkd_…")]
    device_token: Option<SecretText>,
}

impl FromFields for ForgotRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (email, device_token) = (fields.required("email"), fields.optional_secret("device_token"));
        Some(Self { email: email?, device_token })
    }
}

problems!(ForgotProblems: InvalidBody, UnknownField, InvalidEmail, RateLimited);

/// Asks for a mail with which a new password can be chosen. The answer is the same whoever has the address.
#[utoipa::path(post, path = "/password/forgot", tag = "codes", request_body = ForgotRequest,
    responses((status = 202, body = Accepted), ForgotProblems))]
pub(super) async fn forgot(
    State(app): State<App>,
    origin: Origin,
    AcceptLanguage(language): AcceptLanguage,
    headers: HeaderMap,
    Json(request): Json<ForgotRequest>,
) -> Result<(StatusCode, JsonBody<Accepted>), ApiError> {
    let code = Code::InvalidEmail;
    let email = names::canonical_email(&request.email)
        .ok_or_else(|| ApiError::fields(code, vec![FieldFault::new("email", code.as_str(), code.detail())]))?;
    let device = DeviceToken::shown(request.device_token.as_ref(), &headers, &app);
    finish(async move {
        let mut tx = app.db.begin(app.ambient.now()).await?;
        let mail = Request::new(MailKind::ResetPassword, &email, language.as_deref(), &origin).from_device(device);
        let started = verification::start(&mut tx, &app, mail).await?;
        tx.commit().await?;
        Ok((StatusCode::ACCEPTED, JsonBody(started.into())))
    })
    .await
}
