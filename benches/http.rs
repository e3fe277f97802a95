//! What requests cost, beside what they could not cost less than.
//!
//! ```text
//! cargo bench --bench http [-- [embedded|shared] [idle]]     the table
//! cargo bench --bench http -- only=session+refresh [seconds=9]   what has one of these in its name, without claims
//! cargo bench --bench http -- growth                         how cost grows with people
//! ```
//!
//! 1. A stack of its own, filled with people and sessions in bulk: SQLite, and with LATCHKEY_TEST_DATABASE_URL and
//!    LATCHKEY_TEST_REDIS_URL (`scripts/bench` sets them) PostgreSQL + Redis (`http/stack.rs`).
//! 2. The server in a process of its own, and in another one bare handlers on the same libraries (`http/floor.rs`).
//! 3. A third process asks, over keep-alive connections (`http/drive.rs`). On a machine of few cores it takes part of
//!    what the server could have had; the floors lose as much.
//! 4. Rounds: each thing in turn, then each again. Claims are ratios of medians, since absolute times move from run to run.
//! 5. Logins at four times what the machine can hash, with `/me` beside them.
//! 6. A table, and the same as JSON under `target/bench` (`http/report.rs`).
//!
//! `cargo test` runs all of it once with tiny counts.

#[path = "http/drive.rs"]
mod drive;
#[path = "http/floor.rs"]
mod floor;
#[path = "http/growth.rs"]
mod growth;
#[path = "http/people.rs"]
mod people;
#[path = "http/process.rs"]
mod process;
#[path = "http/report.rs"]
mod report;
#[path = "http/stack.rs"]
mod stack;
mod support;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::{
    drive::{Job, Order, Outcome},
    process::Process,
    report::{Report, Run},
    stack::{Mint, Stack, Urls},
};

/// How much of everything.
pub struct Scale {
    rounds: usize,
    /// One run of what is quick, and of what hashes.
    millis: u64,
    hash_millis: u64,
    connections: usize,
    flood_connections: usize,
    starts: usize,
    /// Different sessions for `/me`.
    sessions: u64,
    /// Sessions for `/me` whose tokens were seen before: so many that none comes again within half a second.
    known: u64,
    /// Sessions that are refreshed in turn.
    refreshed: u64,
    /// Sessions to end, and people to make.
    ended: u64,
    registered: u64,
    growth: [u64; 3],
}

const FULL: Scale = Scale {
    rounds: 3,
    millis: 1000,
    hash_millis: 3000,
    connections: 16,
    flood_connections: 900,
    starts: 5,
    sessions: 100_000,
    known: 8000,
    refreshed: 1000,
    ended: 40_000,
    registered: 4000,
    growth: [1000, 100_000, 1_000_000],
};

/// Only to prove that everything works.
const TRIAL: Scale = Scale {
    rounds: 1,
    millis: 50,
    hash_millis: 100,
    connections: 2,
    flood_connections: 8,
    starts: 1,
    sessions: 60,
    known: 20,
    refreshed: 20,
    ended: 200,
    registered: 50,
    growth: [20, 40, 60],
};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("drive") => return drive::run(),
        Some("floor") => return floor::run(),
        _ => {}
    }
    let asked = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
    let only = value("only=").map(|only| Only {
        names: only.split('+').collect(),
        millis: value("seconds=").and_then(|seconds| seconds.parse::<u64>().ok()).map(|seconds| seconds * 1000),
    });
    let (scale, urls) = (if support::is_trial() { &TRIAL } else { &FULL }, Urls::given());
    println!("{}", support::machine());
    let mut reports = Vec::new();
    if !asked("growth") {
        let began = Instant::now();
        if !asked("shared") {
            reports.push(measure(scale, "SQLite", None, asked("idle"), only.as_ref()));
        }
        match &urls {
            Some(_) if asked("embedded") => {}
            Some(urls) => {
                reports.push(measure(scale, "PostgreSQL + Redis", Some(urls.clone()), asked("idle"), only.as_ref()))
            }
            None => println!("without PostgreSQL and Redis: scripts/bench starts them"),
        }
        println!("\ntook {:.0} s", began.elapsed().as_secs_f64());
        report::write("http.json", &reports);
    }
    if asked("growth") || support::is_trial() {
        let report = growth::run(scale, urls.filter(|_| !asked("embedded")));
        report.print();
        report::write("growth.json", &[report]);
    }
}

/// A look at a part of the table, for a profile beside it.
struct Only<'a> {
    names: Vec<&'a str>,
    millis: Option<u64>,
}

/// What is asked of one stack.
pub struct Bench<'a> {
    stack: &'a Stack,
    scale: &'a Scale,
}

/// Requests of one kind, and how far they were used.
pub struct Set {
    path: PathBuf,
    address: SocketAddr,
    order: Order,
    next: usize,
    connections: usize,
    refusal: Option<u16>,
}

impl Bench<'_> {
    pub fn set(&self, name: &str, address: SocketAddr, requests: &[Vec<u8>], order: Order) -> Set {
        let path = self.stack.dir.path().join(format!("{name}.requests"));
        fs::write(&path, drive::write_requests(requests)).expect("a file");
        // A machine that is busy elsewhere may not begin a hash in time; what was refused so is not counted as answered.
        let refusal = matches!(name, "login" | "register").then_some(503);
        Set { path, address, order, next: 0, connections: self.scale.connections, refusal }
    }

    /// Asks for so long, and tells what it cost the server of this process id.
    pub fn run(&self, set: &mut Set, id: u32, millis: u64, pace: Option<f64>) -> Run {
        let before = process::cpu_seconds(id);
        let outcome: Outcome = process::begin("drive", &set.job(millis, pace)).end();
        set.next = outcome.next;
        outcome.judge(&set.path);
        outcome.run(id, process::cpu_seconds(id) - before)
    }
}

impl Set {
    fn job(&self, millis: u64, pace: Option<f64>) -> Job {
        Job {
            address: self.address,
            connections: self.connections,
            millis,
            requests: self.path.clone(),
            from: self.next,
            order: self.order,
            pace,
            refusal: self.refusal,
        }
    }
}

impl Outcome {
    /// A bench of refusals would be a quick one.
    fn judge(&self, what: &std::path::Path) {
        let what = what.file_stem().unwrap_or_default().display();
        if let Some(fault) = &self.fault {
            panic!("{what}: {fault}");
        }
        assert!(self.answers + self.refusals > 0, "{what}: nothing was answered");
    }

    fn run(&self, id: u32, cpu: f64) -> Run {
        let count = (self.answers + self.refusals) as f64;
        Run {
            per_second: self.answers as f64 / self.seconds,
            p50: self.p50,
            p99: self.p99,
            p999: self.p999,
            cpu,
            cpu_each: cpu * 1e6 / count,
            resident: process::resident(id),
            load: support::load(),
        }
    }
}

fn login(at: SocketAddr, n: u64) -> Vec<u8> {
    let (address, password) = (people::address(n), people::PASSWORD);
    drive::post(at, "/login", &format!("{{\"email\":\"{address}\",\"password\":\"{password}\"}}"))
}

fn refresh(at: SocketAddr, mint: &Mint, n: u64) -> Vec<u8> {
    drive::post(at, "/refresh", &format!("{{\"refresh_token\":\"{}\"}}", mint.refresh(n)))
}

fn measure(scale: &Scale, name: &'static str, urls: Option<Urls>, idle: bool, only: Option<&Only<'_>>) -> Report {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stack = runtime.block_on(Stack::new(urls));
    let mut report = Report::new(name);
    let server = start(&stack, scale, &mut report);
    let bench = Bench { stack: &stack, scale };

    // People by number: those of `/me` and login, those who are refreshed, by the floor, and those who leave.
    let refreshed = scale.sessions..scale.sessions + scale.refreshed;
    let moved = refreshed.end..refreshed.end + scale.refreshed;
    let ended = moved.end..moved.end + scale.ended;
    runtime.block_on(stack.fill(0..ended.end));
    let mint = runtime.block_on(stack.mint());
    let floor = stack.floor((moved.start, scale.refreshed));

    let at = server.address;
    let of_server = |name: &str, order, requests: &mut dyn Iterator<Item = Vec<u8>>| {
        (bench.set(name, at, &requests.collect::<Vec<_>>(), order), server.id())
    };
    let of_floor = |name: &str, paths: &mut dyn Iterator<Item = String>| {
        let requests: Vec<_> = paths.map(|path| drive::get(floor.address, &path, None)).collect();
        (bench.set(name, floor.address, &requests, Order::Round), floor.id())
    };
    let me = |n: u64| drive::get(at, "/me", Some(&mint.access(n)));
    let (quick, slow) = (scale.millis, scale.hash_millis);
    let registered = 0..scale.registered * (scale.rounds as u64 + 1);
    let register = |n: u64| {
        let password = people::PASSWORD;
        drive::post(at, "/register", &format!("{{\"email\":\"new{n}@bench.example\",\"password\":\"{password}\"}}"))
    };
    let known = scale.sessions - scale.known..scale.sessions;
    let mut things = [
        (JSON, of_floor("json", &mut ["/json".to_owned()].into_iter()), quick),
        (ME_HOT, of_server("hot", Order::Round, &mut (0..scale.connections as u64).map(me)), quick),
        (
            JWKS,
            of_server("jwks", Order::Round, &mut [drive::get(at, "/.well-known/jwks.json", None)].into_iter()),
            quick,
        ),
        (READ, of_floor("read", &mut (0..scale.sessions).map(|n| format!("/read/{n}"))), quick),
        (BOTH, of_floor("both", &mut (0..scale.sessions).map(|n| format!("/both/{n}"))), quick),
        (ME_KNOWN, of_server("known", Order::Round, &mut known.map(me)), quick),
        (ME_COLD, of_server("cold", Order::Round, &mut (0..scale.sessions).map(me)), quick),
        (MOVE, of_floor("move", &mut moved.map(|n| format!("/move/{n}"))), quick),
        (REFRESH, of_server("refresh", Order::Refresh, &mut refreshed.map(|n| refresh(at, &mint, n))), quick),
        (LOGOUT, of_server("logout", Order::Once, &mut ended.map(|n| logout(at, &mint, n))), quick),
        (LOGIN, of_server("login", Order::Round, &mut (0..scale.sessions).map(|n| login(at, n))), slow),
        (REGISTER, of_server("register", Order::Once, &mut registered.map(register)), slow),
    ];
    // The first round warms up.
    for round in 0..=scale.rounds {
        for (what, (set, id), millis) in &mut things {
            if only.is_some_and(|only| !only.names.iter().any(|name| what.contains(name))) {
                continue;
            }
            let millis = only.and_then(|only| only.millis).unwrap_or(*millis);
            if *what == LOGIN {
                let rate = hash_rate(millis);
                if round > 0 {
                    report.add(HASH, rate);
                }
            }
            let run = bench.run(set, *id, millis, None);
            if round > 0 {
                report.add(what, run);
            }
        }
    }
    if only.is_none_or(|only| only.names.contains(&FLOOD)) {
        flood(&bench, &mut things, server.id(), &mut report);
    }
    if only.is_none() {
        claims(&mut report, &stack, &server, idle, scale);
    }
    report.print();
    report
}

const JSON: &str = "floor: JSON";
const READ: &str = "floor: one read by primary key";
const BOTH: &str = "floor: session and person at the same time";
const MOVE: &str = "floor: move a session, one read, sign";
const HASH: &str = "floor: bare hashes on all cores";
const ME_HOT: &str = "/me, one session a connection";
const ME_KNOWN: &str = "/me, many sessions, tokens seen before";
const ME_COLD: &str = "/me, many sessions, tokens never seen";
const JWKS: &str = "JWK set";
const REFRESH: &str = "/refresh";
const LOGOUT: &str = "/logout";
const LOGIN: &str = "/login";
const REGISTER: &str = "/register";
/// To ask for: its rate is that of `/login`.
const FLOOD: &str = "flood";

fn logout(at: SocketAddr, mint: &Mint, n: u64) -> Vec<u8> {
    drive::post(at, "/logout", &format!("{{\"refresh_token\":\"{}\"}}", mint.refresh(n)))
}

/// Starts the server until it has been started often enough, and leaves the last one.
fn start(stack: &Stack, scale: &Scale, report: &mut Report) -> Process {
    let first = stack.server();
    report.note("first start of all, with migrations and keys", format!("{:.0} ms", first.start.as_secs_f64() * 1e3));
    drop(first);
    let mut taken = Vec::new();
    loop {
        let server = stack.server();
        taken.push(server.start.as_secs_f64() * 1e3);
        if taken.len() == scale.starts {
            report.claim_most("start to the first 200", support::median(taken), " ms", Some(100.0));
            // What it does right after its start is done by then.
            thread::sleep(Duration::from_millis(500));
            let resident = process::resident(server.id());
            let most = stack.is_shared().then_some(20.0);
            report.claim_most("resident memory, before the first hash", resident, " MB", most);
            let program = fs::metadata(env!("CARGO_BIN_EXE_latchkey")).map_or(f64::NAN, |file| file.len() as f64 / 1e6);
            report.claim_most("the program", program, " MB", Some(20.0));
            return server;
        }
    }
}

/// What all cores hash without us.
fn hash_rate(millis: u64) -> Run {
    let (hashes, began) = (AtomicU64::new(0), Instant::now());
    let end = began + Duration::from_millis(millis);
    thread::scope(|scope| {
        for _ in 0..support::cores() {
            scope.spawn(|| {
                let params = Params::new(19456, 2, 1, Some(32)).expect("parameters of Argon2");
                let mut memory = vec![Block::default(); params.block_count()];
                let (argon, mut tag) = (Argon2::new(Algorithm::Argon2id, Version::V0x13, params), [0; 32]);
                while Instant::now() < end {
                    let password = people::PASSWORD.as_bytes();
                    argon.hash_password_into_with_memory(password, &[7; 16], &mut tag, &mut memory).expect("a hash");
                    hashes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let per_second = hashes.into_inner() as f64 / began.elapsed().as_secs_f64();
    let nothing = f64::NAN;
    let load = support::load();
    Run {
        per_second,
        p50: nothing,
        p99: nothing,
        p999: nothing,
        cpu: nothing,
        cpu_each: nothing,
        resident: nothing,
        load,
    }
}

/// Logins at four times the rate that was measured, and beside them `/me` at a pace that is none of its limits.
fn flood(bench: &Bench<'_>, things: &mut [(&str, (Set, u32), u64)], id: u32, report: &mut Report) {
    const ME_PACE: f64 = 400.0;
    let offered = 4.0 * report.rate(LOGIN);
    let millis = 2 * bench.scale.hash_millis;
    for (what, (set, _), _) in things.iter_mut() {
        if *what == LOGIN {
            set.connections = bench.scale.flood_connections;
        }
    }
    let job = |what: &str, millis, pace| {
        let (_, (set, _), _) = things.iter().find(|(name, ..)| *name == what).expect("it was measured");
        set.job(millis, Some(pace))
    };
    let before = process::cpu_seconds(id);
    let logins = process::begin("drive", &job(LOGIN, millis, offered));
    // The queue is full before anybody looks.
    thread::sleep(Duration::from_millis(bench.scale.hash_millis / 3));
    let me: Outcome = process::begin("drive", &job(ME_HOT, millis / 2, ME_PACE)).end();
    let logins: Outcome = logins.end();
    me.judge("/me in the flood".as_ref());
    logins.judge("the flood".as_ref());
    let cpu = process::cpu_seconds(id) - before;
    report.add("/login, four times too many", logins.run(id, cpu));
    report.add("/me beside them, 400 a second", Run { cpu: f64::NAN, cpu_each: f64::NAN, ..me.run(id, 0.0) });
    let all = (logins.answers + logins.refusals) as f64 / logins.seconds;
    report.note(
        "logins in the flood: offered, answered, refused a second",
        format!("{offered:.0}, {all:.0}, {:.0}", logins.refusals as f64 / logins.seconds),
    );
    report.claim_most("/me while logins flood at four times capacity, p99", me.p99 / 1e3, " ms", Some(10.0));
}

fn claims(report: &mut Report, stack: &Stack, server: &Process, idle: bool, scale: &Scale) {
    report.claim_ratio(LOGIN, HASH, Some(0.95));
    report.claim_ratio(REGISTER, HASH, None);
    report.claim_ratio(ME_HOT, JSON, Some(0.6));
    report.claim_ratio(JWKS, JSON, None);
    // Of the embedded stack nothing is promised but what needs no store.
    let only_shared = |least| stack.is_shared().then_some(least);
    report.claim_ratio(ME_KNOWN, BOTH, only_shared(0.7));
    report.claim_ratio(ME_COLD, BOTH, only_shared(0.7));
    report.claim_ratio(ME_COLD, READ, None);
    report.claim_ratio(REFRESH, MOVE, only_shared(0.8));
    report.claim_most("resident memory, right after all this", process::resident(server.id()), " MB", None);
    if idle {
        let seconds = if scale.rounds > 1 { 90 } else { 1 };
        thread::sleep(Duration::from_secs(seconds));
        let resident = process::resident(server.id());
        report.claim_most(format!("resident memory, {seconds} s later"), resident, " MB", only_shared(20.0));
    }
}
