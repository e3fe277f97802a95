//! Which people this process has changed, as counters: what was read of a person before a change is told from what was
//! read after it by comparing two numbers, without a list of who keeps what.
//!
//! A transaction names the people whose rows or ends it writes ([`super::Tx::touches`]); their counters move when it is
//! over, however it ended, since a commit that failed may have happened all the same. People share counters: a change of
//! one makes what is kept of a few others look old, which costs a read and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

const COUNTERS: usize = 1024;

/// The counters.
#[derive(Debug)]
pub struct Changes(Box<[AtomicU64]>);

impl Default for Changes {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Changes {
    /// How often somebody with this person's counter was changed. Asked before reading; what was read holds as long as
    /// the answer stays the same.
    #[must_use]
    pub fn of(&self, person: Uuid) -> u64 {
        self.counter(person).load(Ordering::SeqCst)
    }

    /// Notes a change that is not a transaction's.
    pub fn note(&self, person: Uuid) {
        self.counter(person).fetch_add(1, Ordering::SeqCst);
    }

    fn counter(&self, person: Uuid) -> &AtomicU64 {
        // The last bytes of a UUIDv7 are random.
        let [.., high, low] = *person.as_bytes();
        &self.0[usize::from(u16::from_be_bytes([high, low])) % COUNTERS]
    }
}
