//! Attempts of passwords: failures in a row, and the waits that grow with them (NIST SP 800-63B-4 §3.2.2, OWASP ASVS 6.3.1).
//!
//! ```text
//! reserve: ── waiting? ──▶ refused, nothing counted
//!             └─ no ─────▶ a failure is counted in advance ──┬─ the password was right ─▶ cleared
//!                                                            ├─ it was never judged ────▶ given back
//!                                                            └─ it was wrong, or the request died: it stands
//! ```
//!
//! Counting before judging is what makes a hundred parallel guesses, and those whose client hung up, cost what they
//! should. There is no lock-out: five failures are free, then waits of 1, 2, 4 … 60 s, forgotten a day after the last.
//! Where a bucket has a `lock`, that many failures make everybody wait an hour at a time who is not known by a device.
//!
//! A wait that no clock of ours can have begun was written by one that was set since: nobody waits for it, and the
//! failures stand.
//!
//! The rule stands here for SQL and in `lua/reserve.lua` for Redis: it must be one round trip, as every login pays it.

use std::time::Duration;

use super::Value;
use crate::db::Timestamp;

/// Failures that cost no wait.
const FREE: u32 = 5;
/// No wait, on a node whose clock is behind neither.
const FREE_NOW: Timestamp = Timestamp::from_millis(0);
/// The longest wait that grows.
const LONGEST: Duration = Duration::from_secs(60);
/// What is said at a lock.
const LOCKED: Duration = Duration::from_secs(60 * 60);
/// A bucket is forgotten so long after its last failure.
const MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// A bucket of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    failures: u32,
    free_at: Timestamp,
    until: Timestamp,
}

impl Attempts {
    /// The bucket with one failure more; `Err` is the wait when there must be one first.
    pub(super) fn reserve(before: Option<Self>, now: Timestamp, lock: Option<u32>) -> Result<Self, Duration> {
        let failures = before.map_or(0, |before| before.failures);
        if lock.is_some_and(|lock| failures >= lock) {
            return Err(LOCKED);
        }
        let free_at = before.map(|before| before.free_at).filter(|free_at| !free_at.is_stray(now, LONGEST));
        let wait = free_at.map_or(0, |free_at| free_at.millis() - now.millis());
        if wait > 0 {
            return Err(Duration::from_millis(wait.unsigned_abs()));
        }
        let failures = failures.saturating_add(1);
        let free_at = match wait_after(failures) {
            Duration::ZERO => FREE_NOW,
            wait => now.after(wait),
        };
        Ok(Self { failures, free_at, until: now.after(MEMORY) })
    }

    /// The bucket as if its last attempt had not been; it was never judged.
    #[must_use]
    pub fn without_last(self) -> Self {
        Self { failures: self.failures.saturating_sub(1), free_at: FREE_NOW, ..self }
    }
}

fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(over) => Duration::from_secs(1 << over.min(6)).min(LONGEST),
    }
}

impl Value for Attempts {
    const KIND: &'static str = "t";

    fn expires_at(&self) -> Timestamp {
        self.until
    }

    fn pack(&self) -> Vec<u8> {
        let mut bytes = self.failures.to_be_bytes().to_vec();
        bytes.extend(&self.free_at.millis().to_be_bytes()[2..]);
        bytes
    }

    fn unpack(bytes: &[u8], until: Timestamp) -> Option<Self> {
        let (failures, free_at) = bytes.split_first_chunk()?;
        let free_at: &[u8; 6] = free_at.try_into().ok()?;
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(free_at);
        let free_at = Timestamp::from_millis(i64::from_be_bytes(millis));
        Some(Self { failures: u32::from_be_bytes(*failures), free_at, until })
    }
}

/// Refreshes of one session within a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refreshes {
    count: u32,
    until: Timestamp,
}

impl Refreshes {
    const WINDOW: Duration = Duration::from_secs(60);

    /// One more; `Err` is the wait when there were `most`.
    pub(super) fn count(before: Option<Self>, now: Timestamp, most: u32) -> Result<Self, Duration> {
        let before = before.filter(|before| !before.until.is_stray(now, Self::WINDOW));
        let before = before.unwrap_or(Self { count: 0, until: now.after(Self::WINDOW) });
        if before.count >= most {
            let wait = before.until.millis().saturating_sub(now.millis());
            return Err(Duration::from_millis(wait.unsigned_abs()));
        }
        Ok(Self { count: before.count + 1, ..before })
    }
}

impl Value for Refreshes {
    const KIND: &'static str = "r";

    fn expires_at(&self) -> Timestamp {
        self.until
    }

    fn pack(&self) -> Vec<u8> {
        self.count.to_be_bytes().to_vec()
    }

    fn unpack(bytes: &[u8], until: Timestamp) -> Option<Self> {
        Some(Self { count: u32::from_be_bytes(bytes.try_into().ok()?), until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_at_a_minute() {
        let (mut bucket, mut now, mut waits) = (None, Timestamp::from_millis(1_795_344_960_000), Vec::new());
        for _ in 0..14 {
            match Attempts::reserve(bucket, now, None) {
                Ok(after) => bucket = Some(after),
                Err(wait) => {
                    waits.push(wait.as_secs());
                    now = now.after(wait);
                    bucket = Some(Attempts::reserve(bucket, now, None).unwrap());
                }
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60], "after five that are free");
    }

    #[test]
    fn a_lock_is_an_hour_each_time_it_is_asked() {
        let now = Timestamp::from_millis(1_795_344_960_000);
        let bucket = Attempts { failures: 100, free_at: now, until: now.after(MEMORY) };
        assert_eq!(Attempts::reserve(Some(bucket), now, Some(100)), Err(LOCKED));
        assert!(Attempts::reserve(Some(bucket), now, None).is_ok());
        let nearly = Attempts { failures: 99, ..bucket };
        assert!(Attempts::reserve(Some(nearly), now, Some(100)).is_ok());
    }

    #[test]
    fn a_bucket_survives_the_packing() {
        let now = Timestamp::from_millis(1_795_344_960_000);
        let bucket = Attempts { failures: 70_000, free_at: now.after(LONGEST), until: now.after(MEMORY) };
        assert_eq!(Attempts::unpack(&bucket.pack(), bucket.until), Some(bucket));
    }
}
