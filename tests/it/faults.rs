//! Faults of `security.md` §7: Redis or the database silent, resetting or slow; a Redis that was emptied, that lost a
//! deletion or a write; a client that hangs up; an embedded database that is locked, or whose disk is full. Each time:
//! what a client sees meanwhile, and what is true afterwards.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{body::Body, http::Method};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    process::{Dice, HALF_STATE},
    support::{
        Client, Mode, PASSWORD, Person, Process, Proxy, Reply, Stack, StackKind, Test, TestApp, eventually, scale,
    },
};

/// Within which a request that needs Redis is refused: 500 ms, and room for a busy machine.
const WITHOUT_REDIS: Duration = Duration::from_millis(1500);
/// Within which a request that needs the database is refused: two seconds, and room for a busy machine.
const WITHOUT_DATABASE: Duration = Duration::from_secs(3);
/// Within which a store that is back is used again.
const BACK: Duration = Duration::from_secs(5);

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&StackKind::REDIS;
        a_silent_redis_lets_nobody_in_and_is_used_again_when_back,
        a_resetting_redis_lets_nobody_in_and_is_used_again_when_back,
        a_slow_redis_lets_nobody_in_and_is_used_again_when_back,
        a_link_to_redis_that_fell_silent_for_good_is_replaced,
        me_is_answered_out_of_memory_for_half_a_second_while_redis_is_away,
        a_redis_link_that_is_cut_at_any_byte_leaves_nothing_half_done,
        people_sign_in_again_after_redis_was_emptied_and_nothing_worse,
        a_logout_holds_though_redis_lost_the_deletion,
        a_logout_everywhere_holds_though_redis_lost_the_deletion,
        the_end_of_a_stolen_session_holds_though_redis_lost_the_deletion,
        a_session_is_healed_when_redis_lost_its_last_writes,
    );
    tests.extend(crate::on_stacks!(&StackKind::SHARED;
        a_silent_database_is_a_503_without_a_pile_up_and_is_used_again_when_back,
        a_resetting_database_is_a_503_without_a_pile_up_and_is_used_again_when_back,
        a_slow_database_is_a_503_without_a_pile_up_and_is_used_again_when_back,
        links_to_the_database_that_fell_silent_for_good_are_replaced,
        me_is_answered_out_of_memory_for_half_a_second_while_the_database_is_away,
        a_database_link_that_is_cut_at_any_byte_leaves_nothing_half_done,
    ));
    tests.extend(crate::on_stacks!(&StackKind::ALL;
        requests_that_are_dropped_half_way_leave_no_half_state,
        ends_whose_client_hangs_up_at_any_byte_are_whole_or_none,
        a_transaction_that_fails_half_way_leaves_nothing_and_no_lock,
    ));
    tests.extend(crate::on_stacks!(&[StackKind::Embedded];
        a_locked_file_refuses_writes_in_time_and_answers_reads,
        a_full_disk_refuses_writes_answers_reads_and_corrupts_nothing,
    ));
    tests
}

// --- a store behind a proxy --------------------------------------------------

/// A URL, taken apart around the place where host and port stand.
struct Link {
    before: String,
    upstream: String,
    after: String,
}

impl Link {
    fn of(url: &str, default_port: u16) -> Self {
        let from = url.find("://").expect("a URL") + 3;
        let to = url[from..].find(['/', '?']).map_or(url.len(), |at| from + at);
        let from = url[from..to].rfind('@').map_or(from, |at| from + at + 1);
        let host = &url[from..to];
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let upstream = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
        Self { before: url[..from].to_owned(), upstream, after: url[to..].to_owned() }
    }

    fn through(&self, address: SocketAddr) -> String {
        format!("{}{address}{}", self.before, self.after)
    }
}

/// A way to a store that can be cut without a word: what is connected by then stays so, and silent for good; a new
/// connection works. A proxy that comes back would pass on what it held, so it cannot stand for a lost peer.
struct Cable {
    address: SocketAddr,
    cut: watch::Sender<()>,
}

impl Cable {
    async fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = watch::channel(());
        let upstream = upstream.to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (upstream, mut cuts) = (upstream.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(&upstream).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        // Both sockets stay open, and nobody reads them.
                        _ = cuts.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, cut }
    }

    /// An app that reaches what the setting `name` names through a cable.
    async fn before(stack: &Stack, name: &str, default_port: u16) -> (Self, TestApp) {
        let link = Link::of(&setting(stack, name).await, default_port);
        let cable = Self::to(&link.upstream).await;
        let app = stack.app_with(&[(name, link.through(cable.address).as_str())]).await;
        (cable, app)
    }
}

/// A setting of the stack.
async fn setting(stack: &Stack, name: &str) -> String {
    let settings = stack.settings().await;
    settings.into_iter().find(|(key, _)| key == name).map(|(_, value)| value).expect("a setting of this stack")
}

/// An app that reaches what the setting `name` names through a proxy.
async fn behind(stack: &Stack, name: &str, default_port: u16) -> (Proxy, TestApp) {
    behind_with(stack, name, default_port, &[]).await
}

/// As [`behind`], with more settings.
pub async fn behind_with(stack: &Stack, name: &str, default_port: u16, more: &[(&str, &str)]) -> (Proxy, TestApp) {
    let link = Link::of(&setting(stack, name).await, default_port);
    let proxy = Proxy::before(&link.upstream).await;
    let url = link.through(proxy.address);
    let app = stack.app_with(&[&[(name, url.as_str())], more].concat()).await;
    (proxy, app)
}

/// Asserts a 503 in time that lets nobody in and says when to come again.
async fn refused(within: Duration, what: &str, ask: impl Future<Output = Reply>) {
    let reply = timeout(within, ask).await.unwrap_or_else(|_| panic!("{what}: no answer within {within:?}"));
    let reply = reply.is_problem(503, "unavailable");
    let retry_after = reply.header("retry-after");
    assert!(retry_after.parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{what}: Retry-After: {retry_after:?}");
}

/// A browser of the server's own origin that carries this refresh cookie.
fn browser(app: &TestApp, refresh: &str) -> Client {
    app.anonymous()
        .with("origin", "http://localhost:3000")
        .with("cookie", &format!("__Host-latchkey_refresh={refresh}"))
}

/// What is done with sessions other than by a token in a body: none of it works, and no cookie is set or cleared.
async fn sessions_refused(within: Duration, app: &TestApp, alice: &Person, leaving: &Person) {
    let (bearer, browser) = (alice.client.bearer(&alice.access), browser(app, &leaving.refresh));
    refused(within, "the list", bearer.get("/me/sessions")).await;
    let path = format!("/me/sessions/{}", leaving.session);
    for path in [path.as_str(), "/me/sessions"] {
        refused(within, path, bearer.send(Method::DELETE, path, Body::empty())).await;
    }
    refused(within, "logout by access token", bearer.post("/logout", json!({"all": true}))).await;
    let login = json!({"email": alice.email, "password": PASSWORD, "refresh_transport": "cookie"});
    for (path, body) in [("/login", login), ("/refresh", json!({})), ("/logout", json!({}))] {
        let ask = async {
            let reply = browser.post(path, body).await;
            assert!(!reply.headers.contains_key("set-cookie"), "{path}: {reply:?}");
            reply
        };
        refused(within, &format!("{path} by cookie"), ask).await;
    }
}

/// The same when the store is back: whatever a 503 did in part is brought to its end.
async fn sessions_work(app: &TestApp, alice: &Person, leaving: &Person) {
    let (bearer, browser) = (alice.client.bearer(&alice.access), browser(app, &leaving.refresh));
    browser.post("/logout", json!({})).await.is(204);
    leaving.me().await.is_problem(401, "invalid_token");
    let other = alice.elsewhere().await;
    bearer.send(Method::DELETE, &format!("/me/sessions/{}", other.session), Body::empty()).await.is(204);
    let other = alice.elsewhere().await;
    bearer.send(Method::DELETE, "/me/sessions", Body::empty()).await.is(204);
    other.me().await.is_problem(401, "invalid_token");
    let list = bearer.get("/me/sessions").await.is(200).json();
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(1), "{list}");
    alice.me().await.is(200);
}

/// Waits until `probe` says yes, no longer than a store that is back may be unused.
async fn back<F: Future<Output = bool>>(what: &str, probe: impl Fn() -> F) {
    let started = Instant::now();
    eventually(what, probe).await;
    assert!(started.elapsed() < BACK, "{what}: after {:?}", started.elapsed());
}

/// What needs neither Redis nor the database.
async fn needs_nobody(app: &TestApp) {
    let anonymous = app.anonymous();
    let ask = async {
        anonymous.get("/health").await.is(200);
        let keys = anonymous.get("/.well-known/jwks.json").await.is(200).json();
        assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2), "{keys}");
        assert_eq!(internal(app, "/health/live").await.0, 200);
    };
    timeout(WITHOUT_DATABASE, ask).await.expect("none of them waits for a store");
}

/// A path of the internal listener.
async fn internal(app: &TestApp, path: &str) -> (u16, Value) {
    let reply = Client::of(app.internal_router()).get(path).await;
    (reply.status, reply.json())
}

// --- Redis away --------------------------------------------------------------

async fn a_silent_redis_lets_nobody_in_and_is_used_again_when_back(stack: Stack) {
    redis_away(stack, Mode::BlackHole).await;
}

async fn a_resetting_redis_lets_nobody_in_and_is_used_again_when_back(stack: Stack) {
    redis_away(stack, Mode::Reset).await;
}

async fn a_slow_redis_lets_nobody_in_and_is_used_again_when_back(stack: Stack) {
    redis_away(stack, Mode::Slow).await;
}

async fn redis_away(stack: Stack, mode: Mode) {
    let (proxy, app) = behind(&stack, "REDIS_URL", 6379).await;
    let anonymous = app.anonymous();
    let mut alice = app.person("alice").await;
    let leaving = alice.elsewhere().await;

    proxy.set(mode);
    // What a node may keep of a session is gone by then.
    tokio::time::sleep(Duration::from_millis(600)).await;
    // The first calls find a connection that broke, the later ones none.
    for round in 0..2 {
        refused(WITHOUT_REDIS, &format!("/me, {round}"), alice.me()).await;
        refused(WITHOUT_REDIS, &format!("/login, {round}"), anonymous.login(&alice.email, PASSWORD)).await;
        refused(WITHOUT_REDIS, &format!("/refresh, {round}"), anonymous.refresh(&alice.refresh)).await;
        let logout = anonymous.post("/logout", json!({"refresh_token": leaving.refresh}));
        refused(WITHOUT_REDIS, &format!("/logout, {round}"), logout).await;
        needs_nobody(&app).await;
    }
    sessions_refused(WITHOUT_REDIS, &app, &alice, &leaving).await;
    let (status, ready) = internal(&app, "/health/ready").await;
    assert_eq!((status, &ready["checks"]["sessions"]["status"]), (503, &json!("down")), "{ready}");
    assert_eq!(ready["checks"]["database"]["status"], "ok", "{ready}");
    all_refused(WITHOUT_REDIS, &alice).await;

    proxy.set(Mode::Pass);
    back("the session is there again, without a restart", || async { alice.me().await.status == 200 }).await;
    back("ready again", || async { internal(&app, "/health/ready").await.0 == 200 }).await;
    // A 503 may have moved the generation: the same token is still good for its successor, and the chain goes on.
    let first = alice.refresh.clone();
    alice.take(&anonymous.refresh(&first).await.is(200));
    assert_eq!(anonymous.refresh(&first).await.is(200).text("/refresh_token"), alice.refresh, "the window");
    alice.take(&anonymous.refresh(&alice.refresh).await.is(200));
    alice.me().await.is(200);
    assert_eq!((app.events("session_healed").await, app.events("session_ended").await), (0, 0));
    anonymous.login(&alice.email, PASSWORD).await.is(200);

    // Whoever was told 503 at a logout asks again, and then it holds.
    anonymous.post("/logout", json!({"refresh_token": leaving.refresh})).await.is(204);
    leaving.me().await.is_problem(401, "invalid_token");
    sessions_work(&app, &alice, &leaving).await;
}

async fn me_is_answered_out_of_memory_for_half_a_second_while_redis_is_away(stack: Stack) {
    half_a_second(stack, "REDIS_URL", 6379, WITHOUT_REDIS).await;
}

async fn me_is_answered_out_of_memory_for_half_a_second_while_the_database_is_away(stack: Stack) {
    half_a_second(stack, "DATABASE_URL", 5432, WITHOUT_DATABASE).await;
}

/// `/me` under a clock that stands, asked again and again while a store is away: what was read half a second ago is told
/// to nobody, however often it was told meanwhile.
async fn half_a_second(stack: Stack, name: &str, default_port: u16, within: Duration) {
    let (proxy, app) = behind(&stack, name, default_port).await;
    let alice = app.person("alice").await;
    for mode in [Mode::BlackHole, Mode::Reset] {
        alice.me().await.is(200);
        proxy.set(mode);
        // A connection that is reset is so a few milliseconds later.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for millis in [0, 250, 249] {
            app.pass(Duration::from_millis(millis));
            alice.me().await.is(200);
            // Only looking at oneself rests on memory.
            refused(within, "the list", alice.client.bearer(&alice.access).get("/me/sessions")).await;
        }
        app.pass(Duration::from_millis(1));
        for _ in 0..2 {
            refused(within, "/me", alice.me()).await;
        }
        proxy.set(Mode::Pass);
        back("it is read again", || async { alice.me().await.status == 200 }).await;
        app.pass(Duration::from_millis(500));
    }
}

async fn a_link_to_redis_that_fell_silent_for_good_is_replaced(stack: Stack) {
    let (cable, app) = Cable::before(&stack, "REDIS_URL", 6379).await;
    let mut alice = app.person("alice").await;
    cable.cut.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;

    timeout(WITHOUT_REDIS, alice.me()).await.expect("the silent link is not waited for");
    eventually("a new link is in use", || async { alice.me().await.status == 200 }).await;
    alice.take(&app.anonymous().refresh(&alice.refresh).await.is(200));
    alice.me().await.is(200);
}

/// `race()` times `/me` at once: every one is refused, none waits for another.
async fn all_refused(within: Duration, person: &Person) {
    let started = Instant::now();
    let mut race = JoinSet::new();
    for _ in 0..scale::race() {
        let person = person.clone();
        race.spawn(async move { refused(within, "/me in a crowd", person.me()).await });
    }
    while let Some(reply) = race.join_next().await {
        reply.unwrap();
    }
    assert!(started.elapsed() < within + Duration::from_secs(1), "they piled up: {:?}", started.elapsed());
}

// --- Redis forgets -----------------------------------------------------------

/// A connection of our own, past every proxy.
async fn redis(stack: &Stack) -> MultiplexedConnection {
    let client = redis::Client::open(setting(stack, "REDIS_URL").await).unwrap();
    client.get_multiplexed_async_connection().await.expect("Redis answers")
}

/// The key of a person's sessions.
fn key(stack: &Stack, person: &Person) -> String {
    format!("{}:{{{}}}:s", stack.redis_prefix(), person.id)
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What Redis holds of a person's sessions.
async fn saved(stack: &Stack, person: &Person) -> Fields {
    let mut redis = redis(stack).await;
    let fields: Fields =
        redis::cmd("HGETALL").arg(key(stack, person)).query_async(&mut redis).await.expect("Redis answers");
    assert!(!fields.is_empty(), "the sessions are where this test looks");
    fields
}

/// Puts back what [`saved`] gave, as a replica would that was promoted too early.
async fn restore(stack: &Stack, person: &Person, fields: &Fields) {
    let mut redis = redis(stack).await;
    let mut restore = redis::cmd("HSET");
    restore.arg(key(stack, person));
    for (session, record) in fields {
        restore.arg(session).arg(record);
    }
    let () = redis::pipe()
        .atomic()
        .cmd("DEL")
        .arg(key(stack, person))
        .add_command(restore)
        .query_async(&mut redis)
        .await
        .expect("Redis answers");
}

async fn people_sign_in_again_after_redis_was_emptied_and_nothing_worse(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let old = alice.refresh.clone();
    alice.take(&app.anonymous().refresh(&old).await.is(200));

    // The server is shared with other tests, so what is ours goes, key by key.
    let mut redis = redis(&stack).await;
    let (mut cursor, mut gone) = (0u64, 0u64);
    loop {
        let pattern = format!("{}:*", stack.redis_prefix());
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(1000)
            .query_async(&mut redis)
            .await
            .unwrap();
        if !keys.is_empty() {
            gone += redis::cmd("DEL").arg(keys).query_async::<u64>(&mut redis).await.unwrap();
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert!(gone > 0, "there was something to lose");

    alice.me().await.is_problem(401, "invalid_token");
    for token in [&alice.refresh, &old] {
        app.anonymous().refresh(token).await.is_problem(401, "invalid_refresh_token");
    }
    assert_eq!(app.events("session_ended").await, 0, "nobody stole anything");
    assert_eq!(app.events("session_healed").await, 0);
    assert_eq!(app.notices().await, 0, "nobody is alarmed");
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 0);

    alice.sign_in().await;
    alice.me().await.is(200);
    app.anonymous().refresh(&alice.refresh).await.is(200);
}

async fn a_logout_holds_though_redis_lost_the_deletion(stack: Stack) {
    let app = stack.app().await;
    let (alice, other) = {
        let alice = app.person("alice").await;
        let other = alice.elsewhere().await;
        (alice, other)
    };
    let before = saved(&stack, &alice).await;
    app.anonymous().post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    restore(&stack, &alice, &before).await;

    alice.me().await.is_problem(401, "invalid_token");
    app.anonymous().refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    other.me().await.is(200);
    assert_eq!(app.events("session_ended").await, 0, "an ended session is no theft");
}

async fn a_logout_everywhere_holds_though_redis_lost_the_deletion(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    let before = saved(&stack, &alice).await;
    alice.client.bearer(&alice.access).post("/logout", json!({"all": true})).await.is(204);
    restore(&stack, &alice, &before).await;

    for person in [&alice, &other] {
        person.me().await.is_problem(401, "invalid_token");
        app.anonymous().refresh(&person.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    alice.sign_in().await;
    alice.me().await.is(200);
}

async fn the_end_of_a_stolen_session_holds_though_redis_lost_the_deletion(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_GRACE", "0s")]).await;
    let mut alice = app.person("alice").await;
    let stolen = alice.refresh.clone();
    alice.take(&app.anonymous().refresh(&stolen).await.is(200));
    let before = saved(&stack, &alice).await;
    app.anonymous().refresh(&stolen).await.is_problem(401, "refresh_token_reused");
    restore(&stack, &alice, &before).await;

    alice.me().await.is_problem(401, "invalid_token");
    for token in [&alice.refresh, &stolen] {
        app.anonymous().refresh(token).await.is_problem(401, "invalid_refresh_token");
    }
    assert_eq!(app.events("session_ended").await, 1, "told once");
    assert_eq!(app.notices().await, 1, "mailed once");
}

async fn a_session_is_healed_when_redis_lost_its_last_writes(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let before = saved(&stack, &alice).await;
    for _ in 0..2 {
        alice.take(&app.anonymous().refresh(&alice.refresh).await.is(200));
    }
    restore(&stack, &alice, &before).await;

    alice.me().await.is(200);
    let newest = alice.refresh.clone();
    alice.take(&app.anonymous().refresh(&newest).await.is(200));
    assert_ne!(alice.refresh, newest);
    assert_eq!(app.events("session_healed").await, 1);
    // From there on everything is as ever: the window, then the next one.
    assert_eq!(app.anonymous().refresh(&newest).await.is(200).text("/refresh_token"), alice.refresh);
    alice.take(&app.anonymous().refresh(&alice.refresh).await.is(200));
    alice.me().await.is(200);
    assert_eq!(app.events("session_healed").await, 1, "healed once");
    assert_eq!(app.events("session_ended").await, 0, "it was no theft");
    assert_eq!(app.notices().await, 0);
}

// --- the database away -------------------------------------------------------

async fn a_silent_database_is_a_503_without_a_pile_up_and_is_used_again_when_back(stack: Stack) {
    database_away(stack, Mode::BlackHole).await;
}

async fn a_resetting_database_is_a_503_without_a_pile_up_and_is_used_again_when_back(stack: Stack) {
    database_away(stack, Mode::Reset).await;
}

async fn a_slow_database_is_a_503_without_a_pile_up_and_is_used_again_when_back(stack: Stack) {
    database_away(stack, Mode::Slow).await;
}

async fn database_away(stack: Stack, mode: Mode) {
    let (proxy, app) = behind(&stack, "DATABASE_URL", 5432).await;
    let anonymous = app.anonymous();
    let mut alice = app.person("alice").await;
    let leaving = alice.elsewhere().await;

    proxy.set(mode);
    tokio::time::sleep(Duration::from_millis(600)).await;
    all_refused(WITHOUT_DATABASE, &alice).await;
    refused(WITHOUT_DATABASE, "/login", anonymous.login(&alice.email, PASSWORD)).await;
    refused(WITHOUT_DATABASE, "/refresh", anonymous.refresh(&alice.refresh)).await;
    let logout = anonymous.post("/logout", json!({"refresh_token": leaving.refresh}));
    refused(WITHOUT_DATABASE, "/logout", logout).await;
    let bob = json!({"email": "bob@example.com", "password": PASSWORD});
    refused(WITHOUT_DATABASE, "/register", anonymous.post("/register", bob.clone())).await;
    sessions_refused(WITHOUT_DATABASE, &app, &alice, &leaving).await;
    needs_nobody(&app).await;
    let (status, ready) = timeout(WITHOUT_DATABASE, internal(&app, "/health/ready")).await.expect("an answer in time");
    assert_eq!((status, &ready["checks"]["database"]["status"]), (503, &json!("down")), "{ready}");
    all_refused(WITHOUT_DATABASE, &alice).await;

    proxy.set(Mode::Pass);
    back("the session is there again, without a restart", || async { alice.me().await.status == 200 }).await;
    back("ready again", || async { internal(&app, "/health/ready").await.0 == 200 }).await;
    let first = alice.refresh.clone();
    alice.take(&anonymous.refresh(&first).await.is(200));
    assert_eq!(anonymous.refresh(&first).await.is(200).text("/refresh_token"), alice.refresh, "the window");
    alice.me().await.is(200);
    anonymous.post("/logout", json!({"refresh_token": leaving.refresh})).await.is(204);
    leaving.me().await.is_problem(401, "invalid_token");
    // No statement of the request that was refused came through later.
    anonymous.post("/register", bob).await.is(201);
    assert_eq!(app.number(HALF_STATE).await, 0);
    assert_eq!(app.events("session_healed").await, 0);

    sessions_work(&app, &alice, &leaving).await;
    assert!(all_let_in(&alice).await, "every place of the pool is there again");
}

async fn links_to_the_database_that_fell_silent_for_good_are_replaced(stack: Stack) {
    let (cable, app) = Cable::before(&stack, "DATABASE_URL", 5432).await;
    let mut alice = app.person("alice").await;
    // As many connections as the pool may have.
    assert!(all_let_in(&alice).await);
    cable.cut.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;

    let list = alice.client.bearer(&alice.access);
    timeout(WITHOUT_DATABASE, list.get("/me/sessions")).await.expect("a silent link is not waited for");
    eventually("new links are in use", || all_let_in(&alice)).await;
    alice.take(&app.anonymous().refresh(&alice.refresh).await.is(200));
    app.anonymous().login(&alice.email, PASSWORD).await.is(200);
}

/// Whether `race()` requests at once, each with a reading of its own, are all answered with a 200.
async fn all_let_in(person: &Person) -> bool {
    let mut race = JoinSet::new();
    for _ in 0..scale::race() {
        let client = person.client.bearer(&person.access);
        race.spawn(async move { client.get("/me/sessions").await.status });
    }
    race.join_all().await.into_iter().all(|status| status == 200)
}

// --- clients that hang up ----------------------------------------------------

async fn requests_that_are_dropped_half_way_leave_no_half_state(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_MAX_SESSIONS", "1000")]).await;
    let (alice, client) = (app.person("alice").await, app.anonymous());
    let mut dice = Dice::new(2);
    let mut dropped = 0;
    for number in 0..scale::hang_ups() / 10 {
        // A hash here takes some milliseconds, the statements around it less.
        let patience = Duration::from_micros(dice.below(25_000) as u64);
        let answered = if number % 2 == 0 {
            let body = json!({"email": format!("gone{number}@example.com"), "password": PASSWORD});
            timeout(patience, client.post("/register", body)).await.is_ok()
        } else {
            timeout(patience, client.login(&alice.email, PASSWORD)).await.is_ok()
        };
        dropped += usize::from(!answered);
    }
    assert!(dropped > 0, "nothing was dropped");

    // At once, whatever is still under way.
    client.login(&alice.email, PASSWORD).await.is(200);
    assert_eq!(app.number(HALF_STATE).await, 0);
    // What was begun is finished though nobody waits: each sign-in that was noted has its session.
    eventually("every sign-in has its session", || async {
        let noted = app.events("signed_in").await;
        let sessions = app.ephemeral.list(app.ambient.now(), alice.id).await.unwrap();
        noted == i64::try_from(sessions.len()).unwrap()
    })
    .await;
    // No connection and no slot was lost.
    let mut race = JoinSet::new();
    for _ in 0..scale::race() {
        let person = alice.clone();
        race.spawn(async move { (person.me().await, person.client.login(&person.email, PASSWORD).await) });
    }
    while let Some(replies) = race.join_next().await {
        let (me, login) = replies.unwrap();
        me.is(200);
        login.is(200);
    }
}

/// One act on sessions whose client may be gone before it hears.
struct Cut {
    act: &'static str,
    current: Person,
    others: [Person; 2],
}

impl Cut {
    /// Sends the act, or a part of it, and hangs up.
    async fn send(process: &Process, number: usize, dice: &mut Dice) -> Self {
        let current = process.client().register(&format!("cut{number}")).await;
        let others = [current.elsewhere().await, current.elsewhere().await];
        let act = ["one", "others", "login", "refresh", "logout"][number % 5];
        let first = &others[0];
        let (line, body) = match act {
            "one" => (format!("DELETE /me/sessions/{}", first.session), String::new()),
            "others" => ("DELETE /me/sessions".to_owned(), String::new()),
            "login" => {
                let body = json!({"email": current.email, "password": PASSWORD, "refresh_transport": "cookie"});
                ("POST /login".to_owned(), body.to_string())
            }
            _ => (format!("POST /{act}"), "{}".to_owned()),
        };
        let credential = match act {
            "one" | "others" => format!("authorization: Bearer {}", current.access),
            _ => format!(
                "origin: http://localhost:3000\r\ncontent-type: application/json\r\n\
                 cookie: __Host-latchkey_refresh={}",
                first.refresh
            ),
        };
        let length = body.len();
        let mut request =
            format!("{line} HTTP/1.1\r\nhost: localhost\r\n{credential}\r\ncontent-length: {length}\r\n\r\n{body}");
        // Half of them are whole, and the client goes while the server works.
        if dice.below(2) == 0 {
            request.truncate(dice.below(request.len()));
        }
        let mut stream = TcpStream::connect(process.address).await.expect("the server accepts");
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        tokio::time::sleep(Duration::from_micros(dice.below(20_000) as u64)).await;
        Self { act, current, others }
    }

    /// Whether it happened; asserts that it did so wholly or not at all.
    async fn judge(&self) -> bool {
        let (act, [first, second]) = (self.act, &self.others);
        self.current.me().await.is(200);
        let list = self.current.client.bearer(&self.current.access).get("/me/sessions").await.is(200).json();
        let count = list["sessions"].as_array().unwrap().len();
        let (first_lives, second_lives) = (first.is_signed_in().await, second.is_signed_in().await);
        for (person, lives) in [(first, first_lives), (second, second_lives)] {
            let reply = person.client.refresh(&person.refresh).await;
            assert_eq!(reply.status == 200, lives, "{act}: {reply:?}");
        }
        assert_eq!(second_lives, first_lives || act != "others", "{act}");
        let living = 1 + usize::from(first_lives) + usize::from(second_lives);
        // A login by a browser that was signed in puts one session in the place of another.
        assert_eq!(count, if act == "login" { 3 } else { living }, "{act}: {list}");
        assert!(first_lives || act != "refresh");
        !first_lives
    }
}

async fn ends_whose_client_hangs_up_at_any_byte_are_whole_or_none(stack: Stack) {
    let process = Process::start(stack.dir.path(), &stack.settings().await);
    let mut dice = Dice::new(3);
    let (mut happened, mut count) = (0, 0);
    while count < scale::hang_ups() / 10 {
        let mut cuts = Vec::new();
        for _ in 0..10 {
            cuts.push(Cut::send(&process, count, &mut dice).await);
            count += 1;
        }
        // What was begun goes on though nobody waits.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for cut in &cuts {
            happened += usize::from(cut.judge().await);
        }
    }
    assert!(happened > count / 10 && happened < count, "{happened} of {count} ended something");
}

async fn a_transaction_that_fails_half_way_leaves_nothing_and_no_lock(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let bob = json!({"email": "bob@example.com", "password": PASSWORD});
    // The person can be inserted, the event beside them cannot.
    app.sql("ALTER TABLE events RENAME TO events_away").await;
    // More often than the pool has places: one that came back with its transaction open would be met again.
    for _ in 0..10 {
        app.anonymous().post("/register", bob.clone()).await.is_problem(500, "internal_error");
    }
    app.sql("ALTER TABLE events_away RENAME TO events").await;

    app.anonymous().post("/register", bob).await.is(201);
    assert_eq!(app.number(HALF_STATE).await, 0);
    app.anonymous().login(&alice.email, PASSWORD).await.is(200);
    assert!(all_let_in(&alice).await);
}

// --- the embedded file -------------------------------------------------------

async fn a_locked_file_refuses_writes_in_time_and_answers_reads(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    alice.me().await.is(200);
    let url = format!("sqlite://{}/latchkey.db", setting(&stack, "LATCHKEY_DATA_DIR").await);
    let mut somebody = SqliteConnection::connect(&url).await.unwrap();
    somebody.execute("BEGIN IMMEDIATE").await.unwrap();

    let client = app.anonymous();
    refused(WITHOUT_DATABASE, "/login", client.login(&alice.email, PASSWORD)).await;
    refused(WITHOUT_DATABASE, "/refresh", client.refresh(&alice.refresh)).await;
    alice.me().await.is(200);

    somebody.execute("ROLLBACK").await.unwrap();
    eventually("writes work again", || async { client.login(&alice.email, PASSWORD).await.status == 200 }).await;
    client.refresh(&alice.refresh).await.is(200);
}

/// A server that may not make any file longer than some KiB, as on a full disk.
struct Cramped {
    child: Child,
    address: SocketAddr,
}

impl Cramped {
    fn start(stack: &Stack, settings: &[(String, String)], kib: u32) -> Self {
        // A program dies of SIGXFSZ unless it is ignored; ignored it stays through `exec`, and a write fails instead.
        let script = format!("trap '' XFSZ && ulimit -f {kib} && exec \"$0\"");
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_latchkey")).current_dir(stack.dir.path());
        command.env_clear().envs(settings.iter().map(|(name, value)| (name, value)));
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("bash starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the server says where it listens").unwrap();
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "listening" {
                let address = event["listen"].as_str().and_then(|url| url.strip_prefix("http://"));
                break address.and_then(|address| address.parse().ok()).expect("an address");
            }
        };
        // A pipe that nobody reads would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn a_full_disk_refuses_writes_answers_reads_and_corrupts_nothing(stack: Stack) {
    let settings = stack.settings().await;
    // Made while there was room.
    let process = Process::start(stack.dir.path(), &settings);
    let mut alice = process.client().register("alice").await;
    process.kill();

    let cramped = Cramped::start(&stack, &settings, 1024);
    let client = Client::at(cramped.address);
    alice.client = client.clone();
    alice.me().await.is(200);
    let mut registered = Vec::new();
    loop {
        let email = format!("person{}@example.com", registered.len());
        let reply = client.post("/register", json!({"email": email, "password": PASSWORD})).await;
        if reply.status != 201 {
            refused(Duration::from_secs(1), "/register", async { reply }).await;
            break;
        }
        registered.push(email);
        assert!(registered.len() < 1000, "the disk does not fill up");
    }
    assert!(!registered.is_empty(), "there was no room to begin with");
    // A smaller write may find room where that one did not, but not for long.
    let mut refreshes = 0;
    loop {
        let reply = client.refresh(&alice.refresh).await;
        if reply.status != 200 {
            refused(Duration::from_secs(1), "/refresh", async { reply }).await;
            break;
        }
        alice.take(&reply);
        refreshes += 1;
        assert!(refreshes < 1000, "the disk does not fill up");
    }
    refused(WITHOUT_DATABASE, "/login", client.login(&alice.email, PASSWORD)).await;
    alice.me().await.is(200);
    client.get("/health").await.is(200);
    drop(cramped);

    // With room again, everything that anybody was told is there.
    let mut process = Process::start(stack.dir.path(), &settings);
    let client = process.client();
    alice.client = client.clone();
    alice.me().await.is(200);
    alice.take(&client.refresh(&alice.refresh).await.is(200));
    let last = registered.len() - 1;
    for email in [&registered[0], &registered[last / 2], &registered[last]] {
        client.login(email, PASSWORD).await.is(200);
    }
    client.register("bob").await.me().await.is(200);
    process.terminate();
    assert!(process.wait(Duration::from_secs(30)).success());

    let url = format!("sqlite://{}/latchkey.db", setting(&stack, "LATCHKEY_DATA_DIR").await);
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let verdict: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut connection).await.unwrap();
    assert_eq!(verdict, ["ok"]);
    let emails: Vec<String> = sqlx::query_scalar("SELECT email FROM users").fetch_all(&mut connection).await.unwrap();
    assert!(registered.iter().all(|email| emails.contains(email)), "{registered:?} {emails:?}");
    let half: i64 = sqlx::query_scalar(HALF_STATE).fetch_one(&mut connection).await.unwrap();
    assert_eq!(half, 0);
}

// --- links that are cut in the middle of a sentence -------------------------------------------------------------------

/// Registers, signs in, refreshes and signs out while the link is cut after more and more bytes: each act happened or did
/// not, none is half done, and the server is itself again at once.
async fn cut_anywhere(stack: &Stack, name: &str, default_port: u16) {
    let (proxy, app) = behind(stack, name, default_port).await;
    let client = app.anonymous();
    let alice = app.person("alice").await;
    let mut refused = 0;
    for (round, bytes) in [0, 1, 7, 20, 60, 110, 170, 240, 330, 450, 600, 800, 1100, 1500].into_iter().enumerate() {
        let email = format!("cut{round}@example.com");
        let guest = alice.elsewhere().await;
        proxy.cut_after(bytes);
        let replies = [
            client.post("/register", json!({"email": email, "password": PASSWORD})).await,
            client.login(&alice.email, PASSWORD).await,
            guest.client.refresh(&guest.refresh).await,
            guest.client.post("/logout", json!({"refresh_token": guest.refresh})).await,
        ];
        let ended = replies[3].status == 204;
        for reply in replies {
            if reply.status >= 400 {
                reply.is_problem(503, "unavailable");
                refused += 1;
            }
        }
        proxy.set(Mode::Pass);
        eventually("a login works", || async { client.login(&alice.email, PASSWORD).await.status == 200 }).await;
        assert!(!(ended && guest.is_signed_in().await), "after {bytes} bytes: an acknowledged end was none");
        eventually("registering works", || async {
            let reply = client.post("/register", json!({"email": email, "password": PASSWORD})).await;
            matches!(reply.status, 201 | 409)
        })
        .await;
    }
    assert!(refused > 4, "the cuts were felt: {refused}");
    assert_eq!(app.number(HALF_STATE).await, 0);
}

async fn a_redis_link_that_is_cut_at_any_byte_leaves_nothing_half_done(stack: Stack) {
    cut_anywhere(&stack, "REDIS_URL", 6379).await;
}

async fn a_database_link_that_is_cut_at_any_byte_leaves_nothing_half_done(stack: Stack) {
    cut_anywhere(&stack, "DATABASE_URL", 5432).await;
}
