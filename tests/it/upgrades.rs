//! Upgrades while people are served: servers of today on the schema of tomorrow, migrations under load, and nodes that
//! start together, die, hang or find something in their way while they migrate.
//!
//! Tomorrow's schema is today's with two more columns in every table, a table and an index: all that a release may do
//! under the servers of the one before (`migrations/README.md`). What it may not do is `releases.rs`'s subject.

use std::{
    collections::BTreeSet,
    process::{Child, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{body::Body, http::Method};
use latchkey::{
    db::{Db, OpenError, Plan},
    secret::SecretText,
};
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr, SqliteConnection,
    migrate::{MigrateError, Migration, MigrationType},
};
use tokio::task::JoinSet;

use crate::support::{Client, PASSWORD, Person, Process, Received, Stack, StackKind, Test, eventually};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&StackKind::ALL;
        a_server_of_today_serves_on_the_schema_of_tomorrow,
    );
    tests.extend(crate::on_stacks!(&StackKind::SHARED;
        a_migration_under_load_disturbs_nobody,
    ));
    tests.extend(crate::on_stacks!(&[StackKind::Embedded, StackKind::Pg];
        a_schema_that_is_none_of_ours_is_refused,
        a_node_that_dies_in_a_migration_leaves_it_undone_and_nothing_locked,
        who_waits_for_too_long_is_told_for_what,
    ));
    tests.extend(crate::on_stacks!(&[StackKind::Pg];
        ten_servers_start_at_once_on_an_empty_database,
        a_node_that_hangs_in_a_migration_holds_the_others_up_for_seconds,
        a_table_in_use_delays_a_migration_and_no_request,
        a_migration_may_take_longer_than_the_database_allows_others,
        what_no_transaction_can_hold_runs_once_and_again_after_a_failure,
    ));
    tests
}

// --- schemas -----------------------------------------------------------------

fn migration(version: i64, description: &str, sql: String) -> Migration {
    let no_tx = sql.starts_with("-- no-transaction");
    let sql = AssertSqlSafe(sql).into_sql_str();
    Migration::new(version, description.to_owned().into(), MigrationType::Simple, sql, no_tx)
}

fn newest(plan: &Plan) -> i64 {
    plan.migrations.iter().map(|migration| migration.version).max().unwrap()
}

/// Today's migrations, and what the next release may add.
fn tomorrow(db: &Db) -> Plan {
    let mut plan = db.plan();
    let integer = if db.is_embedded() { "INTEGER" } else { "BIGINT" };
    let tables: Vec<&str> = plan
        .migrations
        .iter()
        .flat_map(|migration| migration.sql.as_str().lines())
        .filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split(' ').next())
        .collect();
    assert!(tables.len() >= 9, "{tables:?}");
    let mut sql = String::from("CREATE TABLE tomorrow (id TEXT NOT NULL PRIMARY KEY);\n");
    for table in tables {
        sql += &format!(
            "ALTER TABLE {table} ADD COLUMN note_of_tomorrow TEXT;\n\
             ALTER TABLE {table} ADD COLUMN count_of_tomorrow {integer} NOT NULL DEFAULT 7;\n"
        );
    }
    sql += "CREATE INDEX users_note_of_tomorrow ON users (note_of_tomorrow);\n";
    plan.migrations.push(migration(newest(&plan) + 1, "tomorrow", sql));
    plan
}

/// The database of the stack, which a server would open.
async fn open(stack: &Stack) -> Db {
    if stack.kind == StackKind::Embedded {
        let data = stack.dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        Db::open_sqlite(&data.join("latchkey.db")).await.unwrap()
    } else {
        Db::open_postgres(&SecretText::new(stack.database_url().await), 2).await.unwrap()
    }
}

/// The same with none but its first `count` migrations.
async fn open_at(stack: &Stack, count: usize) -> Db {
    if stack.kind != StackKind::Embedded {
        let mut door = postgres(stack).await;
        door.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
    }
    let db = open(stack).await;
    let mut plan = db.plan();
    plan.migrations.truncate(count);
    db.migrate_by(&plan).await.unwrap();
    db
}

async fn postgres(stack: &Stack) -> PgConnection {
    PgConnection::connect(&stack.database_url().await).await.unwrap()
}

async fn sqlite(stack: &Stack) -> SqliteConnection {
    let path = stack.dir.path().join("data/latchkey.db");
    SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap()
}

async fn number(stack: &Stack, sql: &str) -> i64 {
    let sql = AssertSqlSafe(sql.to_owned());
    if stack.kind == StackKind::Embedded {
        sqlx::query_scalar(sql).fetch_one(&mut sqlite(stack).await).await.unwrap()
    } else {
        sqlx::query_scalar(sql).fetch_one(&mut postgres(stack).await).await.unwrap()
    }
}

async fn applied(stack: &Stack) -> i64 {
    number(stack, "SELECT COUNT(*) FROM _sqlx_migrations").await
}

// --- servers and commands ----------------------------------------------------

async fn settings(stack: &Stack) -> Vec<(String, String)> {
    let mut settings = stack.settings().await;
    settings.push(("LATCHKEY_DB_POOL".to_owned(), "2".to_owned()));
    settings
}

/// A server, waited for in a thread of its own.
async fn start(stack: &Stack) -> Result<Process, String> {
    let (dir, settings) = (stack.dir.path().to_owned(), settings(stack).await);
    tokio::task::spawn_blocking(move || Process::try_start(&dir, &settings)).await.unwrap()
}

async fn run(stack: &Stack, arguments: &[&str]) -> Output {
    let mut command = Process::command(stack.dir.path(), &settings(stack).await);
    command.args(arguments).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// `latchkey migrate` on its way; killed at the latest when the test is over.
struct Migrating(Child);

impl Migrating {
    async fn start(stack: &Stack) -> Self {
        let mut command = Process::command(stack.dir.path(), &settings(stack).await);
        Self(command.arg("migrate").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Migrating {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The newest code in a mail of this kind to this address.
async fn code(stack: &Stack, kind: &str, address: &str) -> String {
    let folder = stack.dir.path().join("data/mail");
    let find = || {
        let mut paths: Vec<_> = std::fs::read_dir(&folder).ok()?.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let of_kind = paths.iter().rev().filter(|path| path.to_str().unwrap().ends_with(&format!("-{kind}.eml")));
        let mails = of_kind.filter_map(|path| std::fs::read_to_string(path).ok());
        let mail = mails.map(|text| Received::from_raw(&text)).find(|mail| mail.to == [address])?;
        mail.code()
    };
    eventually(&format!("a {kind} arrives"), || async { find().is_some() }).await;
    find().unwrap()
}

/// Every flow that touches a table, on a server of today.
async fn tour(stack: &Stack, client: &Client) {
    let mut alice = client.register("alice").await;
    let bearer = client.bearer(&alice.access).with("content-type", "application/json");
    alice.me().await.is(200);
    alice.take(&client.refresh(&alice.refresh).await.is(200));
    let patch = json!({"display_name": "Alice"}).to_string();
    bearer.send(Method::PATCH, "/me", Body::from(patch)).await.is(200);
    let other = alice.elsewhere().await;
    assert_eq!(bearer.get("/me/sessions").await.is(200).json()["sessions"].as_array().unwrap().len(), 2);
    bearer.send(Method::DELETE, &format!("/me/sessions/{}", other.session), Body::empty()).await.is(204);
    client.refresh(&other.refresh).await.is_problem(401, "invalid_refresh_token");

    let ask = async |path: &str, body: Value| client.post(path, body).await.is(202).text("/flow_id");
    let dora = client.post("/register", json!({"email": "dora@example.com", "password": PASSWORD})).await.is(201);
    let flow = dora.text("/verification/flow_id");
    let body = json!({"flow_id": flow, "code": code(stack, "verify_address", "dora@example.com").await});
    client.post("/email/verify", body).await.is(204);
    ask("/email/verify/resend", json!({"email": "dora@example.com"})).await;
    let flow = ask("/password/forgot", json!({"email": alice.email})).await;
    let code_of_reset = code(stack, "reset_password", &alice.email).await;
    let chosen = "another correct horse";
    let body = json!({"flow_id": flow, "code": code_of_reset, "new_password": chosen});
    client.post("/password/reset", body).await.is(204);
    client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    alice.take(&client.login(&alice.email, chosen).await.is(200));
    let bearer = client.bearer(&alice.access).with("content-type", "application/json");
    let change = json!({"current_password": chosen, "new_password": PASSWORD}).to_string();
    bearer.send(Method::PUT, "/me/password", Body::from(change)).await.is(204);
    let moved = json!({"new_email": "alice@example.org", "password": PASSWORD});
    let flow = bearer.post("/me/email", moved).await.is(202).text("/flow_id");
    let body = json!({"flow_id": flow, "code": code(stack, "change_address", "alice@example.org").await});
    bearer.post("/me/email/confirm", body).await.is(204);
    client.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    alice.take(&client.login("alice@example.org", PASSWORD).await.is(200));
    client.bearer(&alice.access).post("/me/delete", json!({"password": PASSWORD})).await.is(204);
    client.register("bob").await.me().await.is(200);
}

async fn a_server_of_today_serves_on_the_schema_of_tomorrow(stack: Stack) {
    let db = open(&stack).await;
    let plan = tomorrow(&db);
    db.migrate_by(&plan).await.unwrap();
    db.close().await;
    let mut process = start(&stack).await.unwrap_or_else(|output| panic!("{output}"));
    tour(&stack, &process.client()).await;
    process.internal().get("/health/ready").await.is(200);
    assert_eq!(number(&stack, "SELECT COUNT(*) FROM users WHERE count_of_tomorrow = 7").await, 3);

    // The commands beside it, and after it.
    let people = succeeded(&run(&stack, &["user", "list"]).await);
    assert!(people.contains("bob@example.com"), "{people}");
    succeeded(&run(&stack, &["user", "disable", "bob@example.com"]).await);
    succeeded(&run(&stack, &["user", "create", "--no-password", "--email", "carol@example.com"]).await);
    succeeded(&run(&stack, &["mail", "list"]).await);
    succeeded(&run(&stack, &["keys", "rotate"]).await);
    process.terminate();
    assert!(process.wait(Duration::from_secs(30)).success(), "{}", process.output());
    assert!(!process.output().contains("\"ERROR\""), "{}", process.output());
    succeeded(&run(&stack, &["migrate"]).await);
    assert_eq!(applied(&stack).await, newest(&plan), "nothing was taken back");

    // What the server does every ten minutes, on rows that are old enough.
    let app = stack.app().await;
    app.pass(Duration::from_secs(400 * 86_400));
    app.sweep().await;
    for dead in [
        "users WHERE deleted_at IS NOT NULL",
        "events WHERE kind = 'registered'",
        "ended_sessions",
        "outbox WHERE finished_at IS NOT NULL",
    ] {
        assert_eq!(number(&stack, &format!("SELECT COUNT(*) FROM {dead}")).await, 0, "the broom forgets {dead}");
    }
}

// --- under load --------------------------------------------------------------

/// What the people of a load were answered.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answers: AtomicUsize,
    faults: std::sync::Mutex<Vec<String>>,
}

impl Load {
    /// People that sign up, in and out and ask who they are, until it is over.
    fn start(client: &Client) -> (Arc<Self>, JoinSet<()>) {
        let (load, mut people) = (Arc::new(Self::default()), JoinSet::new());
        for task in 0..4 {
            let (load, client) = (Arc::clone(&load), client.clone());
            people.spawn(async move {
                let mut number = 0;
                while !load.is_over.load(Ordering::SeqCst) {
                    number += 1;
                    load.one(&client, &format!("load{task}-{number}@example.com")).await;
                }
            });
        }
        (load, people)
    }

    async fn one(&self, client: &Client, email: &str) {
        let account = json!({"email": email, "password": PASSWORD});
        self.note("/register", client.post("/register", account).await.status);
        let login = client.login(email, PASSWORD).await;
        self.note("/login", login.status);
        if login.status != 200 {
            return;
        }
        let bearer = client.bearer(&login.text("/access_token"));
        self.note("/me", bearer.get("/me").await.status);
        self.note("/me/sessions", bearer.get("/me/sessions").await.status);
        let refresh = client.refresh(&login.text("/refresh_token")).await;
        self.note("/refresh", refresh.status);
        self.note("/logout", bearer.post("/logout", json!({})).await.status);
    }

    fn note(&self, path: &str, status: u16) {
        self.answers.fetch_add(1, Ordering::SeqCst);
        if status >= 400 {
            self.faults.lock().unwrap().push(format!("{path}: {status}"));
        }
    }

    /// Waits until so many more requests were answered.
    async fn passes(&self, more: usize) {
        let until = self.answers.load(Ordering::SeqCst) + more;
        eventually("the load goes on", || async { self.answers.load(Ordering::SeqCst) >= until }).await;
    }

    async fn end(&self, people: JoinSet<()>) {
        self.is_over.store(true, Ordering::SeqCst);
        people.join_all().await;
        assert_eq!(*self.faults.lock().unwrap(), [] as [String; 0]);
    }
}

async fn a_migration_under_load_disturbs_nobody(stack: Stack) {
    let process = start(&stack).await.unwrap_or_else(|output| panic!("{output}"));
    let (load, people) = Load::start(&process.client());
    load.passes(60).await;
    let db = open(&stack).await;
    let mut plan = tomorrow(&db);
    let index = "-- no-transaction\nCREATE INDEX CONCURRENTLY events_note ON events (note_of_tomorrow);\n";
    plan.migrations.push(migration(newest(&plan) + 1, "an index", index.to_owned()));
    db.migrate_by(&plan).await.unwrap();
    // On connections that have prepared everything before it.
    load.passes(120).await;
    load.end(people).await;
    assert_eq!(applied(&stack).await, newest(&plan));
    assert!(!process.output().contains("\"ERROR\""), "{}", process.output());
}

async fn a_table_in_use_delays_a_migration_and_no_request(stack: Stack) {
    let process = start(&stack).await.unwrap_or_else(|output| panic!("{output}"));
    let db = open(&stack).await;
    // A report that takes long, say. It bars a change of the table, and whoever comes after the change waits for both.
    let mut reader = postgres(&stack).await;
    reader.execute("BEGIN; SELECT COUNT(*) FROM users").await.unwrap();
    let migrating = tokio::spawn({
        let (db, plan) = (db.clone(), tomorrow(&db));
        async move { db.migrate_by(&plan).await }
    });
    let (load, people) = Load::start(&process.client());
    let mut free = 0;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        free += usize::from(number(&stack, LOCKS).await == 0);
    }
    assert!(free > 10, "in between it lets go of everything: {free} times of 40");
    load.passes(40).await;
    assert!(!migrating.is_finished());
    load.end(people).await;
    reader.execute("ROLLBACK").await.unwrap();
    migrating.await.unwrap().unwrap();
    assert_eq!(applied(&stack).await, newest(&tomorrow(&db)));
}

// --- many nodes --------------------------------------------------------------

/// The migrations that a server says it ran.
fn ran(process: &Process) -> Vec<i64> {
    let lines = process.output();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["level"] == "INFO").filter_map(|line| line["migration"].as_i64()).collect()
}

async fn ten_servers_start_at_once_on_an_empty_database(stack: Stack) {
    let db = open_at(&stack, 0).await;
    let nodes = futures_util::future::join_all((0..10).map(|_| start(&stack))).await;
    let nodes: Vec<_> = nodes.into_iter().map(|node| node.unwrap_or_else(|output| panic!("{output}"))).collect();
    for node in &nodes {
        node.client().get("/health").await.is(200);
    }
    let mut all: Vec<i64> = nodes.iter().flat_map(ran).collect();
    all.sort_unstable();
    let expected: Vec<i64> = db.plan().migrations.iter().map(|migration| migration.version).collect();
    assert_eq!(all, expected, "each ran once, on one node");
    assert_eq!(applied(&stack).await, newest(&db.plan()));
    let alice = nodes[0].client().register("alice").await;
    let client = nodes[9].client();
    eventually("another node knows her", || {
        let alice = Person { client: client.clone(), ..alice.clone() };
        async move { alice.is_signed_in().await }
    })
    .await;
}

/// The last migration that changes `users`, which is where the tests of this part stop a node.
fn change_of_users(plan: &Plan) -> usize {
    let place = plan.migrations.iter().rposition(|migration| migration.sql.as_str().contains("CREATE TABLE ephemeral"));
    place.expect("0005_codes.sql makes tables, then changes `users`, then makes more tables")
}

/// Waits until a statement of this database waits for a lock.
async fn somebody_waits(stack: &Stack) {
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("a migration waits for the table", || async { number(stack, waits).await > 0 }).await;
}

/// The lock between nodes: it has to be the same in every release.
const LOCK: i64 = i64::from_be_bytes(*b"latchkey");

const LOCKS: &str = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

async fn a_node_that_dies_in_a_migration_leaves_it_undone_and_nothing_locked(stack: Stack) {
    let count = {
        let db = open_at(&stack, 0).await;
        let count = change_of_users(&db.plan());
        db.close().await;
        count
    };
    let db = open_at(&stack, count).await;
    let last = newest(&db.plan());
    db.close().await;
    let count = i64::try_from(count).unwrap();
    if stack.kind == StackKind::Embedded {
        let mut writer = sqlite(&stack).await;
        writer.execute("BEGIN IMMEDIATE").await.unwrap();
        let mut child = Migrating::start(&stack).await;
        let lock = stack.dir.path().join("data/migrate.lock");
        let is_locked = || std::fs::File::open(&lock).is_ok_and(|file| file.try_lock().is_err());
        eventually("it is at it", || async { is_locked() }).await;
        child.kill();
        writer.execute("ROLLBACK").await.unwrap();
        assert!(!is_locked());
    } else {
        let mut holder = postgres(&stack).await;
        holder.execute("BEGIN; LOCK TABLE users IN ACCESS SHARE MODE").await.unwrap();
        let mut child = Migrating::start(&stack).await;
        somebody_waits(&stack).await;
        child.kill();
        eventually("its lock is free", || async { number(&stack, LOCKS).await == 0 }).await;
        let made = "SELECT COUNT(*) FROM pg_class WHERE relname = 'pending_registrations'";
        assert_eq!(number(&stack, made).await, 0, "what it had done of its migration is undone");
        holder.execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(applied(&stack).await, count);
    succeeded(&run(&stack, &["migrate"]).await);
    assert_eq!(applied(&stack).await, last);
    start(&stack).await.unwrap().client().register("alice").await;
}

async fn a_node_that_hangs_in_a_migration_holds_the_others_up_for_seconds(stack: Stack) {
    let db = open_at(&stack, 0).await;
    let count = change_of_users(&db.plan());
    let db = open_at(&stack, count).await;
    let mut holder = postgres(&stack).await;
    holder.execute("BEGIN; LOCK TABLE users IN ACCESS SHARE MODE").await.unwrap();
    let mut hanging = Migrating::start(&stack).await;
    somebody_waits(&stack).await;
    let pid = rustix::process::Pid::from_child(&hanging.0);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    holder.execute("ROLLBACK").await.unwrap();
    // Its transaction is open: PostgreSQL waits for its next word, as nobody else should for long.
    let started = Instant::now();
    let node = tokio::time::timeout(Duration::from_secs(30), start(&stack)).await;
    let took = started.elapsed();
    hanging.kill();
    let node = node.expect("it starts in time").unwrap_or_else(|output| panic!("{output}"));
    assert!(took > Duration::from_secs(2), "{took:?}");
    let output = node.output();
    let said = "waiting to bring the database schema up to date: another node is at it, by the PostgreSQL process ";
    assert!(output.lines().any(|line| line.contains("\"WARN\"") && line.contains(said)), "{output}");
    assert_eq!(applied(&stack).await, newest(&db.plan()));
}

async fn who_waits_for_too_long_is_told_for_what(stack: Stack) {
    let db = open_at(&stack, 0).await;
    let first = Plan { patience: Duration::from_millis(1200), ..db.plan() };
    let held = async |db: &Db, plan: &Plan| {
        let started = Instant::now();
        let outcome = tokio::time::timeout(Duration::from_secs(15), db.migrate_by(plan)).await;
        assert!(started.elapsed() > Duration::from_secs(1), "{:?}", started.elapsed());
        match outcome.expect("it gives up") {
            Err(error @ OpenError::Held { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    if stack.kind == StackKind::Embedded {
        let lock = std::fs::File::create(stack.dir.path().join("data/migrate.lock")).unwrap();
        lock.lock().unwrap();
        let told = held(&db, &first).await;
        assert!(told.contains("migration 1 waited ") && told.contains("since another process is at it"), "{told}");
        lock.unlock().unwrap();
        db.migrate().await.unwrap();
        // Nothing is missing, so nobody is waited for.
        lock.lock().unwrap();
        db.migrate_by(&first).await.unwrap();
        start(&stack).await.unwrap();
        return;
    }
    let mut hanging = postgres(&stack).await;
    hanging.execute("BEGIN").await.unwrap();
    let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid() FROM pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut hanging)
        .await
        .unwrap();
    let told = held(&db, &first).await;
    assert!(told.contains(&format!("since another node is at it, by the PostgreSQL process {process}")), "{told}");
    hanging.execute("ROLLBACK").await.unwrap();
    db.migrate().await.unwrap();
    // Nothing is missing, so nobody is waited for.
    hanging.execute("BEGIN").await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut hanging).await.unwrap();
    db.migrate_by(&first).await.unwrap();
    start(&stack).await.unwrap();
    hanging.execute("ROLLBACK; BEGIN; SELECT COUNT(*) FROM users").await.unwrap();
    let told = held(&db, &Plan { patience: Duration::from_millis(1200), ..tomorrow(&db) }).await;
    assert!(told.contains("a table that it changes is in use by others"), "{told}");
    assert_eq!(number(&stack, LOCKS).await, 0);
}

async fn a_schema_that_is_none_of_ours_is_refused(stack: Stack) {
    let db = open_at(&stack, 0).await;
    db.migrate().await.unwrap();
    let refused = async |plan: &Plan| match db.migrate_by(plan).await {
        Err(OpenError::Migrate(error)) => error,
        other => panic!("{other:?}"),
    };
    let mut edited = db.plan();
    edited.migrations[1] = migration(2, "sessions", "SELECT 1".to_owned());
    assert!(matches!(refused(&edited).await, MigrateError::VersionMismatch(2)));
    let mut with_gap = db.plan();
    with_gap.migrations.remove(2);
    assert!(matches!(refused(&with_gap).await, MigrateError::VersionMissing(3)));

    // A later release added to it: fine. One cut it back, for programs that are newer than this: not fine.
    let mut plan = tomorrow(&db);
    plan.migrations.push(migration(newest(&plan) + 1, "needs 0.0.9 fewer tables", "DROP TABLE tomorrow".to_owned()));
    db.migrate_by(&plan).await.unwrap();
    db.migrate().await.unwrap();
    drop(start(&stack).await.unwrap());
    plan.migrations.push(migration(newest(&plan) + 1, "needs 99.0.0 fewer events", "DROP TABLE events".to_owned()));
    db.migrate_by(&plan).await.unwrap();
    assert!(matches!(db.migrate().await, Err(OpenError::CutBack(needs)) if needs == "99.0.0"));
    let output = start(&stack).await.err().expect("it does not start");
    assert!(output.contains("for Latchkey 99.0.0 and later"), "{output}");

    // Two lines of development on one database.
    let mut branched = plan.clone();
    branched.migrations.insert(3, migration(0, "elsewhere", "SELECT 1".to_owned()));
    assert!(matches!(refused(&branched).await, MigrateError::VersionTooOld(0, _)));
}

async fn what_no_transaction_can_hold_runs_once_and_again_after_a_failure(stack: Stack) {
    let mut door = postgres(&stack).await;
    let twice = "INSERT INTO outbox (id, kind, recipient, data, state, attempts, created_at, next_attempt_at)
                 SELECT gen_random_uuid(), 'test', 'x', '{}', 'dead', 0, 1, 1 FROM generate_series(1, 2)";
    door.execute(twice).await.unwrap();
    let db = open(&stack).await;
    let mut plan = db.plan();
    let sql = "-- no-transaction\n\
               DROP INDEX CONCURRENTLY IF EXISTS outbox_recipient;\n\
               CREATE UNIQUE INDEX CONCURRENTLY outbox_recipient ON outbox (recipient);\n";
    plan.migrations.push(migration(newest(&plan) + 1, "an index", sql.to_owned()));
    assert!(matches!(db.migrate_by(&plan).await, Err(OpenError::Migrate(MigrateError::ExecuteMigration(..)))));
    let indexes = "SELECT COUNT(*) FROM pg_index WHERE indexrelid = to_regclass('outbox_recipient') AND ";
    assert_eq!(number(&stack, &format!("{indexes} NOT indisvalid")).await, 1, "a half index stays behind");
    door.execute("DELETE FROM outbox").await.unwrap();

    // Somebody's long look, which such an index waits for; longer than a node may hang that has the lock.
    door.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT COUNT(*) FROM outbox").await.unwrap();
    let nodes = futures_util::future::join_all((0..5).map(|_| db.migrate_by(&plan)));
    let look = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        door.execute("ROLLBACK").await.unwrap();
    };
    for outcome in tokio::join!(nodes, look).0 {
        outcome.unwrap();
    }
    assert_eq!(number(&stack, &format!("{indexes} indisvalid")).await, 1);
    assert_eq!(applied(&stack).await, newest(&plan));
    let versions: BTreeSet<i64> = plan.migrations.iter().map(|migration| migration.version).collect();
    assert_eq!(versions.len(), plan.migrations.len());
}

async fn a_migration_may_take_longer_than_the_database_allows_others(stack: Stack) {
    let mut door = postgres(&stack).await;
    let limit =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 300', current_database()); END $$";
    door.execute(limit).await.unwrap();
    let db = open(&stack).await;
    let mut plan = db.plan();
    for sql in ["SELECT pg_sleep(1)", "-- no-transaction\nSELECT pg_sleep(1);\n"] {
        plan.migrations.push(migration(newest(&plan) + 1, "slow", sql.to_owned()));
    }
    db.migrate_by(&plan).await.unwrap();
    assert_eq!(applied(&stack).await, newest(&plan));
}
