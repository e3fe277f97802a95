//! `GET /metrics` on the internal listener: all that is counted, as Prometheus reads it ([`crate::metrics`] says how).
//!
//! 1. What must be asked for is asked for once in [`KEPT`]: however many scrape, and however often, the stores answer
//!    the same two questions. Each has its own limit on time, so while a store is away the page says so, within two
//!    seconds.
//! 2. Everything else is read from atomics.

use std::time::Duration;

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use tokio::sync::Mutex;

use crate::{
    app::App,
    db::Timestamp,
    keys::KeyState,
    mail::depth::{self, Depth},
    metrics::{
        Login, StoreFailure, StoreVerb, Words, process,
        text::{self, Kind, Text},
    },
};

/// How long what was asked for is told again.
const KEPT: Duration = Duration::from_secs(5);

/// What the stores said when they were last asked.
#[derive(Debug, Default)]
pub struct Probe(Mutex<Option<(Timestamp, Found)>>);

#[derive(Clone, Copy, Debug)]
struct Found {
    /// `None` when the database did not answer.
    outbox: Option<Depth>,
    /// Whether the store of sessions did.
    store: bool,
}

impl Probe {
    /// Asks, unless that was done a moment ago. Of many who scrape at once one asks and the others wait for it.
    async fn look(&self, app: &App) -> Found {
        let (mut held, now) = (self.0.lock().await, app.ambient.now());
        if let Some((at, found)) = *held
            && at <= now
            && now < at.after(KEPT)
        {
            return found;
        }
        let outbox = async { depth::depth(&app.db).await.ok() };
        let store = async { app.ephemeral.ping().await.is_ok() };
        let (outbox, store) = tokio::join!(outbox, store);
        let found = Found { outbox, store };
        *held = Some((now, found));
        found
    }
}

pub(super) async fn metrics(State(app): State<App>) -> Response {
    let found = app.probe.look(&app).await;
    let mut text = Text::default();
    about(&mut text, &app);
    app.metrics.requests.write(&mut text);
    app.refusals.write(&mut text);
    use_cases(&mut text, &app);
    mails(&mut text, &app, found.outbox);
    hashing(&mut text, &app);
    database(&mut text, &app, found.outbox.is_some());
    sessions(&mut text, &app, found.store);
    keys(&mut text, &app);
    ([(CONTENT_TYPE, text::CONTENT_TYPE)], text.finish()).into_response()
}

fn about(text: &mut Text, app: &App) {
    // Whoever builds from a commit says which; a look into the folder would tell an old one as often as not.
    let revision = option_env!("BUILD_REVISION").filter(|revision| !revision.is_empty()).unwrap_or("unknown");
    text.family("latchkey_build_info", Kind::Gauge, "What this program was built from, always 1.")
        .sample(&[("version", env!("CARGO_PKG_VERSION")), ("revision", revision), ("rustc", env!("BUILD_RUSTC"))], 1);
    text.family("process_start_time_seconds", Kind::Gauge, "When this server started, since the Unix epoch.")
        .sample(&[], seconds(app.metrics.started_at.millis()));
    process::write(text);
}

fn use_cases(text: &mut Text, app: &App) {
    let metrics = &app.metrics;
    text.counters("latchkey_logins_total", "Attempts to sign in, by outcome.", "outcome", &metrics.logins);
    text.counters("latchkey_refreshes_total", "Refresh tokens shown, by outcome.", "outcome", &metrics.refreshes);
    text.counters(
        "latchkey_registrations_total",
        "Registrations with good fields, by outcome.",
        "outcome",
        &metrics.registrations,
    );
    text.table("latchkey_codes_total", "Codes typed, by purpose and outcome.", ["purpose", "outcome"], &metrics.codes);
    text.counters(
        "latchkey_password_confirmations_total",
        "Passwords asked for once more of somebody signed in, by outcome.",
        "outcome",
        &metrics.confirmations,
    );
    // Signing in is the one way to a session.
    text.family("latchkey_sessions_opened_total", Kind::Counter, "Sessions opened.")
        .sample(&[], metrics.logins.of(Login::Success));
    text.counters(
        "latchkey_sessions_ended_total",
        "Acts of this process that ended one session or several, by the cause in their event.",
        "cause",
        &app.db.asked().ended,
    );
    text.counters(
        "latchkey_limits_hit_total",
        "Requests and mails over a limit, by policy.",
        "policy",
        &metrics.limits,
    );
}

fn mails(text: &mut Text, app: &App, outbox: Option<Depth>) {
    text.table(
        "latchkey_mails_total",
        "Mails that a worker of this process took up, by kind and outcome.",
        ["kind", "outcome"],
        &app.metrics.mails,
    );
    let now = app.ambient.now().millis();
    let since = |instant: Option<Timestamp>| instant.map_or(0, |instant| now.saturating_sub(instant.millis()).max(0));
    let mut lies = text.family(
        "latchkey_outbox_mails",
        Kind::Gauge,
        "Mails in the outbox of all nodes, by state; 10000 is that many or more.",
    );
    if let Some(depth) = outbox {
        lies.sample(&[("state", "pending")], depth.pending).sample(&[("state", "dead")], depth.dead);
    }
    let mut oldest =
        text.family("latchkey_outbox_oldest_seconds", Kind::Gauge, "How long the oldest mail to be sent has waited.");
    if let Some(depth) = outbox {
        oldest.sample(&[], seconds(since(depth.oldest)));
    }
    let mut overdue = text.family(
        "latchkey_outbox_overdue_seconds",
        Kind::Gauge,
        "How long no worker has taken up the mail that is due first.",
    );
    if let Some(depth) = outbox {
        overdue.sample(&[], seconds(since(depth.due)));
    }
}

fn hashing(text: &mut Text, app: &App) {
    let (load, (depth, places)) = (app.hasher.load(), app.hasher.queue());
    let read = |cell: &std::sync::atomic::AtomicU64| cell.load(std::sync::atomic::Ordering::Relaxed);
    text.family("latchkey_hash_queue_depth", Kind::Gauge, "Password hashes that wait for a thread.").sample(&[], depth);
    text.family("latchkey_hash_queue_capacity", Kind::Gauge, "Places in that queue.").sample(&[], places);
    text.family("latchkey_hash_threads", Kind::Gauge, "Hashing threads.").sample(&[], read(&load.threads));
    text.family("latchkey_hash_threads_working", Kind::Gauge, "Hashing threads at work.")
        .sample(&[], read(&load.working));
    text.family("latchkey_hash_wait_seconds", Kind::Histogram, "How long hashes waited for a thread.")
        .histogram(&[], &load.waits);
    text.family("latchkey_hash_run_seconds", Kind::Histogram, "How long hashes took, without the wait.")
        .histogram(&[], &load.runs);
    text.counters("latchkey_hash_refused_total", "Hashes that were not made, by cause.", "cause", &load.refused);
    text.family(
        "latchkey_unreadable_hashes_total",
        Kind::Counter,
        "Stored hashes that were unreadable or outside the accepted bounds; their owners cannot log in.",
    )
    .sample(&[], app.hasher.alarms());
}

fn database(text: &mut Text, app: &App, is_up: bool) {
    let asked = app.db.asked();
    text.family("latchkey_database_up", Kind::Gauge, "Whether the database answered this scrape or one a moment ago.")
        .sample(&[], u8::from(is_up));
    text.histograms(
        "latchkey_database_operation_duration_seconds",
        "Statements and ends of transactions, from question to answer.",
        "operation",
        &asked.operations,
    );
    text.counters("latchkey_database_failures_total", "Database work not done, by cause.", "cause", &asked.failures);
    let pools = app.db.pools();
    let mut waits = text.family(
        "latchkey_database_connection_wait_seconds",
        Kind::Histogram,
        "How long a connection was waited for, by pool.",
    );
    for state in &pools {
        waits.histogram(&[("pool", state.pool.word())], asked.waits.of(state.pool));
    }
    let mut connections =
        text.family("latchkey_database_connections", Kind::Gauge, "Connections to the database, by pool and state.");
    for state in &pools {
        connections.sample(&[("pool", state.pool.word()), ("state", "idle")], state.idle);
        connections.sample(&[("pool", state.pool.word()), ("state", "used")], state.used);
    }
    let mut most = text.family("latchkey_database_connections_max", Kind::Gauge, "Connections that a pool may have.");
    for state in &pools {
        most.sample(&[("pool", state.pool.word())], state.most);
    }
}

fn sessions(text: &mut Text, app: &App, is_up: bool) {
    let (store, trips) = (app.ephemeral.kind(), app.ephemeral.trips());
    text.family(
        "latchkey_session_store_up",
        Kind::Gauge,
        "Whether the store of sessions (Redis, or the database) answered this scrape or one a moment ago.",
    )
    .sample(&[("store", store)], u8::from(is_up));
    let mut took = text.family(
        "latchkey_session_store_operation_duration_seconds",
        Kind::Histogram,
        "Questions to the store of sessions, codes and attempts, from question to answer.",
    );
    for verb in StoreVerb::ALL {
        took.histogram(&[("store", store), ("operation", verb.word())], trips.durations.of(*verb));
    }
    let mut failures = text.family(
        "latchkey_session_store_failures_total",
        Kind::Counter,
        "Work of that store that was not done, by cause.",
    );
    for cause in StoreFailure::ALL {
        failures.sample(&[("store", store), ("cause", cause.word())], trips.failures.of(*cause));
    }
}

fn keys(text: &mut Text, app: &App) {
    let (ring, now) = (app.keys.list(), app.ambient.now().millis());
    let mut states = text.family("latchkey_signing_keys", Kind::Gauge, "Keys of the ring, by state.");
    for state in [KeyState::Next, KeyState::Active, KeyState::Retiring, KeyState::Retired] {
        states.sample(&[("state", state.as_str())], ring.iter().filter(|key| key.state == state).count());
    }
    let active = ring.iter().find(|key| key.state == KeyState::Active);
    let since = active.and_then(|key| key.active_at).map_or(0, |at| now.saturating_sub(at.millis()).max(0));
    text.family("latchkey_signing_key_age_seconds", Kind::Gauge, "How long the active key has signed.")
        .sample(&[], seconds(since));
    text.family("latchkey_signing_key_held", Kind::Gauge, "Whether this node has the private key of the active one.")
        .sample(&[], u8::from(active.is_some_and(|key| key.held)));
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 need 41 bits of the 52")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}
