//! What the machine gives: room in the data folder, and memory for hashes.

use std::{fs, path::Path};

use super::Finding;
use crate::config::Config;

const NAME: &str = "machine";
const MIB: u64 = 1024 * 1024;
/// A server takes about as much beside its hashes.
const BESIDE: u64 = 100 * MIB;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.database_url.is_none() {
        findings.extend(room(&config.data_dir));
    }
    let threads = u64::try_from(config.passwords.hash_threads.get()).unwrap_or(u64::MAX);
    let needed = threads.saturating_mul(u64::from(config.passwords.memory_kib)).saturating_mul(1024);
    findings.extend(memory(needed, limit()));
    findings
}

/// Room on the disk of the data folder, or of the nearest folder above that is there.
fn room(folder: &Path) -> Option<Finding> {
    let nearest = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(nearest).ok()?;
    let (free, all) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
    let found = format!("{} MiB of {} are free for {}", free / MIB, all / MIB, folder.display());
    let mend = "make room: a full disk refuses every write, sign-ins included";
    Some(match free {
        free if free < 64 * MIB => Finding::failure(NAME, found, mend),
        free if free < 1024 * MIB || free < all / 20 => Finding::warning(NAME, found, mend),
        _ => Finding::ok(NAME, found),
    })
}

/// Whether hashes on all threads at once fit into the memory of this process.
fn memory(needed: u64, limit: Option<u64>) -> Option<Finding> {
    let limit = limit?;
    let found = format!("hashes may take {} MiB at once, of {} there are", needed / MIB, limit / MIB);
    let mend =
        "lower LATCHKEY_HASH_THREADS or LATCHKEY_ARGON2_MEMORY_KIB (`latchkey hash calibrate`), or give it more memory";
    Some(match needed.saturating_add(BESIDE) {
        all if all > limit => Finding::failure(NAME, found, mend),
        all if all > limit / 10 * 8 => Finding::warning(NAME, found, mend),
        _ => Finding::ok(NAME, found),
    })
}

/// The memory that this process may have: what its cgroup says, at most that of the machine.
fn limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(limit_of).chain(machine).min()
}

/// The least limit from this group up to the root. In a container the root is the container's own group.
fn limit_of(line: &str) -> Option<u64> {
    // `0::/path` in version 2; `9:memory:/path` in version 1.
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    let limits = groups.filter_map(|group| fs::read_to_string(Path::new(root).join(group).join(file)).ok());
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn hashes_have_to_fit_into_memory() {
        let level = |needed, limit| memory(needed * MIB, Some(limit * MIB)).unwrap().level;
        assert_eq!(level(38, 1024), Level::Ok);
        assert_eq!(level(38, 160), Level::Warning);
        assert_eq!(level(38, 128), Level::Failure);
        assert!(memory(u64::MAX, None).is_none(), "nobody says");
    }
}
