//! Spans: what a traced request did, when, and for how long.
//!
//! 1. A request arrives ([`arrive`]). Its caller's trace goes on if it has one ([`super::context`]); the id of that trace
//!    is on each of its log lines, recorded or not.
//! 2. Whether it is recorded is our decision ([`Tracer::samples`]). A caller's word counts only if it comes through a
//!    trusted proxy and the sampler is parent-based. A share is drawn by our own dice where a stranger chose the trace's
//!    id: whoever may choose the id would choose whether it falls into the share.
//! 3. A recorded request has a [`Server`] span. What it asks of stores, hashing threads and mail servers are children of it:
//!    tracing spans with the target [`SPAN`], which no log shows and nobody makes while nothing is exported.
//! 4. What has ended goes into the queue of [`mod@super::export`].
//!
//! A span tells what our sources say (routes, stores, outcomes), never what a client sent: no path, no query, no header, and
//! nobody's address.

use std::{borrow::Cow, fmt, sync::Arc, time::Instant};

use axum::http::{HeaderMap, Method};
use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Registry,
    registry::{LookupSpan, SpanRef},
};

use super::{
    context::{self, Parent, SpanId, TraceId},
    export::Queue,
};
use crate::{ambient::Ambient, config::Sampler};

/// The target of tracing spans that are children of a traced request.
pub(crate) const SPAN: &str = "latchkey::span";

/// Makes spans; there is none while nothing is exported.
#[derive(Clone, Debug)]
pub(crate) struct Tracer {
    pub(super) queue: Arc<Queue>,
    pub(super) sampler: Sampler,
    pub(super) ambient: Ambient,
}

/// A span's place in its trace, from which its children hang.
#[derive(Clone, Debug)]
struct Node {
    trace: TraceId,
    span: SpanId,
    /// Of the trace as we first saw it: children count from there, so that they are in step with each other.
    began: Began,
    state: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Began {
    unix_nanos: u64,
    at: Instant,
}

impl Began {
    fn nanos(self, at: Instant) -> u64 {
        let since = u64::try_from(at.saturating_duration_since(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.unix_nanos.saturating_add(since)
    }
}

/// What kind of span; the numbers are those of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub trace: TraceId,
    pub span: SpanId,
    pub parent: Option<SpanId>,
    pub is_parent_remote: bool,
    pub state: Option<Arc<str>>,
    pub name: Cow<'static, str>,
    pub kind: Kind,
    pub start: u64,
    pub end: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub failed: bool,
}

/// A request's place in a trace, if it has one.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// The trace that its caller began, or we.
    pub trace: Option<TraceId>,
    /// If it is recorded.
    pub server: Option<Box<Server>>,
}

/// The span of a recorded request.
#[derive(Debug)]
pub(crate) struct Server {
    node: Node,
    parent: Option<SpanId>,
    tracer: Tracer,
}

/// Looks where a request belongs. `is_trusted` says whether its peer is a proxy of ours.
pub(crate) fn arrive(headers: &HeaderMap, is_trusted: impl FnOnce() -> bool) -> Arrival {
    let parent = Parent::of(headers);
    let trace = parent.map(|parent| parent.trace);
    let Some(tracer) = super::tracer() else { return Arrival { trace, server: None } };
    let by_word = parent.is_some() && is_trusted();
    let trace = trace.unwrap_or_else(|| tracer.trace_id());
    if !tracer.samples(trace, parent, by_word) {
        return Arrival { trace: Some(trace), server: None };
    }
    let state = parent.and_then(|_| context::state(headers)).map(Arc::from);
    let server =
        Server { node: tracer.node(trace, state), parent: parent.map(|parent| parent.span), tracer: tracer.clone() };
    Arrival { trace: Some(trace), server: Some(Box::new(server)) }
}

impl Tracer {
    /// Whether a trace is recorded. `by_word`: what its caller says may be believed.
    fn samples(&self, trace: TraceId, parent: Option<Parent>, by_word: bool) -> bool {
        let Sampler { by_parent, ratio } = self.sampler;
        match parent {
            Some(parent) if by_parent && by_word => parent.sampled,
            _ if ratio >= 1.0 => true,
            _ if ratio <= 0.0 => false,
            // The end of the id, as everybody else does, so that services with one ratio record the same traces.
            Some(_) if by_word => is_within(ratio, &trace.0[8..]),
            None => is_within(ratio, &trace.0[8..]),
            Some(_) => is_within(ratio, &self.ambient.bytes::<8>()),
        }
    }

    fn node(&self, trace: TraceId, state: Option<Arc<str>>) -> Node {
        let millis = u64::try_from(self.ambient.now().millis()).unwrap_or(0);
        let began = Began { unix_nanos: millis.saturating_mul(1_000_000), at: Instant::now() };
        Node { trace, span: self.span_id(), began, state }
    }

    /// Never zeros, which are no id.
    fn span_id(&self) -> SpanId {
        let [first, rest @ ..] = self.ambient.bytes::<8>();
        let mut id = [first.max(1); 8];
        id[1..].copy_from_slice(&rest);
        SpanId(id)
    }

    fn trace_id(&self) -> TraceId {
        let [first, rest @ ..] = self.ambient.bytes::<16>();
        let mut id = [first.max(1); 16];
        id[1..].copy_from_slice(&rest);
        TraceId(id)
    }

    /// A tracing span with the target [`SPAN`] begins.
    pub(super) fn open<S: for<'a> LookupSpan<'a>>(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        span: &SpanRef<'_, S>,
    ) {
        let above = span.scope().skip(1).find_map(|span| span.extensions().get::<Node>().cloned());
        let mut told = Told::default();
        attributes.record(&mut told);
        let (node, parent) = match above {
            Some(above) => (Node { span: self.span_id(), ..above.clone() }, Some(above.span)),
            // Nobody's child is not worth a trace, unless it says so: stores are asked all the time.
            None if told.is_root => {
                let trace = self.trace_id();
                if !self.samples(trace, None, false) {
                    return;
                }
                (self.node(trace, None), None)
            }
            None => return,
        };
        let mut extensions = span.extensions_mut();
        extensions.insert(Open { node: node.clone(), parent, at: Instant::now(), name: span.name(), told });
        extensions.insert(node);
    }

    /// It has ended.
    pub(super) fn close<S: for<'a> LookupSpan<'a>>(&self, span: &SpanRef<'_, S>) {
        let Some(Open { node, parent, at, name, told }) = span.extensions_mut().remove() else { return };
        self.queue.put(Finished {
            trace: node.trace,
            span: node.span,
            parent,
            is_parent_remote: false,
            start: node.began.nanos(at),
            end: node.began.nanos(Instant::now()),
            state: node.state,
            name: Cow::Borrowed(name),
            kind: told.kind.unwrap_or(Kind::Internal),
            attributes: told.attributes,
            failed: told.failed,
        });
    }
}

/// Whether the last 56 bits, as a fraction of all there are, lie below `ratio`.
fn is_within(ratio: f64, bytes: &[u8]) -> bool {
    let bits = bytes.iter().skip(bytes.len().saturating_sub(7)).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact to the last of 56 bits")]
    let share = bits as f64 / (1_u64 << 56) as f64;
    share < ratio
}

impl Server {
    /// The id of the span, for log lines.
    pub(crate) fn id(&self) -> SpanId {
        self.node.span
    }

    /// Makes it the parent of what begins inside of `span`.
    pub(crate) fn attach(&self, span: &tracing::Span) {
        span.with_subscriber(|(id, dispatch)| {
            if let Some(span) = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
                span.extensions_mut().insert(self.node.clone());
            }
        });
    }

    /// It has ended, by the semantic conventions for HTTP servers. `route` is a template of ours, `code` a word of ours.
    pub(crate) fn end(
        self,
        method: &Method,
        route: Option<&str>,
        status: u16,
        code: Option<&'static str>,
        request_id: String,
    ) {
        // A method is what a client makes of it; those that are none of HTTP's all look alike here.
        let known = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
            Method::TRACE,
            Method::CONNECT,
        ];
        let known = known.iter().find(|known| *known == method).map(ToString::to_string);
        let (word, method) =
            known.map_or_else(|| ("HTTP".to_owned(), "_OTHER".to_owned()), |name| (name.clone(), name));
        let mut attributes = vec![
            ("http.request.method", Value::Text(method.into())),
            ("http.response.status_code", Value::Number(status.into())),
            ("url.scheme", Value::Text(self.tracer.queue.scheme().into())),
            ("latchkey.request_id", Value::Text(request_id.into())),
        ];
        let name = match route {
            Some(route) => format!("{word} {route}"),
            None => word,
        };
        if let Some(route) = route {
            attributes.push(("http.route", Value::Text(route.to_owned().into())));
        }
        if let Some(code) = code {
            attributes.push(("error.type", Value::Text(code.into())));
        } else if status >= 500 {
            attributes.push(("error.type", Value::Text(status.to_string().into())));
        }
        let Node { trace, span, began, state } = self.node;
        self.tracer.queue.put(Finished {
            trace,
            span,
            parent: self.parent,
            is_parent_remote: self.parent.is_some(),
            state,
            name: name.into(),
            kind: Kind::Server,
            start: began.unix_nanos,
            end: began.nanos(Instant::now()),
            attributes,
            // What a client did wrong is no failure of ours.
            failed: status >= 500,
        });
    }
}

/// A child that has not ended.
struct Open {
    node: Node,
    parent: Option<SpanId>,
    at: Instant,
    name: &'static str,
    told: Told,
}

/// What the fields of a tracing span say. `otel.…` are ours to understand, all else is an attribute.
#[derive(Default)]
struct Told {
    kind: Option<Kind>,
    is_root: bool,
    failed: bool,
    attributes: Vec<(&'static str, Value)>,
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        match (field.name(), value) {
            ("otel.kind", "client") => self.kind = Some(Kind::Client),
            (name, value) => self.attributes.push((name, Value::Text(value.to_owned().into()))),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "otel.root" => self.is_root = value,
            "otel.failed" => self.failed = value,
            _ => {}
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attributes.push((field.name(), Value::Number(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record_i64(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Nothing whose text we do not know.
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// A tracing span was told more.
pub(super) fn amend<S: Subscriber + for<'a> LookupSpan<'a>>(span: &SpanRef<'_, S>, values: &tracing::span::Record<'_>) {
    if let Some(open) = span.extensions_mut().get_mut::<Open>() {
        values.record(&mut open.told);
    }
}
