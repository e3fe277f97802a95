//! `POST /password/forgot`.

use axum::{
    Json as JsonBody,
    extract::State,
    http::{HeaderMap, StatusCode},
};

use crate::{
    app::App,
    error::{ApiError, problems},
    events::Origin,
    http::{AcceptLanguage, Json},
    mail::MailKind,
    verification::{Accepted, AddressRequest, ask},
};

problems!(ForgotProblems: InvalidBody, UnknownField, InvalidEmail, RateLimited);

/// Asks for a mail with which a new password can be chosen. The answer is the same whoever has the address.
#[utoipa::path(post, path = "/password/forgot", tag = "codes", request_body = AddressRequest,
    responses((status = 202, body = Accepted), ForgotProblems))]
pub(super) async fn forgot(
    State(app): State<App>,
    origin: Origin,
    language: AcceptLanguage,
    headers: HeaderMap,
    Json(request): Json<AddressRequest>,
) -> Result<(StatusCode, JsonBody<Accepted>), ApiError> {
    ask(app, origin, language, &headers, request, MailKind::ResetPassword).await
}
