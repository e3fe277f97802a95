//! Finding the cost of a hash that takes nearly, but not more than, a given time on this machine.
//!
//! Memory is what makes guessing dear on special hardware, so it grows first: two passes (the default) over as much
//! memory as the time allows, and more passes only where memory is at its bound. One lane, since the hashing threads are
//! what uses the cores.

use std::{num::NonZeroUsize, time::Duration};

use tokio::time::Instant;

use super::{Busy, Hasher, Policy};
use crate::{ambient::Ambient, config::PasswordSettings, secret::SecretText};

/// The bounds of what a server accepts as settings, and the passes of the default.
const LEAST_MEMORY_KIB: u32 = 7 * 1024;
const MOST_MEMORY_KIB: u32 = 256 * 1024;
const PASSES: u32 = 2;
const MOST_PASSES: u32 = 10;
/// Memory is given in whole MiB.
const STEP_KIB: u32 = 1024;
/// Costs that are tried.
const MOST_TRIES: usize = 12;
/// Hashes by which one cost is judged.
const SAMPLES: usize = 3;
/// How long the search may take, and how long the load after it is measured.
const SEARCH: Duration = Duration::from_secs(12);
const LOAD: Duration = Duration::from_secs(2);

/// A cost, and what it means here.
#[derive(Clone, Copy, Debug)]
pub struct Calibrated {
    /// Argon2id memory in KiB.
    pub memory_kib: u32,
    /// Argon2id passes.
    pub iterations: u32,
    /// How long one hash takes when nothing else is hashed.
    pub alone: Duration,
    /// Hashes in a second with every hashing thread at work.
    pub a_second: f64,
}

/// Finds the greatest cost whose hash takes at most `target`; `None` when the least cost takes longer already. `tell`
/// hears of every cost that was tried.
///
/// # Errors
/// [`Busy`] when the OS has no memory for it.
pub async fn calibrate(
    settings: &PasswordSettings,
    target: Duration,
    ambient: &Ambient,
    mut tell: impl FnMut(u32, u32, Duration),
) -> Result<Option<Calibrated>, Busy> {
    let end = Instant::now() + SEARCH;
    let mut best: Option<(u32, u32, Duration)> = None;
    let mut cost = (LEAST_MEMORY_KIB, PASSES);
    let mut tried = Vec::new();
    for _ in 0..MOST_TRIES {
        tried.push(cost);
        let took = time(settings, cost, ambient).await?;
        tell(cost.0, cost.1, took);
        if took <= target && best.is_none_or(|(memory, passes, _)| work(cost) > work((memory, passes))) {
            best = Some((cost.0, cost.1, took));
        }
        // What the next try would take is what this one took, or the target.
        if Instant::now() + took.max(target) * u32::try_from(SAMPLES).unwrap_or(1) > end {
            break;
        }
        let Some(next) = closer(cost, took, target, best).filter(|next| !tried.contains(next)) else { break };
        cost = next;
    }
    if best.is_none() && cost.1 > 1 {
        // The very least there is.
        let took = time(settings, (LEAST_MEMORY_KIB, 1), ambient).await?;
        tell(LEAST_MEMORY_KIB, 1, took);
        best = (took <= target).then_some((LEAST_MEMORY_KIB, 1, took));
    }
    let Some((memory_kib, iterations, alone)) = best else { return Ok(None) };
    let a_second = load(settings, (memory_kib, iterations), alone, ambient).await?;
    Ok(Some(Calibrated { memory_kib, iterations, alone, a_second }))
}

fn work((memory, passes): (u32, u32)) -> u64 {
    u64::from(memory) * u64::from(passes)
}

/// The cost that by the last measurement takes the target, a little less once something fits.
fn closer(
    cost: (u32, u32),
    took: Duration,
    target: Duration,
    best: Option<(u32, u32, Duration)>,
) -> Option<(u32, u32)> {
    let near = |took: Duration| took <= target && took.as_secs_f64() >= 0.95 * target.as_secs_f64();
    if best.is_some_and(|(_, _, took)| near(took)) {
        return None;
    }
    // Below the target by so much that the next measurement is likely to be as well.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    let wanted = (work(cost) as f64 * 0.98 * target.as_secs_f64() / took.as_secs_f64().max(1e-6)) as u64;
    let passes = (u32::try_from(wanted / u64::from(MOST_MEMORY_KIB)).unwrap_or(MOST_PASSES)).clamp(PASSES, MOST_PASSES);
    let memory = u32::try_from(wanted / u64::from(passes)).unwrap_or(MOST_MEMORY_KIB) / STEP_KIB * STEP_KIB;
    Some((memory.clamp(LEAST_MEMORY_KIB, MOST_MEMORY_KIB), passes))
}

fn hasher(settings: &PasswordSettings, cost: (u32, u32), threads: NonZeroUsize, ambient: &Ambient) -> Hasher {
    let settings = PasswordSettings { memory_kib: cost.0, iterations: cost.1, parallelism: 1, ..settings.clone() };
    Hasher::start(Policy::new(&settings), threads, 2 * threads.get(), ambient.clone())
}

fn password() -> SecretText {
    SecretText::new("a password of usual length")
}

/// How long one hash takes, on a thread and with memory as those of a server: the middle of some.
async fn time(settings: &PasswordSettings, cost: (u32, u32), ambient: &Ambient) -> Result<Duration, Busy> {
    let hasher = hasher(settings, cost, NonZeroUsize::MIN, ambient);
    // The first one maps the memory.
    hasher.hash(password()).await?;
    let mut took = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let started = Instant::now();
        hasher.hash(password()).await?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    Ok(took[SAMPLES / 2])
}

/// Hashes in a second with every thread of the settings at work.
async fn load(settings: &PasswordSettings, cost: (u32, u32), alone: Duration, ambient: &Ambient) -> Result<f64, Busy> {
    let threads = settings.hash_threads;
    let hasher = hasher(settings, cost, threads, ambient);
    let (started, end) = (Instant::now(), Instant::now() + LOAD.max(2 * alone));
    let keep_hashing = (0..threads.get()).map(|_| async {
        let mut count = 0_u32;
        while Instant::now() < end {
            hasher.hash(password()).await?;
            count += 1;
        }
        Ok::<_, Busy>(count)
    });
    let counts = futures_util::future::try_join_all(keep_hashing).await?;
    Ok(f64::from(counts.iter().sum::<u32>()) / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_cost_is_within_the_bounds_and_memory_grows_first() {
        let ms = Duration::from_millis;
        let next = |cost, took, target| closer(cost, ms(took), ms(target), None);
        let (memory, passes) = next((7168, 2), 10, 100).unwrap();
        assert!((60 * 1024..=70 * 1024).contains(&memory) && passes == 2, "{memory} {passes}");
        assert_eq!(next((MOST_MEMORY_KIB, 2), 10, 100), Some((MOST_MEMORY_KIB, MOST_PASSES)));
        assert_eq!(next((MOST_MEMORY_KIB, 2), 1000, 2000).map(|(_, passes)| passes), Some(3));
        assert_eq!(next((7168, 2), 100, 10), Some((LEAST_MEMORY_KIB, PASSES)));
        let near = Some((7168, 2, ms(97)));
        assert_eq!(closer((7168, 2), ms(97), ms(100), near), None, "near enough");
    }
}
