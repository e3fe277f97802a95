//! One connection, from the socket to its end.
//!
//! 1. With TLS there is a handshake first. It and the first head together have the ten seconds of a head, so a socket that
//!    says nothing is gone as early as without.
//! 2. The protocol is what the handshake agreed on. Without TLS the first bytes tell, which are looked at and not taken: a
//!    client that knows beforehand (RFC 9113 §3.3) begins with the preface of HTTP/2. There is no `Upgrade: h2c`: nothing that a proxy does not speak
//!    itself can be had through it.
//! 3. Requests go to the routes, with the peer beside them.
//! 4. It ends when its client does, when it is too slow (`patience`), after a rest, or at a stop; on HTTP/2 the last two
//!    begin with GOAWAY, and what runs is finished.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, http::Request, response::Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::ServiceExt;

use super::{
    Peer,
    frames::PREFACE,
    patience::{HEAD, Pace, Patient, REST},
    tls,
};

/// The request head as a whole: 431 beyond, and on HTTP/2 also what a head may unpack to.
const MOST_HEAD_BYTES: u32 = 64 * 1024;
/// Requests at once on a connection of HTTP/2. RFC 9113 §6.5.2 would have at least 100, and pages and proxies reckon with
/// that; each costs a task and its body of 16 KiB, so not many more.
pub(super) const MOST_STREAMS: u32 = 128;
/// What a client may send before it is read, on the connection as a whole: the least that RFC 9113 knows. A handler reads
/// its body at once, so nobody waits for this. It is what a stream has before the settings are known, too, and stays so:
/// who began to send by then would find its window closed, and not be told why its body is too long.
const WINDOW: u32 = 65_535;
/// What may wait to be sent on one stream.
const MOST_UNSENT_BYTES: usize = 64 * 1024;
/// Requests that the library itself had to refuse for what was wrong with them (CVE-2025-8671).
const MOST_FAULTY_STREAMS: usize = 128;
/// A client that is gone without a word is noticed after both.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// How long the goodbye after a rest may take, with answers that are still being read.
const GOODBYE: Duration = Duration::from_secs(30);

/// How each protocol is spoken.
struct Speakers {
    either: Builder<TokioExecutor>,
    one: Builder<TokioExecutor>,
    two: Builder<TokioExecutor>,
}

static SPEAKERS: LazyLock<Speakers> = LazyLock::new(|| {
    let mut either = Builder::new(TokioExecutor::new());
    either.http1().timer(TokioTimer::new()).header_read_timeout(HEAD + REST).max_buf_size(MOST_HEAD_BYTES as usize);
    either
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(MOST_HEAD_BYTES)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(MOST_UNSENT_BYTES)
        .max_local_error_reset_streams(MOST_FAULTY_STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    Speakers { one: either.clone().http1_only(), two: either.clone().http2_only(), either }
});

/// What a connection is served with.
#[derive(Clone)]
pub(super) struct Host {
    pub router: Router,
    /// `None` is plain.
    pub tls: Option<tls::Certificates>,
    pub stop: watch::Receiver<bool>,
}

/// Serves one connection until it ends.
pub(super) async fn attend(host: Host, stream: TcpStream, peer: SocketAddr, is_proxy: bool) {
    // Answers are small and written at once: waiting for more (Nagle) only costs time.
    let _ = stream.set_nodelay(true);
    let (pace, mut stop) = (Pace::new(is_proxy), host.stop);
    let begun = tokio::select! {
        begun = begin(stream, host.tls.as_ref(), &pace) => begun,
        () = stopped(&mut stop) => return,
    };
    let (speaker, wire) = match begun {
        Ok(begun) => begun,
        // Scanners, and clients that do not know the authority: not worth a line each.
        Err(error) => return tracing::debug!(%error, address = %peer.ip(), "nothing came of a connection"),
    };
    let router = host.router;
    let service = service_fn(|mut request: Request<Incoming>| {
        let running = pace.serve();
        request.extensions_mut().insert(Peer(peer));
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer: Result<Response, Infallible> = answer.await;
            drop(running);
            answer
        }
    });
    let stream = TokioIo::new(Patient::new(wire, pace.clone()));
    let mut connection = pin!(speaker.serve_connection(stream, service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = stopped(&mut stop) => None,
        () = pace.rest_is_over() => {
            connection.as_mut().graceful_shutdown();
            let gone = tokio::time::timeout(GOODBYE, connection.as_mut()).await;
            Some(gone.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())))
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A connection that breaks is the client's affair; what was asked on it is logged elsewhere.
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Finds out what is spoken, after the handshake if there is one.
async fn begin(
    stream: TcpStream,
    certificates: Option<&tls::Certificates>,
    pace: &Pace,
) -> io::Result<(&'static Builder<TokioExecutor>, Wire)> {
    let Some(certificates) = certificates else {
        let mut first = [0; PREFACE.len()];
        let length = tokio::time::timeout_at(pace.first_head(), stream.peek(&mut first)).await??;
        let speaker = match PREFACE.strip_prefix(&first[..length]) {
            _ if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some([]) => &SPEAKERS.two,
            // hyper-util reads on until it knows. It could do so for all, but then the head of HTTP/1.1 would come in two
            // pieces, and the second takes a buffer of twice the size for as long as the connection lasts.
            Some(_) => &SPEAKERS.either,
            None => &SPEAKERS.one,
        };
        return Ok((speaker, Wire::Plain(stream)));
    };
    // In a box: a handshake is the largest thing that a connection ever does, and plain ones would be as large.
    let stream = Box::pin(secure(stream, certificates, pace)).await?;
    // Who agreed on nothing gets what everybody speaks.
    let is_two = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP_2);
    Ok((if is_two { &SPEAKERS.two } else { &SPEAKERS.one }, Wire::Secured(stream)))
}

async fn secure(
    stream: TcpStream,
    certificates: &tls::Certificates,
    pace: &Pace,
) -> io::Result<Box<TlsStream<TcpStream>>> {
    let handshake = TlsAcceptor::from(certificates.for_handshake()).accept(stream);
    Ok(Box::new(tokio::time::timeout_at(pace.first_head(), handshake).await??))
}

/// A socket, with TLS or without. One type, so that all that stands on it is compiled once.
enum Wire {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

macro_rules! on_wire {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Wire::Plain($stream) => $call,
            Wire::Secured($stream) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_wire!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}
