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
//!
//! On HTTP/2 requests overlap, and bytes come that belong to none, so the picture is another one:
//!
//! - The first request has its ten seconds as above. From then on it is the units of `frames` that have them: a frame, or a
//!   head with all its frames.
//! - A rest is over 75 s after the last answer was made while nothing runs ([`Pace::rest_is_over`]). Whoever drives the
//!   connection then says goodbye, so that a request which is just on its way is sent again elsewhere.
//!   The same after ten minutes, whatever happens.
//! - A client that takes back most of what it asks for is cut off, unless it is a proxy of ours.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::frames::Speech;

/// The longest time between the first byte of a head and its end.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may rest; longer than nginx (60 s) keeps its own.
pub(super) const REST: Duration = Duration::from_secs(75);
/// How old a connection of HTTP/2 becomes: answers that wait for room on their streams are nobody's silence, and would be
/// kept for as long as the client likes.
const AGE: Duration = Duration::from_secs(10 * 60);
/// How long a client may take none of what is written to it.
const WRITE: Duration = Duration::from_secs(15);
/// Requests that a connection may take back beyond those that it does not. A page that is left takes back all that it
/// waits for, which is as many as there are streams; twice that is nobody's page.
const MOST_TAKEN_BACK: u64 = 2 * super::connection::MOST_STREAMS as u64;

/// What a connection begins with: its first head began when it did.
const READING: u8 = 0;
const SERVING: u8 = 1;
const WAITING: u8 = 2;

/// What a connection is at, as its service knows it.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<State>);

#[derive(Debug)]
struct State {
    began: Instant,
    /// Behind the peer are many clients, who may leave as they like.
    is_proxy: bool,
    /// Of HTTP/1.1, where one thing happens at a time.
    phase: AtomicU8,
    /// Whether it is HTTP/2, to which the rest belongs.
    overlaps: AtomicBool,
    running: AtomicU32,
    /// When the last answer was made, in milliseconds since `began`.
    rests_since: AtomicU64,
}

/// A request that is being served; over when this is dropped.
#[derive(Debug)]
pub(super) struct Running(Pace);

impl Pace {
    /// The pace of a connection that begins now, from a proxy of ours or from anybody.
    pub(super) fn new(is_proxy: bool) -> Self {
        Self::since(Instant::now(), is_proxy)
    }

    fn since(began: Instant, is_proxy: bool) -> Self {
        Self(Arc::new(State {
            began,
            is_proxy,
            phase: AtomicU8::new(READING),
            overlaps: AtomicBool::new(false),
            running: AtomicU32::new(0),
            rests_since: AtomicU64::new(0),
        }))
    }

    /// When the first head has to be whole.
    pub(super) fn first_head(&self) -> Instant {
        self.0.began + HEAD
    }

    /// A request is whole.
    pub(super) fn serve(&self) -> Running {
        self.0.phase.store(SERVING, Ordering::Relaxed);
        self.0.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Ready when a connection of HTTP/2 has rested for as long as it may, or is old; never on HTTP/1.1, whose stream sees to that.
    pub(super) async fn rest_is_over(&self) {
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        std::future::poll_fn(|context| {
            // Whoever waits here polls again whenever bytes came, and only those can change this.
            if !self.0.overlaps.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.rests_until())));
            loop {
                ready!(timer.as_mut().poll(context));
                let until = self.rests_until();
                if until <= Instant::now() {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(until);
            }
        })
        .await;
    }

    fn rests_until(&self) -> Instant {
        (self.0.began + AGE).min(self.silent_until())
    }

    fn silent_until(&self) -> Instant {
        if self.0.running.load(Ordering::Relaxed) > 0 {
            // It rests not at all; what runs ends within seconds.
            return Instant::now() + HEAD;
        }
        self.0.began + Duration::from_millis(self.0.rests_since.load(Ordering::Relaxed)) + REST
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let state = &self.0.0;
        if state.overlaps.load(Ordering::Relaxed) {
            let passed = u64::try_from(state.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            state.rests_since.store(passed, Ordering::Relaxed);
        }
        state.running.fetch_sub(1, Ordering::Relaxed);
        state.phase.store(WAITING, Ordering::Relaxed);
    }
}

/// A stream with limits on time.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    pace: Pace,
    speech: Speech,
    /// What `timer` runs for; `None` while none runs.
    timed: Option<Timed>,
    timer: Pin<Box<Sleep>>,
    is_writing: bool,
    write_timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timed {
    /// A phase of HTTP/1.1, which the first head of HTTP/2 is as well.
    Phase(u8),
    /// A unit of HTTP/2.
    Unit(u64),
}

impl<S> Patient<S> {
    /// A stream whose client is held to `pace`.
    pub(super) fn new(stream: S, pace: Pace) -> Self {
        Self {
            stream,
            speech: Speech::Beginning(0),
            timed: Some(Timed::Phase(READING)),
            timer: Box::pin(tokio::time::sleep_until(pace.first_head())),
            is_writing: false,
            write_timer: Box::pin(tokio::time::sleep(WRITE)),
            pace,
        }
    }

    /// Takes note of bytes that came.
    fn hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.speech.hear(bytes);
        let state = &self.pace.0;
        if let Speech::Two(frames) = &self.speech {
            state.overlaps.store(true, Ordering::Relaxed);
            if frames.taken_back() > MOST_TAKEN_BACK && !state.is_proxy {
                return Err(io::Error::other("too many requests were taken back"));
            }
        } else if state.phase.compare_exchange(WAITING, READING, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.timed = None;
        }
        Ok(())
    }

    /// What there is a time for at present.
    fn due(&self) -> Option<Timed> {
        let phase = self.pace.0.phase.load(Ordering::Relaxed);
        match &self.speech {
            Speech::Two(frames) if phase != READING => frames.unfinished().map(Timed::Unit),
            _ => (phase != SERVING).then_some(Timed::Phase(phase)),
        }
    }

    /// Whether that time is over.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let due = self.due();
        let Some(what) = due else {
            self.timed = None;
            return Poll::Pending;
        };
        if self.timed != due {
            let patience = if what == Timed::Phase(WAITING) { REST } else { HEAD };
            self.timer.as_mut().reset(Instant::now() + patience);
            self.timed = due;
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
            && let Err(error) = self.hear(&buffer.filled()[before..])
        {
            return Poll::Ready(Err(error));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_http_2_that_is_old_says_goodbye_whatever_runs() {
        let Some(began) = Instant::now().checked_sub(AGE) else { return };
        let old = Pace::since(began, false);
        let _running = old.serve();
        assert!(old.rests_until() <= Instant::now());
        let young = Pace::new(false);
        assert!(young.rests_until() > Instant::now());
    }

    #[tokio::test]
    async fn who_takes_back_what_it_asks_is_cut_off_unless_many_stand_behind_it() {
        let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        let bytes = [&crate::http::frames::PREFACE[..], &reset.repeat(300)].concat();
        for is_proxy in [false, true] {
            let mut stream = Patient::new(tokio::io::empty(), Pace::new(is_proxy));
            assert_eq!(stream.hear(&bytes).is_ok(), is_proxy);
        }
    }
}
