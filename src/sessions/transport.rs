//! How a refresh token travels: in the body, or in a cookie that no script can read.
//!
//! 1. A sign-in says which (`refresh_transport`). In cookie transport refresh token and device token are cookies and no
//!    part of the body, and the session of the cookie that came along ends with the sign-in: a browser has one.
//! 2. A refresh answers in the transport that its token came by. Exactly one credential counts: the token in the body,
//!    else the cookie, else (logout) the access token; with a token in the body cookies are neither looked at nor set.
//! 3. Whatever acts on the cookie or asks for one is from a page of an origin that is ours or listed, or it is refused
//!    before anything is looked at (`http::Origins`).
//! 4. A cookie that is refused is left where it is: the page of another tab may have signed in a moment ago, and it would
//!    be that new cookie that a late answer takes away. The next sign-in replaces it, and a logout takes it away.
//!
//! The device cookie stays at a logout: it says which device this is, and not who.

use axum::{
    Json as JsonBody,
    http::{HeaderMap, HeaderValue, header::SET_COOKIE},
};

use super::{
    RefreshToken,
    device_token::{self, LIFETIME},
    tokens::Tokens,
};
use crate::{
    app::App,
    error::ApiError,
    http::{Origins, cookie, set_cookie},
    secret::SecretText,
};

/// Where browsers keep the refresh token.
const COOKIE: &str = "__Host-latchkey_refresh";

/// How a refresh token travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Transport {
    /// In the JSON body, for programs that keep it themselves.
    #[default]
    Body,
    /// In a cookie, for pages in browsers.
    Cookie,
}

impl Transport {
    /// The words of the API.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "body" => Some(Self::Body),
            "cookie" => Some(Self::Cookie),
            _ => None,
        }
    }

    /// The answer that carries these tokens.
    pub(super) fn answer(self, tokens: Tokens) -> (HeaderMap, JsonBody<Tokens>) {
        let mut headers = HeaderMap::new();
        if self == Self::Body {
            return (headers, JsonBody(tokens));
        }
        let (tokens, refresh, device) = tokens.without_secrets();
        let refresh = refresh.and_then(|(text, lifetime)| set_cookie(COOKIE, text.expose(), lifetime));
        let device = device.and_then(|text| set_cookie(device_token::COOKIE, text.expose(), LIFETIME));
        for cookie in [refresh, device].into_iter().flatten() {
            headers.append(SET_COOKIE, cookie);
        }
        (headers, JsonBody(tokens))
    }
}

/// The refresh token that counts, as text, and how it came.
pub(super) fn presented(
    app: &App,
    body: Option<SecretText>,
    headers: &HeaderMap,
) -> Result<Option<(SecretText, Transport)>, ApiError> {
    if let Some(text) = body {
        return Ok(Some((text, Transport::Body)));
    }
    let Some(text) = cookie(headers, COOKIE) else { return Ok(None) };
    admit(app, headers)?;
    Ok(Some((SecretText::new(text), Transport::Cookie)))
}

/// The session that a sign-in in this transport replaces: the one of the cookie it came with.
pub(super) fn replaced(app: &App, transport: Transport, headers: &HeaderMap) -> Result<Option<RefreshToken>, ApiError> {
    if transport == Transport::Body {
        return Ok(None);
    }
    admit(app, headers)?;
    Ok(cookie(headers, COOKIE).and_then(|text| RefreshToken::parse(text, &app.secrets)))
}

/// What takes the cookie away.
pub(super) fn cleared() -> Option<HeaderValue> {
    set_cookie(COOKIE, "", std::time::Duration::ZERO)
}

fn admit(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    Origins::new(&app.config.public_url, &app.config.cors_origins).admit(headers)
}
