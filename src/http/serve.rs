//! The accept loop. Our own on hyper, because `axum::serve` knows no limit on time and none on connections: a client that
//! sends a byte a minute would hold its socket for ever, and one address could hold them all.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower::ServiceExt;

use super::{
    Peer, Refusals, TrustedProxies,
    patience::{HEAD, Patient, Phase, REST},
};

/// The request head as a whole. hyper answers 431 beyond.
const MOST_HEAD_BYTES: usize = 64 * 1024;
/// How long running requests may go on after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(30);
/// A flood is told of so often, not once for each connection.
const TELL: Duration = Duration::from_secs(10);

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

/// How many connections one address may have.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// The cap; `None` is none.
    pub most: Option<usize>,
    /// Behind these are many clients, so they have no cap.
    pub proxies: TrustedProxies,
    /// Where refusals are counted.
    pub refusals: Refusals,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place under the cap, given back when it is dropped.
struct Place {
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Gate {
    /// A gate for connections from outside.
    #[must_use]
    pub fn new(most: Option<usize>, proxies: TrustedProxies, refusals: Refusals) -> Self {
        Self { most, proxies, refusals, held: Arc::default() }
    }

    /// A place for one more connection; `None` when there is none.
    #[expect(clippy::option_option, reason = "a place that needs no giving back, and no place, are two things")]
    fn enter(&self, peer: IpAddr) -> Option<Option<Place>> {
        let peer = peer.to_canonical();
        let Some(most) = self.most.filter(|_| !self.proxies.trusts(peer)) else { return Some(None) };
        // One machine has a whole /64.
        let address = match peer {
            IpAddr::V4(_) => peer,
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= most {
            self.refusals.count_connection();
            return None;
        }
        *count += 1;
        Some(Some(Place { held: Arc::clone(&self.held), address }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// Serves `router` on `listener` until `stop` says `true`.
///
/// # Errors
/// When the listener does not know its own address.
pub fn serve(
    listener: TcpListener,
    router: Router,
    gate: Gate,
    mut stop: watch::Receiver<bool>,
) -> io::Result<Serving> {
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let graceful = GracefulShutdown::new();
        let mut told = None;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => match gate.enter(peer.ip()) {
                    Some(place) => attend(&graceful, stream, peer, router.clone(), place),
                    None if told.is_none_or(|at: Instant| at.elapsed() > TELL) => {
                        told = Some(Instant::now());
                        let refused = gate.refusals.connections();
                        tracing::warn!(address = %peer.ip(), refused, "an address has too many connections");
                    }
                    None => {}
                },
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

/// Serves one connection in a task of its own.
fn attend(graceful: &GracefulShutdown, stream: TcpStream, peer: SocketAddr, router: Router, place: Option<Place>) {
    // Answers are small and written at once: waiting for more (Nagle) only costs time.
    let _ = stream.set_nodelay(true);
    let phase = Phase::default();
    let stream = Patient::new(stream, phase.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        phase.serve();
        request.extensions_mut().insert(Peer(peer));
        let (answer, phase) = (router.clone().oneshot(request.map(Body::new)), phase.clone());
        async move {
            let answer = answer.await;
            phase.rest();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD + REST)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        // A connection that breaks is the client's affair; what was asked on it is logged elsewhere.
        if let Err(error) = watched.await {
            tracing::debug!(%error, "connection ended");
        }
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_64_has_the_connections_of_one_address() {
        let gate = Gate::new(Some(1), TrustedProxies::default(), Refusals::default());
        let enter = |address: &str| gate.enter(address.parse().unwrap());
        let held = enter("2001:db8::1");
        assert!(held.is_some() && enter("2001:db8::ffff:2").is_none());
        assert!(enter("2001:db8:0:1::1").is_some(), "another one");
        drop(held);
        assert!(enter("2001:db8::ffff:2").is_some(), "a place that was given back");
        assert_eq!(gate.refusals.connections(), 1);
    }
}
