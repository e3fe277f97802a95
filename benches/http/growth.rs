//! How cost grows: the same questions with a thousand people, with a hundred thousand, with a million, and as many
//! sessions.
//!
//! `/me` is asked at a fixed pace by a thousand people who are spread over all, each once a second: its answers are kept
//! for half a second, so that every one is read from both stores at every size.

use crate::{
    Bench, Scale,
    drive::{self, Order},
    login, refresh,
    report::Report,
    stack::{Stack, Urls},
    support,
};

/// The slowest size over the quickest.
const FLAT: f64 = 1.2;
const ROUNDS: usize = 3;

pub fn run(scale: &Scale, urls: Option<Urls>) -> Report {
    let name = if urls.is_some() { "growth on PostgreSQL + Redis" } else { "growth on SQLite" };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stack = runtime.block_on(Stack::new(urls));
    let server = stack.server();
    let mint = runtime.block_on(stack.mint());
    let floor = stack.floor((0, 1));
    let mut report = Report::new(name);
    let (mut filled, asked) = (0, scale.growth[0]);
    let mut sizes = Vec::new();
    for &size in &scale.growth {
        let began = std::time::Instant::now();
        runtime.block_on(stack.fill(filled..size));
        report.note(&format!("filled to {size} in"), format!("{:.1} s", began.elapsed().as_secs_f64()));
        // Among those who came last, whose first refresh tokens are not spent yet.
        let spread: Vec<u64> = (0..asked).map(|step| filled + step * (size - filled) / asked).collect();
        filled = size;
        let bench = Bench { stack: &stack, scale };
        let at = server.address;
        let make = |each: &dyn Fn(u64) -> Vec<u8>| spread.iter().map(|&n| each(n)).collect::<Vec<_>>();
        let mut login = bench.set("login", at, &make(&|n| login(at, n)), Order::Round);
        let mut refresh = bench.set("refresh", at, &make(&|n| refresh(at, &mint, n)), Order::Refresh);
        let mut me = bench.set("me", at, &make(&|n| drive::get(at, "/me", Some(&mint.access(n)))), Order::Round);
        let search = make(&|n| drive::get(floor.address, &format!("/address/{n}"), None));
        let mut search = bench.set("search", floor.address, &search, Order::Round);
        for round in 0..=ROUNDS.min(scale.rounds) {
            let runs = [
                ("login", bench.run(&mut login, server.id(), scale.hash_millis, None)),
                ("refresh", bench.run(&mut refresh, server.id(), scale.millis, None)),
                ("/me from both stores", bench.run(&mut me, server.id(), 2 * scale.millis, Some(asked as f64))),
                ("search by address", bench.run(&mut search, floor.id(), scale.millis, None)),
            ];
            // The first round warms up.
            for (what, run) in runs.into_iter().filter(|_| round > 0) {
                report.add(&format!("{what}, {size}"), run);
            }
        }
        sizes.push(runtime.block_on(stack.sizes(size)));
    }
    for what in ["login", "refresh", "/me from both stores", "search by address"] {
        let middles = |figure: fn(&crate::report::Run) -> f64| {
            scale.growth.iter().map(|size| report.middle(&format!("{what}, {size}"), figure)).collect::<Vec<_>>()
        };
        let (p50, cpu) = (middles(|run| run.p50), middles(|run| run.cpu_each));
        report.claim_most(format!("{what}: p50, slowest size / quickest"), spread_of(&p50), "", Some(FLAT));
        report.claim_most(format!("{what}: CPU a request, dearest size / cheapest"), spread_of(&cpu), "", None);
    }
    for (size, (person, session)) in scale.growth.iter().zip(sizes) {
        report.note(&format!("bytes of a person on disk, {size}"), format!("{person:.0}"));
        let store = if stack.is_shared() { "in Redis" } else { "on disk" };
        report.note(&format!("bytes of a session {store}, {size}"), format!("{session:.0}"));
    }
    report.note("load average", format!("{:.2}", support::load()));
    report
}

fn spread_of(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::MIN, f64::max) / values.iter().copied().fold(f64::MAX, f64::min)
}
