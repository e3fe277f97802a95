//! A small TCP proxy that goes wrong on demand, to stand between the server and PostgreSQL or Redis.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Passes them on.
    Pass = 0,
    /// Keeps connections open and passes nothing on, in neither direction.
    BlackHole = 1,
    /// Resets every connection, old and new.
    Reset = 2,
    /// Passes them on after three seconds.
    Slow = 3,
}

impl Mode {
    fn of(number: u8) -> Self {
        [Self::Pass, Self::BlackHole, Self::Reset, Self::Slow][usize::from(number)]
    }
}

pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<AtomicU8>,
    /// Bytes that still pass, both directions together.
    budget: Arc<AtomicI64>,
}

impl Proxy {
    /// Stands before `upstream` (`host:port`).
    pub async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(Mode::Pass as u8));
        let budget = Arc::new(AtomicI64::new(i64::MAX));
        let (upstream, shared, left) = (upstream.to_owned(), Arc::clone(&mode), Arc::clone(&budget));
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, mode, left) = (upstream.clone(), Arc::clone(&shared), Arc::clone(&left));
                connections.spawn(async move {
                    if Mode::of(mode.load(Ordering::SeqCst)) == Mode::Reset {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(&upstream).await else { return };
                    let (client_read, client_write) = client.into_split();
                    let (server_read, server_write) = server.into_split();
                    tokio::select! {
                        () = pump(client_read, server_write, &mode, &left) => {}
                        () = pump(server_read, client_write, &mode, &left) => {}
                        () = reset(&mode) => {}
                    }
                });
            }
        });
        Self { address, mode, budget }
    }

    /// Lets so many bytes more pass and then ends every connection in the middle of whatever it was saying, new ones at
    /// once, until [`Proxy::set`].
    pub fn cut_after(&self, bytes: i64) {
        self.budget.store(bytes, Ordering::SeqCst);
    }

    pub fn set(&self, mode: Mode) {
        self.budget.store(i64::MAX, Ordering::SeqCst);
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

async fn reset(mode: &AtomicU8) {
    while Mode::of(mode.load(Ordering::SeqCst)) != Mode::Reset {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mode: &AtomicU8,
    budget: &AtomicI64,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if Mode::of(mode.load(Ordering::SeqCst)) == Mode::Slow {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        while Mode::of(mode.load(Ordering::SeqCst)) == Mode::BlackHole {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = budget.fetch_sub(i64::try_from(length).unwrap(), Ordering::SeqCst).max(0);
        let passed = usize::try_from(left).unwrap().min(length);
        if to.write_all(&buffer[..passed]).await.is_err() || passed < length {
            return;
        }
    }
}
