//! `POST /email/verify/resend`.

use axum::{
    Json as JsonBody,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use utoipa::ToSchema;

use super::{Accepted, Request, start};
use crate::{
    app::App,
    error::{ApiError, Code, FieldFault, problems},
    events::Origin,
    http::{AcceptLanguage, Fields, FromFields, Json, finish},
    mail::MailKind,
    names,
    secret::SecretText,
    sessions::DeviceToken,
};

/// Whose address is to be proved.
#[derive(Debug, ToSchema)]
pub(super) struct ResendRequest {
    #[schema(example = "alice@example.com")]
    email: String,
    /// From an earlier sign-in: some mails a day are kept for devices that a person signed in from.
    #[schema(value_type = Option<String>, example = "lkd_…")]
    device_token: Option<SecretText>,
}

impl FromFields for ResendRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (email, device_token) = (fields.required("email"), fields.optional_secret("device_token"));
        Some(Self { email: email?, device_token })
    }
}

problems!(ResendProblems: InvalidBody, UnknownField, InvalidEmail, RateLimited);

/// Asks for a code that proves an address. The answer is the same whoever has it.
#[utoipa::path(post, path = "/email/verify/resend", tag = "codes", request_body = ResendRequest,
    responses((status = 202, body = Accepted), ResendProblems))]
pub(super) async fn resend(
    State(app): State<App>,
    origin: Origin,
    AcceptLanguage(language): AcceptLanguage,
    headers: HeaderMap,
    Json(request): Json<ResendRequest>,
) -> Result<(StatusCode, JsonBody<Accepted>), ApiError> {
    let email = names::canonical_email(&request.email).ok_or_else(|| invalid_email("email"))?;
    let device = DeviceToken::shown(request.device_token.as_ref(), &headers, &app);
    finish(async move {
        let mut tx = app.db.begin(app.ambient.now()).await?;
        let request = Request::new(MailKind::VerifyAddress, &email, language.as_deref(), &origin).from_device(device);
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
