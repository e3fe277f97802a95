//! Giving freed memory back to the operating system.
//!
//! glibc keeps what is freed: between what still lives are whole pages of nothing, and after a storm of requests an idle
//! server would stay three times as large as it needs to be. It gives them back when asked. That takes milliseconds in
//! which some thread may wait for memory, so it is done by a job, once nothing much is going on any more.
//!
//! Other allocators (musl's, Apple's) do this by themselves, or offer nothing; there it does nothing.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A process that used less than this part of one core was calm. Hashes take most of what is used and allocate nothing, so
/// that a trickle of logins must not count as a storm that never ends.
const CALM: u32 = 2;

/// Looks at how busy the process was since the last look.
#[derive(Debug, Default)]
pub struct Watch {
    used: Duration,
}

impl Watch {
    /// Gives memory back, unless the process was busy in the period that ends now.
    pub fn give_back(&mut self, period: Duration) {
        if self.was_calm(cpu_time(), period) {
            give_back();
        }
    }

    fn was_calm(&mut self, used: Duration, period: Duration) -> bool {
        let since = used.saturating_sub(std::mem::replace(&mut self.used, used));
        since < period / CALM
    }
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of the C library that only concerns the allocator")]
fn give_back() {
    // SAFETY: it takes no pointer, and locks what it looks at.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_calm_process_is_held_up() {
        let (mut watch, period) = (Watch::default(), Duration::from_secs(30));
        assert!(!watch.was_calm(Duration::from_secs(20), period), "it used most of a core");
        assert!(watch.was_calm(Duration::from_secs(21), period));
        assert!(!watch.was_calm(Duration::from_secs(41), period), "what counts is what was used since");
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn pages_of_nothing_between_what_lives_are_given_back() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap()
        };
        // 128 MB of small pieces, of which one in 64 stays.
        let mut pieces: Vec<_> = (0..128 * 1024).map(|n| Some(vec![u8::try_from(n % 251).unwrap(); 1000])).collect();
        pieces.iter_mut().enumerate().for_each(|(n, piece)| {
            if n % 64 != 0 {
                *piece = None;
            }
        });
        let before = resident();
        give_back();
        let after = resident();
        // Other tests have memory as well.
        assert!(before > after + 64 * 1024, "{before} kB before, {after} kB after");
        assert!(pieces.iter().flatten().all(|piece| piece.len() == 1000));
    }
}
