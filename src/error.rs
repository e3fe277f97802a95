//! The one table of problems: what can go wrong for a caller, in constant words.
//!
//! A domain function refuses with its own small enum; under its handler that becomes an [`ApiError`], which carries a
//! [`Code`] of this table and, for us alone, the error behind it. As a response an `ApiError` is only a status and an
//! extension: `http::envelope` renders the RFC 9457 body (it knows request id and public URL) and logs, in one place.
//! Nothing of a request, no SQL, host or stack can reach a client, since every text a client sees stands here.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

macro_rules! codes {
    ($($variant:ident = $code:literal, $status:literal, $title:literal, $detail:literal;)+) => {
        /// Every problem a client can meet; `as_str` is the stable word clients may match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = concat!("`", $code, "`: ", $title)] $variant,)+ }

        impl Code {
            /// The table in its order, for documentation and tests.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable word of the contract.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status it is answered with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// What it is, in few words, the same for every occurrence (RFC 9457 §3.1.3).
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// What happened and what to do next.
            #[must_use]
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)+ }
            }
        }
    };
}

codes! {
    // Requests that are wrong before anybody looks at who asks.
    HeaderTooLarge = "header_too_large", 431, "Header too large",
        "A header line is longer than 8 KiB. Send shorter headers, for example fewer cookies.";
    BodyTooLarge = "body_too_large", 413, "Body too large",
        "The body is larger than 16 KiB. No request of this API needs that much.";
    RateLimited = "rate_limited", 429, "Too many requests",
        "Too many requests of this kind came from your network. Wait as long as Retry-After says.";
    RequestTimeout = "request_timeout", 408, "Request too slow",
        "The body did not arrive in time. Send the request again.";
    UnsupportedMediaType = "unsupported_media_type", 415, "Unsupported media type",
        "Send the body as JSON with the header Content-Type: application/json.";
    MalformedJson = "malformed_json", 400, "Malformed JSON",
        "The body is not one well-formed JSON value: check quotes, encoding, duplicate keys and nesting.";
    InvalidRequest = "invalid_request", 400, "Invalid request",
        "The request carries more than one Authorization header. Send exactly one.";
    InvalidBody = "invalid_body", 422, "Invalid body",
        "The body does not have the expected shape. See `errors` for each field.";
    UnknownField = "unknown_field", 422, "Unknown field",
        "The body has a field that this endpoint does not take. See `errors` for its name.";
    NotFound = "not_found", 404, "Not found",
        "There is nothing here. Check the path.";
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed",
        "This path does not take this method. See the Allow header.";

    // Values.
    InvalidEmail = "invalid_email", 422, "Invalid e-mail address",
        "This is not an address that mail can be sent to. Check it for typing errors.";
    InvalidUsername = "invalid_username", 422, "Invalid username",
        "A username has 3 to 64 ASCII letters, digits, dots, underscores or hyphens, and starts and ends with a letter \
         or digit. A few words are reserved.";
    InvalidDisplayName = "invalid_display_name", 422, "Invalid display name",
        "A display name has 1 to 128 characters and no line breaks or control characters.";
    InvalidLocale = "invalid_locale", 422, "Invalid locale",
        "A locale is a short language tag such as en or de-AT.";
    WeakPassword = "weak_password", 422, "Weak password",
        "The password cannot be accepted. See `errors` for every reason.";

    // People, sessions and credentials.
    EmailTaken = "email_taken", 409, "Address already registered",
        "An account with this e-mail address exists already. Log in instead.";
    UsernameTaken = "username_taken", 409, "Username taken",
        "Somebody else has this username. Choose another one.";
    RegistrationClosed = "registration_closed", 403, "Registration closed",
        "New accounts cannot be made here with this address. Ask the operator.";
    InvalidCredentials = "invalid_credentials", 401, "Invalid credentials",
        "The name or the password is wrong.";
    MissingToken = "missing_token", 401, "Missing token",
        "This needs a credential. Send the access token as Authorization: Bearer, or the refresh token in the body or its cookie.";
    NoCredential = "missing_token", 400, "Missing token",
        "Logging out needs a refresh token in the body or in its cookie, or an access token as Authorization: Bearer.";
    TooManyAttempts = "too_many_attempts", 429, "Too many attempts",
        "There were too many attempts in a short time, so there is a wait before the next one: see Retry-After.";
    BadOrigin = "bad_origin", 403, "Foreign origin",
        "A request with the refresh cookie, or for one, must come from a page of this server or of an origin that is listed \
         in LATCHKEY_CORS_ORIGINS. Nothing was done.";
    EmailNotVerified = "email_not_verified", 403, "Address not verified",
        "The e-mail address must be verified first. Ask for a code and enter it, then log in.";
    InvalidCode = "invalid_code", 400, "Invalid code",
        "This code does not work: it may be mistyped, used, older than ten minutes, or tried too often. Ask for a new one.";
    InvalidToken = "invalid_token", 401, "Invalid access token",
        "The access token is expired, ended or not one of ours. Refresh it or log in again.";
    InvalidRefreshToken = "invalid_refresh_token", 401, "Invalid refresh token",
        "The refresh token is expired, ended or not one of ours. Log in again.";
    RefreshTokenReused = "refresh_token_reused", 401, "Refresh token used twice",
        "This refresh token was used before, so the session was ended for safety. Log in again.";

    // Us.
    Busy = "busy", 503, "Busy",
        "Too many password checks are under way. Try again in a moment.";
    Unavailable = "unavailable", 503, "Temporarily unavailable",
        "A part this request needs does not answer. Try again in a moment.";
    Internal = "internal_error", 500, "Internal error",
        "Something went wrong on our side. The request id finds it in the log.";
}

/// Names the problems that one operation can answer, for its API document: `problems!(LoginProblems: Busy, …)` makes a type
/// that stands among its `responses(…)`. Problems that every operation can answer are added in `http::openapi`.
macro_rules! problems {
    ($name:ident: $($code:ident),+ $(,)?) => {
        pub(super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
                $crate::http::openapi::problem_responses(&[$($crate::error::Code::$code),+])
            }
        }
    };
}
pub(crate) use problems;

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One reason behind a 422, for one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// The field's name as this API spells it; an unknown field is `(unknown)`, since nothing of a request is echoed.
    pub field: &'static str,
    /// The stable word for the reason.
    pub code: &'static str,
    /// What is wrong and what would be right.
    pub detail: &'static str,
}

impl FieldFault {
    /// A reason about a field of ours.
    #[must_use]
    pub const fn new(field: &'static str, code: &'static str, detail: &'static str) -> Self {
        Self { field, code, detail }
    }
}

/// A refusal or a failure on its way to the client.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// What the client is told.
    pub code: Code,
    /// All reasons at once, for a 422.
    pub fields: Vec<FieldFault>,
    /// Seconds after which to try again; on 429 and 503 at least 1.
    pub retry_after: Option<u32>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    /// A refusal with nothing behind it.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { code, fields: Vec::new(), retry_after: (code.status() == 503).then_some(1), source: None }
    }

    /// A refusal that ends after `wait`.
    #[must_use]
    pub fn after(code: Code, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        Self { retry_after: Some(u32::try_from(seconds).unwrap_or(u32::MAX)), ..Self::new(code) }
    }

    /// A 422 with its reasons.
    #[must_use]
    pub fn fields(code: Code, fields: Vec<FieldFault>) -> Self {
        Self { fields, ..Self::new(code) }
    }

    /// Adds the error behind it, which is logged and never sent.
    #[must_use]
    pub fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    /// The error behind it with its own causes, for the log.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        let mut next: Option<&dyn std::error::Error> = Some(self.source.as_deref()?);
        let mut text = String::new();
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        Some(text)
    }

    /// The `WWW-Authenticate` value that belongs to the code (RFC 6750 §3), if any.
    #[must_use]
    pub const fn challenge(&self) -> Option<&'static str> {
        match self.code {
            Code::MissingToken => Some("Bearer"),
            Code::InvalidToken => Some("Bearer error=\"invalid_token\""),
            _ => None,
        }
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
