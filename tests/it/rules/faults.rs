use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{
    on_stacks,
    support::{Mode, PASSWORD, Proxy, Stack, StackKind, Test, TestApp, eventually},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::REDIS;
        a_redis_that_left_without_a_word_is_found_again_by_one_new_connection,
        a_redis_that_was_demoted_is_left_for_its_successor,
    ];
    tests.extend(on_stacks![&StackKind::ALL; what_failed_half_way_never_happened]);
    tests.extend(on_stacks![&StackKind::SHARED;
        a_link_that_falls_silent_on_its_way_back_holds_no_place,
        clients_that_hang_up_cost_no_connection,
        a_sluggish_database_is_refused_within_two_seconds_however_many_statements,
        a_connection_that_broke_while_idle_costs_nobody_an_answer,
        postgres_does_not_go_on_with_what_nobody_waits_for,
    ]);
    tests.extend(on_stacks![&[StackKind::Embedded];
        a_write_transaction_has_the_lock_from_its_beginning,
        a_short_wait_for_the_file_is_no_fault,
    ]);
    tests
}

async fn setting(stack: &Stack, name: &str) -> String {
    let settings = stack.settings().await;
    settings.into_iter().find(|(key, _)| key == name).map(|(_, value)| value).expect("a setting of this stack")
}

/// `scheme://…host:port/…` taken apart (as `Link` in faults.rs does).
fn split(url: &str) -> (String, String, String) {
    let from = url.find("://").unwrap() + 3;
    let to = url[from..].find(['/', '?']).map_or(url.len(), |at| from + at);
    let from = url[from..to].rfind('@').map_or(from, |at| from + at + 1);
    (url[..from].into(), url[from..to].into(), url[to..].into())
}
async fn behind(stack: &Stack, name: &str, _: u16) -> (Proxy, TestApp) {
    let (before, upstream, after) = split(&setting(stack, name).await);
    let proxy = Proxy::before(&upstream).await;
    let app = stack.app_with(&[(name, format!("{before}{}{after}", proxy.address).as_str())]).await;
    (proxy, app)
}
// ---- paste from here

/// Before an upstream: passes bytes on after `delay`, until the connection is forsaken.
struct Fickle {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// Connections with a lower number get nothing any more, in neither direction, and are not closed.
    forsaken: Arc<AtomicUsize>,
    delay_ms: Arc<AtomicU64>,
}

impl Fickle {
    async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fickle = Self {
            address: listener.local_addr().unwrap(),
            accepted: Arc::default(),
            forsaken: Arc::default(),
            delay_ms: Arc::default(),
        };
        let (accepted, forsaken) = (Arc::clone(&fickle.accepted), Arc::clone(&fickle.forsaken));
        let (delay_ms, upstream) = (Arc::clone(&fickle.delay_ms), upstream.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                let (forsaken, delay_ms, upstream) = (Arc::clone(&forsaken), Arc::clone(&delay_ms), upstream.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&upstream).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    let pump = async |mut from: tokio::net::tcp::OwnedReadHalf,
                                      mut to: tokio::net::tcp::OwnedWriteHalf| {
                        let mut buffer = vec![0; 16 * 1024];
                        while let Ok(length @ 1..) = from.read(&mut buffer).await {
                            tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::SeqCst))).await;
                            if forsaken.load(Ordering::SeqCst) > number {
                                std::future::pending::<()>().await;
                            }
                            if to.write_all(&buffer[..length]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        () = pump(from_client, to_server) => {}
                        () = pump(from_server, to_client) => {}
                    }
                });
            }
        });
        fickle
    }

    /// Every connection that is there gets nothing any more; new ones are as good as ever.
    fn forsake(&self) {
        self.forsaken.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// An app that reaches what `name` names through a [`Fickle`].
async fn behind_fickle(stack: &Stack, name: &str) -> (Fickle, TestApp) {
    let (before, upstream, after) = split(&setting(stack, name).await);
    let fickle = Fickle::before(&upstream).await;
    let app = stack.app_with(&[(name, format!("{before}{}{after}", fickle.address).as_str())]).await;
    (fickle, app)
}

/// The host is gone and nobody says so: no reset, no answer, as after a failover by address.
async fn a_redis_that_left_without_a_word_is_found_again_by_one_new_connection(stack: Stack) {
    let (fickle, app) = behind_fickle(&stack, "REDIS_URL").await;
    let alice = app.person("alice").await;
    alice.me().await.is(200);
    let before = fickle.accepted.load(Ordering::SeqCst);
    fickle.forsake();
    app.pass(Duration::from_millis(500));
    let mut crowd = JoinSet::new();
    for _ in 0..50 {
        let alice = alice.clone();
        crowd.spawn(async move { alice.me().await.status });
    }
    assert!(crowd.join_all().await.into_iter().all(|status| status == 503));
    let started = Instant::now();
    eventually("Redis is found again", || async { alice.me().await.status == 200 }).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let new = fickle.accepted.load(Ordering::SeqCst) - before;
    assert!(new <= 3, "{new} connections for one that was lost");
}

/// How many whole commands (RESP arrays of bulk strings) `bytes` begins with, and their length.
fn commands(bytes: &[u8]) -> (usize, usize) {
    let number = |at: usize| -> Option<(usize, usize)> {
        let end = at + bytes.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        Some((std::str::from_utf8(&bytes[at + 1..end]).ok()?.parse().ok()?, end + 2))
    };
    let one = |at: usize| -> Option<usize> {
        let (parts, mut at) = number(at)?;
        for _ in 0..parts {
            let (length, start) = number(at)?;
            at = start + length + 2;
        }
        (at <= bytes.len()).then_some(at)
    };
    let (mut count, mut end) = (0, 0);
    while let Some(next) = one(end) {
        (count, end) = (count + 1, next);
    }
    (count, end)
}

/// A master that was demoted answers on every connection it has, and refuses every write.
async fn a_redis_that_was_demoted_is_left_for_its_successor(stack: Stack) {
    let (before, upstream, after) = split(&setting(&stack, "REDIS_URL").await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut demoted, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let (mut seen, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
            while let Ok(length @ 1..) = demoted.read(&mut buffer).await {
                seen.extend_from_slice(&buffer[..length]);
                let (count, end) = commands(&seen);
                let greeting = seen.windows(7).any(|word| word == b"SETINFO");
                let answer =
                    if greeting { "+OK\r\n" } else { "-READONLY You can't write against a read only replica.\r\n" };
                seen.drain(..end);
                demoted.write_all(answer.repeat(count).as_bytes()).await.unwrap();
            }
        });
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&upstream).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let app = stack.app_with(&[("REDIS_URL", format!("{before}{address}{after}").as_str())]).await;
    let client = app.anonymous();
    let alice = json!({"email": "alice@example.com", "password": PASSWORD});
    client.post("/register", alice.clone()).await.is(201);
    client.post("/login", alice.clone()).await.is_problem(503, "unavailable");
    eventually("the new master is asked", || async { client.post("/login", alice.clone()).await.status == 200 }).await;
}

/// Each statement alone is in time; all of them are not.
async fn a_sluggish_database_is_refused_within_two_seconds_however_many_statements(stack: Stack) {
    let (fickle, app) = behind_fickle(&stack, "DATABASE_URL").await;
    let alice = app.person("alice").await;
    fickle.delay_ms.store(500, Ordering::SeqCst);
    // BEGIN, end, event, COMMIT: four seconds by themselves.
    let started = Instant::now();
    let reply = alice.client.post("/logout", json!({"refresh_token": alice.refresh})).await;
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
    reply.is_problem(503, "unavailable");
}

async fn a_connection_that_broke_while_idle_costs_nobody_an_answer(stack: Stack) {
    let (proxy, app) = behind(&stack, "DATABASE_URL", 5432).await;
    let alice = app.person("alice").await;
    proxy.set(Mode::Reset);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    proxy.set(Mode::Pass);
    for _ in 0..5 {
        alice.me().await.is(200);
    }
}

async fn postgres_does_not_go_on_with_what_nobody_waits_for(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let mut other = PgConnection::connect(&stack.database_url().await).await.unwrap();
    other.execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    for _ in 0..2 {
        alice.me().await.is_problem(503, "unavailable");
    }
    let started = Instant::now();
    loop {
        let sql =
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(sql).fetch_one(&mut other).await.unwrap();
        if waiting == 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{waiting} statements wait for a lock and nobody for them");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    other.close().await.unwrap();
    eventually("back again", || async { alice.me().await.status == 200 }).await;
}

async fn a_write_transaction_has_the_lock_from_its_beginning(stack: Stack) {
    let app = stack.app().await;
    let tx = app.db.begin(app.ambient.now()).await.unwrap();
    let path = stack.dir.path().join("data/latchkey.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(Duration::ZERO);
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    assert!(other.execute("BEGIN IMMEDIATE").await.is_err(), "a transaction that reads first may come to write later");
    tx.commit().await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut other).await.unwrap();
    assert_eq!(mode, "wal", "readers do not wait for a writer");
}

/// A command beside the server (`keys generate`, a backup) may hold the file for a moment.
async fn a_short_wait_for_the_file_is_no_fault(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let url = format!("sqlite://{}", stack.dir.path().join("data/latchkey.db").display());
    let mut somebody = SqliteConnection::connect(&url).await.unwrap();
    somebody.execute("BEGIN IMMEDIATE").await.unwrap();
    let refresh = tokio::spawn(async move { alice.client.refresh(&alice.refresh).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    somebody.execute("ROLLBACK").await.unwrap();
    refresh.await.unwrap().is(200);
}

/// The second statement fails, the first one was fine: neither it nor the connection is left behind.
async fn what_failed_half_way_never_happened(stack: Stack) {
    let app = stack.app().await;
    let register = async |name: &str| {
        let body = json!({"email": format!("{name}@example.com"), "password": PASSWORD});
        app.anonymous().post("/register", body).await
    };
    app.sql("ALTER TABLE events RENAME TO events_away").await;
    // More often than the pool has places.
    for number in 0..6 {
        register(&format!("half{number}")).await.is_problem(500, "internal_error");
    }
    app.sql("ALTER TABLE events_away RENAME TO events").await;
    for number in 0..6 {
        register(&format!("whole{number}")).await.is(201);
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE email LIKE 'half%'").await, 0);
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 6);
    // A transaction that nobody commits is none.
    drop(app.db.begin(app.ambient.now()).await.unwrap());
    register("last").await.is(201);
}

/// The pool asks a connection that comes back whether it lives; one that says nothing must not hold its place.
async fn a_link_that_falls_silent_on_its_way_back_holds_no_place(stack: Stack) {
    let (before, upstream, after) = split(&setting(&stack, "DATABASE_URL").await);
    let fickle = Fickle::before(&upstream).await;
    let url = format!("{before}{}{after}", fickle.address);
    let app = stack.app_with(&[("DATABASE_URL", &url), ("LATCHKEY_DB_POOL", "1")]).await;
    let alice = app.person("alice").await;
    let conn = app.db.read().await.unwrap();
    fickle.forsake();
    drop(conn);
    let started = Instant::now();
    eventually("the one place is free", || async { alice.me().await.status == 200 }).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

async fn clients_that_hang_up_cost_no_connection(stack: Stack) {
    let (fickle, app) = behind_fickle(&stack, "DATABASE_URL").await;
    let alice = app.person("alice").await;
    fickle.delay_ms.store(30, Ordering::SeqCst);
    // Statements take 60 ms, so this is amid one; the pool is warm after the first few.
    let mut before = 0;
    for number in 0..20 {
        if number == 5 {
            before = fickle.accepted.load(Ordering::SeqCst);
        }
        let _ = tokio::time::timeout(Duration::from_millis(30), alice.me()).await;
        let body = json!({"email": format!("gone{number}@example.com"), "password": PASSWORD});
        let register = alice.client.post("/register", body);
        let _ = tokio::time::timeout(Duration::from_millis(150), register).await;
    }
    eventually("all of them registered", || async { app.events("registered").await == 21 }).await;
    let new = fickle.accepted.load(Ordering::SeqCst) - before;
    assert!(new <= 5, "{new} new connections for clients that hung up");
}
