//! What the system says of this process (`/proc/self`; elsewhere than on Linux nothing). The names are those that every
//! client library of Prometheus has.

use std::fs;

use super::text::{Kind, Text};

/// Parts of a second in which `/proc/self/stat` counts: `USER_HZ`, which Linux shows to programs as 100 on every machine
/// that Rust runs on, whatever the kernel counts in.
const TICKS: f64 = 100.0;

/// Writes what can be read.
pub fn write(text: &mut Text) {
    // The name of the program stands in parentheses and may have anything in it.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let numbers: Vec<f64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').skip(1).filter_map(|number| number.parse().ok()).collect())
        .unwrap_or_default();
    // Counted from the field after the state, which is the third (proc_pid_stat(5)).
    if let (Some(user), Some(system), Some(threads)) = (numbers.get(10), numbers.get(11), numbers.get(16)) {
        text.family(
            "process_cpu_seconds_total",
            Kind::Counter,
            "CPU time of this process, in user mode and in the kernel.",
        )
        .sample(&[], (user + system) / TICKS);
        text.family("process_threads", Kind::Gauge, "Threads of this process.").sample(&[], threads);
    }
    if let Some(bytes) = resident() {
        text.family("process_resident_memory_bytes", Kind::Gauge, "Memory that this process has in RAM.")
            .sample(&[], bytes);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is of this look itself.
        text.family("process_open_fds", Kind::Gauge, "File descriptors that are open.")
            .sample(&[], entries.count().saturating_sub(1));
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        text.family("process_max_fds", Kind::Gauge, "File descriptors that may be open.").sample(&[], most);
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
