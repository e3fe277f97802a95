//! The public URL.

use std::fmt;

use axum::http::Uri;

/// The public URL: scheme, host and perhaps port, in canonical form and without a trailing slash.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    host: String,
    https: bool,
    loopback: bool,
}

impl PublicUrl {
    /// Takes `http(s)://host[:port]` and nothing behind it; the host is lower-cased.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        let bare = format!("{}://{authority}", uri.scheme_str()?);
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let is_host = crate::names::canonical_domain(&host).is_some() || host.parse::<std::net::IpAddr>().is_ok();
        if !bare.eq_ignore_ascii_case(text) || authority.contains('@') || !is_host {
            return None;
        }
        let loopback = host == "localhost"
            || host.ends_with(".localhost")
            || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        Some(Self { text: bare.to_ascii_lowercase(), host, https, loopback })
    }

    /// The URL as it stands in `iss` and before every path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same as browsers write it in `Origin`: without the port that the scheme has anyway (RFC 6454 §6.1).
    #[must_use]
    pub fn origin(&self) -> &str {
        self.text.strip_suffix(if self.https { ":443" } else { ":80" }).unwrap_or(&self.text)
    }

    /// The host, lower-cased and without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether people reach it over TLS, which is when production rules begin.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Whether it can only be reached on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }
}

impl fmt::Debug for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
