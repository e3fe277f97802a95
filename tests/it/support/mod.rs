//! What tests stand on: stacks, the app under test, its clients, and counts.

mod app;
mod client;
mod codes;
mod collector;
mod mailhog;
mod process;
mod proxy;
pub mod redis;
pub mod scale;
mod scrape;
mod smtp;
mod stack;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{LazyLock, Mutex},
    time::Duration,
};

pub use app::TestApp;
pub use client::{Client, Person, Reply, json_body};
pub use codes::{Coded, alike, refused};
pub use collector::{Answer, Collector, Span, attribute};
pub use mailhog::MailHog;
pub use process::Process;
pub use proxy::{Mode, Proxy};
pub use scrape::Scrape;
pub use smtp::{Authority, Mood, Received, Sink, Tls};
pub use stack::{Stack, StackKind};

use libtest_mimic::Failed;

/// A password that the policy takes.
pub const PASSWORD: &str = "correct horse battery";

pub type Run = fn(Stack) -> Pin<Box<dyn Future<Output = ()>>>;

/// What a test needs besides its stack: says what is not there, if anything.
pub type Need = fn() -> Option<&'static str>;

/// One test.
pub enum Test {
    /// Runs once, without a stack.
    Once(String, fn()),
    /// Runs on each of these stacks, if what it needs is there.
    PerStack(String, &'static [StackKind], Need, Run),
}

/// Lists the tests of a module: `on_stacks!(&ALL; first, second)`, or `on_stacks!(&ALL, MailHog::missing; third)` for
/// tests that need something besides a stack.
#[macro_export]
macro_rules! on_stacks {
    ($stacks:expr; $($name:ident),+ $(,)?) => { $crate::on_stacks!($stacks, || None; $($name),+) };
    ($stacks:expr, $need:expr; $($name:ident),+ $(,)?) => {
        vec![$($crate::support::Test::PerStack(
            format!("{}::{}", module_path!().trim_start_matches("it::"), stringify!($name)),
            $stacks,
            $need,
            |stack| Box::pin($name(stack)),
        )),+]
    };
}

/// Lists tests that need no stack.
#[macro_export]
macro_rules! once {
    ($($name:ident),+ $(,)?) => {
        vec![$($crate::support::Test::Once(
            format!("{}::{}", module_path!().trim_start_matches("it::"), stringify!($name)),
            $name,
        )),+]
    };
}

static COUNTS: LazyLock<Mutex<BTreeMap<&'static str, (u32, u32)>>> = LazyLock::new(Mutex::default);

/// Counts the outcome of `run` for the last lines.
pub fn counted(stack: &'static str, run: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let passed = matches!(outcome, Ok(Ok(())));
    let mut counts = COUNTS.lock().unwrap();
    let count = counts.entry(stack).or_default();
    if passed {
        count.0 += 1
    } else {
        count.1 += 1
    }
    drop(counts);
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until `probe` says yes. Ten seconds at most.
pub async fn eventually<F: Future<Output = bool>>(what: &str, probe: impl Fn() -> F) {
    let started = std::time::Instant::now();
    while !probe().await {
        assert!(started.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says which stacks ran, with how many tests.
pub fn report() {
    for (stack, (passed, failed)) in COUNTS.lock().unwrap().iter() {
        println!("stack {stack}: {passed} passed, {failed} failed");
    }
    for kind in StackKind::EVERY {
        if let Some(missing) = kind.missing() {
            println!("stack {}: not run ({missing})", kind.name());
        }
    }
}

/// Drops what the stacks share.
pub fn clean_up() {
    stack::drop_template();
    stack::stop_servers();
}
