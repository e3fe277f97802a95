//! The only doors to time and randomness.
//!
//! Everything that asks "what time is it" or "give me a secret" asks an [`Ambient`], so a test can turn the clock by an
//! hour or draw the same nonce twice, and a reader finds every use by one name. `clippy.toml` forbids the side doors.
//!
//! Two enums rather than two traits: there are exactly two kinds of each, and an enum costs no indirection and no type
//! parameter in the forty places that hold one. Monotonic time of timeouts and of waiting in queues is not wall-clock time
//! and stays with `std::time::Instant` and `tokio::time`; how long something has been kept is asked here
//! ([`Ambient::elapsed`]), so that a test need not wait.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::{digest, rand};
use uuid::Uuid;

use crate::db::Timestamp;

/// Clock and entropy, handed down from `main` (or from a test).
#[derive(Clone, Debug)]
pub struct Ambient {
    clock: Clock,
    entropy: Entropy,
}

/// Where the time comes from.
#[derive(Clone, Debug)]
enum Clock {
    System,
    /// Both in milliseconds, moved by whoever else holds the `Arc`s.
    Manual {
        /// Since the Unix epoch.
        wall: Arc<AtomicI64>,
        /// What of `wall` is no time that passed, because the clock was set.
        set_by: Arc<AtomicI64>,
    },
}

/// Where random bytes come from.
#[derive(Clone, Debug)]
enum Entropy {
    System,
    /// SHA-256 over seed and a counter: good for repeatable tests, for nothing else.
    Seeded {
        seed: u64,
        drawn: Arc<AtomicU64>,
    },
}

impl Ambient {
    /// The machine's clock and the operating system's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Clock::System, entropy: Entropy::System }
    }

    /// A clock that stands where `wall` says, of which `set_by` is no time that passed, and dice that fall as `seed` says:
    /// for tests only.
    #[must_use]
    pub fn manual(wall: Arc<AtomicI64>, set_by: Arc<AtomicI64>, seed: u64) -> Self {
        Self { clock: Clock::Manual { wall, set_by }, entropy: Entropy::Seeded { seed, drawn: Arc::default() } }
    }

    /// The present instant, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.clock {
            Clock::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the door")]
                let since_epoch =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Clock::Manual { wall, .. } => Timestamp::from_millis(wall.load(Ordering::SeqCst)),
        }
    }

    /// How long this process has run, near enough: it never goes back, whatever is done to the machine's clock.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match &self.clock {
            Clock::System => START.elapsed(),
            Clock::Manual { wall, set_by } => {
                let passed = wall.load(Ordering::SeqCst) - set_by.load(Ordering::SeqCst);
                Duration::from_millis(u64::try_from(passed).unwrap_or_default())
            }
        }
    }

    /// Whether this is the machine's own clock, which others' clocks can be compared with.
    #[must_use]
    pub fn is_system(&self) -> bool {
        matches!(self.clock, Clock::System)
    }

    /// `N` random bytes, fit for keys and nonces.
    ///
    /// # Panics
    /// When the operating system refuses randomness: there is no safe way to go on without.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.entropy {
            Entropy::System => {
                rand::fill(&mut bytes).expect("the operating system gives randomness");
            }
            Entropy::Seeded { seed, drawn } => {
                for chunk in bytes.chunks_mut(32) {
                    let mut material = [0; 16];
                    material[..8].copy_from_slice(&seed.to_be_bytes());
                    material[8..].copy_from_slice(&drawn.fetch_add(1, Ordering::SeqCst).to_be_bytes());
                    let block = digest::digest(&digest::SHA256, &material);
                    chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
                }
            }
        }
        bytes
    }

    /// A fresh UUIDv7 (RFC 9562 §5.7): ordered by time, unguessable in its 74 random bits.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let millis = u64::try_from(self.now().millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }
}
