//! `latchkey doctor`: what it finds, that looking changes nothing, takes a bounded time and tells no secret.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use latchkey::db::Facts;
use serde_json::Value;

use crate::{
    process::run,
    support::{
        Process, Sink, Stack, StackKind, Test, eventually,
        redis::{REDIS_PASSWORD, RedisServer, redis_missing},
    },
};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&StackKind::EVERY; a_server_that_is_well_has_no_failure);
    tests.extend(crate::on_stacks!(&StackKind::ALL;
        keys_and_secret_are_compared_with_the_ring,
        mails_that_do_not_leave_are_told,
        hashes_that_were_brought_along_are_counted,
        an_older_or_newer_schema_is_told,
    ));
    tests.extend(crate::on_stacks!(&[StackKind::Embedded];
        looking_makes_nothing,
        with_nothing_running_every_part_is_told,
        what_keeps_silent_is_not_waited_for,
        a_mail_server_is_asked_without_a_mail,
        an_https_server_behind_nobody_is_warned,
        an_acknowledged_write_is_on_the_disk,
    ));
    tests.extend(crate::on_stacks!(&[StackKind::Pg]; a_database_that_may_forget_is_told));
    tests.extend(crate::on_stacks!(&[StackKind::Embedded], redis_missing;
        a_redis_that_evicts_is_a_failure,
        a_redis_that_takes_no_writes_is_a_failure,
    ));
    tests
}

type Settings = Vec<(String, String)>;

/// What it found.
#[derive(Debug)]
struct Report {
    code: Option<i32>,
    findings: Vec<Value>,
    text: String,
}

impl Report {
    /// What it says of one part at one level, one below the other.
    fn of(&self, check: &str, status: &str) -> String {
        let of = self.findings.iter().filter(|finding| finding["check"] == check && finding["status"] == status);
        of.map(|finding| format!("{}\n", finding["found"].as_str().unwrap())).collect()
    }

    #[track_caller]
    fn has(&self, check: &str, status: &str, words: &str) {
        assert!(self.of(check, status).contains(words), "no {status} of {check} with \"{words}\": {self:#?}");
        assert_eq!(
            self.code == Some(1),
            self.findings.iter().any(|finding| finding["status"] == "failure"),
            "{self:#?}"
        );
    }

    #[track_caller]
    fn has_not(&self, check: &str, words: &str) {
        for line in ["warning", "failure"].map(|status| self.of(check, status)).concat().lines() {
            assert!(!line.contains(words), "{check} with \"{words}\": {self:#?}");
        }
    }
}

async fn doctor(dir: &Path, settings: &Settings) -> Report {
    let (dir, settings) = (dir.to_owned(), settings.clone());
    let ended = tokio::task::spawn_blocking(move || run(&dir, &settings, &["doctor"])).await.unwrap();
    let findings = ended.stdout.lines().map(|line| {
        let finding: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let is_well = finding["status"] == "ok";
        assert_eq!(finding["mend"].is_null(), is_well, "how to mend stands beside what is wrong: {finding}");
        finding
    });
    Report { code: ended.code, findings: findings.collect(), text: ended.stdout.clone() + &ended.stderr }
}

async fn examine(stack: &Stack, settings: &Settings) -> Report {
    doctor(stack.dir.path(), settings).await
}

fn with(settings: &Settings, more: &[(&str, &str)]) -> Settings {
    let mut settings = settings.clone();
    settings.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
    settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    settings
}

async fn a_server_that_is_well_has_no_failure(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    process.client().register("alice").await;
    let report = examine(&stack, &settings).await;
    assert_eq!(report.code, Some(0), "{report:#?}");
    for check in ["settings", "network", "machine", "database", "people", "sessions", "keys", "mail"] {
        assert!(!report.of(check, "ok").is_empty(), "{check}: {report:#?}");
    }
    report.has("database", "ok", "the schema is that of this program");
    report.has("keys", "ok", "the active key");
    report.has("keys", "ok", "the server secret is that of the database");
    match stack.kind {
        StackKind::Embedded => report.has("database", "ok", "SQLite 3."),
        _ => {
            report.has("database", "ok", "PostgreSQL 1");
            report.has("database", "ok", "the clock of the database goes with");
        }
    }
    match stack.kind {
        StackKind::Embedded | StackKind::Pg => report.has("sessions", "ok", "in the database"),
        StackKind::PgRedis => report.has("sessions", "ok", "the clock of Redis at"),
        StackKind::Cluster => report.has("sessions", "ok", "every slot of the Cluster has a master"),
        StackKind::Sentinel => report.has("sessions", "ok", "of 3 Sentinels answer"),
    }
    // The settings of the stack are cheap.
    report.has("settings", "warning", "OWASP floor");
    for (name, value) in settings.iter().filter(|(name, _)| name.ends_with("_URL")) {
        assert!(!report.text.contains(value), "{name} is a secret");
    }
    assert!(!report.text.contains(REDIS_PASSWORD));
    process.client().login("alice@example.com", crate::support::PASSWORD).await.is(200);
}

async fn looking_makes_nothing(stack: Stack) {
    let settings = stack.settings().await;
    let report = examine(&stack, &settings).await;
    assert_eq!(report.code, Some(0), "{report:#?}");
    report.has("database", "warning", "there is no database");
    report.has("keys", "ok", "the first start makes what is missing");
    assert_eq!(fs::read_dir(stack.dir.path()).unwrap().count(), 0);
    // Where nothing is made by itself that is another matter.
    let https = [("LATCHKEY_PUBLIC_URL", "https://auth.example.com"), ("SMTP_URL", "smtp://127.0.0.1:9")];
    examine(&stack, &with(&settings, &https)).await.has("keys", "failure", "no key and no server secret");
    assert_eq!(fs::read_dir(stack.dir.path()).unwrap().count(), 0);
}

/// The URL of a port where nobody is.
fn nobody(scheme: &str, rest: &str) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("{scheme}127.0.0.1:{port}{rest}")
}

async fn with_nothing_running_every_part_is_told(stack: Stack) {
    let settings = with(
        &stack.settings().await,
        &[
            ("DATABASE_URL", &nobody("postgres://user:kanarienvogel@", "/latchkey")),
            ("REDIS_URL", &nobody("redis://:kanarienvogel@", "")),
            ("SMTP_URL", &nobody("smtp://user:kanarienvogel@", "")),
        ],
    );
    let report = examine(&stack, &settings).await;
    assert_eq!(report.code, Some(1));
    for check in ["database", "sessions", "mail"] {
        assert!(!report.of(check, "failure").is_empty(), "{check}: {report:#?}");
    }
    assert!(!report.text.contains("kanarienvogel"), "{report:#?}");
    assert_eq!(fs::read_dir(stack.dir.path()).unwrap().count(), 0, "nothing was made");
}

async fn what_keeps_silent_is_not_waited_for(stack: Stack) {
    // Taken by the kernel, and never answered.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let settings = with(
        &stack.settings().await,
        &[
            ("DATABASE_URL", &format!("postgres://user:p@{place}/latchkey")),
            ("REDIS_URL", &format!("redis://{place}")),
            ("SMTP_URL", &format!("smtp://{place}")),
        ],
    );
    let started = Instant::now();
    let report = examine(&stack, &settings).await;
    assert!(started.elapsed() < Duration::from_secs(10), "all at once, three seconds each: {:?}", started.elapsed());
    for check in ["database", "sessions", "mail"] {
        assert!(!report.of(check, "failure").is_empty(), "{check}: {report:#?}");
    }
}

async fn a_mail_server_is_asked_without_a_mail(stack: Stack) {
    let sink = Sink::start().await;
    let settings = with(&stack.settings().await, &[("SMTP_URL", &sink.url())]);
    examine(&stack, &settings).await.has("mail", "ok", "greets without TLS");
    assert!(sink.connections() > 0);
    let commands = sink.commands();
    assert!(commands.iter().any(|command| command.starts_with("EHLO")), "{commands:?}");
    assert!(!commands.iter().any(|command| command.starts_with("MAIL")), "{commands:?}");
}

async fn an_https_server_behind_nobody_is_warned(stack: Stack) {
    let https = [("LATCHKEY_PUBLIC_URL", "https://auth.example.com"), ("SMTP_URL", "smtp://127.0.0.1:9")];
    let settings = with(&stack.settings().await, &https);
    examine(&stack, &settings).await.has("network", "warning", "no proxy is trusted");
    let behind = with(&settings, &[("LATCHKEY_TRUSTED_PROXIES", "10.0.0.7")]);
    examine(&stack, &behind).await.has_not("network", "trusted");
    let wide = with(&settings, &[("LATCHKEY_TRUSTED_PROXIES", "0.0.0.0/1,128.0.0.0/1")]);
    examine(&stack, &wide).await.has("network", "warning", "128.0.0.0/1 is trusted");
}

/// `security.md` §7: SQLite runs WAL with `synchronous=FULL`.
async fn an_acknowledged_write_is_on_the_disk(stack: Stack) {
    let app = stack.app().await;
    let Facts::Sqlite { journal_mode, synchronous, foreign_keys, busy_timeout, .. } = app.db.facts().await.unwrap()
    else {
        panic!("this is SQLite")
    };
    assert_eq!((journal_mode.as_str(), synchronous, foreign_keys, busy_timeout), ("wal", 2, 1, 5000));
}

async fn a_database_that_may_forget_is_told(stack: Stack) {
    let app = stack.app().await;
    examine(&stack, &app.settings).await.has_not("database", "synchronous_commit");
    let name = app.text("SELECT current_database()").await;
    app.sql(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    examine(&stack, &app.settings).await.has("database", "warning", "synchronous_commit is off");
}

async fn keys_and_secret_are_compared_with_the_ring(stack: Stack) {
    let app = stack.app().await;
    let settings = app.settings.clone();
    let jwt = stack.dir.path().join("jwt");
    let (mut active, mut next) = (String::new(), String::new());
    for key in app.keys.list() {
        *(if key.active_at.is_some() { &mut active } else { &mut next }) = key.kid;
    }
    examine(&stack, &settings).await.has_not("keys", "");

    let hide = |kid: &str| fs::rename(jwt.join(format!("{kid}.pem")), jwt.join(format!(".{kid}"))).unwrap();
    let show = |kid: &str| fs::rename(jwt.join(format!(".{kid}")), jwt.join(format!("{kid}.pem"))).unwrap();
    hide(&next);
    examine(&stack, &settings).await.has("keys", "warning", "no next key is here");
    hide(&active);
    examine(&stack, &settings).await.has("keys", "failure", &format!("the active key {active} is not here"));
    show(&next);
    examine(&stack, &settings).await.has("keys", "warning", &format!("the active key {active} is not here"));
    show(&active);

    let file = jwt.join(format!("{active}.pem"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    examine(&stack, &settings).await.has("keys", "failure", &format!("{active}.pem"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&jwt, fs::Permissions::from_mode(0o755)).unwrap();
    examine(&stack, &settings).await.has("keys", "warning", "others may look into");
    fs::set_permissions(&jwt, fs::Permissions::from_mode(0o700)).unwrap();

    let foreign = "9WPcZ0Qq1yE8mJtX3vB7Kd5Rf2Hs6Ln4UoAaGxTiVhY=";
    let report = examine(&stack, &with(&settings, &[("LATCHKEY_SECRET", foreign)])).await;
    report.has("keys", "failure", "none of the server secrets");
    assert!(!report.text.contains(&foreign[..12]));
    examine(&stack, &settings).await.has_not("keys", "");
}

async fn mails_that_do_not_leave_are_told(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    // The clock of the app stands some hours behind that of the command, so the mail waits for long.
    let posted = latchkey::ambient::Ambient::system().now().millis();
    app.sql(&format!("UPDATE outbox SET created_at = {posted}, next_attempt_at = {posted}")).await;
    examine(&stack, &app.settings).await.has_not("mail", "");
    app.sql(&format!("UPDATE outbox SET created_at = {}", posted - 3_600_000)).await;
    examine(&stack, &app.settings).await.has("mail", "warning", "1 mail(s) wait, the oldest since");
    app.sql("UPDATE outbox SET state = 'dead'").await;
    examine(&stack, &app.settings).await.has("mail", "warning", "1 mail(s) were given up");
}

async fn hashes_that_were_brought_along_are_counted(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let bob = app.person("bob").await;
    examine(&stack, &app.settings).await.has("people", "ok", "every password hash is Argon2");
    let sql = format!("UPDATE users SET password_hash = '$2b$10$abc' WHERE id = {}", app.id(bob.id));
    app.sql(&sql).await;
    examine(&stack, &app.settings).await.has("people", "warning", "1 people have a password hash of another kind");
}

async fn an_older_or_newer_schema_is_told(stack: Stack) {
    let app = stack.app().await;
    let settings = app.settings.clone();
    let last = "version = (SELECT MAX(version) FROM _sqlx_migrations)";
    app.sql(&format!("UPDATE _sqlx_migrations SET version = 9999 WHERE {last}")).await;
    examine(&stack, &settings).await.has("database", "warning", "a newer program");
    app.sql("UPDATE _sqlx_migrations SET description = 'needs 99.0.0 less' WHERE version = 9999").await;
    examine(&stack, &settings).await.has("database", "failure", "a newer program took away");
    app.sql("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    examine(&stack, &settings).await.has("database", "warning", "an older program");
}

async fn a_redis_that_evicts_is_a_failure(stack: Stack) {
    let server = RedisServer::start(&[]).await;
    let settings = with(&stack.settings().await, &[("REDIS_URL", &server.url())]);
    let report = examine(&stack, &settings).await;
    assert_eq!(report.code, Some(0), "{report:#?}");
    report.has("sessions", "warning", "keeps no append-only file");
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let _: String = server.run_command(&format!("CONFIG SET maxmemory-policy {policy}")).await;
        examine(&stack, &settings).await.has("sessions", "failure", policy);
    }
    // Where CONFIG is forbidden the policy is known all the same.
    let _: String = server.run_command("ACL SETUSER small on >pw ~* &* +@all -config").await;
    let small = format!("redis://small:pw@127.0.0.1:{}", server.port);
    examine(&stack, &with(&settings, &[("REDIS_URL", &small)])).await.has("sessions", "failure", "volatile-ttl");
    let _: String = server.run_command("CONFIG SET maxmemory-policy noeviction").await;
    examine(&stack, &settings).await.has_not("sessions", "maxmemory-policy");
    // Who has the wrong password is told so, without it.
    let wrong = format!("redis://:kanarienvogel@127.0.0.1:{}", server.port);
    let report = examine(&stack, &with(&settings, &[("REDIS_URL", &wrong)])).await;
    report.has("sessions", "failure", "Redis does not answer");
    assert!(!report.text.contains("kanarienvogel"));
    // One server is no Cluster, and has no Sentinels.
    let cluster = server.url().replace("redis://", "redis-cluster://");
    let report = examine(&stack, &with(&settings, &[("REDIS_URL", &cluster)])).await;
    assert!(!report.of("sessions", "failure").is_empty(), "{report:#?}");
}

async fn a_redis_that_takes_no_writes_is_a_failure(stack: Stack) {
    let master = RedisServer::start(&[]).await;
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    eventually("the replica is there", || async { replica.info("master_link_status").await == "up" }).await;
    let settings = with(&stack.settings().await, &[("REDIS_URL", &replica.url())]);
    examine(&stack, &settings).await.has("sessions", "failure", "is a replica");
    let settings = with(&settings, &[("REDIS_URL", &master.url())]);
    examine(&stack, &settings).await.has_not("sessions", "is a replica");
}
