//! What a client gets for a sign-in or a refresh.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::RefreshToken;
use crate::{
    BUILT_IN_CLIENT, BUILT_IN_SCOPE,
    app::App,
    db::Timestamp,
    ephemeral::SessionRecord,
    error::{ApiError, Code},
    keys::{AccessClaims, Audience, Signer},
    secret::SecretText,
};

/// RFC 6749 §5.1, with what our clients want to know besides.
#[derive(Serialize, ToSchema)]
pub(super) struct Tokens {
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiIsImtpZCI6Ij…")]
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 300)]
    expires_in: u64,
    /// Not in cookie transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "lkr_AT0BogPFNkVw…")]
    refresh_token: Option<String>,
    /// Seconds until the session is dead, unless refreshed before.
    #[schema(example = 604_800)]
    refresh_expires_in: u64,
    session_id: Uuid,
    /// Shows at the next sign-in that this device was here before; left out when there is no new one, and in cookie
    /// transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "lkd_AT0BogPFNkVw…")]
    device_token: Option<String>,
}

impl Tokens {
    /// With a new device token beside them.
    pub(super) fn with_device(self, token: Option<SecretText>) -> Self {
        Self { device_token: token.map(|token| token.expose().to_owned()), ..self }
    }

    /// The rest, the refresh token with its lifetime, and the device token.
    pub(super) fn without_secrets(mut self) -> (Self, Option<(SecretText, Duration)>, Option<SecretText>) {
        let lifetime = Duration::from_secs(self.refresh_expires_in);
        let refresh = self.refresh_token.take().map(|text| (SecretText::new(text), lifetime));
        let device = self.device_token.take().map(SecretText::new);
        (self, refresh, device)
    }
}

/// Makes both tokens for a session as it stands at `now`.
///
/// # Errors
/// `unavailable` when the signing library has no randomness.
pub(super) fn issue(
    app: &App,
    signer: &Signer,
    now: Timestamp,
    token: &RefreshToken,
    record: &SessionRecord,
    roles: Vec<String>,
) -> Result<Tokens, ApiError> {
    let settings = &app.config.tokens;
    let claims = AccessClaims {
        iss: app.config.public_url.as_str().to_owned(),
        sub: token.person,
        aud: Audience::new(&settings.audience),
        client_id: BUILT_IN_CLIENT.to_owned(),
        scope: BUILT_IN_SCOPE.to_owned(),
        iat: now.seconds(),
        exp: now.after(settings.access_ttl).seconds(),
        nbf: None,
        jti: app.ambient.uuid(),
        sid: token.session,
        auth_time: Some(record.created_at.seconds()),
        amr: vec!["pwd".to_owned()],
        roles,
    };
    let access_token = signer.sign(&claims).ok_or(Code::Unavailable)?;
    let refresh_token = RefreshToken { generation: record.generation, ..token.clone() }.render(&app.secrets);
    Ok(Tokens {
        access_token,
        token_type: "Bearer",
        expires_in: settings.access_ttl.as_secs(),
        refresh_token: Some(refresh_token.expose().to_owned()),
        refresh_expires_in: record.expires_at().seconds_since(now),
        session_id: token.session,
        device_token: None,
    })
}
