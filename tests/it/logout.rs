//! `POST /logout`.

use std::time::Duration;

use serde_json::json;

use crate::{
    on_stacks,
    support::{Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::SESSIONS;
        a_refresh_token_ends_its_session_and_no_other,
        an_access_token_ends_its_session,
        logging_out_twice_is_fine_and_one_event,
        a_session_that_is_dead_by_age_can_be_logged_out,
        without_a_credential_there_is_nothing_to_end,
        the_token_in_the_body_counts_before_the_header,
        everywhere_ends_every_session,
        everywhere_wants_a_live_credential,
        the_end_is_remembered_until_no_token_could_live,
    ]
}

async fn a_refresh_token_ends_its_session_and_no_other(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    let reply = app.anonymous().post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    assert!(reply.body.is_empty());
    alice.me().await.is_problem(401, "invalid_token");
    alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    assert!(other.is_signed_in().await);
    assert_eq!(app.events("signed_out").await, 1);
}

async fn an_access_token_ends_its_session(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let signed_in = alice.client.bearer(&alice.access);
    signed_in.send(axum::http::Method::POST, "/logout", axum::body::Body::empty()).await.is(204);
    alice.me().await.is_problem(401, "invalid_token");
    alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
}

async fn logging_out_twice_is_fine_and_one_event(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for _ in 0..2 {
        app.anonymous().post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
        alice.client.bearer(&alice.access).post("/logout", json!({})).await.is(204);
    }
    assert_eq!(app.events("signed_out").await, 1);
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 1);
    // What is none of ours names no session: there is nothing to end, and the client has what it wanted.
    app.anonymous().post("/logout", json!({"refresh_token": "lkr_garbage"})).await.is(204);
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 1);
}

async fn a_session_that_is_dead_by_age_can_be_logged_out(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.pass(Duration::from_secs(40 * 86_400));
    app.anonymous().post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    alice.client.bearer(&alice.access).post("/logout", json!({})).await.is_problem(401, "invalid_token");
}

async fn without_a_credential_there_is_nothing_to_end(stack: Stack) {
    let app = stack.app().await;
    let reply = app.anonymous().post("/logout", json!({})).await.is_problem(400, "missing_token");
    assert_eq!(reply.header("www-authenticate"), "");
    app.anonymous().post("/logout", json!({"all": true})).await.is_problem(400, "missing_token");
    app.anonymous().post("/logout", json!({"all": "yes"})).await.is_problem(422, "invalid_body");
    app.anonymous().bearer("a.b.c").post("/logout", json!({})).await.is_problem(401, "invalid_token");
    app.anonymous()
        .bearer("a")
        .with("authorization", "Bearer b")
        .post("/logout", json!({}))
        .await
        .is_problem(400, "invalid_request");
}

async fn the_token_in_the_body_counts_before_the_header(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    alice.client.bearer(&alice.access).post("/logout", json!({"refresh_token": bob.refresh})).await.is(204);
    assert!(alice.is_signed_in().await);
    assert!(!bob.is_signed_in().await);
}

async fn everywhere_ends_every_session(stack: Stack) {
    let app = stack.app().await;
    let bob = app.person("bob").await;
    for by_refresh_token in [true, false] {
        let name = if by_refresh_token { "alice" } else { "anna" };
        let here = app.person(name).await;
        let (there, elsewhere) = (here.elsewhere().await, here.elsewhere().await);
        let record = app.ephemeral.find(app.ambient.now(), there.id, there.session).await.unwrap().unwrap();
        if by_refresh_token {
            here.client.post("/logout", json!({"refresh_token": here.refresh, "all": true})).await.is(204);
        } else {
            here.client.bearer(&here.access).post("/logout", json!({"all": true})).await.is(204);
        }
        for person in [&here, &there, &elsewhere] {
            person.me().await.is_problem(401, "invalid_token");
            person.client.refresh(&person.refresh).await.is_problem(401, "invalid_refresh_token");
        }
        // Even if the store brings a record back.
        app.ephemeral.open(app.ambient.now(), there.id, there.session, &record, 50, &[]).await.unwrap();
        there.me().await.is_problem(401, "invalid_token");
        let mut again = here.clone();
        again.sign_in().await;
        assert!(again.is_signed_in().await);
    }
    assert!(bob.is_signed_in().await);
}

async fn everywhere_wants_a_live_credential(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    let old = alice.refresh.clone();
    let current = alice.client.refresh(&old).await.is(200).text("/refresh_token");
    app.pass(Duration::from_secs(31));
    let all = async |token: &str| alice.client.post("/logout", json!({"refresh_token": token, "all": true})).await;
    all(&old).await.is_problem(401, "invalid_refresh_token");
    all("lkr_garbage").await.is_problem(401, "invalid_refresh_token");
    assert!(other.is_signed_in().await && alice.is_signed_in().await, "nothing changed");

    alice.client.post("/logout", json!({"refresh_token": current})).await.is(204);
    all(&current).await.is_problem(401, "invalid_refresh_token");
    alice.client.bearer(&alice.access).post("/logout", json!({"all": true})).await.is_problem(401, "invalid_token");
    assert!(other.is_signed_in().await, "nothing changed");
}

async fn the_end_is_remembered_until_no_token_could_live(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.anonymous().post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    app.pass(Duration::from_secs(30 * 86_400));
    app.sweep().await;
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 1);
    app.pass(Duration::from_secs(2 * 86_400));
    app.sweep().await;
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 0);
    assert!(app.events("signed_in").await > 0);
    app.pass(Duration::from_secs(90 * 86_400));
    app.sweep().await;
    assert_eq!(app.events("signed_in").await, 0, "events are kept for LATCHKEY_EVENT_RETENTION");
}
