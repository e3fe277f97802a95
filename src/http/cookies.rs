//! Cookies that come with a request (RFC 6265 §5.4).

use axum::http::{HeaderMap, header::COOKIE};

/// The value of this cookie. Names of ours begin with `__Host-`, of which a browser sends one at most; of several, which
/// somebody made up, none counts.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut found = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(found, value)| (found == name).then_some(value));
    let value = found.next()?;
    found.next().is_none().then_some(value)
}
