//! The accept loop. Our own on hyper, because `axum::serve` knows no limit on time and none on connections: a client that
//! sends a byte a minute would hold its socket for ever, and one address could hold them all. What becomes of a connection
//! is told in `connection`.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use super::{
    Certificates, Refusals, TrustedProxies,
    connection::{Host, attend},
};

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

/// Serves `router` on `listener`, without TLS, until `stop` says `true`.
///
/// # Errors
/// When the listener does not know its own address.
pub fn serve(listener: TcpListener, router: Router, gate: Gate, stop: watch::Receiver<bool>) -> io::Result<Serving> {
    accept(listener, gate, Host { router, tls: None, stop })
}

/// As [`serve`], with TLS: new connections are shown what is in force of `certificates`.
///
/// # Errors
/// When the listener does not know its own address.
pub fn serve_tls(
    listener: TcpListener,
    router: Router,
    gate: Gate,
    certificates: Certificates,
    stop: watch::Receiver<bool>,
) -> io::Result<Serving> {
    accept(listener, gate, Host { router, tls: Some(certificates), stop })
}

fn accept(listener: TcpListener, gate: Gate, host: Host) -> io::Result<Serving> {
    let address = listener.local_addr()?;
    let mut stop = host.stop.clone();
    let task = tokio::spawn(async move {
        // Each connection has a sender of this, so it ends when the last of them does.
        let (alive, mut ended) = mpsc::channel::<Infallible>(1);
        let mut told = None;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => match gate.enter(peer.ip()) {
                    Some(place) => {
                        let is_proxy = gate.proxies.trusts(peer.ip().to_canonical());
                        let (attended, alive) = (attend(host.clone(), stream, peer, is_proxy), alive.clone());
                        tokio::spawn(async move {
                            attended.await;
                            drop((place, alive));
                        });
                    }
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
        drop((listener, alive));
        if tokio::time::timeout(DRAIN, ended.recv()).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
    });
    Ok(Serving { address, task })
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
