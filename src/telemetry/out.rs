//! Where lines go, without anybody waiting for a reader.
//!
//! A server's lines go through a buffer to a thread that writes them to standard output. Who reads there may stall (a full
//! disk behind a collector of logs, a terminal that was stopped); a write then blocks, and from a request it would block a
//! thread of the runtime, and soon all of them. So a request only appends to the buffer. A full buffer loses lines, which
//! are counted and told of: an auth server that does not answer is worse than a gap in its log that says how long it is.
//! What must not be lost is in the table of events.
//!
//! 1. The first line wakes the thread, which takes all there is and writes it at once.
//! 2. Then it rests for [`REST`] before it looks again, so that under load many lines share one wake-up and one write.
//! 3. Whoever ends the program waits for the buffer, but no longer than [`PATIENCE`].
//!
//! A `kill -9` loses the lines of the last rest. A command writes to standard error itself: it has nobody to keep waiting.

use std::{
    io::{Write, stderr, stdout},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What may wait: some thousand lines.
const MOST_WAITING: usize = 1 << 20;
/// What is kept for them while none waits.
const USUAL: usize = 16 << 10;
const REST: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug)]
pub(super) enum Out {
    /// To standard error, at once.
    Direct,
    /// To standard output, by and by.
    Buffered(Arc<Buffer>),
}

#[derive(Debug, Default)]
pub(super) struct Buffer {
    waiting: Mutex<Waiting>,
    /// For the thread: there is something to write.
    filled: Condvar,
    /// For who ends the program: it is written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lost: u64,
    /// The thread is writing or resting, and will look again by itself.
    is_busy: bool,
}

impl Out {
    /// For a server. Without a thread to write them, lines go out directly.
    pub(super) fn server() -> Self {
        let buffer = Arc::new(Buffer::default());
        let shared = Arc::clone(&buffer);
        match thread::Builder::new().name("latchkey-log".to_owned()).spawn(move || shared.drain()) {
            Ok(_) => Self::Buffered(buffer),
            Err(_) => Self::Direct,
        }
    }

    pub(super) fn write(&self, line: &str) {
        match self {
            // There is nobody left to tell of an error here.
            Self::Direct => drop(stderr().write_all(line.as_bytes())),
            Self::Buffered(buffer) => buffer.take(line),
        }
    }

    /// Waits until what was said so far is written, for a while.
    pub(super) fn flush(&self) {
        if let Self::Buffered(buffer) = self {
            let waiting = buffer.waiting();
            let is_pending = |waiting: &mut Waiting| waiting.is_busy || !waiting.bytes.is_empty();
            drop(buffer.emptied.wait_timeout_while(waiting, PATIENCE, is_pending));
        }
    }
}

impl Buffer {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What nobody took yet.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.waiting().bytes.clone()).expect("text")
    }

    fn take(&self, line: &str) {
        let mut waiting = self.waiting();
        if waiting.bytes.len() + line.len() > MOST_WAITING {
            waiting.lost += 1;
            return;
        }
        waiting.bytes.extend_from_slice(line.as_bytes());
        let must_wake = !waiting.is_busy;
        waiting.is_busy = true;
        drop(waiting);
        if must_wake {
            self.filled.notify_one();
        }
    }

    fn drain(&self) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.waiting();
            while waiting.bytes.is_empty() {
                waiting.is_busy = false;
                self.emptied.notify_all();
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut waiting.bytes, &mut lines);
            let lost = std::mem::take(&mut waiting.lost);
            drop(waiting);
            let _ = stdout().write_all(&lines).and_then(|()| stdout().flush());
            lines.clear();
            lines.shrink_to(USUAL);
            if lost > 0 {
                tracing::warn!(lost, "log lines were lost: nobody read them in time");
            }
            thread::sleep(REST);
        }
    }
}
