//! A connection that is read line by line, so that nothing that was said before STARTTLS is left for after it.
//!
//! lettre reads ahead and keeps what it has when the connection becomes encrypted. Answers that somebody on the way puts
//! behind the "go ahead" would then pass for the server's own (RFC 3207 §6), and mails that nobody took would count as
//! sent. From here they go into the TLS handshake instead, which they break.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

#[derive(Debug)]
pub(super) struct Lines {
    stream: TcpStream,
    /// Read, and not asked for yet.
    ahead: BytesMut,
}

impl Lines {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: BytesMut::new() }
    }
}

impl AsyncRead for Lines {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            let mut chunk = [0; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut chunk))?;
            this.ahead.extend_from_slice(chunk.filled());
        }
        let line = this.ahead.iter().position(|byte| *byte == b'\n').map_or(this.ahead.len(), |at| at + 1);
        buf.put_slice(&this.ahead.split_to(line.min(buf.remaining())));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lines {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Lines {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}
