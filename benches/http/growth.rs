//! How cost grows: the same questions with a thousand people, with a hundred thousand, with a million, and as many
//! sessions.
//!
//! Each size has a database, a Redis database and a server of its own, and they are asked in turn, since a machine is
//! slower in one minute than in the next by more than what is looked for here.
//!
//! `/me` is asked at a fixed pace by a thousand people who are spread over all, each once a second: its answers are kept
//! for half a second, so that every one is read from both stores at every size.

use crate::{
    Bench, Scale, Set,
    drive::{self, Order},
    login,
    process::Process,
    refresh,
    report::Report,
    stack::{Stack, Urls},
    support,
};

/// The slowest size over the quickest.
const FLAT: f64 = 1.2;
const ROUNDS: usize = 5;

/// One size, filled, and what it is asked.
struct Size {
    count: u64,
    server: Process,
    floor: Process,
    /// What, whether the floor is asked, for how long, and at which pace.
    things: Vec<(&'static str, bool, Set, u64, Option<f64>)>,
    // Goes last: it takes away what the servers use.
    stack: Stack,
}

impl Size {
    fn new(number: usize, urls: Option<&Urls>, scale: &Scale, report: &mut Report) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (count, asked) = (scale.growth[number], scale.growth[0]);
        let stack = runtime.block_on(Stack::new(urls.map(|urls| urls.numbered(number))));
        let server = stack.server();
        let mint = runtime.block_on(stack.mint());
        let floor = stack.floor((0, 1));
        let began = std::time::Instant::now();
        runtime.block_on(stack.fill(0..count));
        report.note(&format!("filled to {count} in"), format!("{:.1} s", began.elapsed().as_secs_f64()));
        let (person, session) = runtime.block_on(stack.sizes(count));
        report.note(&format!("bytes of a person on disk, {count}"), format!("{person:.0}"));
        let store = if stack.is_shared() { "in Redis" } else { "on disk" };
        report.note(&format!("bytes of a session {store}, {count}"), format!("{session:.0}"));
        let bench = Bench { stack: &stack, scale };
        let (at, beside) = (server.address, floor.address);
        let make = |each: &dyn Fn(u64) -> Vec<u8>| (0..asked).map(|n| each(n * count / asked)).collect::<Vec<_>>();
        let search = make(&|n| drive::get(beside, &format!("/address/{n}"), None));
        let me = make(&|n| drive::get(at, "/me", Some(&mint.access(n))));
        let things = vec![
            (LOGIN, false, bench.set("login", at, &make(&|n| login(at, n)), Order::Round), scale.hash_millis, None),
            (
                REFRESH,
                false,
                bench.set("refresh", at, &make(&|n| refresh(at, &mint, n)), Order::Refresh),
                scale.millis,
                None,
            ),
            (ME, false, bench.set("me", at, &me, Order::Round), 2 * scale.millis, Some(asked as f64)),
            (SEARCH, true, bench.set("search", beside, &search, Order::Round), scale.millis, None),
        ];
        Self { count, server, floor, things, stack }
    }
}

const LOGIN: &str = "login";
const REFRESH: &str = "refresh";
const ME: &str = "/me from both stores";
const SEARCH: &str = "search by address";

pub fn run(scale: &Scale, urls: Option<Urls>) -> Report {
    let name = if urls.is_some() { "growth on PostgreSQL + Redis" } else { "growth on SQLite" };
    let mut report = Report::new(name);
    let mut sizes: Vec<_> =
        (0..scale.growth.len()).map(|number| Size::new(number, urls.as_ref(), scale, &mut report)).collect();
    let rounds = ROUNDS.min(scale.rounds.max(1) * 2);
    for thing in 0..sizes[0].things.len() {
        for round in 0..=rounds {
            for Size { count, server, floor, things, stack } in &mut sizes {
                let (what, is_floor, set, millis, pace) = &mut things[thing];
                let id = if *is_floor { floor.id() } else { server.id() };
                let run = Bench { stack, scale }.run(set, id, *millis, *pace);
                // The first round warms up.
                if round > 0 {
                    report.add(&format!("{what}, {count}"), run);
                }
            }
        }
    }
    for what in [LOGIN, REFRESH, ME, SEARCH] {
        let middles = |figure: fn(&crate::report::Run) -> f64| {
            scale.growth.iter().map(|size| report.middle(&format!("{what}, {size}"), figure)).collect::<Vec<_>>()
        };
        let (p50, cpu) = (middles(|run| run.p50), middles(|run| run.cpu_each));
        report.claim_most(format!("{what}: p50, slowest size / quickest"), spread_of(&p50), "", Some(FLAT));
        report.claim_most(format!("{what}: CPU a request, dearest size / cheapest"), spread_of(&cpu), "", None);
    }
    report.note("load average", format!("{:.2}", support::load()));
    report
}

fn spread_of(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::MIN, f64::max) / values.iter().copied().fold(f64::MAX, f64::min)
}
