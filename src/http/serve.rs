//! The accept loop. Our own on hyper, because `axum::serve` has no header timeout: a client that sends a byte a minute
//! would hold its socket for ever.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{net::TcpListener, sync::watch};
use tower::ServiceExt;

use super::Peer;

/// Headers must be there within so long; a keep-alive connection may rest as long between requests.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// The request head as a whole. hyper answers 431 beyond.
const MOST_HEAD_BYTES: usize = 64 * 1024;
/// How long running requests may go on after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(30);

/// A listener that serves until it is told to stop.
#[derive(Debug)]
pub struct Serving {
    /// Where it really listens.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// Waits until every running request has ended, or the time for that is over.
    pub async fn drained(self) {
        let _ = self.task.await;
    }
}

/// Serves `router` on `listener` until `stop` says `true`.
///
/// # Errors
/// When the listener does not know its own address.
pub fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) -> io::Result<Serving> {
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Answers are small and written at once: waiting for more (Nagle) only costs time.
                    let _ = stream.set_nodelay(true);
                    let router = router.clone();
                    let service = service_fn(move |mut request: Request<Incoming>| {
                        request.extensions_mut().insert(Peer(peer));
                        router.clone().oneshot(request.map(Body::new))
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER_PATIENCE)
                        .max_buf_size(MOST_HEAD_BYTES)
                        .serve_connection(TokioIo::new(stream), service);
                    let watched = graceful.watch(connection);
                    tokio::spawn(async move {
                        // A connection that breaks is the client's affair; what was asked on it is logged elsewhere.
                        if let Err(error) = watched.await {
                            tracing::debug!(%error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, or the client was gone already: the loop must neither spin nor end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
    });
    Ok(Serving { address, task })
}
