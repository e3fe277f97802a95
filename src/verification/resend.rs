//! `POST /email/verify/resend`.

use axum::{
    Json as JsonBody,
    extract::State,
    http::{HeaderMap, StatusCode},
};

use super::{Accepted, AddressRequest, ask};
use crate::{
    app::App,
    error::{ApiError, problems},
    events::Origin,
    http::{AcceptLanguage, Json},
    mail::MailKind,
};

problems!(ResendProblems: InvalidBody, UnknownField, InvalidEmail, RateLimited);

/// Asks for a code that proves an address. The answer is the same whoever has it.
#[utoipa::path(post, path = "/email/verify/resend", tag = "codes", request_body = AddressRequest,
    responses((status = 202, body = Accepted), ResendProblems))]
pub(super) async fn resend(
    State(app): State<App>,
    origin: Origin,
    language: AcceptLanguage,
    headers: HeaderMap,
    Json(request): Json<AddressRequest>,
) -> Result<(StatusCode, JsonBody<Accepted>), ApiError> {
    ask(app, origin, language, &headers, request, MailKind::VerifyAddress).await
}
