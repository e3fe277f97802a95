//! Traces, by the names that OpenTelemetry gives its settings (Environment Variable Specification): they stay bare, so
//! that what an operator sets for everything else in a cluster holds here, too.

use axum::http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::parse::Reader;

/// Where spans go and which ones are made. Without an endpoint there is none of this.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The collector.
    pub endpoint: Endpoint,
    /// What it wants to see in each request; their values print as `Sensitive`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is said of this process, `service.name` first.
    pub resource: Vec<(String, String)>,
    /// Which requests are recorded.
    pub sampler: Sampler,
}

/// A collector's address, OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Over TLS.
    pub https: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as they stand in `Host`.
    pub authority: String,
    /// Where traces go there.
    pub path: String,
}

/// Which requests are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether a caller that may say so decides.
    pub by_parent: bool,
    /// Otherwise so many of all: 0 none, 1 all.
    pub ratio: f64,
}

const SAMPLERS: [(&str, bool, Option<f64>); 6] = [
    ("always_on", false, Some(1.0)),
    ("always_off", false, Some(0.0)),
    ("traceidratio", false, None),
    ("parentbased_always_on", true, Some(1.0)),
    ("parentbased_always_off", true, Some(0.0)),
    ("parentbased_traceidratio", true, None),
];

/// What our requests have themselves.
const OWN_HEADERS: [&str; 6] = ["host", "content-type", "content-length", "transfer-encoding", "connection", "upgrade"];

impl Reader<'_> {
    /// Every setting of traces; faults are told whether they are on or not.
    #[expect(clippy::option_option, reason = "a fault and an absence are two things")]
    pub(super) fn traces(&mut self) -> Option<Option<TraceSettings>> {
        let endpoint = match self.text("OTEL_EXPORTER_OTLP_ENDPOINT") {
            None => Some(None),
            Some(text) => self.or_fault(endpoint(text).map(Some), "OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT),
        };
        let headers = match self.secret_text("OTEL_EXPORTER_OTLP_HEADERS") {
            None => None,
            Some(None) => Some(Vec::new()),
            Some(Some(text)) => self.or_fault(headers(text.expose()), "OTEL_EXPORTER_OTLP_HEADERS", HEADERS),
        };
        let attributes = self.text("OTEL_RESOURCE_ATTRIBUTES").map_or(Some(Vec::new()), pairs);
        let attributes = self.or_fault(attributes, "OTEL_RESOURCE_ATTRIBUTES", ATTRIBUTES);
        let name = self.text("OTEL_SERVICE_NAME");
        let known = self.text("OTEL_TRACES_SAMPLER").and_then(|text| SAMPLERS.iter().find(|(name, ..)| *name == text));
        let known = self.or_fault(known, "OTEL_TRACES_SAMPLER", SAMPLER);
        let ratio = self.text("OTEL_TRACES_SAMPLER_ARG").map_or(Some(1.0), ratio);
        let ratio = self.or_fault(ratio, "OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1");
        let (endpoint, headers, attributes, known, ratio) = (endpoint?, headers?, attributes?, known?, ratio?);
        let (_, by_parent, fixed) = *known;
        Some(endpoint.map(|endpoint| TraceSettings {
            endpoint,
            headers,
            resource: resource(name, attributes),
            sampler: Sampler { by_parent, ratio: fixed.unwrap_or(ratio) },
        }))
    }

    fn or_fault<T>(&mut self, value: Option<T>, name: &str, expected: &str) -> Option<T> {
        if value.is_none() {
            self.fault(name, expected);
        }
        value
    }
}

const ENDPOINT: &str = "http:// or https:// with a host, perhaps a port and a path, and no password; \
                        OTLP over HTTP, as http://localhost:4318";
const HEADERS: &str = "a comma list of name=value with values percent-encoded, and none that every request has";
const ATTRIBUTES: &str = "a comma list of key=value with values percent-encoded";
const SAMPLER: &str = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                       parentbased_traceidratio";

fn endpoint(text: &str) -> Option<Endpoint> {
    let uri: Uri = text.parse().ok().filter(|_| !text.contains(['#', '?', '@']))?;
    let (https, standard) = match uri.scheme_str()? {
        "https" => (true, 443),
        "http" => (false, 80),
        _ => return None,
    };
    let authority = uri.authority()?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let has_port = !authority.as_str().ends_with(authority.host());
    let port = if has_port { authority.port_u16().filter(|port| *port != 0)? } else { standard };
    let path = format!("{}/v1/traces", uri.path().trim_end_matches('/'));
    (!host.is_empty()).then(|| Endpoint { https, host, port, authority: authority.as_str().to_owned(), path })
}

/// `key=value,…`; values are percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |text: &str| {
        let (key, value) = text.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?.into_owned();
        let is_key = !key.trim().is_empty() && !key.chars().any(crate::names::is_unsafe);
        is_key.then(|| (key.trim().to_owned(), value))
    };
    text.split(',').filter(|text| !text.trim().is_empty()).map(pair).collect()
}

fn headers(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let header = |(name, value): (String, String)| {
        let name = HeaderName::try_from(name).ok().filter(|name| !OWN_HEADERS.contains(&name.as_str()))?;
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    pairs(text)?.into_iter().map(header).collect()
}

fn ratio(text: &str) -> Option<f64> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
}

/// `OTEL_SERVICE_NAME` wins over the attribute, and what this program knows of itself stands unless it is told otherwise.
fn resource(name: Option<&str>, attributes: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_name = |(key, _): &(String, String)| key == "service.name";
    let given = attributes.iter().find(|pair| is_name(pair)).map(|(_, value)| value.as_str());
    let name = name.or(given).unwrap_or("latchkey").to_owned();
    let mut resource = vec![("service.name".to_owned(), name)];
    resource.extend(attributes.into_iter().filter(|pair| !is_name(pair)));
    if !resource.iter().any(|(key, _)| key == "service.version") {
        resource.push(("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_base_of_where_traces_go() {
        for (text, https, host, port, path) in [
            ("http://localhost:4318", false, "localhost", 4318, "/v1/traces"),
            ("https://otel.example.com", true, "otel.example.com", 443, "/v1/traces"),
            ("http://collector/", false, "collector", 80, "/v1/traces"),
            ("https://[2001:db8::1]:4318/otlp/", true, "2001:db8::1", 4318, "/otlp/v1/traces"),
            ("http://[::1]", false, "::1", 80, "/v1/traces"),
        ] {
            let endpoint = endpoint(text).unwrap_or_else(|| panic!("{text}"));
            let found = (endpoint.https, endpoint.host.as_str(), endpoint.port, endpoint.path.as_str());
            assert_eq!(found, (https, host, port, path));
        }
        for text in [
            "localhost:4318",
            "grpc://x",
            "http://",
            "http://u:p@x",
            "http://x?y",
            "http://x#y",
            "http://x:0",
            "http://x:",
            "http://x:99999",
        ] {
            assert_eq!(endpoint(text), None, "{text}");
        }
    }

    #[test]
    fn a_service_has_one_name() {
        let attributes = || pairs("service.name=a,deployment.environment.name=prod%20one").unwrap();
        assert_eq!(resource(Some("b"), attributes())[0].1, "b");
        assert_eq!(resource(None, attributes())[0].1, "a");
        assert_eq!(resource(None, Vec::new())[0].1, "latchkey");
        assert!(resource(None, attributes()).contains(&("deployment.environment.name".into(), "prod one".into())));
        let keys: Vec<_> = resource(None, attributes()).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["service.name", "deployment.environment.name", "service.version"]);
    }
}
