//! A collector of traces that takes them, or does what collectors do on bad days. It reads what it gets strictly, by the JSON
//! mapping of OpenTelemetry's `trace.proto`: a field that is missing, unknown or of another kind is no OTLP.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Deserializer, de::Error};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportTraceServiceRequest {
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceSpans {
    pub resource: Resource,
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeSpans {
    pub scope: Scope,
    pub spans: Vec<Span>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    pub name: String,
    pub version: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Span {
    #[serde(deserialize_with = "id::<_, 16>")]
    pub trace_id: Vec<u8>,
    #[serde(deserialize_with = "id::<_, 8>")]
    pub span_id: Vec<u8>,
    #[serde(default, deserialize_with = "id::<_, 8>")]
    pub parent_span_id: Vec<u8>,
    #[serde(default)]
    pub trace_state: String,
    pub flags: u32,
    pub name: String,
    pub kind: i32,
    #[serde(deserialize_with = "fixed64")]
    pub start_time_unix_nano: u64,
    #[serde(deserialize_with = "fixed64")]
    pub end_time_unix_nano: u64,
    pub attributes: Vec<KeyValue>,
    pub status: Option<Status>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    pub code: i32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyValue {
    pub key: String,
    pub value: AnyValue,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AnyValue {
    StringValue(String),
    #[serde(deserialize_with = "int64")]
    IntValue(i64),
}

/// Bytes in hexadecimal, as OTLP has ids instead of the base64 of protobuf's mapping; zeros are none.
fn id<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes: Option<Vec<u8>> =
        (0..text.len() / 2).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    let bytes = bytes.filter(|bytes| text.len() == 2 * N && bytes.iter().any(|byte| *byte != 0));
    bytes.ok_or_else(|| D::Error::custom(format!("no id of {N} bytes: {text}")))
}

fn fixed64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// What it does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Take,
    /// Refuses with this status, and perhaps a `Retry-After` in seconds.
    Refuse(u16, Option<u32>),
    /// Takes it that much later.
    Late(Duration),
    /// Reads it and says nothing.
    Hang,
    /// Keeps all but so many, and says so.
    Partly(u64),
}

/// A request as it came.
#[derive(Clone)]
pub struct Posted {
    pub at: Instant,
    pub headers: HeaderMap,
    pub body: String,
    pub taken: bool,
}

impl Posted {
    /// What it holds.
    pub fn request(&self) -> ExportTraceServiceRequest {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no OTLP: {error}: {}", self.body))
    }
}

/// The collector. It ends when dropped.
pub struct Collector {
    address: SocketAddr,
    is_https: bool,
    answer: watch::Sender<Answer>,
    posted: Arc<Mutex<Vec<Posted>>>,
    task: JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, heard) = watch::channel(Answer::Take);
        let (posted, is_https) = (Arc::<Mutex<Vec<Posted>>>::default(), tls.is_some());
        let shared = Arc::clone(&posted);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (heard, shared, tls) = (heard.clone(), Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, heard, shared).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, heard, shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, is_https, answer, posted, task }
    }

    pub fn url(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.address.port())
    }

    /// From the next request on.
    pub fn set(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// Every request so far.
    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    /// Everything that came, as text.
    pub fn text(&self) -> String {
        self.posted().iter().map(|posted| format!("{:?}\n{}\n", posted.headers, posted.body)).collect()
    }

    /// The spans that it took.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.posted().into_iter().filter(|posted| posted.taken).map(|posted| posted.request());
        let scopes = requests.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// Waits until spans that satisfy `enough` are here.
    pub async fn wait_for(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let started = Instant::now();
        loop {
            let spans = self.spans();
            if enough(&spans) {
                return spans;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{what}: {spans:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: watch::Receiver<Answer>,
    posted: Arc<Mutex<Vec<Posted>>>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, posted) = (answer.borrow().clone(), Arc::clone(&posted));
        async move {
            let (parts, body) = request.into_parts();
            let at = Instant::now();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/v1/traces"));
            let body = String::from_utf8(body.to_vec()).unwrap();
            let taken = matches!(answer, Answer::Take | Answer::Late(_) | Answer::Partly(_));
            posted.lock().unwrap().push(Posted { at, headers: parts.headers, body, taken });
            let mut response = Response::new(Full::<bytes::Bytes>::from("{}"));
            match answer {
                Answer::Take => {}
                Answer::Refuse(status, after) => {
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    if let Some(after) = after {
                        response.headers_mut().insert("retry-after", after.into());
                    }
                }
                Answer::Late(by) => tokio::time::sleep(by).await,
                Answer::Hang => std::future::pending().await,
                Answer::Partly(count) => {
                    let body = format!("{{\"partialSuccess\":{{\"rejectedSpans\":\"{count}\"}}}}");
                    *response.body_mut() = Full::from(body);
                }
            }
            Ok::<_, Infallible>(response)
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A text or number among a span's or resource's attributes.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match &found.value {
        AnyValue::StringValue(text) => text.clone(),
        AnyValue::IntValue(number) => number.to_string(),
    })
}
