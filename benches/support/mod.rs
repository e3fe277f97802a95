//! What the benches share: whether they are only tried, and what is said of the machine.

use std::fs;

/// Whether this is a run that only proves that everything works: `cargo bench` says `--bench`, `cargo test` does not.
pub fn is_trial() -> bool {
    let arguments: Vec<_> = std::env::args().collect();
    let said = |flag: &str| arguments.iter().any(|argument| argument == flag);
    !said("--bench") || said("--test")
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The machine, and how busy others keep it.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" unknown");
    let load = load();
    let busy = if load > 0.5 { "; HIGH, so absolute times mean little" } else { "" };
    format!("{} x{}, load average {load:.2}{busy}", model.trim_start_matches([' ', '\t', ':']), cores())
}

/// The load average of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
