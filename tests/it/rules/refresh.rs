use std::time::Duration;

use latchkey::sessions::RefreshToken;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{
    on_stacks,
    support::{Stack, StackKind, Test, TestApp, eventually},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::SHARED;
        a_thief_who_hangs_up_ends_the_session_all_the_same,
        a_theft_that_cannot_be_written_is_still_one_when_it_is_tried_again,
        a_heal_that_could_not_be_noted_is_noted_later,
        a_logout_whose_client_is_gone_still_ends_whole,
    ];
    tests.extend(on_stacks![&StackKind::ALL;
        the_event_of_a_theft_tells_its_cause,
        a_refresh_waits_for_the_new_epoch_of_a_session_that_is_being_spared,
    ]);
    tests
}

/// Lets nobody write to `table` until it is dropped; reads pass.
async fn nobody_writes(stack: &Stack, table: &str) -> PgConnection {
    let mut other = PgConnection::connect(&stack.database_url().await).await.unwrap();
    other.execute(AssertSqlSafe(format!("BEGIN; LOCK TABLE {table} IN SHARE MODE"))).await.unwrap();
    other
}

/// One event, one mail, one remembered end, and the session is dead.
async fn is_told(app: &TestApp) {
    eventually("the theft is told", || async { app.events("session_ended").await == 1 }).await;
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE kind = 'session_stolen'").await, 1);
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 1);
}

async fn a_thief_who_hangs_up_ends_the_session_all_the_same(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_GRACE", "0s")]).await;
    let alice = app.person("alice").await;
    alice.client.refresh(&alice.refresh).await.is(200);
    let lock = nobody_writes(&stack, "ended_sessions").await;
    let theft = tokio::time::timeout(Duration::from_millis(300), alice.client.refresh(&alice.refresh)).await;
    assert!(theft.is_err(), "the end cannot be written yet");
    lock.close().await.unwrap();
    is_told(&app).await;
    assert!(!alice.is_signed_in().await);
}

async fn a_theft_that_cannot_be_written_is_still_one_when_it_is_tried_again(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_GRACE", "0s")]).await;
    let alice = app.person("alice").await;
    alice.client.refresh(&alice.refresh).await.is(200);
    let lock = nobody_writes(&stack, "ended_sessions").await;
    alice.client.refresh(&alice.refresh).await.is_problem(503, "unavailable");
    lock.close().await.unwrap();
    // The record goes after the end is written, never before: there is still something to find the theft by.
    alice.client.refresh(&alice.refresh).await.is_problem(401, "refresh_token_reused");
    is_told(&app).await;
}

async fn a_heal_that_could_not_be_noted_is_noted_later(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let mut token = RefreshToken::parse(&alice.refresh, &app.secrets).unwrap();
    token.generation = 3;
    let lock = nobody_writes(&stack, "events").await;
    alice.client.refresh(token.render(&app.secrets).expose()).await.is(200);
    lock.close().await.unwrap();
    eventually("the heal is noted", || async { app.events("session_healed").await == 1 }).await;
}

async fn a_logout_whose_client_is_gone_still_ends_whole(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let lock = nobody_writes(&stack, "ended_sessions").await;
    let logout = alice.client.post("/logout", json!({"refresh_token": alice.refresh}));
    assert!(tokio::time::timeout(Duration::from_millis(300), logout).await.is_err());
    lock.close().await.unwrap();
    eventually("the logout is told", || async { app.events("signed_out").await == 1 }).await;
    eventually("the record goes", || async {
        app.ephemeral.list(app.ambient.now(), alice.id).await.unwrap().is_empty()
    })
    .await;
}

async fn the_event_of_a_theft_tells_its_cause(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_GRACE", "0s")]).await;
    let alice = app.person("alice").await;
    alice.client.refresh(&alice.refresh).await.is(200);
    alice.client.refresh(&alice.refresh).await.is_problem(401, "refresh_token_reused");
    let data = app.text("SELECT CAST(data AS TEXT) FROM events WHERE kind = 'session_ended'").await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&data).unwrap(), json!({"cause": "refresh_token_reused"}));
    let whose = format!(
        "SELECT COUNT(*) FROM events WHERE kind = 'session_ended' AND session_id = {} AND person_id = {}
         AND address = '127.0.0.1' AND client_id = 'latchkey'",
        app.id(alice.session),
        app.id(alice.id)
    );
    assert_eq!(app.number(&whose).await, 1);
}

/// Between the commit that moves the epoch and the stamp on the session that is spared, a refresh of it is no stranger's.
async fn a_refresh_waits_for_the_new_epoch_of_a_session_that_is_being_spared(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    // On a busy machine a stamp may come after the wait; then the session is as it was, and we try again.
    for epoch in 1..=10 {
        app.sql(&format!("UPDATE users SET epoch = {epoch} WHERE id = {}", app.id(alice.id))).await;
        let stamp = async {
            tokio::time::sleep(Duration::from_millis(25)).await;
            app.ephemeral.close_others(app.ambient.now(), alice.id, Some((alice.session, epoch))).await.unwrap();
        };
        let (reply, ()) = tokio::join!(alice.client.refresh(&alice.refresh), stamp);
        if reply.status == 200 {
            return;
        }
        reply.is_problem(401, "invalid_refresh_token");
    }
    panic!("a spared session was refused ten times");
}
