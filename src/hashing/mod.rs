//! Password hashing on threads of its own.
//!
//! 1. A request hands in a job; it takes a place in a bounded queue, or is `Busy` at once.
//! 2. One of `LATCHKEY_HASH_THREADS` threads takes it up, unless it has waited over two seconds: then it is `Busy` and no
//!    work is done. Whoever comes first, the waiting request or the thread, decides that by one compare-and-set.
//! 3. The place belongs to the work. A client that hangs up does not take its job out of the queue, so hanging up early
//!    cannot be used to push more work in.
//!
//! Why threads of our own: a hash is 20 ms of pure CPU, which on an async worker stalls every other request, and Tokio's
//! blocking pool has hundreds of threads, each of which would want 19 MiB. Why the memory is kept: mapping and faulting
//! 19 MiB anew for each hash costs a fifth of the hash itself. It is given back after a minute without work.

mod argon;
mod calibrate;
mod legacy;
mod memory;
mod phc;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use tokio::sync::oneshot;
use tracing::Span;

pub use argon::Policy;
pub use calibrate::{Calibrated, calibrate};
pub use memory::HashMemory;
pub use phc::Verdict;

use crate::{
    ambient::Ambient,
    error::{ApiError, Code},
    metrics::{Counters, HashRefusal, Histogram},
    secret::SecretText,
    telemetry::SPAN,
};

/// A job that has waited so long is refused instead.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A thread without work for so long gives its memory back.
const IDLE: Duration = Duration::from_secs(60);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// No hashing capacity within two seconds, or the queue is full; no work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no hashing capacity")]
pub struct Busy;

impl From<Busy> for ApiError {
    fn from(busy: Busy) -> Self {
        Self::new(Code::Busy).caused_by(busy)
    }
}

/// The hashing threads and the policy they hash by.
#[derive(Clone, Debug)]
pub struct Hasher {
    queue: Sender<Job>,
    policy: Arc<Policy>,
    ambient: Ambient,
    /// Stored hashes that were outside the bounds or unreadable: each is a failed login and one here.
    alarms: Arc<AtomicU64>,
    load: Arc<Load>,
}

/// What the threads had to do.
#[derive(Debug, Default)]
pub struct Load {
    /// How long work waited that was then taken up.
    pub waits: Histogram,
    /// How long it took from then on.
    pub runs: Histogram,
    /// Work that was not taken.
    pub refused: Counters<HashRefusal>,
    /// Threads that are at work.
    pub working: AtomicU64,
    /// Threads that there are.
    pub threads: AtomicU64,
}

struct Job {
    since: Instant,
    state: Arc<AtomicU8>,
    work: Box<dyn FnOnce(&mut HashMemory) + Send>,
}

impl Hasher {
    /// Starts `threads` hashing threads with a queue of `waiting` places.
    #[must_use]
    pub fn start(policy: Policy, threads: NonZeroUsize, waiting: usize, ambient: Ambient) -> Self {
        let (queue, jobs) = crossbeam_channel::bounded(waiting);
        let keep = policy.blocks();
        let load = Arc::new(Load::default());
        for number in 0..threads.get() {
            let (jobs, shared) = (jobs.clone(), Arc::clone(&load));
            let spawned = thread::Builder::new()
                .name(format!("latchkey-hash-{number}"))
                .spawn(move || work(&jobs, keep, &shared));
            match spawned {
                Ok(_) => {
                    load.threads.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => tracing::error!(%error, number, "cannot start a hashing thread"),
            }
        }
        Self { queue, policy: Arc::new(policy), ambient, alarms: Arc::default(), load }
    }

    /// Whether work would be taken now; asked before a request costs anything else.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full.
    pub fn has_room(&self) -> Result<(), Busy> {
        if self.queue.is_full() { Err(self.refuse(HashRefusal::QueueFull)) } else { Ok(()) }
    }

    fn refuse(&self, why: HashRefusal) -> Busy {
        self.load.refused.add(why);
        Busy
    }

    /// Runs `work` on a hashing thread.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full or the work was not begun within two seconds.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut HashMemory) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (done, mut outcome) = oneshot::channel();
        let (state, load) = (Arc::new(AtomicU8::new(WAITING)), Arc::clone(&self.load));
        let (asked_in, waiting) = (Span::current(), tracing::trace_span!(target: SPAN, "hash queue"));
        let job = Job {
            since: Instant::now(),
            state: Arc::clone(&state),
            work: Box::new(move |memory| {
                drop(waiting);
                let _hashing = tracing::trace_span!(target: SPAN, parent: &asked_in, "hash");
                let begun = Instant::now();
                let result = work(memory);
                load.runs.note(begun.elapsed());
                // The receiver may be gone: the client hung up. The work was done all the same.
                let _ = done.send(result);
            }),
        };
        match self.queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                return Err(self.refuse(HashRefusal::QueueFull));
            }
        }
        if let Ok(result) = tokio::time::timeout(LONGEST_WAIT, &mut outcome).await {
            return result.map_err(|_| Busy);
        }
        match state.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Err(self.refuse(HashRefusal::WaitedTooLong)),
            Err(_) => outcome.await.map_err(|_| Busy),
        }
    }

    /// A new PHC string for `password` by the current policy.
    ///
    /// # Errors
    /// [`Busy`], as [`Hasher::run`].
    pub async fn hash(&self, password: SecretText) -> Result<String, Busy> {
        let (policy, salt) = (Arc::clone(&self.policy), self.ambient.bytes());
        self.run(move |memory| policy.hash(password.expose().as_bytes(), &salt, memory)).await?
    }

    /// Checks `password` against `stored`, at the cost of one current hash whatever `stored` is, missing included.
    ///
    /// # Errors
    /// [`Busy`], as [`Hasher::run`].
    pub async fn verify(&self, password: SecretText, stored: Option<String>) -> Result<Verdict, Busy> {
        let (policy, salt, alarms) = (Arc::clone(&self.policy), self.ambient.bytes(), Arc::clone(&self.alarms));
        self.run(move |memory| {
            let verdict = phc::verify(&policy, password.expose().as_bytes(), stored.as_deref(), &salt, memory)?;
            if matches!(verdict, Verdict::Wrong { alarm: true }) {
                alarms.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    "a stored password hash is unreadable or outside the accepted bounds; its owner cannot log in"
                );
            }
            Ok(verdict)
        })
        .await?
    }

    /// How many stored hashes were unreadable or outside the bounds so far.
    #[must_use]
    pub fn alarms(&self) -> u64 {
        self.alarms.load(Ordering::Relaxed)
    }

    /// What the threads had to do.
    #[must_use]
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Work that waits, and the places there are for it.
    #[must_use]
    pub fn queue(&self) -> (usize, usize) {
        (self.queue.len(), self.queue.capacity().unwrap_or_default())
    }
}

/// The life of one hashing thread.
fn work(jobs: &Receiver<Job>, keep_blocks: usize, load: &Load) {
    // Logins may take all the CPU there is; answering other requests comes first. Where the OS refuses, it is only less
    // polite. On Linux this is the thread's own priority.
    let _ = rustix::process::nice(10);
    let mut memory = HashMemory::default();
    loop {
        match jobs.recv_timeout(IDLE) {
            Ok(job) => {
                if job.state.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    load.waits.note(job.since.elapsed());
                    load.working.fetch_add(1, Ordering::Relaxed);
                    // A panic in a job must not cost the thread: the request sees its channel closed.
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (job.work)(&mut memory)));
                    if outcome.is_err() {
                        memory = HashMemory::default();
                    }
                    load.working.fetch_sub(1, Ordering::Relaxed);
                    memory.shrink_to(keep_blocks);
                }
            }
            Err(RecvTimeoutError::Timeout) => memory = HashMemory::default(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
