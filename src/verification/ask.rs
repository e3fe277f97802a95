//! Asking for a code by an address alone: what `/password/forgot` and `/email/verify/resend` share. Both are alike for
//! everybody because there is one of them.

use axum::{
    Json as JsonBody,
    http::{HeaderMap, StatusCode},
};
use utoipa::ToSchema;

use super::{Accepted, Request, start};
use crate::{
    app::App,
    error::{ApiError, Code, FieldFault},
    events::Origin,
    http::{AcceptLanguage, Fields, FromFields, finish},
    mail::MailKind,
    names,
    secret::SecretText,
    sessions::DeviceToken,
};

/// Whose mailbox a code is asked for.
#[derive(Debug, ToSchema)]
pub struct AddressRequest {
    #[schema(example = "alice@example.com")]
    email: String,
    /// From an earlier sign-in: some mails a day are kept for devices that a person signed in from.
    #[schema(value_type = Option<String>, example = "lkd_…")]
    device_token: Option<SecretText>,
}

impl FromFields for AddressRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (email, device_token) = (fields.required("email"), fields.optional_secret("device_token"));
        Some(Self { email: email?, device_token })
    }
}

/// Starts a flow for whoever has the address.
///
/// # Errors
/// `invalid_email`, or when the database does not answer.
pub async fn ask(
    app: App,
    origin: Origin,
    AcceptLanguage(language): AcceptLanguage,
    headers: &HeaderMap,
    request: AddressRequest,
    kind: MailKind,
) -> Result<(StatusCode, JsonBody<Accepted>), ApiError> {
    let email = names::canonical_email(&request.email).ok_or_else(|| invalid_email("email"))?;
    let device = DeviceToken::shown(request.device_token.as_ref(), headers, &app);
    finish(async move {
        let mut tx = app.db.begin(app.ambient.now()).await?;
        let mail = Request::new(kind, &email, language.as_deref(), &origin).from_device(device);
        let started = start(&mut tx, &app, mail).await?;
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
