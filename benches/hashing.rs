//! What a password hash costs, and what our threads add to it.
//!
//! 1. Argon2id at four costs: the bare crate with memory of its own for each hash, the bare crate with memory that is
//!    used again, and our threads ([`Hasher`]); on one thread and on all cores.
//! 2. A login's check against every scheme that people may bring along. The right password costs the old scheme and one
//!    new hash; the wrong one what is missing to one hash.
//! 3. Ratios of our threads to the bare crate, measured by turns: absolute times move here from run to run.
//!
//! Our threads are polite (`nice`), so beside other work they get less than the bare crate does.

#[path = "support/ratio.rs"]
mod ratio;
mod support;

use std::{
    hint::black_box,
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::pbkdf2;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use latchkey::{
    ambient::Ambient,
    config::{Config, Given},
    hashing::{Busy, Hasher, Policy, Verdict},
    secret::SecretText,
};
use tokio::{runtime::Runtime, task::JoinSet};

const PASSWORD: &str = "correct horse battery";
const SALT: [u8; 16] = [7; 16];
/// Memory in KiB, passes, lanes.
const COSTS: [(u32, u32, u32); 4] = [(19456, 2, 1), (47104, 1, 1), (7168, 5, 1), (65536, 3, 1)];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    println!("{}", support::machine());
    let runtime = Runtime::new().expect("a runtime");
    for cost in COSTS {
        argon2id(&mut criterion, &runtime, cost);
    }
    schemes(&mut criterion, &runtime);
    criterion.final_summary();
    ratios(&runtime);
}

fn argon2id(criterion: &mut Criterion, runtime: &Runtime, cost: (u32, u32, u32)) {
    let (memory, passes, lanes) = cost;
    for threads in counts() {
        let mut group = criterion.benchmark_group(format!("argon2id {memory}/{passes}/{lanes} on {threads}"));
        group.throughput(Throughput::Elements(threads as u64));
        let bare = |group: &mut BenchmarkGroup<'_, WallTime>, name: &str, hash: fn((u32, u32, u32), u64)| {
            group
                .bench_function(name, |bencher| bencher.iter_custom(|times| on_threads(threads, || hash(cost, times))));
        };
        bare(&mut group, "bare, fresh memory", fresh);
        bare(&mut group, "bare, reused memory", reused);
        let hasher = pool(cost, threads);
        group.bench_function("our threads", |bencher| {
            bencher.iter_custom(|times| pooled(runtime, &hasher, threads, times * threads as u64));
        });
        group.finish();
    }
}

/// One thread, and all cores where there are more.
fn counts() -> Vec<usize> {
    let mut counts = vec![1, support::cores()];
    counts.dedup();
    counts
}

/// How long it takes until each of the threads has done the work.
fn on_threads(threads: usize, work: impl Fn() + Sync) -> Duration {
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(&work);
        }
    });
    began.elapsed()
}

fn argon((memory, passes, lanes): (u32, u32, u32)) -> Argon2<'static> {
    let params = Params::new(memory, passes, lanes, Some(32)).expect("parameters of Argon2");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn fresh(cost: (u32, u32, u32), times: u64) {
    let (argon, mut tag) = (argon(cost), [0; 32]);
    for _ in 0..times {
        argon.hash_password_into(PASSWORD.as_bytes(), &SALT, &mut tag).expect("a hash");
        black_box(tag);
    }
}

fn reused(cost: (u32, u32, u32), times: u64) {
    let (argon, mut tag) = (argon(cost), [0; 32]);
    let mut memory = vec![Block::default(); argon.params().block_count()];
    for _ in 0..times {
        argon.hash_password_into_with_memory(PASSWORD.as_bytes(), &SALT, &mut tag, &mut memory).expect("a hash");
        black_box(tag);
    }
}

/// Our threads at this cost.
fn pool((memory, passes, lanes): (u32, u32, u32), threads: usize) -> Hasher {
    let settings = [
        ("LATCHKEY_ARGON2_MEMORY_KIB", memory.to_string()),
        ("LATCHKEY_ARGON2_ITERATIONS", passes.to_string()),
        ("LATCHKEY_ARGON2_PARALLELISM", lanes.to_string()),
        ("LATCHKEY_HASH_THREADS", threads.to_string()),
    ];
    let passwords = Config::from_given(&Given::from_pairs(settings)).expect("settings").passwords;
    Hasher::start(Policy::new(&passwords), passwords.hash_threads, passwords.hash_queue, Ambient::system())
}

/// Lets the threads make `hashes`, with one waiting for each that is under way.
fn pooled(runtime: &Runtime, hasher: &Hasher, threads: usize, hashes: u64) -> Duration {
    let began = Instant::now();
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        let count = 2 * threads as u64;
        for client in 0..count.min(hashes) {
            let (hasher, share) = (hasher.clone(), (hashes + count - 1 - client) / count);
            clients.spawn(async move {
                for _ in 0..share {
                    black_box(patiently(|| hasher.hash(SecretText::new(PASSWORD))).await);
                }
            });
        }
        clients.join_all().await;
    });
    began.elapsed()
}

/// Asks again where the machine was too busy to begin within two seconds: no work was done then.
async fn patiently<T, F: Future<Output = Result<T, Busy>>>(ask: impl Fn() -> F) -> T {
    for _ in 0..30 {
        if let Ok(done) = ask().await {
            return done;
        }
    }
    panic!("no hash within a minute");
}

/// A stored hash of the password by each scheme.
fn stored() -> Vec<(&'static str, String)> {
    let phc =
        |head: &str, tag: &[u8]| format!("{head}${}${}", STANDARD_NO_PAD.encode(SALT), STANDARD_NO_PAD.encode(tag));
    let mut tag = [0; 32];
    let mut stored = Vec::new();
    for (name, algorithm) in
        [("argon2id", Algorithm::Argon2id), ("argon2i", Algorithm::Argon2i), ("argon2d", Algorithm::Argon2d)]
    {
        let params = Params::new(19456, 2, 1, Some(32)).expect("parameters of Argon2");
        let argon = Argon2::new(algorithm, Version::V0x13, params);
        argon.hash_password_into(PASSWORD.as_bytes(), &SALT, &mut tag).expect("a hash");
        stored.push((name, phc(&format!("${name}$v=19$m=19456,t=2,p=1"), &tag)));
    }
    stored.push(("bcrypt, cost 10", bcrypt::hash(PASSWORD, 10).expect("a hash")));
    let params = scrypt::Params::new(15, 8, 1).expect("parameters of scrypt");
    scrypt::scrypt(PASSWORD.as_bytes(), &SALT, &params, &mut tag).expect("a hash");
    stored.push(("scrypt, ln=15 r=8 p=1", phc("$scrypt$ln=15,r=8,p=1", &tag)));
    for (name, label, algorithm, rounds) in [
        ("pbkdf2-sha256", "pbkdf2-sha256, 600000 rounds", pbkdf2::PBKDF2_HMAC_SHA256, 600_000),
        ("pbkdf2-sha512", "pbkdf2-sha512, 210000 rounds", pbkdf2::PBKDF2_HMAC_SHA512, 210_000),
    ] {
        let count = NonZeroU32::new(rounds).expect("rounds");
        pbkdf2::derive(algorithm, count, &SALT, PASSWORD.as_bytes(), &mut tag);
        stored.push((label, phc(&format!("${name}$i={rounds}"), &tag)));
    }
    stored
}

fn schemes(criterion: &mut Criterion, runtime: &Runtime) {
    let hasher = pool(COSTS[0], 1);
    let check = |password: &str, text: &str| {
        runtime.block_on(patiently(|| hasher.verify(SecretText::new(password), Some(text.to_owned()))))
    };
    let mut group = criterion.benchmark_group("check of a login");
    for (name, text) in stored() {
        // What is measured must be what is meant.
        assert!(matches!(check(PASSWORD, &text), Verdict::Right { .. }), "{name}");
        assert_eq!(check("wrong horse battery", &text), Verdict::Wrong { alarm: false }, "{name}");
        group.bench_function(format!("{name}, right"), |bencher| bencher.iter(|| check(PASSWORD, &text)));
        group.bench_function(format!("{name}, wrong"), |bencher| bencher.iter(|| check("wrong horse battery", &text)));
    }
    group.finish();
}

fn ratios(runtime: &Runtime) {
    println!("\nOur threads to the bare crate, one hash, by turns; {}", support::machine());
    for cost in COSTS {
        for threads in counts() {
            let hasher = pool(cost, threads);
            // Enough to let the last ones of a round weigh little.
            let (times, all) = (4, 4 * threads as u64);
            let taken = ratio::interleaved(&mut [
                &mut || pooled(runtime, &hasher, threads, all),
                &mut || on_threads(threads, || reused(cost, times)),
                &mut || on_threads(threads, || fresh(cost, times)),
            ]);
            let (memory, passes, lanes) = cost;
            for (floor, taken_by_floor) in [("reused", taken[1]), ("fresh", taken[2])] {
                let what = format!("{memory}/{passes}/{lanes} on {threads}, bare with {floor} memory");
                ratio::say(&what, taken[0], taken_by_floor, 4 * threads, "");
            }
        }
    }
}
