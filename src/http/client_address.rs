//! The client's address behind proxies.
//!
//! 1. The socket's peer is the client, unless `LATCHKEY_TRUSTED_PROXIES` says that it is one of ours.
//! 2. Then exactly one header is read, `LATCHKEY_PROXY_HEADER`: all its lines joined in order, from the right. Each of our
//!    proxies appended whom it saw, so the first hop from the right that is no proxy of ours is what one of ours saw,
//!    and whatever stands left of it is what that client claims.
//! 3. Anything that cannot be read on the way: the peer. No header makes an error, and none is a way around a limit.
//!
//! When every hop is one of ours the leftmost is the client: a request that began inside.

use std::{fmt, net::IpAddr};

use axum::http::{HeaderMap, HeaderName, header::FORWARDED};
use ipnet::IpNet;

/// Hops that are looked at; beyond that somebody is playing.
const MOST_HOPS: usize = 32;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header that our proxies write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, a list of addresses.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), of which `for` counts.
    Forwarded,
}

impl ProxyHeader {
    fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => FORWARDED,
        }
    }
}

/// Whom we believe about where a request came from.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    /// Networks of our proxies.
    pub networks: Vec<IpNet>,
    /// What they write.
    pub header: ProxyHeader,
}

/// Why an address is taken for the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No proxy is trusted, or the peer is none.
    PeerIsNoProxy,
    /// The peer is a proxy and said nothing.
    NoHeader,
    /// A hop cannot be read.
    Unreadable,
    /// The first hop from the right that is no proxy of ours; so many were passed over.
    Hop(usize),
    /// Every hop is ours; the leftmost.
    AllTrusted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerIsNoProxy => f.write_str("the peer is not in LATCHKEY_TRUSTED_PROXIES, so no header is read"),
            Self::NoHeader => f.write_str("the peer is a trusted proxy and sent no hop in LATCHKEY_PROXY_HEADER"),
            Self::Unreadable => f.write_str("a hop in LATCHKEY_PROXY_HEADER is no address, so the peer counts"),
            Self::Hop(0) => f.write_str("the last hop, which the trusted peer appended"),
            Self::Hop(passed) => write!(f, "the first hop from the right behind {passed} trusted one(s)"),
            Self::AllTrusted => f.write_str("every hop is a trusted proxy, so the first one counts"),
        }
    }
}

impl TrustedProxies {
    /// The client's address, v4-mapped addresses folded.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        self.explain(peer, headers).0
    }

    /// As [`TrustedProxies::client`], with the reason.
    #[must_use]
    pub fn explain(&self, peer: IpAddr, headers: &HeaderMap) -> (IpAddr, Reason) {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return (peer, Reason::PeerIsNoProxy);
        }
        let mut leftmost = None;
        let lines = headers.get_all(self.header.name());
        let hops = lines.iter().rev().flat_map(|line| self.elements(line.as_bytes()));
        for (passed, element) in hops.enumerate() {
            let Some(hop) = self.address(element).filter(|_| passed < MOST_HOPS) else {
                return (peer, Reason::Unreadable);
            };
            if !self.trusts(hop) {
                return (hop, Reason::Hop(passed));
            }
            leftmost = Some(hop);
        }
        leftmost.map_or((peer, Reason::NoHeader), |hop| (hop, Reason::AllTrusted))
    }

    /// Whether this is one of ours.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The elements of a line, the last one first and each only when it is asked for: what stands left of the hop that
    /// counts is a client's own words, and must not be able to spoil what our proxy appended to them.
    fn elements<'a>(&self, line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let has_quotes = self.header == ProxyHeader::Forwarded;
        let mut rest = Some(line);
        std::iter::from_fn(move || {
            let text = rest?;
            let mut quoted = false;
            let comma = text.iter().rposition(|byte| {
                quoted ^= has_quotes && *byte == b'"';
                *byte == b',' && !quoted
            });
            rest = comma.map(|at| &text[..at]);
            Some(comma.map_or(text, |at| &text[at + 1..]).trim_ascii())
        })
    }

    /// The address in one element of the header.
    fn address(&self, element: &[u8]) -> Option<IpAddr> {
        let element = std::str::from_utf8(element).ok()?;
        let node = match self.header {
            ProxyHeader::XForwardedFor => element,
            ProxyHeader::Forwarded => forwarded_for(element)?,
        };
        node_address(node)
    }
}

/// The node behind the one `for=` of a forwarded-element (RFC 7239 §4).
fn forwarded_for(element: &str) -> Option<&str> {
    let mut quoted = false;
    let divides = |c: char| {
        quoted ^= c == '"';
        c == ';' && !quoted
    };
    let mut found = element.split(divides).filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    });
    let value = found.next()?;
    if found.next().is_some() {
        return None;
    }
    match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').filter(|node| !node.contains(['"', '\\'])),
        None => Some(value),
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn node_address(node: &str) -> Option<IpAddr> {
    let address: IpAddr = if let Some(bracketed) = node.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        address.parse().ok().filter(|address: &IpAddr| is_port && address.is_ipv6())?
    } else if let Ok(address) = node.parse() {
        address
    } else {
        let (address, port) = node.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        address.parse().ok().filter(IpAddr::is_ipv4)?
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn explain(header: ProxyHeader, peer: &str, lines: &[(&str, &str)]) -> (String, Reason) {
        let networks = ["10.0.0.0/8", "2001:db8:aaaa::/48"].map(|text| text.parse().unwrap()).to_vec();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (address, reason) = TrustedProxies { networks, header }.explain(peer.parse().unwrap(), &headers);
        (address.to_string(), reason)
    }

    #[test]
    fn x_forwarded_for_is_believed_as_far_as_our_proxies_wrote_it() {
        use Reason::{AllTrusted, Hop, NoHeader, PeerIsNoProxy, Unreadable};
        let xff = "x-forwarded-for";
        for (peer, lines, address, reason) in [
            ("203.0.113.9", &[(xff, "198.51.100.1")][..], "203.0.113.9", PeerIsNoProxy),
            ("203.0.113.9", &[(xff, "10.0.0.1")], "203.0.113.9", PeerIsNoProxy),
            ("10.0.0.1", &[], "10.0.0.1", NoHeader),
            ("10.0.0.1", &[(xff, "198.51.100.1")], "198.51.100.1", Hop(0)),
            ("::ffff:10.0.0.1", &[(xff, "198.51.100.1")], "198.51.100.1", Hop(0)),
            ("10.0.0.1", &[(xff, "127.0.0.1, 198.51.100.1")], "198.51.100.1", Hop(0)),
            ("10.0.0.1", &[(xff, "198.51.100.1, 10.0.0.7,10.0.0.8")], "198.51.100.1", Hop(2)),
            ("10.0.0.1", &[(xff, "203.0.113.1"), (xff, "198.51.100.1")], "198.51.100.1", Hop(0)),
            ("10.0.0.1", &[(xff, "203.0.113.1"), (xff, "10.0.0.2")], "203.0.113.1", Hop(1)),
            ("10.0.0.1", &[(xff, "198.51.100.1:4711")], "198.51.100.1", Hop(0)),
            ("10.0.0.1", &[(xff, "2001:db8::1")], "2001:db8::1", Hop(0)),
            ("10.0.0.1", &[(xff, "[2001:db8::1]:4711")], "2001:db8::1", Hop(0)),
            ("10.0.0.1", &[(xff, "::ffff:198.51.100.1")], "198.51.100.1", Hop(0)),
            ("2001:db8:aaaa::1", &[(xff, "2001:db8:aaaa::2")], "2001:db8:aaaa::2", AllTrusted),
            ("10.0.0.1", &[(xff, "10.0.0.3, 10.0.0.2")], "10.0.0.3", AllTrusted),
            ("10.0.0.1", &[(xff, "unknown")], "10.0.0.1", Unreadable),
            ("10.0.0.1", &[(xff, "")], "10.0.0.1", Unreadable),
            ("10.0.0.1", &[(xff, "198.51.100.1,")], "10.0.0.1", Unreadable),
            ("10.0.0.1", &[(xff, "198.51.100.1, nonsense, 10.0.0.2")], "10.0.0.1", Unreadable),
            ("10.0.0.1", &[(xff, "198.51.100.1:99999")], "10.0.0.1", Unreadable),
            ("10.0.0.1", &[(xff, "[198.51.100.1]")], "10.0.0.1", Unreadable),
            ("10.0.0.1", &[(xff, "198.51.100.01")], "10.0.0.1", Unreadable),
            ("10.0.0.1", &[(xff, "\u{e9}")], "10.0.0.1", Unreadable),
            // What a client sends, and what the proxy appends to it on the same line.
            ("10.0.0.1", &[(xff, "\u{e9}, 198.51.100.1")], "198.51.100.1", Hop(0)),
            ("10.0.0.1", &[(xff, "\", 198.51.100.1")], "198.51.100.1", Hop(0)),
            ("10.0.0.1", &[(xff, "nonsense, 198.51.100.1, 10.0.0.2")], "198.51.100.1", Hop(1)),
            ("10.0.0.1", &[("x_forwarded_for", "198.51.100.1")], "10.0.0.1", NoHeader),
            ("10.0.0.1", &[("x-real-ip", "198.51.100.1"), ("forwarded", "for=198.51.100.1")], "10.0.0.1", NoHeader),
            (
                "10.0.0.1",
                &[("cf-connecting-ip", "198.51.100.1"), ("true-client-ip", "198.51.100.1")],
                "10.0.0.1",
                NoHeader,
            ),
        ] {
            let found = explain(ProxyHeader::XForwardedFor, peer, lines);
            assert_eq!(found, (address.to_owned(), reason), "{peer} {lines:?}");
        }
        let long = vec!["10.0.0.2"; 40].join(",");
        assert_eq!(explain(ProxyHeader::XForwardedFor, "10.0.0.1", &[(xff, &long)]).1, Reason::Unreadable);
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        use Reason::{Hop, NoHeader, Unreadable};
        for (value, address, reason) in [
            ("for=198.51.100.1", "198.51.100.1", Hop(0)),
            ("For=\"198.51.100.1:4711\";proto=https;by=10.0.0.1", "198.51.100.1", Hop(0)),
            ("proto=https;for=\"[2001:db8::1]:4711\"", "2001:db8::1", Hop(0)),
            ("for=203.0.113.1, for=198.51.100.1;host=\"a,b\", for=10.0.0.2", "198.51.100.1", Hop(1)),
            ("for=\", for=198.51.100.1", "198.51.100.1", Hop(0)),
            ("for=\u{e9}, for=198.51.100.1;host=\"a;for=x\"", "198.51.100.1", Hop(0)),
            ("for=unknown", "10.0.0.1", Unreadable),
            ("for=_hidden", "10.0.0.1", Unreadable),
            ("proto=https", "10.0.0.1", Unreadable),
            ("for=198.51.100.1;for=203.0.113.1", "10.0.0.1", Unreadable),
            ("for=\"198.51.100.1", "10.0.0.1", Unreadable),
            ("198.51.100.1", "10.0.0.1", Unreadable),
        ] {
            let found = explain(ProxyHeader::Forwarded, "10.0.0.1", &[("forwarded", value)]);
            assert_eq!(found, (address.to_owned(), reason), "{value}");
        }
        let found = explain(ProxyHeader::Forwarded, "10.0.0.1", &[("x-forwarded-for", "198.51.100.1")]);
        assert_eq!(found, ("10.0.0.1".to_owned(), NoHeader), "only the one header is read");
    }
}
