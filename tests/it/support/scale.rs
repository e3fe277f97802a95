//! How much of everything: `ci` is the everyday run, `soak` has the numbers of the issues.

/// Whether `LATCHKEY_TEST_SCALE=soak` was asked for.
#[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
pub fn is_soak() -> bool {
    std::env::var("LATCHKEY_TEST_SCALE").is_ok_and(|scale| scale == "soak")
}

/// What a test lacks that takes minutes by its nature.
pub fn only_in_a_soak() -> Option<&'static str> {
    (!is_soak()).then_some("takes minutes; scripts/test --soak runs it")
}

fn pick(ci: usize, soak: usize) -> usize {
    if is_soak() { soak } else { ci }
}

/// Requests in one race.
pub fn race() -> usize {
    50
}

/// Times that a race is run.
pub fn races() -> usize {
    pick(1, 20)
}

/// Times that a server under load is killed.
pub fn kills() -> usize {
    pick(5, 50)
}

/// Times that a restore is killed.
pub fn killed_restores() -> usize {
    pick(12, 200)
}

/// Sockets that are slow at the same time.
pub fn sockets() -> usize {
    pick(300, 2000)
}

/// Requests that are dropped half-way.
pub fn hang_ups() -> usize {
    pick(500, 10_000)
}

/// Rotations of the signing key under load.
pub fn rotations() -> usize {
    pick(5, 20)
}

/// People that ask who they are, and how often each.
pub fn crowd() -> (usize, usize) {
    if is_soak() { (200, 2000) } else { (40, 50) }
}

/// Requests to paths that nobody has.
pub fn random_paths() -> usize {
    pick(2000, 100_000)
}
