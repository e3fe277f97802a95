//! How long a socket may take: a stream that ends when its client is too slow.
//!
//! ```text
//!            first byte of a head              the request is whole            the answer is made
//! waiting ───────────────────────▶ head ─────────────────────────▶ serving ────────────────────▶ waiting
//! 75 s (the first time 10 s)       10 s                            no limit here                 75 s
//! ```
//!
//! hyper has one timer for a head, and it runs while a connection rests between two requests as well. Ten seconds are
//! right for a head and wrong for a rest: proxies keep their connections for a minute, and one that is closed just when
//! a request goes out is a 502 for somebody. So the timer is here, where bytes are seen, and the service says when a
//! request begins and ends. Writing has a limit too: a client that sends requests and reads no answers would hold its
//! connection for ever.
//!
//! hyper's own timer still runs, with a time that is longer than both: it is what makes hyper read once after each answer,
//! and only a read that is asked for can arm the timer here.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// The longest time between the first byte of a head and its end.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may rest; longer than nginx (60 s) keeps its own.
pub(super) const REST: Duration = Duration::from_secs(75);
/// How long a client may take none of what is written to it.
const WRITE: Duration = Duration::from_secs(15);

/// What a connection begins with: its first head began when it did.
const READING: u8 = 0;
const SERVING: u8 = 1;
const WAITING: u8 = 2;

/// What a connection is at, as its service knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Phase(Arc<AtomicU8>);

impl Phase {
    /// A request is whole.
    pub(super) fn serve(&self) {
        self.0.store(SERVING, Ordering::Relaxed);
    }

    /// Its answer is made.
    pub(super) fn rest(&self) {
        self.0.store(WAITING, Ordering::Relaxed);
    }
}

/// A stream with limits on time.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    phase: Phase,
    /// The phase that `timer` runs for; `None` while none runs.
    timed: Option<u8>,
    timer: Pin<Box<Sleep>>,
    is_writing: bool,
    write_timer: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    /// The first head must be there within its time from now.
    pub(super) fn new(stream: S, phase: Phase) -> Self {
        Self {
            stream,
            phase,
            timed: Some(READING),
            timer: Box::pin(tokio::time::sleep(HEAD)),
            is_writing: false,
            write_timer: Box::pin(tokio::time::sleep(WRITE)),
        }
    }

    /// Whether the time of this phase is over.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let phase = self.phase.0.load(Ordering::Relaxed);
        if phase == SERVING {
            self.timed = None;
            return Poll::Pending;
        }
        if self.timed != Some(phase) {
            let patience = if phase == READING { HEAD } else { REST };
            self.timer.as_mut().reset(Instant::now() + patience);
            self.timed = Some(phase);
        }
        self.timer.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Watches what a write, a flush or a shutdown answers.
    fn watch_write<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_writing = false;
            return written;
        }
        if !self.is_writing {
            self.is_writing = true;
            self.write_timer.as_mut().reset(Instant::now() + WRITE);
        }
        self.write_timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before
            && self.phase.0.compare_exchange(WAITING, READING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.timed = None;
        }
        // Also when bytes came: those that drip in must not outrun the clock.
        match self.poll_timer(context) {
            Poll::Ready(error) if !matches!(read, Poll::Ready(Err(_))) => Poll::Ready(Err(error)),
            _ => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch_write(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch_write(context, shut)
    }
}
