use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    on_stacks,
    support::{Process, Stack, StackKind, Test, eventually, scale},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL; a_changed_ring_is_in_force_within_seconds_without_a_restart];
    tests.extend(on_stacks![&[StackKind::Embedded];
        a_request_whose_client_hung_up_has_its_line_too,
        what_is_behind_a_503_is_in_the_log_and_not_in_the_answer,
        many_processes_may_migrate_an_empty_folder_at_once,
        keys_list_makes_no_schema,
        a_clean_stop_leaves_one_file,
    ]);
    tests.extend(on_stacks![&[StackKind::Embedded], scale::only_in_a_soak; a_server_sweeps_what_is_dead_by_itself]);
    tests
}

fn sqlite_url(stack: &Stack) -> String {
    format!("sqlite://{}/data/latchkey.db", stack.dir.path().display())
}

async fn a_changed_ring_is_in_force_within_seconds_without_a_restart(stack: Stack) {
    let process = Process::start(stack.dir.path(), &stack.settings().await);
    let client = process.client();
    let published = || async { client.get("/.well-known/jwks.json").await.json()["keys"].as_array().unwrap().len() };
    assert_eq!(published().await, 2);
    let sql = "UPDATE signing_keys SET state = 'retired' WHERE state = 'next'";
    if stack.kind == StackKind::Embedded {
        SqliteConnection::connect(&sqlite_url(&stack)).await.unwrap().execute(sql).await.unwrap();
    } else {
        PgConnection::connect(&stack.database_url().await).await.unwrap().execute(sql).await.unwrap();
    }
    eventually("the retired key is gone", || async { published().await == 1 }).await;
}

async fn a_request_whose_client_hung_up_has_its_line_too(stack: Stack) {
    let mut settings = stack.settings().await;
    // One to three seconds of hashing.
    for (name, value) in [("LATCHKEY_ARGON2_MEMORY_KIB", "262144"), ("LATCHKEY_ARGON2_ITERATIONS", "6")] {
        settings.push((name.into(), value.into()));
    }
    let process = Process::start(stack.dir.path(), &settings);
    let body = json!({"email": "alice@example.com", "password": "wrong password"}).to_string();
    let request = format!(
        "POST /login HTTP/1.1\r\nhost: x\r\nx-request-id: gone\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stream);
    eventually("its line", || async {
        let output = process.output();
        let mut lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.any(|line| line["message"] == "request" && line["request_id"] == "gone" && line["status"] == 499)
    })
    .await;
}

async fn what_is_behind_a_503_is_in_the_log_and_not_in_the_answer(stack: Stack) {
    let process = Process::start(stack.dir.path(), &stack.settings().await);
    let alice = process.client().register("alice").await;
    let mut somebody = SqliteConnection::connect(&sqlite_url(&stack)).await.unwrap();
    somebody.execute("BEGIN IMMEDIATE").await.unwrap();
    let client = process.client().with("x-request-id", "locked-out");
    client.refresh(&alice.refresh).await.is_problem(503, "unavailable");
    eventually("its line", || async {
        let output = process.output();
        let mut lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.any(|line| {
            let told = line["cause"].as_str().is_some_and(|cause| cause.contains("database"));
            line["level"] == "ERROR" && line["request_id"] == "locked-out" && told
        })
    })
    .await;
}

async fn many_processes_may_migrate_an_empty_folder_at_once(stack: Stack) {
    let settings = stack.settings().await;
    for round in 0..3 {
        let dir = stack.dir.path().join(format!("round{round}"));
        std::fs::create_dir(&dir).unwrap();
        let data = ("LATCHKEY_DATA_DIR".to_owned(), dir.join("data").display().to_string());
        let settings: Vec<_> = settings.iter().cloned().chain([data]).collect();
        let children: Vec<_> = (0..8)
            .map(|_| {
                let mut command = Process::command(&dir, &settings);
                command.arg("migrate").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

async fn keys_list_makes_no_schema(stack: Stack) {
    let output = Process::command(stack.dir.path(), &stack.settings().await).args(["keys", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("latchkey migrate"), "{output:?}");
    let mut connection = SqliteConnection::connect(&sqlite_url(&stack)).await.unwrap();
    let sql = AssertSqlSafe("SELECT COUNT(*) FROM sqlite_schema".to_owned());
    let tables: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(tables, 0);
}

async fn a_clean_stop_leaves_one_file(stack: Stack) {
    let mut process = Process::start(stack.dir.path(), &stack.settings().await);
    process.client().register("alice").await;
    assert!(stack.dir.path().join("data/latchkey.db-wal").exists());
    process.terminate();
    assert!(process.wait(Duration::from_secs(30)).success());
    assert!(!stack.dir.path().join("data/latchkey.db-wal").exists(), "nothing is half said");
}

async fn a_server_sweeps_what_is_dead_by_itself(stack: Stack) {
    let _process = Process::start(stack.dir.path(), &stack.settings().await);
    let mut door = SqliteConnection::connect(&sqlite_url(&stack)).await.unwrap();
    let old = "INSERT INTO events (id, at, kind, data) VALUES (x'00', 1, 'registered', '{}')";
    door.execute(old).await.unwrap();
    let started = Instant::now();
    let mut left = 1;
    while left > 0 {
        // Every ten minutes.
        assert!(started.elapsed() < Duration::from_secs(11 * 60), "it is still there");
        tokio::time::sleep(Duration::from_secs(2)).await;
        left = sqlx::query_scalar("SELECT COUNT(*) FROM events WHERE at = 1").fetch_one(&mut door).await.unwrap();
    }
}
