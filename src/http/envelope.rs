//! What every response has, and the one place where problems are rendered and requests are logged.
//!
//! 1. The request gets an id: its own `X-Request-Id` if that is harmless, else a new one.
//! 2. More than 100 header lines or one over 8 KiB (431) and a declared body over 16 KiB (413) go no further.
//! 3. The route runs in a span that carries id and client address; a handler adds person and session.
//! 4. An [`ApiError`] in the response's extensions becomes its RFC 9457 body.
//!    A panic below is a 500 for one client and not the end of its connection; CORS (`cors.rs`) lets listed origins read.
//! 5. Headers of the contract are added, and the request ends in one line at `info`, also when its client hung up.
//!    What is behind a 5xx is logged at `error`, behind a refusal at `debug`.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    Json as JsonBody,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
            STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use serde::Serialize;
use tracing::{Instrument, field};

use super::{
    Cors, Refusals, TrustedProxies,
    context::{ClientAddress, RequestId, peer},
};
use crate::{
    ambient::Ambient,
    error::{ApiError, Code},
    metrics::Metrics,
    telemetry,
};

/// The most a request body may have.
pub const MOST_BODY_BYTES: usize = 16 * 1024;
const MOST_HEADER_LINE_BYTES: usize = 8 * 1024;
/// On HTTP/1.1 hyper sees to that. On HTTP/2 a byte can stand for a line that came before, so a head of a few bytes would
/// be thousands of lines.
const MOST_HEADER_LINES: usize = 100;
/// What the log has for a status when the client hung up before there was one (nginx's word for it).
const CLIENT_GONE: u16 = 499;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the envelope needs to know.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Where request ids come from.
    pub ambient: Ambient,
    /// The base of `type` URIs.
    pub public_url: String,
    /// Whether people come over TLS.
    pub https: bool,
    /// Whom to believe about a client's address.
    pub proxies: TrustedProxies,
    /// What was refused.
    pub refusals: Refusals,
    /// What was asked.
    pub metrics: Arc<Metrics>,
    /// Whose pages may call.
    pub cors: Cors,
}

/// The middleware.
pub async fn envelope(State(envelope): State<Arc<Envelope>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers(), &envelope.ambient);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut counted = envelope.metrics.requests.begin(route.as_ref().map(MatchedPath::as_str), &method, started);
    let address = envelope.proxies.client(peer(request.extensions()), request.headers());
    let trace = telemetry::arrive(request.headers(), || envelope.proxies.trusts(peer(request.extensions())));
    let span = tracing::info_span!(
        "request",
        request_id = id,
        %address,
        trace_id = trace.trace.map(field::display),
        span_id = trace.server.as_ref().map(|server| field::display(server.id())),
        person = field::Empty,
        session = field::Empty
    );
    if let Some(server) = &trace.server {
        server.attach(&span);
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(ClientAddress(address));

    let mut line = Line {
        span: span.clone(),
        recorded: trace.server.map(|server| (server, id.clone())),
        method,
        route,
        started,
        outcome: None,
    };
    let mut response = match oversized(request.headers()) {
        Some(code) => ApiError::new(code).into_response(),
        None => {
            let answer = AssertUnwindSafe(envelope.cors.pass(request, next)).catch_unwind().instrument(span);
            answer.await.unwrap_or_else(panicked)
        }
    };
    let problem = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = &problem {
        envelope.refusals.count(error.code);
        response = render(error, response, &id, &envelope);
    }
    headers(response.headers_mut(), &id, envelope.https);
    counted.answered(response.status());
    line.outcome = Some((response.status().as_u16(), problem));
    response
}

/// The one line a request ends in, written when it is dropped: a client that hangs up takes the rest of the envelope with
/// it, and its request is still to be seen.
struct Line {
    span: tracing::Span,
    /// The request's span for a collector, and its id.
    recorded: Option<(Box<telemetry::Server>, String)>,
    method: Method,
    route: Option<MatchedPath>,
    started: Instant,
    outcome: Option<(u16, Option<ApiError>)>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        let (method, template) = (self.method.as_str(), self.route.as_ref().map(MatchedPath::as_str));
        let route = template.unwrap_or("(none)");
        let took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (status, problem) =
            self.outcome.as_ref().map_or((CLIENT_GONE, None), |(status, problem)| (*status, problem.as_ref()));
        let code = problem.map(|error| error.code.as_str());
        match problem.and_then(ApiError::cause) {
            Some(cause) if status >= 500 => tracing::error!(code, cause, "request failed"),
            Some(cause) => tracing::debug!(code, cause, "request refused"),
            None => {}
        }
        tracing::info!(method, route, status, code, took_ms, "request");
        if let Some((server, id)) = self.recorded.take() {
            server.end(&self.method, template, status, code, id);
        }
    }
}

fn request_id(headers: &HeaderMap, ambient: &Ambient) -> String {
    let harmless = |text: &&str| {
        (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(harmless);
    given.map_or_else(|| ambient.uuid().to_string(), str::to_owned)
}

fn oversized(headers: &HeaderMap) -> Option<Code> {
    if headers.len() > MOST_HEADER_LINES
        || headers.iter().any(|(name, value)| name.as_str().len() + value.len() > MOST_HEADER_LINE_BYTES)
    {
        return Some(Code::HeaderTooLarge);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    length.is_some_and(|length: u64| length > MOST_BODY_BYTES as u64).then_some(Code::BodyTooLarge)
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Reason<'a>>,
}

#[derive(Serialize)]
struct Reason<'a> {
    field: &'a str,
    code: &'static str,
    detail: &'static str,
}

fn render(error: &ApiError, bare: Response, id: &str, envelope: &Envelope) -> Response {
    let code = error.code;
    let mut response = JsonBody(Problem {
        r#type: format!("{}/docs/errors#{code}", envelope.public_url),
        title: code.title(),
        status: code.status(),
        code: code.as_str(),
        detail: code.detail(),
        request_id: id,
        errors: error
            .fields
            .iter()
            .map(|fault| Reason { field: fault.field, code: fault.code, detail: fault.detail })
            .collect(),
    })
    .into_response();
    *response.status_mut() = bare.status();
    let (bare, _) = bare.into_parts();
    let headers = response.headers_mut();
    // What the route had to say beside the problem: `Allow` on a 405.
    headers
        .extend(bare.headers.into_iter().filter(|(name, _)| name.as_ref().is_some_and(|name| name != CONTENT_LENGTH)));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(challenge) = error.challenge() {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(seconds) = error.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}

fn headers(headers: &mut HeaderMap, id: &str, https: bool) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if https {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000"));
    }
}

/// The answer for a path that is none.
pub async fn not_found() -> ApiError {
    Code::NotFound.into()
}

/// The answer for a method that the path does not have; axum adds `Allow`. OPTIONS asks for just that.
pub async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    ApiError::new(Code::MethodNotAllowed).into_response()
}

/// The answer when a handler panicked. What it panicked with may quote anything, so only its place is logged, by the hook.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::new(Code::Internal).into_response()
}
