//! Spans on their way to a collector, in the background.
//!
//! 1. Who has a span to tell puts it into a queue of [`MOST_WAITING`] and goes on. A full queue drops it and counts it.
//! 2. A task takes up to [`BATCH`] at a time, each [`PERIOD`] or as soon as there are so many, and posts them.
//! 3. A collector that is away, or says 429, 502, 503 or 504, gets the same batch again: after what its `Retry-After` says,
//!    else after 1, 2, 4 … 30 s. After [`STUBBORN`] the batch is dropped, after any other refusal at once (OTLP 1.x, "OTLP/HTTP
//!    Response"). Meanwhile the queue fills, and that is all that happens.
//! 4. What was lost is told once a minute, and that the collector is away when that begins and when it ends.
//! 5. At a stop what is there is posted once more, within [`LAST_PATIENCE`].

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{
    Request, StatusCode,
    header::{CONTENT_TYPE, HOST, RETRY_AFTER},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};

use super::{otlp, spans::Finished};
use crate::config::TraceSettings;

const MOST_WAITING: usize = 2048;
const BATCH: usize = 512;
const PERIOD: Duration = Duration::from_secs(1);
/// How long the collector may take for one answer, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long one batch is tried.
const STUBBORN: Duration = Duration::from_secs(60);
/// The longest that a collector may have itself waited for.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(60);
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How often losses are told.
const TELL: Duration = Duration::from_secs(60);
const MOST_ANSWER: usize = 64 * 1024;

/// Spans that wait.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// There is a whole batch.
    filled: Notify,
    is_https: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    spans: Vec<Finished>,
    /// What was taken, and not yet said to have arrived or to be lost.
    in_hand: usize,
    lost: u64,
}

impl Queue {
    /// `is_https`: how people reach this server.
    pub(super) fn new(is_https: bool) -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new(), is_https }
    }

    /// The scheme that people's clients use.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    pub(super) fn put(&self, span: Finished) {
        let mut waiting = self.lock();
        if waiting.spans.len() >= MOST_WAITING {
            waiting.lost += 1;
            return;
        }
        waiting.spans.push(span);
        let is_batch = waiting.spans.len() == BATCH;
        drop(waiting);
        if is_batch {
            self.filled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Finished> {
        let mut waiting = self.lock();
        waiting.in_hand = waiting.spans.len().min(BATCH);
        let count = waiting.in_hand;
        waiting.spans.drain(..count).collect()
    }

    /// What was taken is dealt with, and so many of it are lost.
    fn settle(&self, lost: u64) {
        let mut waiting = self.lock();
        waiting.in_hand = 0;
        waiting.lost += lost;
    }

    fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost)
    }

    /// Nobody will take what is left.
    fn abandon(&self) -> u64 {
        let mut waiting = self.lock();
        let left = waiting.in_hand + std::mem::take(&mut waiting.spans).len();
        waiting.in_hand = 0;
        std::mem::take(&mut waiting.lost) + u64::try_from(left).unwrap_or(u64::MAX)
    }
}

/// The exporting task, to be stopped.
#[derive(Debug)]
pub(crate) struct Exporting {
    queue: Arc<Queue>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Exporting {
    /// Posts what is there, for a while.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.send(true);
        if timeout(LAST_PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
            let lost = self.queue.abandon();
            tracing::warn!(lost, "the collector of traces did not take the last spans in time");
        }
    }
}

/// Starts posting.
pub(super) fn start(queue: Arc<Queue>, settings: TraceSettings) -> Exporting {
    let (stop, stopped) = watch::channel(false);
    let mut exporter =
        Exporter { queue: Arc::clone(&queue), settings, tls: None, link: None, is_away: false, told: None };
    Exporting { queue, stop, task: tokio::spawn(async move { exporter.run(stopped).await }) }
}

struct Exporter {
    queue: Arc<Queue>,
    settings: TraceSettings,
    /// Made with the first connection.
    tls: Option<TlsConnector>,
    link: Option<SendRequest<Full<Bytes>>>,
    is_away: bool,
    told: Option<Instant>,
}

/// Why a batch was not taken. Says nothing that came from the collector.
#[derive(Debug)]
enum Refusal {
    /// Try again, perhaps then.
    Later(String, Option<Duration>),
    Never(StatusCode),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(why, _) => f.write_str(why),
            Self::Never(status) => write!(f, "it answers {}", status.as_u16()),
        }
    }
}

impl Exporter {
    async fn run(&mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let is_over = tokio::select! {
                () = sleep(PERIOD) => false,
                () = self.queue.filled.notified() => false,
                _ = stopped.wait_for(|stop| *stop) => true,
            };
            loop {
                let batch = self.queue.take();
                if batch.is_empty() {
                    break;
                }
                self.deliver(&batch, &mut stopped).await;
            }
            self.tell(is_over);
            if is_over {
                return;
            }
        }
    }

    /// Brings a batch to the collector, or gives it up.
    async fn deliver(&mut self, batch: &[Finished], stopped: &mut watch::Receiver<bool>) {
        let body = Bytes::from(otlp::encode(&self.settings.resource, batch));
        let (begun, mut pause) = (Instant::now(), PAUSES.0);
        loop {
            let refusal = match self.post(body.clone()).await {
                Ok(rejected) => {
                    self.queue.settle(rejected);
                    if std::mem::take(&mut self.is_away) {
                        tracing::info!("the collector of traces takes them again");
                    }
                    return;
                }
                Err(refusal) => refusal,
            };
            if !std::mem::replace(&mut self.is_away, true) {
                tracing::warn!(error = %refusal, "the collector of traces does not take them");
            }
            let wait = match refusal {
                Refusal::Later(_, after) => after.unwrap_or(pause).min(MOST_RETRY_AFTER),
                Refusal::Never(_) => STUBBORN,
            };
            let is_over = *stopped.borrow() || begun.elapsed() + wait >= STUBBORN;
            if is_over || matches!(refusal, Refusal::Never(_)) {
                self.queue.settle(u64::try_from(batch.len()).unwrap_or(u64::MAX));
                return;
            }
            pause = (2 * pause).min(PAUSES.1);
            tokio::select! {
                () = sleep(wait) => {}
                // Once more, at once.
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        }
    }

    fn tell(&mut self, is_over: bool) {
        if !is_over && self.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        let lost = self.queue.take_lost();
        if lost > 0 {
            self.told = Some(Instant::now());
            tracing::warn!(lost, "spans were lost on their way to the collector");
        }
    }

    /// One request; tells how many spans of it were not kept.
    async fn post(&mut self, body: Bytes) -> Result<u64, Refusal> {
        let outcome = timeout(PATIENCE, self.try_post(body)).await;
        outcome
            .unwrap_or_else(|_| Err(Refusal::Later("it does not answer in time".to_owned(), None)))
            .inspect_err(|_| self.link = None)
    }

    async fn try_post(&mut self, body: Bytes) -> Result<u64, Refusal> {
        let later = |error: &dyn fmt::Display| Refusal::Later(error.to_string(), None);
        let mut kept = self.link.take();
        if let Some(link) = &mut kept
            && link.ready().await.is_err()
        {
            // It was idle, and the collector has closed it.
            kept = None;
        }
        let mut link = match kept {
            Some(link) => link,
            None => self.connect().await.map_err(|error| later(&error))?,
        };
        let endpoint = &self.settings.endpoint;
        let mut request = Request::post(&endpoint.path)
            .header(HOST, &endpoint.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| later(&error))?;
        request.headers_mut().extend(self.settings.headers.iter().cloned());
        let answer = link.send_request(request).await.map_err(|error| later(&error))?;
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await.map_err(|error| later(&error))?;
        self.link = Some(link);
        match status.as_u16() {
            200..=299 => Ok(otlp::rejected(&body.to_bytes())),
            429 | 502 | 503 | 504 => {
                let why = format!("it answers {}", status.as_u16());
                Err(Refusal::Later(why, after.map(Duration::from_secs)))
            }
            _ => Err(Refusal::Never(status)),
        }
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let (host, port) = (self.settings.endpoint.host.clone(), self.settings.endpoint.port);
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        let _ = stream.set_nodelay(true);
        if !self.settings.endpoint.https {
            let (link, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(link);
        }
        let connector = match &self.tls {
            Some(connector) => connector.clone(),
            None => self.tls.insert(connector().await?).clone(),
        };
        let stream = connector.connect(ServerName::try_from(host)?, stream).await?;
        let (link, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(link)
    }
}

/// TLS by the machine's root certificates; `SSL_CERT_FILE` names others.
async fn connector() -> Result<TlsConnector, Box<dyn std::error::Error + Send + Sync>> {
    // It reads files.
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{
        context::{SpanId, TraceId},
        spans::Kind,
    };

    #[test]
    fn a_full_queue_takes_no_more_and_counts() {
        let queue = Queue::new(false);
        let span = Finished {
            trace: TraceId([1; 16]),
            span: SpanId([1; 8]),
            parent: None,
            is_parent_remote: false,
            state: None,
            name: "x".into(),
            kind: Kind::Internal,
            start: 1,
            end: 2,
            attributes: Vec::new(),
            failed: false,
        };
        (0..MOST_WAITING + 7).for_each(|_| queue.put(span.clone()));
        assert_eq!(queue.lock().spans.len(), MOST_WAITING);
        assert_eq!((queue.take().len(), queue.take_lost(), queue.take_lost()), (BATCH, 7, 0));
        // What is in hand when nobody goes on is lost as well.
        queue.settle(3);
        assert_eq!(queue.take().len(), BATCH);
        assert_eq!(queue.abandon(), u64::try_from(MOST_WAITING - BATCH).unwrap() + 3);
    }
}
