//! `latchkey backup` and `latchkey restore` on the embedded database, PostgreSQL's own tools with `restore
//! --after-pg-restore`, and the rule of both: nothing that was revoked after the backup lives again.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::Method;
use latchkey::ambient::Ambient;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

use crate::{
    process::{Dice, Ended, HALF_STATE, run},
    support::{Client, Coded, PASSWORD, Person, Process, Stack, StackKind, Test, TestApp, json_body, scale},
};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&[StackKind::Embedded];
        a_backup_taken_while_a_server_writes_is_whole,
        a_backup_replaces_nothing_unasked_and_never_the_database,
        without_a_database_there_is_no_backup,
        no_restore_beside_a_running_server,
        what_is_no_backup_changes_nothing,
        an_older_backup_is_brought_up_to_date,
        the_last_words_of_the_old_database_are_not_the_new_ones,
        a_damaged_database_is_replaced_and_kept,
        a_restore_that_is_killed_leaves_the_old_or_the_new,
        a_new_machine_needs_the_backup_alone,
    );
    tests.extend(crate::on_stacks!(&[StackKind::Embedded]; what_only_postgresql_has_is_bad_usage));
    tests.extend(crate::on_stacks!(&StackKind::ALL, tools_missing;
        nothing_revoked_after_the_backup_lives_again,
        no_key_from_before_a_restore_verifies,
        mails_that_waited_do_not_go_twice,
    ));
    tests.extend(crate::on_stacks!(&StackKind::SHARED, tools_missing; a_restored_database_is_renewed_before_it_serves));
    tests.extend(crate::on_stacks!(&StackKind::SHARED; postgresql_is_told_which_tools_it_has));
    tests
}

/// What the stacks with PostgreSQL need for this.
fn tools_missing() -> Option<&'static str> {
    let is_there = |tool| {
        let version = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    (!is_there("pg_dump") || !is_there("pg_restore")).then_some("there is no pg_dump and pg_restore on the PATH")
}

type Settings = Vec<(String, String)>;

#[track_caller]
fn said(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(ended.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn live(stack: &Stack) -> PathBuf {
    stack.dir.path().join("data/latchkey.db")
}

/// Names in the data folder that begin so.
fn names(stack: &Stack, begin: &str) -> Vec<String> {
    let entries = fs::read_dir(stack.dir.path().join("data")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(begin)).collect();
    names.sort();
    names
}

async fn open(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.expect("the file opens")
}

async fn number(path: &Path, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut open(path).await).await.expect("good SQL")
}

async fn people(path: &Path) -> Vec<String> {
    let sql = "SELECT email FROM users ORDER BY email";
    sqlx::query_scalar(sql).fetch_all(&mut open(path).await).await.expect("good SQL")
}

async fn is_whole(path: &Path) -> bool {
    let words: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut open(path).await).await.unwrap();
    words == "ok"
}

fn backup(stack: &Stack, settings: &Settings, name: &str) -> PathBuf {
    let path = stack.dir.path().join(name);
    let told = said(&run(stack.dir.path(), settings, &["backup", path.to_str().unwrap()]));
    assert_eq!(told["bytes"], fs::metadata(&path).unwrap().len());
    path
}

fn restore(stack: &Stack, settings: &Settings, path: &Path) -> Ended {
    run(stack.dir.path(), settings, &["restore", path.to_str().unwrap()])
}

// --- taking one --------------------------------------------------------------

async fn a_backup_taken_while_a_server_writes_is_whole(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    let (client, is_over) = (process.client(), Arc::new(AtomicBool::new(false)));
    let registered = Arc::new(Mutex::new(Vec::new()));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (client, is_over, registered) = (client.clone(), Arc::clone(&is_over), Arc::clone(&registered));
            tokio::spawn(async move {
                for number in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    let email = format!("w{writer}-{number}@example.com");
                    client.post("/register", json!({"email": email, "password": PASSWORD})).await.is(201);
                    registered.lock().unwrap().push(email);
                }
            })
        })
        .collect();
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = registered.lock().unwrap().clone();
        let (dir, settings) = (stack.dir.path().to_owned(), settings.clone());
        let name = format!("backup-{round}.db");
        let path = dir.join(&name);
        let ended = tokio::task::spawn_blocking(move || run(&dir, &settings, &["backup", &name])).await.unwrap();
        let told = said(&ended);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(is_whole(&path).await);
        assert_eq!(number(&path, HALF_STATE).await, 0, "one moment");
        let there = people(&path).await;
        assert_eq!(told["people"], there.len());
        assert!(before.iter().all(|email| there.contains(email)), "what was acknowledged before is in it");
    }
    is_over.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("nobody was refused meanwhile");
    }
    assert!(registered.lock().unwrap().len() > 5);
    let entries = fs::read_dir(stack.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    let backups: Vec<_> = (0..5).map(|round| format!("backup-{round}.db")).collect();
    assert_eq!(names, [&backups[..], &["data".to_owned(), "jwt".to_owned()]].concat(), "no drafts are left");
}

async fn a_backup_replaces_nothing_unasked_and_never_the_database(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    process.client().register("alice").await;
    let path = stack.dir.path().join("b.db");
    fs::write(&path, "something dear").unwrap();
    let ended = run(stack.dir.path(), &settings, &["backup", "b.db"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("--force"), "{ended:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "something dear");
    said(&run(stack.dir.path(), &settings, &["backup", "--force", "b.db"]));
    assert_eq!(people(&path).await, ["alice@example.com"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    for own in ["data/latchkey.db", "data/latchkey.db-wal", "data/../data/latchkey.db"] {
        let ended = run(stack.dir.path(), &settings, &["backup", "--force", own]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("belongs to the database"), "{ended:?}");
    }
    process.client().login("alice@example.com", PASSWORD).await.is(200);
    process.client().register("bob").await.me().await.is(200);
    let ended = run(stack.dir.path(), &settings, &["backup", "no/such/folder/b.db"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

async fn without_a_database_there_is_no_backup(stack: Stack) {
    let settings = stack.settings().await;
    let ended = run(stack.dir.path(), &settings, &["backup", "b.db"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("LATCHKEY_DATA_DIR"), "{ended:?}");
    assert_eq!(fs::read_dir(stack.dir.path()).unwrap().count(), 0, "nothing was made");
}

async fn what_only_postgresql_has_is_bad_usage(stack: Stack) {
    let settings = stack.settings().await;
    for arguments in [&["restore"][..], &["restore", "--after-pg-restore"], &["restore", "b", "--after-pg-restore"]] {
        let ended = run(stack.dir.path(), &settings, arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
    }
    assert_eq!(fs::read_dir(stack.dir.path()).unwrap().count(), 0, "nothing was made");
}

async fn postgresql_is_told_which_tools_it_has(stack: Stack) {
    let settings = stack.settings().await;
    for (arguments, word) in [(["backup", "b.db"], "pg_dump"), (["restore", "b.db"], "pg_restore")] {
        let ended = run(stack.dir.path(), &settings, &arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word) && ended.stderr.contains("deploy/backup.md"), "{ended:?}");
    }
    assert!(!stack.dir.path().join("b.db").exists());
}

// --- restoring ---------------------------------------------------------------

async fn no_restore_beside_a_running_server(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    let alice = process.client().register("alice").await;
    let path = backup(&stack, &settings, "b.db");
    process.client().register("bob").await;
    let before = names(&stack, "");
    let ended = restore(&stack, &settings, &path);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("another Latchkey server is running"), "{ended:?}");
    alice.me().await.is(200);
    process.client().login("bob@example.com", PASSWORD).await.is(200);
    assert_eq!(names(&stack, ""), before);
}

async fn what_is_no_backup_changes_nothing(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    for number in 0..20 {
        process.client().register(&format!("person{number}")).await;
    }
    let good = backup(&stack, &settings, "good.db");
    process.client().register("bob").await;
    process.kill();
    let dir = stack.dir.path();
    let before = (names(&stack, ""), fs::read(live(&stack)).unwrap());

    fs::write(dir.join("text.db"), "this is no database, however long it is ".repeat(200)).unwrap();
    fs::write(dir.join("empty.db"), "").unwrap();
    SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", dir.join("foreign.db").display()))
        .await
        .unwrap()
        .execute("CREATE TABLE users (id)")
        .await
        .unwrap();
    let bytes = fs::read(&good).unwrap();
    fs::write(dir.join("short.db"), &bytes[..bytes.len() / 2]).unwrap();
    let mut damaged = bytes.clone();
    for page in (8192..damaged.len()).step_by(4096) {
        damaged[page..page + 64].fill(0xa5);
    }
    fs::write(dir.join("damaged.db"), damaged).unwrap();
    // Every page can be read, and what they say does not go together.
    fs::copy(&good, dir.join("torn.db")).unwrap();
    let torn = "PRAGMA writable_schema = ON;
                UPDATE sqlite_master SET sql = replace(sql, '(email)', '(username)') WHERE name = 'users_email_key'";
    open(&dir.join("torn.db")).await.execute(torn).await.unwrap();
    fs::copy(&good, dir.join("newer.db")).unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', TRUE, x'00', 0)";
    open(&dir.join("newer.db")).await.execute(newer).await.unwrap();
    fs::copy(&good, dir.join("live.db")).unwrap();
    fs::write(dir.join("live.db-wal"), "frames").unwrap();

    for (name, word) in [
        ("text.db", "no database of Latchkey"),
        ("empty.db", "no database of Latchkey"),
        ("foreign.db", "no database of Latchkey"),
        ("short.db", "short.db"),
        ("damaged.db", "the database is damaged"),
        ("torn.db", "the database is damaged"),
        ("newer.db", "newer Latchkey"),
        ("live.db", "live.db-wal"),
        ("missing.db", "missing.db"),
        ("data/latchkey.db", "belongs to the database"),
    ] {
        let ended = restore(&stack, &settings, &dir.join(name));
        assert_eq!(ended.code, Some(1), "{name}: {ended:?}");
        assert!(ended.stderr.contains(word), "{name}: {ended:?}");
        assert!((names(&stack, ""), fs::read(live(&stack)).unwrap()) == before, "{name} changed something");
    }
    let mut elsewhere = settings.clone();
    elsewhere.push(("LATCHKEY_JWT_DIR".to_owned(), dir.join("new").display().to_string()));
    assert_eq!(restore(&stack, &elsewhere, &dir.join("damaged.db")).code, Some(1));
    assert!(!dir.join("new").exists(), "no key and no secret is made for nothing");
    let process = Process::start(dir, &settings);
    process.client().login("bob@example.com", PASSWORD).await.is(200);
}

async fn an_older_backup_is_brought_up_to_date(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    process.client().register("alice").await;
    let path = backup(&stack, &settings, "b.db");
    process.kill();
    let older = "ALTER TABLE users DROP COLUMN devices_since; DROP INDEX outbox_dead; DELETE FROM _sqlx_migrations WHERE version >= 6";
    open(&path).await.execute(older).await.unwrap();
    said(&restore(&stack, &settings, &path));
    let process = Process::start(stack.dir.path(), &settings);
    process.client().login("alice@example.com", PASSWORD).await.is(200);
}

async fn the_last_words_of_the_old_database_are_not_the_new_ones(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    process.client().register("alice").await;
    let path = backup(&stack, &settings, "b.db");
    for number in 0..20 {
        process.client().register(&format!("later{number}")).await;
    }
    process.kill();
    let wal = stack.dir.path().join("data/latchkey.db-wal");
    assert!(fs::metadata(&wal).unwrap().len() > 0, "the server died with words on its tongue");
    let told = said(&restore(&stack, &settings, &path));
    assert!(!wal.exists(), "they would be applied to whatever database lies there");
    assert_eq!(people(&live(&stack)).await, ["alice@example.com"]);
    assert!(is_whole(&live(&stack)).await);
    let process = Process::start(stack.dir.path(), &settings);
    process.client().login("alice@example.com", PASSWORD).await.is(200);
    // And they are not lost: the old database has them.
    let kept = PathBuf::from(told["kept"].as_str().unwrap());
    assert_eq!(people(&kept).await.len(), 21);
    assert!(is_whole(&kept).await);
    assert_eq!(fs::metadata(live(&stack)).unwrap().permissions().mode() & 0o777, 0o600);
}

async fn a_damaged_database_is_replaced_and_kept(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    process.client().register("alice").await;
    let path = backup(&stack, &settings, "b.db");
    process.client().register("bob").await;
    process.kill();
    for end in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{end}", live(&stack).display())).unwrap();
    }
    fs::write(live(&stack), "a disk that failed ".repeat(1000)).unwrap();
    let told = said(&restore(&stack, &settings, &path));
    let kept = PathBuf::from(told["kept"].as_str().unwrap());
    assert!(fs::read_to_string(&kept).unwrap().starts_with("a disk that failed"), "somebody may save something of it");
    let process = Process::start(stack.dir.path(), &settings);
    process.client().login("alice@example.com", PASSWORD).await.is(200);
    process.client().login("bob@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
}

async fn a_restore_that_is_killed_leaves_the_old_or_the_new(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    process.client().register("alice").await;
    process.kill();
    // So many that the rule takes its time.
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                INSERT INTO users (id, email, email_verified, roles, status, epoch, created_at, updated_at)
                SELECT randomblob(16), 'many' || i || '@example.com', 0, '[]', 'active', 0, 0, 0 FROM n";
    open(&live(&stack)).await.execute(many).await.unwrap();
    let path = backup(&stack, &settings, "b.db");
    let process = Process::start(stack.dir.path(), &settings);
    let mut marker = process.client().register("marker").await;
    process.kill();
    let started = Instant::now();
    let mut dice = Dice::new(5);
    let (mut olds, mut news) = (0, 0);
    // Once to its end, for its length; then killed at any moment of it.
    let scratch = tempfile::TempDir::new().unwrap();
    let copied: Vec<_> = settings
        .iter()
        .map(|(name, value)| {
            let value = value.replace(stack.dir.path().to_str().unwrap(), scratch.path().to_str().unwrap());
            (name.clone(), value)
        })
        .collect();
    said(&run(scratch.path(), &copied, &["restore", path.to_str().unwrap()]));
    let length = usize::try_from(started.elapsed().as_millis()).unwrap();
    for round in 0..scale::killed_restores() {
        let mut child = Process::command(stack.dir.path(), &settings)
            .args(["restore", path.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The last moments matter most.
        let at = if round % 2 == 0 { dice.below(length + 1) } else { length * 3 / 4 + dice.below(length / 2 + 1) };
        tokio::time::sleep(Duration::from_millis(u64::try_from(at).unwrap())).await;
        child.kill().unwrap();
        child.wait().unwrap();

        let process = Process::start(stack.dir.path(), &settings);
        assert!(is_whole(&live(&stack)).await, "round {round}");
        let is_old = people(&live(&stack)).await.contains(&"marker@example.com".to_owned());
        let untouched = number(&live(&stack), "SELECT COUNT(*) FROM users WHERE epoch = 0").await;
        let restored = number(&live(&stack), "SELECT COUNT(*) FROM events WHERE kind = 'database_restored'").await;
        marker.client = process.client();
        if is_old {
            olds += 1;
            assert_eq!((untouched, restored), (20_002, 0), "round {round}: nothing of the new");
            marker.me().await.is(200);
            process.kill();
            continue;
        }
        news += 1;
        assert_eq!((untouched, restored), (0, 1), "round {round}: never without the rule");
        marker.me().await.is_problem(401, "invalid_token");
        process.client().login("alice@example.com", PASSWORD).await.is(200);
        process.kill();
        // Back to the old one, which is kept, for the next round.
        let kept = names(&stack, "latchkey.db.before-");
        let kept = kept.first().expect("the old one is kept");
        for name in names(&stack, "latchkey.db").iter().filter(|name| *name != kept) {
            fs::remove_file(stack.dir.path().join("data").join(name)).unwrap();
        }
        fs::rename(stack.dir.path().join("data").join(kept), live(&stack)).unwrap();
    }
    println!("{olds} times the old, {news} times the new, of {length} ms");
    // A restore that is left alone tidies up what the killed ones left.
    said(&restore(&stack, &settings, &path));
    let left = names(&stack, "latchkey.db.");
    assert_eq!(left.len(), 1, "the old one alone: {left:?}");
}

async fn a_new_machine_needs_the_backup_alone(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    let alice = process.client().register("alice").await;
    let path = backup(&stack, &settings, "b.db");
    let old = fs::read_to_string(stack.dir.path().join("jwt/secret")).unwrap();
    process.kill();
    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(old.len()).any(|window| window == old.as_bytes()), "the server secret is not in it");
    fs::remove_dir_all(stack.dir.path().join("data")).unwrap();
    fs::remove_dir_all(stack.dir.path().join("jwt")).unwrap();

    let told = said(&restore(&stack, &settings, &path));
    assert_eq!((&told["people"], &told["kept"]), (&json!(1), &Value::Null));
    let process = Process::start(stack.dir.path(), &settings);
    let again = Person { client: process.client(), ..alice };
    again.me().await.is_problem(401, "invalid_token");
    let reply = process.client().login("alice@example.com", PASSWORD).await.is(200);
    process.client().refresh(&reply.text("/refresh_token")).await.is(200);
    // Its secret is the database's now, and another one is foreign.
    process.kill();
    fs::write(stack.dir.path().join("jwt/secret"), old).unwrap();
    let refused = Process::try_start(stack.dir.path(), &settings).err().expect("refused");
    assert!(refused.contains("server secrets"), "{refused}");
}

// --- the rule ----------------------------------------------------------------

/// Tokens that somebody holds.
struct Held {
    why: &'static str,
    access: String,
    refresh: String,
}

impl Held {
    fn of(why: &'static str, person: &Person) -> Self {
        Self { why, access: person.access.clone(), refresh: person.refresh.clone() }
    }
}

/// A backup of a stack, and a way back to it.
struct Vault {
    path: PathBuf,
    settings: Settings,
}

impl Vault {
    /// Takes one beside the app.
    async fn take(stack: &Stack, app: &TestApp) -> Self {
        let path = stack.dir.path().join("backup");
        if stack.kind == StackKind::Embedded {
            backup(stack, &app.settings, "backup");
        } else {
            let mut dump = Command::new("pg_dump");
            dump.arg("--format=custom").arg("--file").arg(&path).arg(stack.database_url().await);
            assert!(dump.status().unwrap().success());
        }
        Self { path, settings: app.settings.clone() }
    }

    /// Brings what it holds back, by the commands that the documents name, and gives the settings of the server then.
    async fn put_back(&self, stack: &Stack) -> Settings {
        let settings = self.put_back_by_tools(stack).await;
        if stack.kind == StackKind::Embedded {
            said(&restore(stack, &settings, &self.path));
        } else {
            said(&run(stack.dir.path(), &settings, &["restore", "--after-pg-restore"]));
        }
        settings
    }

    async fn put_back_by_tools(&self, stack: &Stack) -> Settings {
        let mut settings = self.settings.clone();
        if stack.kind != StackKind::Embedded {
            let url = stack.empty_database().await;
            let mut tool = Command::new("pg_restore");
            tool.args(["--no-owner", "--exit-on-error", "--dbname", &url]).arg(&self.path);
            assert!(tool.status().unwrap().success());
            settings.retain(|(name, _)| name != "DATABASE_URL");
            settings.push(("DATABASE_URL".to_owned(), url));
        }
        settings
    }
}

/// Moves the clock of the app to where that of a command stands.
fn catch_up(app: &TestApp) {
    let now = Ambient::system().now().millis();
    app.clock.store(now.max(app.clock.load(Ordering::SeqCst)), Ordering::SeqCst);
}

/// The app that serves after a restore.
async fn restarted(stack: &Stack, settings: &Settings) -> TestApp {
    let more: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let app = stack.app_with(&more).await;
    catch_up(&app);
    app
}

async fn dead(client: &Client, held: &Held) {
    let Held { why, access, refresh } = held;
    let me = client.bearer(access).get("/me").await;
    assert_eq!(me.status, 401, "/me, {why}: {}", String::from_utf8_lossy(&me.body));
    let reply = client.refresh(refresh).await;
    assert_eq!(reply.status, 401, "/refresh, {why}: {}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.json()["code"], "invalid_refresh_token", "{why}");
}

async fn nothing_revoked_after_the_backup_lives_again(stack: Stack) {
    const NEW: &str = "a staple for the horse";
    let app = stack.app().await;
    catch_up(&app);
    let mut held = Vec::new();
    let (mut alice, bob, carol) = (app.person("alice").await, app.person("bob").await, app.person("carol").await);
    let (dave, mut erin) = (app.person("dave").await, app.person("erin").await);
    for (why, person) in [
        ("whoever changed the password later", &alice),
        ("whoever signed out later", &bob),
        ("whoever was disabled later", &carol),
        ("nobody did anything", &dave),
    ] {
        held.push(Held::of(why, person));
    }
    let device = app.anonymous().login(&dave.email, PASSWORD).await.is(200).text("/device_token");
    let unused: Coded = app.reset_code(&dave.email).await;
    let vault = Vault::take(&stack, &app).await;

    // After the backup: an end of every kind, and sessions under epochs that the backup has not reached.
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    for (current, new) in [(PASSWORD, NEW), (NEW, "another staple for it")] {
        let bearer = alice.client.bearer(&alice.access).with("content-type", "application/json");
        bearer.send(Method::PUT, "/me/password", json_body(&change(current, new))).await.is(204);
        held.push(Held::of("a session that was spared by a change of the password", &alice));
        alice.take(&app.anonymous().login(&alice.email, new).await.is(200));
        held.push(Held::of("a session under a later epoch", &alice));
    }
    // Of an epoch that is one more than the backup's, and alive in Redis to the end.
    let bearer = erin.client.bearer(&erin.access).with("content-type", "application/json");
    bearer.send(Method::PUT, "/me/password", json_body(&change(PASSWORD, NEW))).await.is(204);
    held.push(Held::of("a session that was spared by the only change of the password", &erin));
    erin.take(&app.anonymous().login(&erin.email, NEW).await.is(200));
    held.push(Held::of("a session under the epoch behind the backup's", &erin));
    app.anonymous().post("/logout", json!({"refresh_token": bob.refresh})).await.is(204);
    let mut settled = carol.clone();
    settled.take(&app.anonymous().login(&carol.email, PASSWORD).await.is(200));
    held.push(Held::of("a session of whoever was disabled, from after the backup", &settled));
    let disable = run(stack.dir.path(), &app.settings, &["user", "disable", "carol"]);
    assert_eq!(disable.code, Some(0), "{disable:?}");
    let late = app.person("late").await;
    held.push(Held::of("somebody whom the backup does not know", &late));
    let (dave_id, before) = (dave.id, app.number("SELECT COUNT(*) FROM users").await);
    assert_eq!(before, 6);
    let emails = [alice.email.clone(), dave.email.clone()];
    drop((alice, bob, carol, dave, erin, bearer, late, settled));
    app.stop().await;

    let settings = vault.put_back(&stack).await;
    let app = restarted(&stack, &settings).await;
    let client = app.anonymous();
    for held in &held {
        dead(&client, held).await;
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 5);
    client.post("/password/reset", unused.reset(NEW)).await.is_problem(400, "invalid_code");
    for email in &emails {
        client.login(email, NEW).await.is_problem(401, "invalid_credentials");
        let reply = client.login(email, PASSWORD).await.is(200);
        client.bearer(&reply.text("/access_token")).get("/me").await.is(200);
        client.refresh(&reply.text("/refresh_token")).await.is(200);
    }
    let body = json!({"email": emails[1], "password": PASSWORD, "device_token": device});
    let reply = client.post("/login", body).await.is(200);
    assert!(reply.json()["device_token"].is_string(), "the old device token is none any more, so there is a new one");
    assert_eq!(app.events("database_restored").await, 1);
    let list = run(stack.dir.path(), &settings, &["user", "sessions", &dave_id.to_string()]);
    assert_eq!(list.stdout.lines().count(), 2, "only those from after the restore: {list:?}");

    // A second restore of the same backup ends what the first one began.
    let reply = client.login(&emails[0], PASSWORD).await.is(200);
    let again = Held {
        why: "a session from after the first restore",
        access: reply.text("/access_token"),
        refresh: reply.text("/refresh_token"),
    };
    drop(client);
    app.stop().await;
    if stack.kind == StackKind::Embedded {
        said(&restore(&stack, &settings, &vault.path));
    } else {
        said(&run(stack.dir.path(), &settings, &["restore", "--after-pg-restore"]));
    }
    let app = restarted(&stack, &settings).await;
    dead(&app.anonymous(), &again).await;
}

async fn no_key_from_before_a_restore_verifies(stack: Stack) {
    let app = stack.app().await;
    catch_up(&app);
    let alice = app.person("alice").await;
    let published = async |app: &TestApp| -> Vec<String> {
        let keys = app.anonymous().get("/.well-known/jwks.json").await.is(200).json();
        let mut kids: Vec<_> =
            keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
        kids.sort();
        kids
    };
    let vault = Vault::take(&stack, &app).await;
    let mut old = published(&app).await;
    // One key of the backup leaks and is retired, and one is made that the backup does not know.
    let active = app.keys.list().into_iter().find(|key| key.active_at.is_some()).unwrap().kid;
    for arguments in [&["keys", "rotate"][..], &["keys", "retire", &active]] {
        let ended = run(stack.dir.path(), &app.settings, arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    app.keys.reload(&app.db).await.unwrap();
    old.extend(published(&app).await);
    let (access, email) = (alice.access.clone(), alice.email.clone());
    drop(alice);
    app.stop().await;

    let settings = vault.put_back(&stack).await;
    let app = restarted(&stack, &settings).await;
    let new = published(&app).await;
    assert_eq!(new.len(), 2, "{new:?}");
    assert!(new.iter().all(|kid| !old.contains(kid)), "{old:?} {new:?}");
    let retired = app.number("SELECT COUNT(*) FROM signing_keys WHERE state = 'retired'").await;
    assert_eq!(retired, 3, "the two of the backup, and the one that lies in the folder alone");
    app.anonymous().bearer(&access).get("/me").await.is_problem(401, "invalid_token");
    let reply = app.anonymous().login(&email, PASSWORD).await.is(200);
    let signed_by = |token: &str| -> String {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let head = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    assert!(new.contains(&signed_by(&reply.text("/access_token"))));
    let ended = run(stack.dir.path(), &settings, &["keys", "rotate"]);
    assert_eq!(ended.code, Some(0), "the ring goes on: {ended:?}");
}

async fn mails_that_waited_do_not_go_twice(stack: Stack) {
    let app = stack.app().await;
    catch_up(&app);
    let alice = app.person("alice").await;
    let bearer = alice.client.bearer(&alice.access).with("content-type", "application/json");
    let body = json!({"current_password": PASSWORD, "new_password": "a staple for the horse"});
    bearer.send(Method::PUT, "/me/password", json_body(&body)).await.is(204);
    let vault = Vault::take(&stack, &app).await;
    app.deliver().await;
    assert!(app.all_mails_to(&alice.email) > 0);
    // The same mail again would be the same file again.
    fs::remove_dir_all(stack.dir.path().join("data/mail")).unwrap();
    drop((bearer, alice));
    app.stop().await;
    let settings = vault.put_back(&stack).await;
    let app = restarted(&stack, &settings).await;
    app.deliver().await;
    assert_eq!(app.all_mails_to("alice@example.com"), 0);
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE state = 'pending'").await, 0);
    assert!(app.number("SELECT COUNT(*) FROM outbox WHERE state = 'dropped'").await > 0);
    // And new ones go.
    app.pass(Duration::from_secs(3600));
    app.reset_code("alice@example.com").await;
}

async fn a_restored_database_is_renewed_before_it_serves(stack: Stack) {
    let app = stack.app().await;
    catch_up(&app);
    app.person("alice").await;
    let vault = Vault::take(&stack, &app).await;
    app.stop().await;
    // A wrong DATABASE_URL is found out, and nothing is made of an empty database.
    let mut empty = vault.settings.clone();
    let url = stack.empty_database().await;
    empty.retain(|(name, _)| name != "DATABASE_URL");
    empty.push(("DATABASE_URL".to_owned(), url.clone()));
    let ended = run(stack.dir.path(), &empty, &["restore", "--after-pg-restore"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("DATABASE_URL"), "{ended:?}");

    let mut tool = Command::new("pg_restore");
    tool.args(["--no-owner", "--exit-on-error", "--dbname", &url]).arg(&vault.path);
    assert!(tool.status().unwrap().success());
    // The folder of keys cannot be written: then the rule is not applied by half.
    let jwt = stack.dir.path().join("jwt");
    let epochs = async || {
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        let sum: Option<i64> = sqlx::query_scalar("SELECT CAST(SUM(epoch) AS BIGINT) FROM users")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        sum.unwrap()
    };
    let aside = stack.dir.path().join("aside");
    fs::rename(&jwt, &aside).unwrap();
    fs::write(&jwt, "no folder").unwrap();
    let ended = run(stack.dir.path(), &empty, &["restore", "--after-pg-restore"]);
    assert_eq!((ended.code, epochs().await), (Some(1), 0), "{ended:?}");
    fs::remove_file(&jwt).unwrap();
    fs::rename(&aside, &jwt).unwrap();
    said(&run(stack.dir.path(), &empty, &["restore", "--after-pg-restore"]));
    assert!(epochs().await > 0);
}
