//! A ratio of things that were measured by turns in the same run.

use std::time::Duration;

use crate::support::{is_trial, median};

/// Rounds of a measurement; odd, so that the median was measured.
const ROUNDS: usize = 15;

/// The seconds of each of the works, as medians of rounds in which one follows the other: what the machine does besides
/// falls on all of them alike.
pub fn interleaved(works: &mut [&mut dyn FnMut() -> Duration]) -> Vec<f64> {
    let mut taken = vec![Vec::new(); works.len()];
    for _ in 0..if is_trial() { 1 } else { ROUNDS } {
        for (work, taken) in works.iter_mut().zip(&mut taken) {
            taken.push(work().as_secs_f64());
        }
    }
    taken.into_iter().map(median).collect()
}

/// One line of a table of ratios: the seconds of so many.
pub fn say(what: &str, ours: f64, floor: f64, times: usize, target: &str) {
    let micros = |seconds: f64| seconds * 1e6 / times as f64;
    println!("{what:<44} {:>10.2} µs / {:>10.2} µs = {:>6.3}   {target}", micros(ours), micros(floor), ours / floor);
}
