//! What systemd hands over to a server, and what it wants to hear of it (sd_listen_fds(3), sd_notify(3)).
//!
//! A few lines each, so there is no library for them: a socket that is open already is taken over by its number, and a
//! state is one datagram.

use std::{
    fs,
    net::TcpListener,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
};

use anyhow::{Context, ensure};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::sockopt::socket_acceptconn,
};

use crate::config::Provisions;

/// The server listens and its schema is up to date.
pub(super) const READY: &str = "READY=1";
/// It was told to stop.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Sockets in place of those that the settings would open.
#[derive(Debug, Default)]
pub(super) struct Handed {
    pub public: Option<TcpListener>,
    pub internal: Option<TcpListener>,
}

impl Handed {
    /// Takes what was handed over. Once, and before the process opens anything that lasts: else the number could be of
    /// something else.
    pub(super) fn take(provisions: &Provisions) -> anyhow::Result<Self> {
        Ok(Self {
            public: provisions.public.map(take).transpose()?,
            internal: provisions.internal.map(take).transpose()?,
        })
    }
}

#[expect(unsafe_code, reason = "a file descriptor that another process opened comes as a number")]
fn take(fd: RawFd) -> anyhow::Result<TcpListener> {
    let refused = || format!("LISTEN_FDS: file descriptor {fd} is no listening TCP socket");
    let what = fs::read_link(format!("/proc/self/fd/{fd}")).with_context(refused)?;
    ensure!(what.to_string_lossy().starts_with("socket:"), refused());
    // SAFETY: it is open, as just seen, and this process has not opened it: systemd did before it was started, and says so
    // by LISTEN_PID. It is taken once.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    ensure!(socket_acceptconn(&socket).with_context(refused)?, refused());
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let listener = TcpListener::from(socket);
    listener.local_addr().with_context(refused)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Tells systemd, if it asked to be told.
pub(super) fn tell(notify: Option<&str>, state: &str) {
    let Some(path) = notify else { return };
    if let Err(error) = send(path, state) {
        tracing::warn!(%error, "cannot tell systemd {state}");
    }
}

fn send(path: &str, state: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = path.strip_prefix('@') {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        return socket.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?).map(drop);
    }
    socket.send_to(state.as_bytes(), path).map(drop)
}
