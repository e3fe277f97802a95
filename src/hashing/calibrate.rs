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
const SAMPLES: u32 = 3;
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
    let found = search(target, async |cost: Cost| {
        let took = time(settings, cost, ambient).await?;
        tell(cost.0, cost.1, took);
        Ok::<_, Busy>(took)
    });
    let Some((cost, alone)) = found.await? else { return Ok(None) };
    let a_second = load(settings, cost, alone, ambient).await?;
    Ok(Some(Calibrated { memory_kib: cost.0, iterations: cost.1, alone, a_second }))
}

/// The greatest cost that `measure` finds to take at most `target`, and what it takes.
async fn search<E>(
    target: Duration,
    mut measure: impl AsyncFnMut(Cost) -> Result<Duration, E>,
) -> Result<Option<(Cost, Duration)>, E> {
    // A hash to map the memory, and those that are measured.
    let cost_of_a_try = |took: Duration| took * (SAMPLES + 1);
    let mut spent = Duration::ZERO;
    let mut best: Option<(Cost, Duration)> = None;
    let mut cost = (LEAST_MEMORY_KIB, PASSES);
    let mut tried = Vec::new();
    for _ in 0..MOST_TRIES {
        tried.push(cost);
        let took = measure(cost).await?;
        if took <= target && best.is_none_or(|(best, _)| work(cost) > work(best)) {
            best = Some((cost, took));
        }
        spent += cost_of_a_try(took);
        // The next hash will take what this one took, or the target.
        if spent + cost_of_a_try(took.max(target)) > SEARCH {
            break;
        }
        let Some(mut next) = closer(cost, took, target, best) else { break };
        if tried.contains(&next)
            && let Some(((memory, _), _)) = best
        {
            // It was too slow once, perhaps by something beside it; what lies half way need not be.
            next.0 = next.0.midpoint(memory) / STEP_KIB * STEP_KIB;
        }
        if tried.contains(&next) {
            break;
        }
        cost = next;
    }
    if best.is_none() {
        // The very least there is.
        let least = (LEAST_MEMORY_KIB, 1);
        let took = measure(least).await?;
        best = (took <= target).then_some((least, took));
    }
    Ok(best)
}

/// Memory in KiB, and passes.
type Cost = (u32, u32);

fn work((memory, passes): Cost) -> u64 {
    u64::from(memory) * u64::from(passes)
}

/// The cost that by the last measurement takes the target, a little less once something fits.
fn closer(cost: Cost, took: Duration, target: Duration, best: Option<(Cost, Duration)>) -> Option<Cost> {
    let near = |took: Duration| took <= target && took.as_secs_f64() >= 0.95 * target.as_secs_f64();
    if best.is_some_and(|(_, took)| near(took)) {
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
    // As few as there can be with the memory that there may be.
    let passes = u32::try_from(wanted.div_ceil(u64::from(MOST_MEMORY_KIB))).unwrap_or(MOST_PASSES);
    let passes = passes.clamp(PASSES, MOST_PASSES);
    let memory = u32::try_from(wanted / u64::from(passes)).unwrap_or(MOST_MEMORY_KIB) / STEP_KIB * STEP_KIB;
    Some((memory.clamp(LEAST_MEMORY_KIB, MOST_MEMORY_KIB), passes))
}

fn hasher(settings: &PasswordSettings, cost: Cost, threads: NonZeroUsize, ambient: &Ambient) -> Hasher {
    let settings = PasswordSettings { memory_kib: cost.0, iterations: cost.1, parallelism: 1, ..settings.clone() };
    Hasher::start(Policy::new(&settings), threads, 2 * threads.get(), ambient.clone())
}

fn password() -> SecretText {
    SecretText::new("a password of usual length")
}

/// How long one hash takes, on a thread and with memory as those of a server: the middle of some.
async fn time(settings: &PasswordSettings, cost: Cost, ambient: &Ambient) -> Result<Duration, Busy> {
    let hasher = hasher(settings, cost, NonZeroUsize::MIN, ambient);
    // The first one maps the memory.
    hasher.hash(password()).await?;
    let mut took = Vec::new();
    for _ in 0..SAMPLES {
        let started = Instant::now();
        hasher.hash(password()).await?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    Ok(took[took.len() / 2])
}

/// Hashes in a second with every thread of the settings at work.
async fn load(settings: &PasswordSettings, cost: Cost, alone: Duration, ambient: &Ambient) -> Result<f64, Busy> {
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
        assert_eq!(next((MOST_MEMORY_KIB, 2), 1000, 2000), Some((250 * 1024, 4)), "as near as it gets");
        assert_eq!(next((7168, 2), 100, 10), Some((LEAST_MEMORY_KIB, PASSES)));
        let near = Some(((7168, 2), ms(97)));
        assert_eq!(closer((7168, 2), ms(97), ms(100), near), None, "near enough");
    }

    /// A machine whose hashes take `nanos` for each KiB and pass, and now and then longer; what it was asked, and how
    /// long that would have taken.
    async fn on_a_machine(nanos: u64, target: u64, hiccup: bool) -> (Option<(Cost, Duration)>, usize, Duration) {
        let (mut asked, mut spent) = (0, Duration::ZERO);
        let found = search(Duration::from_millis(target), async |cost| {
            asked += 1;
            let late = if hiccup && asked % 3 == 2 { 3 } else { 2 };
            let took = Duration::from_nanos(work(cost) * nanos * late / 2);
            spent += took * (SAMPLES + 1);
            Ok::<_, std::convert::Infallible>(took)
        });
        let found = found.await.unwrap();
        (found, asked, spent)
    }

    #[tokio::test]
    async fn what_is_found_comes_near_the_time_and_more_time_is_more_work() {
        let mut least = 0;
        for target in [60, 250, 400, 1000] {
            let (found, ..) = on_a_machine(1000, target, false).await;
            let (cost, took) = found.expect("there is one");
            assert!(took <= Duration::from_millis(target), "{target}: {cost:?} {took:?}");
            assert!(took >= Duration::from_millis(target) * 9 / 10, "{target}: {cost:?} {took:?}");
            assert!(work(cost) > least, "{target}: {cost:?}");
            least = work(cost);
        }
        // A try that came late is not the end of the search.
        let (found, ..) = on_a_machine(1000, 250, true).await;
        let (cost, took) = found.expect("there is one");
        assert!((200..=250).contains(&took.as_millis()), "{cost:?} {took:?}");
    }

    #[tokio::test]
    async fn a_slow_machine_gets_the_least_or_nothing_and_the_search_ends() {
        // The least cost of two passes takes 143 ms, of one 72 ms.
        let (found, ..) = on_a_machine(10_000, 100, false).await;
        assert_eq!(found.map(|(cost, _)| cost), Some((LEAST_MEMORY_KIB, 1)));
        let (found, asked, _) = on_a_machine(10_000, 50, false).await;
        assert_eq!((found, asked), (None, 2));
        // Nobody waits for twelve tries of a second: one that began in time may end late, and then comes the least.
        for (nanos, target) in [(1000, 1000), (3_000, 1000), (40_000, 1000), (200_000, 1000)] {
            let (_, asked, spent) = on_a_machine(nanos, target, true).await;
            let least = Duration::from_nanos(work((LEAST_MEMORY_KIB, PASSES)) * nanos * 2) * (SAMPLES + 1);
            assert!(asked <= MOST_TRIES + 1 && spent < SEARCH * 3 / 2 + least, "{nanos}: {asked} {spent:?}");
        }
    }
}
