//! What `/me` may answer out of memory, and for how long (`security.md` §3): at once after what this node did, within
//! half a second after what others did, and never longer whatever is away. The rule itself has unit tests beside it.

use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinSet;

use super::budgets::spent;
use crate::{
    on_stacks,
    support::{PASSWORD, Person, Process, Stack, StackKind, Test, TestApp, json_body},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL;
        what_this_node_does_is_felt_at_once,
        acts_do_not_rest_on_memory,
        another_process_is_felt_within_half_a_second,
    ];
    tests.extend(on_stacks![&[StackKind::Pg]; who_is_read_while_a_sign_in_puts_it_out_is_not_remembered]);
    tests.extend(on_stacks![&StackKind::SHARED; what_another_node_does_is_felt_within_half_a_second]);
    tests.extend(on_stacks![&StackKind::REDIS;
        who_asks_often_costs_two_readings_a_second,
        a_crowd_that_asks_at_once_costs_one_reading,
    ]);
    tests
}

const FRESH: Duration = Duration::from_millis(500);

async fn who_asks_often_costs_two_readings_a_second(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for _ in 0..2 {
        assert_eq!(spent(&app, alice.me()).await.0, (1, 0, 1));
        for pass in [0, 250, 249] {
            app.pass(Duration::from_millis(pass));
            let (cost, reply) = spent(&app, alice.me()).await;
            assert_eq!((cost, reply.status), ((0, 0, 0), 200));
        }
        app.pass(Duration::from_millis(1));
    }
    // A session of its own has a reading of its own, and so has another person.
    let other = alice.elsewhere().await;
    alice.me().await.is(200);
    assert_eq!(spent(&app, other.me()).await.0, (1, 0, 1));
    let (cost, _) = spent(&app, alice.client.bearer(&format!("{}x", alice.access)).get("/me")).await;
    assert_eq!(cost, (0, 0, 0), "a bad token reads nothing");
}

async fn a_crowd_that_asks_at_once_costs_one_reading(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let crowd = async {
        let mut crowd = JoinSet::new();
        for _ in 0..200 {
            let alice = alice.clone();
            crowd.spawn(async move { alice.me().await.status });
        }
        crowd.join_all().await
    };
    let (cost, statuses) = spent(&app, crowd).await;
    assert_eq!(cost, (1, 0, 1));
    assert!(statuses.into_iter().all(|status| status == 200));
}

async fn what_this_node_does_is_felt_at_once(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_MAX_SESSIONS", "3")]).await;
    let alice = app.person("alice").await;
    let name = |reply: &crate::support::Reply| reply.json()["display_name"].clone();
    for number in 0..3 {
        alice.me().await.is(200);
        let body = json_body(&json!({"display_name": format!("Alice {number}")}));
        let client = alice.client.bearer(&alice.access).with("content-type", "application/json");
        client.send(Method::PATCH, "/me", body).await.is(200);
        assert_eq!(name(&alice.me().await), format!("Alice {number}"));
    }
    let verified = app.verify_code(&alice.email).await;
    alice.me().await.is(200);
    app.anonymous().post("/email/verify", verified.body()).await.is(204);
    assert_eq!(alice.me().await.json()["email_verified"], true);

    app.pass(Duration::from_secs(60));
    let before = alice.me().await.json()["last_login_at"].clone();
    let mut other = alice.elsewhere().await;
    assert_ne!(alice.me().await.json()["last_login_at"], before);
    assert!(other.is_signed_in().await);
    let path = format!("/me/sessions/{}", other.session);
    alice.client.bearer(&alice.access).send(Method::DELETE, &path, axum::body::Body::empty()).await.is(204);
    assert!(!other.is_signed_in().await);

    other.sign_in().await;
    assert!(alice.is_signed_in().await && other.is_signed_in().await);
    let everywhere_else = alice.client.bearer(&alice.access);
    everywhere_else.send(Method::DELETE, "/me/sessions", axum::body::Body::empty()).await.is(204);
    assert!(alice.is_signed_in().await && !other.is_signed_in().await);

    other.sign_in().await;
    assert!(alice.is_signed_in().await && other.is_signed_in().await);
    let body = json!({"current_password": PASSWORD, "new_password": "another fine password"});
    let client = alice.client.bearer(&alice.access).with("content-type", "application/json");
    client.send(Method::PUT, "/me/password", json_body(&body)).await.is(204);
    assert!(alice.is_signed_in().await && !other.is_signed_in().await);

    let mut crowd = Vec::new();
    for _ in 0..3 {
        assert!(alice.is_signed_in().await);
        app.pass(Duration::from_millis(10));
        let mut next = alice.clone();
        next.take(&alice.client.login(&alice.email, "another fine password").await.is(200));
        crowd.push(next);
    }
    assert!(!alice.is_signed_in().await, "the cap put the least recently used session out");
    let alice = crowd.pop().unwrap();
    assert!(alice.is_signed_in().await);
    app.anonymous().post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    assert!(!alice.is_signed_in().await);
    let alice = crowd.pop().unwrap();
    assert!(alice.is_signed_in().await);
    alice.client.bearer(&alice.access).post("/me/delete", json!({"password": "another fine password"})).await.is(204);
    assert!(!alice.is_signed_in().await);
}

/// Who asks when a sign-in is in SQL and has not opened its session yet still lives, and is over with the answer.
async fn who_is_read_while_a_sign_in_puts_it_out_is_not_remembered(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_MAX_SESSIONS", "1")]).await;
    let alice = app.person("alice").await;
    let signed_in = app.events("signed_in").await;
    // Whoever opens a session of a person takes this lock first.
    let lock = i64::from_be_bytes(*alice.id.as_bytes().last_chunk().unwrap());
    let mut door = PgConnection::connect(&stack.database_url().await).await.unwrap();
    let hold = format!("BEGIN; SELECT pg_advisory_xact_lock({lock})");
    sqlx::raw_sql(AssertSqlSafe(hold)).execute(&mut door).await.unwrap();
    let (client, email) = (alice.client.clone(), alice.email.clone());
    let login = tokio::spawn(async move { client.login(&email, PASSWORD).await });
    while app.events("signed_in").await == signed_in {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The counter moves a moment after the commit.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(alice.is_signed_in().await && !login.is_finished());
    sqlx::raw_sql("COMMIT").execute(&mut door).await.unwrap();
    login.await.unwrap().is(200);
    assert!(!alice.is_signed_in().await);
}

/// An act of somebody who was put out a moment ago by another node is refused although `/me` still answers.
async fn acts_do_not_rest_on_memory(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    alice.me().await.is(200);
    app.sql(&format!("UPDATE users SET epoch = epoch + 1 WHERE id = {}", app.id(alice.id))).await;
    // The SQL let half a second pass; take it back.
    app.clock.fetch_sub(500, std::sync::atomic::Ordering::SeqCst);
    alice.me().await.is(200);
    let client = alice.client.bearer(&alice.access);
    client.get("/me/sessions").await.is_problem(401, "invalid_token");
    let patch = json_body(&json!({"display_name": "Mallory"}));
    let typed = client.with("content-type", "application/json");
    typed.send(Method::PATCH, "/me", patch).await.is_problem(401, "invalid_token");
    client.send(Method::DELETE, "/me/sessions", axum::body::Body::empty()).await.is_problem(401, "invalid_token");
    app.pass(FRESH);
    alice.me().await.is_problem(401, "invalid_token");
}

async fn what_another_node_does_is_felt_within_half_a_second(stack: Stack) {
    let (here, there) = (stack.app().await, stack.app().await);
    let alice = here.person("alice").await;
    let over_there = |person: &Person| Person { client: there.anonymous(), ..person.clone() };
    for end in ["logout", "everywhere", "disabled"] {
        let session = alice.elsewhere().await;
        let seen_there = over_there(&session);
        assert!(seen_there.is_signed_in().await);
        there.pass(FRESH - Duration::from_millis(1));
        match end {
            "logout" => drop(here.anonymous().post("/logout", json!({"refresh_token": session.refresh})).await.is(204)),
            "everywhere" => {
                drop(session.client.bearer(&session.access).post("/logout", json!({"all": true})).await.is(204));
            }
            _ => here.sql("UPDATE users SET status = 'disabled'").await,
        }
        assert!(seen_there.is_signed_in().await, "{end}: it was read less than half a second ago");
        there.pass(Duration::from_millis(1));
        assert!(!seen_there.is_signed_in().await, "{end}");
        refused_for_good(&there, &seen_there).await;
    }
}

async fn refused_for_good(app: &TestApp, person: &Person) {
    for _ in 0..3 {
        app.pass(Duration::from_millis(200));
        assert!(!person.is_signed_in().await);
    }
}

/// The real program with its own clock: what SQL says is felt within a second, however often somebody asks.
async fn another_process_is_felt_within_half_a_second(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    // One server a file: the embedded one is asked in this process, whose clock stands.
    if stack.kind == StackKind::Embedded {
        alice.me().await.is(200);
        app.sql("UPDATE users SET status = 'disabled'").await;
        alice.me().await.is_problem(401, "invalid_token");
        return;
    }
    let server = Process::start(stack.dir.path(), &app.settings);
    alice.client = server.client();
    alice.sign_in().await;
    alice.me().await.is(200);
    app.sql("UPDATE users SET status = 'disabled'").await;
    let disabled = std::time::Instant::now();
    loop {
        let asked = disabled.elapsed();
        if !alice.is_signed_in().await {
            break;
        }
        assert!(asked < FRESH, "let in {asked:?} after it was disabled");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
