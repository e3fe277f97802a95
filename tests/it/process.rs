//! The real program as a process: starting in an empty folder, the flows over a socket, stopping on SIGTERM, `kill -9`
//! and hang-ups under load, two nodes on one pair of stores, the commands with their exit codes and settings, and what
//! is written to the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{body::Body, http::Method};
use latchkey::config::SETTINGS;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::support::{Client, PASSWORD, Person, Process, Reply, Stack, StackKind, Test, eventually, json_body, scale};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&StackKind::ALL;
        every_flow_works_over_the_socket_from_an_empty_folder,
        health_is_public_and_its_internal_paths_are_not,
        sigterm_finishes_what_runs_and_takes_nothing_new,
        kill_9_under_load_loses_nothing_that_was_acknowledged,
        clients_that_hang_up_at_any_byte_leave_the_server_healthy,
        commands_work_beside_a_running_server,
        a_port_in_use_is_told_by_the_name_of_its_setting,
        output_in_a_pipe_is_one_json_object_a_line,
        logs_hold_no_secret_at_any_level,
        every_request_ends_in_one_log_line,
    );
    tests.extend(crate::on_stacks!(&StackKind::SHARED;
        two_nodes_behave_as_one,
        refreshes_of_one_token_on_two_nodes_make_one_successor,
        two_first_nodes_that_start_at_once_share_one_ring,
    ));
    tests.extend(crate::on_stacks!(&[StackKind::Embedded];
        a_second_server_on_the_same_folder_is_told_what_to_do,
        what_a_server_makes_is_for_its_user_alone,
        a_start_that_waits_for_others_can_be_stopped,
        the_curl_lines_of_the_greeting_work_as_pasted,
    ));
    tests.extend(crate::once!(
        bad_settings_are_told_all_at_once_without_their_values,
        unknown_settings_are_refused_by_name,
        config_check_shows_every_setting_and_no_secret,
        dot_env_of_the_working_directory_is_read_under_the_environment,
        dot_env_of_the_parent_folder_is_not_read,
        a_malformed_dot_env_is_a_fault,
        help_and_version_are_fine_and_unknown_commands_are_bad_usage,
    ));
    tests
}

/// Dice that fall alike in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound` (SplitMix64).
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// People without a `registered` event, or the other way round: zero unless a transaction was torn.
pub const HALF_STATE: &str = "SELECT \
     (SELECT COUNT(*) FROM users \
      WHERE NOT EXISTS (SELECT 1 FROM events WHERE kind = 'registered' AND person_id = users.id)) \
     + (SELECT COUNT(*) FROM events \
        WHERE kind = 'registered' AND NOT EXISTS (SELECT 1 FROM users WHERE users.id = events.person_id))";

/// One number, read beside the server.
async fn number(stack: &Stack, sql: &'static str) -> i64 {
    if stack.kind == StackKind::Embedded {
        let mut connection = SqliteConnection::connect(&sqlite_url(stack)).await.expect("the file opens");
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("good SQL")
    } else {
        let mut connection = PgConnection::connect(&stack.database_url().await).await.expect("PostgreSQL answers");
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("good SQL")
    }
}

/// The URL of the database.
async fn database(stack: &Stack) -> String {
    if stack.kind == StackKind::Embedded { sqlite_url(stack) } else { stack.database_url().await }
}

/// Runs SQL beside the server.
async fn execute(kind: StackKind, url: &str, sql: String) {
    let sql = AssertSqlSafe(sql);
    if kind == StackKind::Embedded {
        SqliteConnection::connect(url).await.expect("the file opens").execute(sql).await.expect("good SQL");
    } else {
        PgConnection::connect(url).await.expect("PostgreSQL answers").execute(sql).await.expect("good SQL");
    }
}

/// Every text of one column, read beside the server.
async fn texts(stack: &Stack, sql: &'static str) -> Vec<String> {
    if stack.kind == StackKind::Embedded {
        let mut connection = SqliteConnection::connect(&sqlite_url(stack)).await.expect("the file opens");
        sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("good SQL")
    } else {
        let mut connection = PgConnection::connect(&stack.database_url().await).await.expect("PostgreSQL answers");
        sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("good SQL")
    }
}

fn sqlite_url(stack: &Stack) -> String {
    format!("sqlite://{}/data/latchkey.db", stack.dir.path().display())
}

async fn post(client: &Client, path: &str, body: &Value) -> Option<Reply> {
    client.with("content-type", "application/json").try_send(Method::POST, path, json_body(body)).await.ok()
}

/// `race()` times `/me` at once, each with a 200.
async fn all_get_in(person: &Person) {
    let mut race = JoinSet::new();
    for _ in 0..scale::race() {
        let person = person.clone();
        race.spawn(async move { person.me().await });
    }
    while let Some(reply) = race.join_next().await {
        reply.unwrap().is(200);
    }
}

// --- the flows over a socket -------------------------------------------------

async fn every_flow_works_over_the_socket_from_an_empty_folder(stack: Stack) {
    assert_eq!(std::fs::read_dir(stack.dir.path()).unwrap().count(), 0, "the folder is empty");
    let process = Process::start(stack.dir.path(), &stack.settings().await);
    let client = process.client();

    let mut alice = client.register("alice").await;
    let me = alice.me().await.is(200).json();
    assert_eq!((me["id"].as_str(), me["email"].as_str()), (Some(&*alice.id.to_string()), Some("alice@example.com")));

    let (session, first) = (alice.session, alice.refresh.clone());
    alice.take(&client.refresh(&first).await.is(200));
    assert_eq!(alice.session, session, "a refresh stays in its session");
    assert_ne!(alice.refresh, first);
    alice.me().await.is(200);

    client.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    alice.me().await.is_problem(401, "invalid_token");
    client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    client.login("alice@example.com", "not the password").await.is_problem(401, "invalid_credentials");
    client.login("alice@example.com", PASSWORD).await.is(200);

    let keys = client.get("/.well-known/jwks.json").await.is(200).json();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2), "active and next: {keys}");
}

async fn health_is_public_and_its_internal_paths_are_not(stack: Stack) {
    let process = Process::start(stack.dir.path(), &stack.settings().await);
    let health = process.client().get("/health").await.is(200).json();
    assert_eq!(health, json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}));

    process.internal().get("/health/live").await.is(200);
    let ready = process.internal().get("/health/ready").await.is(200).json();
    assert_eq!(ready["status"], "ok");
    for check in ["database", "sessions"] {
        assert_eq!(ready["checks"][check]["status"], "ok", "{ready}");
        assert!(ready["checks"][check]["latency_ms"].is_f64(), "{ready}");
    }
    for path in ["/health/live", "/health/ready", "/metrics"] {
        process.client().get(path).await.is_problem(404, "not_found");
    }
    // Nor is the public API on the internal listener.
    process.internal().post("/login", json!({})).await.is_problem(404, "not_found");
}

// --- stopping, dying, hanging up ---------------------------------------------

async fn sigterm_finishes_what_runs_and_takes_nothing_new(stack: Stack) {
    let mut process = Process::start(stack.dir.path(), &stack.settings().await);
    let alice = process.client().register("alice").await;

    let body = json!({"email": alice.email, "password": PASSWORD}).to_string();
    let (first, rest) = body.split_at(body.len() / 2);
    let head = format!(
        "POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut slow = TcpStream::connect(process.address).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    // The server says so when the handler asks for the body: from here on the request runs.
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut heard = vec![0; go_on.len()];
    timeout(Duration::from_secs(10), slow.read_exact(&mut heard)).await.expect("a 100").unwrap();
    assert_eq!(heard, go_on);
    slow.write_all(first.as_bytes()).await.unwrap();

    process.terminate();
    let internal = process.internal();
    eventually("live says 503", || async { internal.get("/health/live").await.status == 503 }).await;
    let address = process.address;
    eventually("new connections are refused", || async { TcpStream::connect(address).await.is_err() }).await;
    internal.get("/health/live").await.is(503);

    slow.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(30), slow.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"access_token\""), "{answer}");
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0), "{}", process.output());
}

/// What clients were told before the server died.
#[derive(Default)]
struct Told {
    registered: Vec<String>,
    signed_out: Vec<Person>,
    revoked: Vec<Person>,
    disabled: Vec<String>,
}

/// Registers people until the server is gone.
fn keep_registering(client: Client, name: String, told: Arc<Mutex<Told>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        for number in 0.. {
            let email = format!("{name}-{number}@example.com");
            let Some(reply) = post(&client, "/register", &json!({"email": email, "password": PASSWORD})).await else {
                return;
            };
            if reply.status == 201 {
                told.lock().unwrap().registered.push(email);
            }
        }
    })
}

/// Signs in twice, ends one session from the other and signs out of that, until the server is gone.
fn keep_signing_out(person: Person, told: Arc<Mutex<Told>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let login = json!({"email": person.email, "password": PASSWORD});
            let Some(reply) = post(&person.client, "/login", &login).await else { return };
            let Some(other) = post(&person.client, "/login", &login).await else { return };
            if (reply.status, other.status) != (200, 200) {
                continue;
            }
            let (mut session, mut revoked) = (person.clone(), person.clone());
            session.take(&reply);
            revoked.take(&other);
            let (bearer, path) = (person.client.bearer(&session.access), format!("/me/sessions/{}", revoked.session));
            let Ok(reply) = bearer.try_send(Method::DELETE, &path, Body::empty()).await else { return };
            if reply.status == 204 {
                told.lock().unwrap().revoked.push(revoked);
            }
            let logout = json!({"refresh_token": session.refresh});
            let Some(reply) = post(&person.client, "/logout", &logout).await else { return };
            if reply.status == 204 {
                told.lock().unwrap().signed_out.push(session);
            }
        }
    })
}

/// Disables people who were registered, beside the server, until it is gone.
fn keep_disabling(stack: &Stack, url: String, told: Arc<Mutex<Told>>, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    let kind = stack.kind;
    tokio::spawn(async move {
        while !is_over.load(Ordering::SeqCst) {
            let next = {
                let told = told.lock().unwrap();
                told.registered.get(told.disabled.len()).cloned()
            };
            if let Some(email) = next {
                let sql = format!("UPDATE users SET status = 'disabled', epoch = epoch + 1 WHERE email = '{email}'");
                execute(kind, &url, sql).await;
                told.lock().unwrap().disabled.push(email);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

async fn kill_9_under_load_loses_nothing_that_was_acknowledged(stack: Stack) {
    let settings = stack.settings().await;
    let mut process = Process::start(stack.dir.path(), &settings);
    let mut alice = process.client().register("alice").await;
    let mut acknowledged = 0;
    for round in 0..scale::kills() {
        let told = Arc::new(Mutex::new(Told::default()));
        let mut load: Vec<_> = (0..4)
            .map(|task| keep_registering(process.client(), format!("kill{round}-{task}"), Arc::clone(&told)))
            .collect();
        load.push(keep_signing_out(alice.clone(), Arc::clone(&told)));
        let (url, is_over) = (database(&stack).await, Arc::new(AtomicBool::new(false)));
        load.push(keep_disabling(&stack, url, Arc::clone(&told), Arc::clone(&is_over)));
        tokio::time::sleep(Duration::from_millis(300)).await;
        eventually("something was acknowledged", || async {
            let told = told.lock().unwrap();
            !(told.registered.len() <= told.disabled.len()
                || told.signed_out.is_empty()
                || told.revoked.is_empty()
                || told.disabled.is_empty())
        })
        .await;
        process.kill();
        is_over.store(true, Ordering::SeqCst);
        for task in load {
            task.await.unwrap();
        }

        let started = Instant::now();
        process = Process::start(stack.dir.path(), &settings);
        assert!(started.elapsed() < Duration::from_secs(10), "a start took {:?}", started.elapsed());

        let Told { registered, signed_out, revoked, disabled } = std::mem::take(&mut *told.lock().unwrap());
        acknowledged += registered.len();
        let known: BTreeSet<String> = texts(&stack, "SELECT email FROM users").await.into_iter().collect();
        let lost: Vec<_> = registered.iter().filter(|email| !known.contains(*email)).collect();
        assert!(lost.is_empty(), "lost in round {round}: {lost:?}");
        assert_eq!(number(&stack, HALF_STATE).await, 0, "round {round}");
        let client = process.client();
        for email in disabled.iter().rev().take(2) {
            client.login(email, PASSWORD).await.is_problem(401, "invalid_credentials");
        }
        for email in registered[disabled.len()..].iter().rev().take(2) {
            client.login(email, PASSWORD).await.is(200);
            client.login(email, "not the password").await.is_problem(401, "invalid_credentials");
        }
        for session in signed_out.into_iter().rev().take(3).chain(revoked.into_iter().rev().take(3)) {
            let session = Person { client: client.clone(), ..session };
            session.me().await.is_problem(401, "invalid_token");
            client.refresh(&session.refresh).await.is_problem(401, "invalid_refresh_token");
        }
        // Who was signed in still is: keys and sessions are durable too.
        alice.client = client;
        alice.me().await.is(200);
    }
    assert!(acknowledged >= scale::kills());
}

async fn clients_that_hang_up_at_any_byte_leave_the_server_healthy(stack: Stack) {
    let mut process = Process::start(stack.dir.path(), &stack.settings().await);
    let mut alice = process.client().register("alice").await;
    let mut dice = Dice::new(1);
    let mut clients = JoinSet::new();
    for number in 0..scale::hang_ups() {
        let (path, email) = if number % 2 == 0 {
            ("/register", format!("gone{number}@example.com"))
        } else {
            ("/login", alice.email.clone())
        };
        let body = json!({"email": email, "password": PASSWORD}).to_string();
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n\
             {body}",
            body.len()
        );
        // One in four is complete, so that hanging up while the server works is among them.
        if dice.below(4) != 0 {
            request.truncate(dice.below(request.len()));
        }
        let address = process.address;
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("the server accepts");
            // The server may have hung up first: also fine.
            let _ = stream.write_all(request.as_bytes()).await;
        });
        if clients.len() == 16 {
            clients.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }

    let client = process.client();
    eventually("a login works", || async { client.login(&alice.email, PASSWORD).await.status == 200 }).await;
    client.register("bob").await.me().await.is(200);
    // Complete logins are among the requests: of hundreds, the first session went by the cap.
    alice.sign_in().await;
    all_get_in(&alice).await;
    assert_eq!(number(&stack, HALF_STATE).await, 0);
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(60)).code(), Some(0), "{}", process.output());
}

// --- two nodes ---------------------------------------------------------------

/// `person`, talking to another node.
fn at(person: &Person, process: &Process) -> Person {
    Person { client: process.client(), ..person.clone() }
}

async fn two_nodes_behave_as_one(stack: Stack) {
    let settings = stack.settings().await;
    let a = Process::start(stack.dir.path(), &settings);
    let b = Process::start(stack.dir.path(), &settings);

    // Registered and signed in on A, known on B.
    let on_a = a.client().register("alice").await;
    at(&on_a, &b).me().await.is(200);
    let taken = json!({"email": on_a.email, "password": PASSWORD});
    b.client().post("/register", taken).await.is_problem(409, "email_taken");

    // Signed in on B, refreshed on A; the same token again on B gives the same successor.
    let mut alice = at(&on_a, &b);
    alice.sign_in().await;
    let first = alice.refresh.clone();
    let successor = a.client().refresh(&first).await.is(200).text("/refresh_token");
    assert_ne!(successor, first);
    assert_eq!(b.client().refresh(&first).await.is(200).text("/refresh_token"), successor);
    alice.take(&b.client().refresh(&successor).await.is(200));
    at(&alice, &a).me().await.is(200);

    // Both publish the same keys.
    let keys = |process: &Process| {
        let client = process.client();
        async move { client.get("/.well-known/jwks.json").await.is(200).json() }
    };
    assert_eq!(keys(&a).await, keys(&b).await);

    // Ended on A, ended on B; the other session lives.
    a.client().post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    let on_b = at(&alice, &b);
    eventually("the logout reaches B", || async { !on_b.is_signed_in().await }).await;
    b.client().refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    at(&on_a, &b).me().await.is(200);

    // A theft that A sees ends the session on B.
    let stolen = on_a.refresh.clone();
    let second = a.client().refresh(&stolen).await.is(200).text("/refresh_token");
    let third = b.client().refresh(&second).await.is(200).text("/refresh_token");
    a.client().refresh(&stolen).await.is_problem(401, "refresh_token_reused");
    b.client().refresh(&third).await.is_problem(401, "invalid_refresh_token");
    let on_b = at(&on_a, &b);
    eventually("the theft reaches B", || async { !on_b.is_signed_in().await }).await;
}

async fn refreshes_of_one_token_on_two_nodes_make_one_successor(stack: Stack) {
    let settings = stack.settings().await;
    let nodes = [Process::start(stack.dir.path(), &settings), Process::start(stack.dir.path(), &settings)];
    let mut alice = nodes[0].client().register("alice").await;
    for _ in 0..scale::races() {
        let mut race = JoinSet::new();
        for number in 0..scale::race() {
            let (client, token) = (nodes[number % 2].client(), alice.refresh.clone());
            race.spawn(async move { client.refresh(&token).await });
        }
        let mut successors = BTreeSet::new();
        while let Some(reply) = race.join_next().await {
            successors.insert(reply.unwrap().is(200).text("/refresh_token"));
        }
        assert_eq!(successors.len(), 1, "one token, one successor");
        alice.refresh = successors.pop_first().unwrap();
    }
    alice.take(&nodes[1].client().refresh(&alice.refresh).await.is(200));
    alice.me().await.is(200);
}

async fn two_first_nodes_that_start_at_once_share_one_ring(stack: Stack) {
    let settings = stack.settings().await;
    let start = || {
        let (dir, settings) = (stack.dir.path().to_owned(), settings.clone());
        tokio::task::spawn_blocking(move || Process::start(&dir, &settings))
    };
    let (a, b) = (start(), start());
    let nodes = [a.await.expect("A starts"), b.await.expect("B starts")];
    for (node, other, name) in [(&nodes[0], &nodes[1], "alice"), (&nodes[1], &nodes[0], "bob")] {
        let person = node.client().register(name).await;
        eventually("the other node knows the key", || async { at(&person, other).is_signed_in().await }).await;
        other.client().refresh(&person.refresh).await.is(200);
    }
    // Whoever made the ring, its private keys are in the folder: a third node signs.
    let third = Process::start(stack.dir.path(), &settings);
    third.client().login("alice@example.com", PASSWORD).await.is(200);
    let states = texts(&stack, "SELECT state FROM signing_keys ORDER BY state").await;
    assert_eq!(states, ["active", "next"]);
}

// --- commands ----------------------------------------------------------------

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program until it ends by itself, half a minute at most.
pub fn run(dir: &Path, settings: &[(String, String)], arguments: &[&str]) -> Ended {
    let mut command = Process::command(dir, settings);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = heard(child.stdout.take().unwrap());
    let stderr = heard(child.stderr.take().unwrap());
    let started = Instant::now();
    let (status, in_time) = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break (status, true);
        }
        if started.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            break (child.wait().unwrap(), false);
        }
        thread::sleep(Duration::from_millis(5));
    };
    let ended = Ended { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
    assert!(in_time, "latchkey {arguments:?} did not end: {ended:?}");
    ended
}

fn heard(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).expect("UTF-8")
    })
}

pub fn pairs(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn a_second_server_on_the_same_folder_is_told_what_to_do(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    let second = run(stack.dir.path(), &settings, &[]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("LATCHKEY_DATA_DIR"), "{second:?}");
    process.client().register("alice").await.me().await.is(200);

    // The lock is the running server's, not the folder's.
    process.kill();
    Process::start(stack.dir.path(), &settings).client().login("alice@example.com", PASSWORD).await.is(200);
}

async fn commands_work_beside_a_running_server(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    let alice = process.client().register("alice").await;
    for arguments in [&["keys", "list"][..], &["keys", "generate"], &["keys", "list"]] {
        let ended = run(stack.dir.path(), &settings, arguments);
        assert_eq!(ended.code, Some(0), "latchkey {arguments:?}: {ended:?}");
    }
    let ended = run(stack.dir.path(), &settings, &["migrate"]);
    if stack.kind == StackKind::Embedded {
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("a Latchkey server is running on ") && ended.stderr.contains("stop it"),
            "{ended:?}"
        );
    } else {
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let list = run(stack.dir.path(), &settings, &["keys", "list"]).stdout;
    let rows: Vec<Value> =
        list.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    let mut states: Vec<_> = rows.iter().filter_map(|row| row["state"].as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["active", "next"], "nothing was missing, so nothing was made: {list}");
    let published = process.client().get("/.well-known/jwks.json").await.is(200).json();
    let kids = |rows: &[Value]| -> BTreeSet<String> {
        rows.iter().filter_map(|row| row["kid"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(kids(&rows), kids(published["keys"].as_array().unwrap()));
    assert!(rows.iter().all(|row| row["held"] == true), "{list}");
    alice.me().await.is(200);
}

async fn a_port_in_use_is_told_by_the_name_of_its_setting(stack: Stack) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for name in ["LATCHKEY_LISTEN", "LATCHKEY_INTERNAL_LISTEN"] {
        let mut settings = stack.settings().await;
        settings.push((name.to_owned(), taken.local_addr().unwrap().to_string()));
        let ended = run(stack.dir.path(), &settings, &["serve"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&format!("{name} ")), "{ended:?}");
    }
}

fn bad_settings_are_told_all_at_once_without_their_values() {
    let dir = TempDir::new().unwrap();
    let settings = pairs(&[
        ("LATCHKEY_PUBLIC_URL", "ftp://canary.example"),
        ("LATCHKEY_LISTEN", "canary:3000"),
        ("LATCHKEY_ACCESS_TTL", "0s"),
        ("LATCHKEY_REFRESH_GRACE", "canary"),
        ("LATCHKEY_MAX_SESSIONS", "0"),
        ("LATCHKEY_ARGON2_MEMORY_KIB", "7167"),
        ("LATCHKEY_NO_SUCH_THING", "canary"),
        ("DATABASE_URL", "mysql://root:kanarienvogel@127.0.0.1/latchkey"),
        ("REDIS_URL", "memcached://:kanarienvogel@127.0.0.1"),
        ("SMTP_URL", "http://user:kanarienvogel@mail.example"),
        // "kanarienvogel" in base64, which is too short.
        ("LATCHKEY_SECRET", "a2FuYXJpZW52b2dlbA=="),
        ("LATCHKEY_PEPPER", "kanarienvogel"),
    ]);
    for arguments in [&[][..], &["serve"], &["migrate"], &["keys", "list"], &["config", "check"]] {
        let ended = run(dir.path(), &settings, arguments);
        assert_eq!(ended.code, Some(2), "latchkey {arguments:?}: {ended:?}");
        for (name, _) in &settings {
            let told = ended.stderr.lines().filter(|line| line.trim_start().starts_with(&format!("{name}:"))).count();
            assert_eq!(told, 1, "latchkey {arguments:?}, {name}: {ended:?}");
        }
        assert!(!ended.stderr.contains("canary"), "no value at all in what is told: {ended:?}");
        // `config check` shows what was given, but no secret.
        for secret in ["kanarienvogel", "a2FuYXJpZW52"] {
            let told = ended.stdout.contains(secret) || ended.stderr.contains(secret);
            assert!(!told, "latchkey {arguments:?}: {ended:?}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

fn unknown_settings_are_refused_by_name() {
    let dir = TempDir::new().unwrap();
    // A misspelt one, one that would be a file of something that is no secret, and one in `.env`.
    for name in ["LATCHKEY_ACCES_TTL", "LATCHKEY_LISTEN_FILE"] {
        let ended = run(dir.path(), &pairs(&[(name, "5m")]), &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(name), "{ended:?}");
    }
    std::fs::write(dir.path().join(".env"), "LATCHKEY_LISTENN=127.0.0.1:0\n").unwrap();
    let ended = run(dir.path(), &[], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("LATCHKEY_LISTENN"), "{ended:?}");
}

/// The lines of `latchkey config check`, by name.
fn checked(dir: &Path, settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    let ended = run(dir, &pairs(settings), &["config", "check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.stdout.lines().map(|line| line.split_once('=').unwrap_or_else(|| panic!("no setting: {line}")));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn config_check_shows_every_setting_and_no_secret() {
    let dir = TempDir::new().unwrap();
    // "CANARY" again and again, 32 and 16 bytes of it.
    let (secret, pepper) = ("Q0FOQVJZQ0FOQVJZQ0FOQVJZQ0FOQVJZQ0FOQVJZQ0E=", "Q0FOQVJZQ0FOQVJZQ0FOQQ==");
    let pepper = format!("p1:{pepper}");
    let given = [
        ("LATCHKEY_ACCESS_TTL", "90s"),
        ("DATABASE_URL", "postgres://user:CANARY@127.0.0.1:1/CANARY"),
        ("REDIS_URL", "redis://:CANARY@127.0.0.1:1/"),
        ("SMTP_URL", "smtp://user:CANARY@mail.example"),
        ("LATCHKEY_SECRET", secret),
        ("LATCHKEY_PEPPER", pepper.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20CANARY"),
    ];
    let ended = run(dir.path(), &pairs(&given), &["config", "check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let names: Vec<_> = ended.stdout.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let expected: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(names, expected, "one line a setting");
    assert_eq!(ended.stdout.lines().count(), expected.len());
    for canary in ["CANARY", "Q0FO"] {
        assert!(!ended.stdout.contains(canary) && !ended.stderr.contains(canary), "{ended:?}");
    }

    let (set, unset) = (checked(dir.path(), &given), checked(dir.path(), &[]));
    for setting in SETTINGS {
        let given = given.iter().any(|(name, _)| *name == setting.name);
        assert_eq!(set[setting.name] != unset[setting.name], given, "{}", setting.name);
    }
    assert_eq!((set["LATCHKEY_ACCESS_TTL"].as_str(), unset["LATCHKEY_ACCESS_TTL"].as_str()), ("90s", "5m"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "looking makes nothing");
}

fn dot_env_of_the_working_directory_is_read_under_the_environment() {
    let dir = TempDir::new().unwrap();
    let lines = "# settings\nLATCHKEY_ACCESS_TTL=90s\nLATCHKEY_REFRESH_GRACE=7s\nLATCHKEY_PRODUCT_NAME=\"The House\"\n";
    std::fs::write(dir.path().join(".env"), lines).unwrap();
    let settings = checked(dir.path(), &[("LATCHKEY_REFRESH_GRACE", "9s")]);
    assert_eq!(settings["LATCHKEY_ACCESS_TTL"], "90s");
    assert_eq!(settings["LATCHKEY_REFRESH_GRACE"], "9s", "the environment wins");
    assert_eq!(settings["LATCHKEY_PRODUCT_NAME"], "The House");
}

fn dot_env_of_the_parent_folder_is_not_read() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join(".env"), "LATCHKEY_ACCESS_TTL=90s\n").unwrap();
    let inner = dir.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    assert_eq!(checked(&inner, &[])["LATCHKEY_ACCESS_TTL"], "5m");
    assert_eq!(checked(dir.path(), &[])["LATCHKEY_ACCESS_TTL"], "90s", "the file itself is good");
}

fn a_malformed_dot_env_is_a_fault() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join(".env"), "LATCHKEY_ACCESS_TTL=90s\nthis is no canary\n").unwrap();
    let ended = run(dir.path(), &[], &["config", "check"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(".env") && !ended.stderr.contains("canary"), "{ended:?}");
}

fn help_and_version_are_fine_and_unknown_commands_are_bad_usage() {
    let dir = TempDir::new().unwrap();
    let help = run(dir.path(), &[], &["--help"]);
    assert_eq!(help.code, Some(0), "{help:?}");
    for word in ["serve", "migrate", "keys", "config", ".env"] {
        assert!(help.stdout.contains(word), "{word}: {help:?}");
    }
    let version = run(dir.path(), &[], &["--version"]);
    assert_eq!(version.code, Some(0), "{version:?}");
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    for arguments in [&["no-such-command"][..], &["--no-such-option"], &["keys"], &["keys", "lose"], &["config"]] {
        let ended = run(dir.path(), &[], arguments);
        assert_eq!(ended.code, Some(2), "latchkey {arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "latchkey {arguments:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

async fn the_curl_lines_of_the_greeting_work_as_pasted(stack: Stack) {
    let version = Command::new("curl").arg("--version").output();
    assert!(version.is_ok_and(|version| version.status.success()), "this test needs curl: install it");
    let process = Process::start(stack.dir.path(), &stack.settings().await);
    let output = process.output();
    let mut events = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let greeting = events.find(|event| event["message"] == "listening").expect("it says where it listens");
    let line = |name: &str| greeting[name].as_str().unwrap_or_else(|| panic!("no {name} in {greeting}")).to_owned();
    // The answers have no line break at their end.
    let script = format!("{}\necho\n{}\n{}\n", line("register"), line("login"), line("me"));
    let pasted =
        Command::new("bash").arg("-c").arg(&script).env("NO_PROXY", "*").env("no_proxy", "*").output().unwrap();
    let stdout = String::from_utf8(pasted.stdout).unwrap();
    let answers: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {stdout}\n{script}")))
        .collect();
    assert_eq!(answers.len(), 2, "{stdout}");
    assert_eq!(answers[0]["user"]["email"], "alice@example.com", "{stdout}");
    assert_eq!(answers[1]["email"], "alice@example.com", "{stdout}");
    assert_eq!(answers[0]["user"]["id"], answers[1]["id"]);
}

async fn what_a_server_makes_is_for_its_user_alone(stack: Stack) {
    use std::os::unix::fs::PermissionsExt;
    let data = stack.dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let process = Process::start(stack.dir.path(), &stack.settings().await);
    process.client().register("alice").await;
    let files: Vec<_> = std::fs::read_dir(&data).unwrap().map(Result::unwrap).collect();
    assert!(files.iter().any(|file| file.file_name() == "latchkey.db"), "{files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file:?} has mode {mode:o}");
    }
}

/// As process 1 of a container, and while another node migrates.
async fn a_start_that_waits_for_others_can_be_stopped(stack: Stack) {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://latchkey@{}/latchkey", silent.local_addr().unwrap());
    let settings = pairs(&[("DATABASE_URL", &url), ("LATCHKEY_LISTEN", "127.0.0.1:0")]);
    let mut child = Process::command(stack.dir.path(), &settings).stdout(Stdio::null()).spawn().unwrap();
    let _asked = silent.accept().await.unwrap();
    let process = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

// --- what is logged ----------------------------------------------------------

/// Stops the server and gives everything that it said, line by line.
pub async fn last_words(process: &mut Process) -> (String, Vec<Value>) {
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0), "{}", process.output());
    // The threads that listen may still be at it.
    let seen: &Process = process;
    eventually("the last line arrives", || async { seen.output().contains("\"message\":\"stopped\"") }).await;
    let output = process.output();
    let lines = output.lines().map(|line| match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ => panic!("no JSON object: {line}"),
    });
    let lines = lines.collect();
    (output, lines)
}

/// A field of a line.
fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    &line[name]
}

async fn output_in_a_pipe_is_one_json_object_a_line(stack: Stack) {
    let mut settings = stack.settings().await;
    settings.extend(pairs(&[("RUST_LOG", "debug")]));
    let mut process = Process::start(stack.dir.path(), &settings);
    let client = process.client();
    client.register("alice").await.me().await.is(200);
    // What could break a line, wherever a client can put it.
    let evil = "x\t\"}{\\n\\u000a";
    let evil_client = client.with("x-request-id", evil).with("user-agent", evil).with("authorization", evil);
    evil_client.get("/me?a=%0a%0d%22%7d&b=%e2%80%a8").await.is(401);
    evil_client.get("/no/%0a%0d%22%7d/such").await.is(404);
    let body = json!({"email": "a\n\r\u{2028}\"}@example.com", "password": "\n\n\n\n\n\n\n\n", "x\n\"}": 1});
    evil_client.post("/register", body).await.is(422);
    evil_client.post_raw("/login", "application/json\t\"}", "{\n\"}").await.is(415);

    let (output, lines) = last_words(&mut process).await;
    for line in &lines {
        for name in ["timestamp", "level", "message"] {
            assert!(line[name].is_string(), "no {name}: {line}");
        }
    }
    let requests = lines.iter().filter(|line| line["message"] == "request").count();
    // Register, login and /me, then the four.
    assert_eq!(requests, 7, "{output}");
    assert!(!output.contains("u000a"), "a client's own id is not taken over: {output}");
}

/// A client that numbers its requests, to find them in the log.
struct Tour {
    client: Client,
    asked: Vec<Asked>,
}

/// One request, as the log should tell of it.
struct Asked {
    id: String,
    method: &'static str,
    /// Unless the path is nobody's.
    route: Option<&'static str>,
    status: u16,
    code: Option<String>,
}

impl Tour {
    fn of(process: &Process) -> Self {
        Self { client: process.client(), asked: Vec::new() }
    }

    /// The number that the next request carries.
    fn next_id(&self) -> String {
        format!("tour-stop_{}.x", self.asked.len())
    }

    fn note(&mut self, method: &'static str, route: &'static str, reply: &Reply) {
        let (id, status) = (self.next_id(), reply.status);
        assert_eq!(reply.header("x-request-id"), id, "a harmless id is taken over");
        let route = (status != 404).then_some(route);
        let code = (status >= 400).then(|| reply.text("/code"));
        self.asked.push(Asked { id, method, route, status, code });
    }

    async fn post(&mut self, route: &'static str, body: Value) -> Reply {
        let client = self.client.clone();
        self.post_as(&client, route, body).await
    }

    async fn post_as(&mut self, client: &Client, route: &'static str, body: Value) -> Reply {
        let reply = client.with("x-request-id", &self.next_id()).post(route, body).await;
        self.note("POST", route, &reply);
        reply
    }

    async fn send_as(&mut self, client: &Client, method: Method, route: &'static str, body: Value) -> Reply {
        let client = client.with("x-request-id", &self.next_id()).with("content-type", "application/json");
        let reply = client.send(method.clone(), route, json_body(&body)).await;
        let name = ["PATCH", "PUT", "DELETE"].into_iter().find(|name| method.as_str() == *name);
        self.note(name.expect("a method of this tour"), route, &reply);
        reply
    }

    async fn get_as(&mut self, client: &Client, route: &'static str, query: &str) -> Reply {
        let reply = client.with("x-request-id", &self.next_id()).get(&format!("{route}{query}")).await;
        self.note("GET", route, &reply);
        reply
    }
}

/// Asking for everything, and asking by name for the parts of libraries that log frames and statements.
pub const LOUD: [&str; 2] = [
    "trace",
    "trace,latchkey=trace,hyper::proto=trace,hyper_util::server=trace,sqlx::query=trace,sqlx::pool=trace,\
     sqlx_core::logger=trace,redis::aio=trace,rustls::conn=trace",
];

async fn logs_hold_no_secret_at_any_level(stack: Stack) {
    for (round, filter) in LOUD.into_iter().enumerate() {
        let mut settings = stack.settings().await;
        settings.extend(pairs(&[("RUST_LOG", filter), ("LATCHKEY_REFRESH_GRACE", "0s")]));
        let mut process = Process::start(stack.dir.path(), &settings);
        let mut tour = Tour::of(&process);
        let client = tour.client.clone();
        let email = format!("person{round}@example.com");
        let (password, wrong) = ("kanarienvogel-p-77", "kanarienvogel-w-88");
        let mut secrets: Vec<String> = vec!["kanarienvogel".into(), "$argon2".into()];

        tour.post("/register", json!({"email": email, "password": password})).await.is(201);
        tour.post("/login", json!({"email": email, "password": wrong})).await.is(401);
        let mut replies = vec![tour.post("/login", json!({"email": email, "password": password})).await.is(200)];
        let (access, refresh) = (replies[0].text("/access_token"), replies[0].text("/refresh_token"));

        // Credentials wherever a client may put them, right or wrong.
        let alice = client.bearer(&access);
        tour.get_as(&alice, "/me", "").await.is(200);
        tour.get_as(&client, "/me", &format!("?access_token={access}&code=kanarienvogel-q-1")).await.is(401);
        let decorated = alice
            .with("cookie", &format!("__Host-latchkey_refresh={refresh}; s=kanarienvogel-c-2"))
            .with("x-api-key", "kanarienvogel-h-3")
            .with("proxy-authorization", "Basic kanarienvogel-h-4");
        tour.get_as(&decorated, "/me", "").await.is(200);
        tour.get_as(&client.with("authorization", "Basic kanarienvogel-b-6"), "/me", "").await.is(401);
        tour.get_as(&client.bearer("kanarienvogel.kanarienvogel.kanarienvogel"), "/me", "").await.is(401);
        let two = alice.with("authorization", "Bearer kanarienvogel-b-7");
        tour.get_as(&two, "/me", "").await.is(400);

        // Bodies that are refused in every way.
        tour.post("/refresh", json!({"refresh_token": "lkr_kanarienvogel"})).await.is(401);
        tour.post("/login", json!({"email": email, "password": 1, "kanarienvogel": "kanarienvogel"})).await.is(422);
        tour.post("/register", json!({"email": "kanarienvogel@", "password": "kanarienvogel\n"})).await.is(422);
        let broken = client.with("x-request-id", &tour.next_id());
        let reply = broken.post_raw("/login", "application/json", "{\"password\":\"kanarienvogel").await.is(400);
        tour.note("POST", "/login", &reply);

        // The chain, and a theft: without grace the token before the current one is that at once.
        replies.push(tour.post("/refresh", json!({"refresh_token": refresh})).await.is(200));
        tour.post("/refresh", json!({"refresh_token": refresh})).await.is_problem(401, "refresh_token_reused");
        replies.push(tour.post("/login", json!({"email": email, "password": password})).await.is(200));
        let token = replies[2].text("/refresh_token");
        tour.post("/logout", json!({"refresh_token": token})).await.is(204);
        replies.push(tour.post("/login", json!({"email": email, "password": password})).await.is(200));
        let bearer = client.bearer(&replies[3].text("/access_token"));
        tour.post_as(&bearer, "/logout", json!({"all": true})).await.is(204);

        // The profile, a new password, and the end of the account.
        let chosen = "kanarienvogel-n-99";
        replies.push(tour.post("/login", json!({"email": email, "password": password})).await.is(200));
        let bearer = client.bearer(&replies[4].text("/access_token"));
        let patch = json!({"username": format!("person{round}"), "password": password});
        tour.send_as(&bearer, Method::PATCH, "/me", patch).await.is(200);
        let change = |current: &str| json!({"current_password": current, "new_password": chosen});
        tour.send_as(&bearer, Method::PUT, "/me/password", change(wrong)).await.is(401);
        tour.send_as(&bearer, Method::PUT, "/me/password", change(password)).await.is(204);
        tour.send_as(&bearer, Method::DELETE, "/me", json!({"password": wrong})).await.is(401);
        tour.post_as(&bearer, "/me/delete", json!({"password": chosen})).await.is(204);

        for reply in &replies {
            let (access, refresh) = (reply.text("/access_token"), reply.text("/refresh_token"));
            // The head is the same in all tokens and no secret.
            secrets.extend(access.split('.').skip(1).map(str::to_owned));
            secrets.push(access);
            // Nonce and MAC.
            secrets.push(refresh[refresh.len() - 32..].to_owned());
            secrets.push(refresh);
        }
        for entry in std::fs::read_dir(stack.dir.path().join("jwt")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            secrets.extend(text.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
        }
        let urls = settings.iter().filter(|(name, _)| name.ends_with("_URL")).map(|(_, url)| url.clone());
        secrets.extend(urls);
        assert!(secrets.iter().all(|secret| secret.len() >= 7), "nothing here is in a log by chance: {secrets:?}");

        let (output, lines) = last_words(&mut process).await;
        for secret in &secrets {
            let told: Vec<_> = output.lines().filter(|line| line.contains(secret)).collect();
            assert!(told.is_empty(), "with RUST_LOG={filter} the log holds {secret}:\n{}", told.join("\n"));
        }
        // So that this is not about an empty log.
        assert_eq!(lines.iter().filter(|line| line["message"] == "request").count(), tour.asked.len());
    }
}

async fn every_request_ends_in_one_log_line(stack: Stack) {
    let mut settings = stack.settings().await;
    settings.extend(pairs(&[("RUST_LOG", "trace"), ("LATCHKEY_REFRESH_GRACE", "0s")]));
    let mut process = Process::start(stack.dir.path(), &settings);
    let mut tour = Tour::of(&process);
    let client = tour.client.clone();
    let login = json!({"email": "alice@example.com", "password": PASSWORD});

    tour.post("/register", login.clone()).await.is(201);
    tour.post("/register", login.clone()).await.is(409);
    let reply = tour.post("/login", login.clone()).await.is(200);
    let mut alice = Person {
        client: client.clone(),
        id: uuid::Uuid::nil(),
        email: "alice@example.com".into(),
        access: String::new(),
        refresh: String::new(),
        session: uuid::Uuid::nil(),
    };
    alice.take(&reply);
    let about_alice = tour.next_id();
    let me = tour.get_as(&client.bearer(&alice.access), "/me", "").await.is(200).text("/id");
    tour.get_as(&client, "/me", "").await.is(401);
    tour.get_as(&client, "/health", "?x=1").await.is(200);
    tour.get_as(&client, "/.well-known/jwks.json", "").await.is(200);
    tour.get_as(&client, "/no/such/path", "").await.is(404);
    tour.get_as(&client, "/login", "").await.is(405);
    tour.post("/login", json!([])).await.is(422);
    tour.post("/refresh", json!({"refresh_token": alice.refresh})).await.is(200);
    tour.post("/refresh", json!({"refresh_token": alice.refresh})).await.is(401);
    tour.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);

    // An id that could do harm is not taken over, and not logged.
    for id in ["kanarien\tvogel", "kanarien vogel", "{\"kanarienvogel\":1}", &"kanarienvogel".repeat(10)] {
        let reply = client.with("x-request-id", id).get("/health").await.is(200);
        let made = reply.header("x-request-id").to_owned();
        assert!(made.parse::<uuid::Uuid>().is_ok(), "{made}");
        tour.asked.push(Asked { id: made, method: "GET", route: Some("/health"), status: 200, code: None });
    }

    let (output, lines) = last_words(&mut process).await;
    assert!(!output.contains("kanarien"), "{output}");
    let requests: Vec<&Value> = lines.iter().filter(|line| line["message"] == "request").collect();
    assert_eq!(requests.len(), tour.asked.len(), "{output}");
    for asked in &tour.asked {
        let told: Vec<_> = requests.iter().filter(|line| field(line, "request_id") == asked.id.as_str()).collect();
        let [line] = told.as_slice() else { panic!("{} has {} lines", asked.id, told.len()) };
        assert_eq!(line["level"], "INFO", "{line}");
        assert_eq!(field(line, "method"), asked.method, "{line}");
        assert_eq!(field(line, "status"), asked.status, "{line}");
        assert_eq!(field(line, "code").as_str(), asked.code.as_deref(), "{line}");
        assert!(field(line, "address").as_str().is_some_and(|address| address == "127.0.0.1"), "{line}");
        match asked.route {
            Some(route) => assert_eq!(field(line, "route"), route, "{line}"),
            None => assert!(!field(line, "route").as_str().unwrap().contains("such"), "a path is no route: {line}"),
        }
    }
    let line = requests.iter().find(|line| field(line, "request_id") == about_alice.as_str()).unwrap();
    assert_eq!(field(line, "person"), me.as_str(), "{line}");
    assert_eq!(field(line, "session"), alice.session.to_string().as_str(), "{line}");
}
