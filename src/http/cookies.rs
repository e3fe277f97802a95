//! Cookies, in and out (RFC 6265; the prefix and `SameSite` as in draft-ietf-httpbis-rfc6265bis).
//!
//! Every cookie of ours has a `__Host-` name, so a browser takes it only with `Secure`, with `Path=/` and without a domain:
//! no sister host and no plain connection can plant one.
//!
//! A cookie comes along by itself, whoever made the page that sends the request. `SameSite=Strict` keeps pages of other
//! sites out; pages of the same site on another host or port are told apart by `Origin` ([`Origins`]), which a page cannot
//! forge: whatever acts on the
//! refresh cookie, or sets one, asks for it first. (The device cookie is read without: it is no credential.)

use std::time::Duration;

use axum::http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, ORIGIN},
};

use crate::{
    config::PublicUrl,
    error::{ApiError, Code},
};

/// The value of this cookie. Names of ours begin with `__Host-`, of which a browser sends one at most; of several, which
/// somebody made up, none counts.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // Bytes, since what a neighbour put beside ours may be no text at all.
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut found = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    let value = found.next()?;
    found.next().is_none().then(|| std::str::from_utf8(value).ok())?
}

/// A `Set-Cookie` that puts `value` under this name for so long, for this host and its own scripts not to see. Nothing at
/// all takes it away.
///
/// `None` when the value cannot stand in a header; none of ours is such a one.
#[must_use]
pub fn set_cookie(name: &str, value: &str, max_age: Duration) -> Option<HeaderValue> {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}", max_age.as_secs());
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The origins whose pages may act with a cookie: the public URL's own, and those that are listed.
#[derive(Clone, Copy, Debug)]
pub struct Origins<'a> {
    own: &'a PublicUrl,
    listed: &'a [PublicUrl],
}

impl<'a> Origins<'a> {
    /// These.
    #[must_use]
    pub fn new(own: &'a PublicUrl, listed: &'a [PublicUrl]) -> Self {
        Self { own, listed }
    }

    /// Lets pass what a page of one of them sent.
    ///
    /// # Errors
    /// `bad_origin`, also when there is no `Origin` or more than one: what is no browser has no need of cookies.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut given = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (given.next(), given.next()) else { return Err(Code::BadOrigin.into()) };
        let is_same = |url: &PublicUrl| origin.as_bytes() == url.origin().as_bytes();
        if is_same(self.own) || self.listed.iter().any(is_same) { Ok(()) } else { Err(Code::BadOrigin.into()) }
    }
}
