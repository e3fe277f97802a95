//! Trace context as it comes in: `traceparent` and `tracestate` of W3C Trace Context (Recommendation of 23 November 2021).
//!
//! 1. One `traceparent` header, read strictly (§3.2): version 00 has its exact length; of a later version what version 00
//!    knows is read, and what follows it must be set apart. Version ff, ids of zeros, capital letters: no context at all.
//! 2. With it `tracestate` (§3.3), all its lines joined. One that cannot be read is dropped and the trace goes on; one that
//!    is too long loses its long members first, then its last ones.
//!
//! Nothing is sent back: `traceresponse` is no part of the Recommendation (it is a draft of its own), and who asks about an
//! answer has its `X-Request-Id`.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Characters of `tracestate` that are handed on, at least and here at most.
const MOST_STATE: usize = 512;
const MOST_MEMBERS: usize = 32;
/// Members longer than this go first.
const LONG_MEMBER: usize = 128;

/// Names a trace; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(pub [u8; 16]);

/// Names a span in it; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanId(pub [u8; 8]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// What a caller says about the trace that its request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub trace: TraceId,
    pub span: SpanId,
    /// The caller may have recorded its part. Only a claim.
    pub sampled: bool,
}

impl Parent {
    /// The context of a request, if it has one.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        Self::parse(value.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let version = hex::<1>(text.get(..2)?)?[0];
        let fits = match version {
            0 => text.len() == 55,
            0xff => false,
            _ => text.len() == 55 || text.get(55) == Some(&b'-'),
        };
        let are_apart = [2, 35, 52].iter().all(|&at| text.get(at) == Some(&b'-'));
        if !fits || !are_apart {
            return None;
        }
        let trace = hex(text.get(3..35)?)?;
        let span = hex(text.get(36..52)?)?;
        let flags = hex::<1>(text.get(53..55)?)?[0];
        let are_ids = trace != [0; 16] && span != [0; 8];
        are_ids.then_some(Self { trace: TraceId(trace), span: SpanId(span), sampled: flags & 1 == 1 })
    }
}

/// Lower-case digits only.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (text.len() == 2 * N).then_some(bytes)
}

/// The `tracestate` of a request that has a `traceparent`, as it is handed on; `None` when there is none to hand on.
pub(super) fn state(headers: &HeaderMap) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        // Empty members are allowed, for they are easily made (§3.3.1.1).
        members.extend(value.to_str().ok()?.split(',').map(|member| member.trim_matches([' ', '\t'])));
    }
    members.retain(|member| !member.is_empty());
    let mut keys: Vec<&str> = members.iter().filter_map(|member| key_of(member)).collect();
    keys.sort_unstable();
    keys.dedup();
    if members.is_empty() || members.len() > MOST_MEMBERS || keys.len() != members.len() {
        return None;
    }
    let length = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>() - 1;
    while length(&members) > MOST_STATE {
        let long = members.iter().rposition(|member| member.len() > LONG_MEMBER);
        members.remove(long.unwrap_or(members.len() - 1));
        if members.is_empty() {
            return None;
        }
    }
    Some(members.join(","))
}

/// The key of a well-formed member.
fn key_of(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_word = |text: &str, most: usize, may_begin_with_digit: bool| {
        let begins = |b: &u8| b.is_ascii_lowercase() || (may_begin_with_digit && b.is_ascii_digit());
        (1..=most).contains(&text.len())
            && text.as_bytes().first().is_some_and(begins)
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/".contains(&b))
    };
    let is_key = match key.split_once('@') {
        None => is_word(key, 256, false),
        Some((tenant, system)) => is_word(tenant, 241, true) && is_word(system, 14, false),
    };
    let is_value =
        (1..=256).contains(&value.len()) && value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=' && b != b',');
    (is_key && is_value).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parent(texts: &[&str]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(TRACEPARENT, text.parse().unwrap());
        }
        Parent::of(&headers)
    }

    #[test]
    fn a_traceparent_is_read_by_the_rules_of_its_version() {
        for (text, sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-03"), true),
            (format!("00-{TRACE}-{SPAN}-fe"), false),
            (format!("01-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), true),
            (format!("fe-{TRACE}-{SPAN}-01-"), true),
        ] {
            let parent = parent(&[&text]).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((parent.trace.to_string(), parent.span.to_string()), (TRACE.into(), SPAN.into()));
            assert_eq!(parent.sampled, sampled, "{text}");
        }
    }

    #[test]
    fn whatever_else_is_no_context() {
        let whole = format!("00-{TRACE}-{SPAN}-01");
        for text in [
            String::new(),
            "00".into(),
            format!("{whole}-"),
            format!("{whole}-00"),
            format!("{whole}0"),
            whole[..54].to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-001"),
            format!("01-{TRACE}-{SPAN}-01.x"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0G"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}_01"),
            format!("00-{SPAN}-{TRACE}-01"),
            format!("00-{TRACE}-{SPAN}-1 "),
            format!("00-{}-{SPAN}-01", TRACE.replace('0', "+")),
        ] {
            assert_eq!(parent(&[&text]), None, "{text}");
        }
        assert_eq!(parent(&[]), None);
        assert_eq!(parent(&[&whole, &whole]), None, "which of them?");
    }

    fn handed_on(texts: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(TRACESTATE, text.parse().unwrap());
        }
        state(&headers)
    }

    #[test]
    fn a_tracestate_is_handed_on_as_it_is() {
        for text in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "1tenant@system=x y!", "a_-*/0=~"] {
            assert_eq!(handed_on(&[text]).as_deref(), Some(text));
        }
        assert_eq!(handed_on(&["a=1, b=2", ",", "c=3\t"]).as_deref(), Some("a=1,b=2,c=3"));
        let most: Vec<String> = (0..32).map(|number| format!("k{number}=v")).collect();
        assert_eq!(handed_on(&[&most.join(",")]), Some(most.join(",")));
    }

    #[test]
    fn a_tracestate_that_cannot_be_read_is_dropped() {
        for text in [
            "",
            "a",
            "a=",
            "=1",
            "A=1",
            "1=x",
            "a=1,a=2",
            "a=b=c",
            "a@=1",
            "a@b@c=1",
            "a@0s=1",
            "a b=1",
            "a=1;b=2\u{7f}",
        ] {
            let mut headers = HeaderMap::new();
            headers.append(
                TRACESTATE,
                axum::http::HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| "A".parse().unwrap()),
            );
            assert_eq!(state(&headers), None, "{text}");
        }
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
        assert_eq!(handed_on(&[&many.join(",")]), None);
        assert_eq!(handed_on(&[&format!("{}=v", "k".repeat(257))]), None);
        assert_eq!(handed_on(&[&format!("k={}", "v".repeat(257))]), None);
    }

    #[test]
    fn of_a_long_tracestate_long_members_go_first() {
        let (long, short) = (format!("long={}", "v".repeat(200)), |n: u32| format!("s{n}={}", "v".repeat(100)));
        let text = format!("{long},{},{},{},{}", short(1), short(2), short(3), short(4));
        assert_eq!(handed_on(&[&text]), Some([short(1), short(2), short(3), short(4)].join(",")));
        let text: Vec<String> = (1..=6).map(short).collect();
        assert_eq!(handed_on(&[&text.join(",")]), Some(text[..4].join(",")));
    }
}
