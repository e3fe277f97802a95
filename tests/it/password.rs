//! `PUT /me/password`.

use axum::http::Method;
use serde_json::{Value, json};

use crate::{
    on_stacks,
    support::{PASSWORD, Person, Reply, Stack, StackKind, Test, json_body},
};

const NEW: &str = "a staple for the horse";

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        a_new_password_works_and_the_old_one_does_not,
        every_other_session_ends_and_the_current_one_goes_on,
        the_current_password_must_be_right,
        a_weak_new_password_is_refused_before_any_hash,
        of_two_changes_at_once_one_is_done,
    ]
}

async fn put(person: &Person, body: &Value) -> Reply {
    let client = person.client.bearer(&person.access).with("content-type", "application/json");
    client.send(Method::PUT, "/me/password", json_body(body)).await
}

fn change(new: &str) -> Value {
    json!({"current_password": PASSWORD, "new_password": new})
}

async fn a_new_password_works_and_the_old_one_does_not(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    put(&alice, &change(NEW)).await.is(204);
    app.anonymous().login(&alice.email, PASSWORD).await.is_problem(401, "invalid_credentials");
    app.anonymous().login(&alice.email, NEW).await.is(200);
    assert_eq!(app.events("password_changed").await, 1);
    let notice = "SELECT COUNT(*) FROM outbox WHERE kind = 'password_changed' AND recipient = 'alice@example.com'";
    assert_eq!(app.number(notice).await, 1);
}

async fn every_other_session_ends_and_the_current_one_goes_on(stack: Stack) {
    let app = stack.app().await;
    let (mut alice, bob) = (app.person("alice").await, app.person("bob").await);
    let other = alice.elsewhere().await;
    let record = app.ephemeral.find(app.ambient.now(), other.id, other.session).await.unwrap().unwrap();
    put(&alice, &change(NEW)).await.is(204);
    // Even if the store brings a record back.
    app.ephemeral.open(app.ambient.now(), other.id, other.session, &record, 50, &[]).await.unwrap();
    other.me().await.is_problem(401, "invalid_token");
    other.client.refresh(&other.refresh).await.is_problem(401, "invalid_refresh_token");
    alice.me().await.is(200);
    let reply = alice.client.refresh(&alice.refresh).await.is(200);
    alice.take(&reply);
    alice.me().await.is(200);
    assert!(bob.is_signed_in().await);
}

async fn the_current_password_must_be_right(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let wrong = json!({"current_password": "wrong password", "new_password": NEW});
    put(&alice, &wrong).await.is_problem(401, "invalid_credentials");
    app.sql("UPDATE users SET password_hash = NULL").await;
    put(&alice, &change(NEW)).await.is_problem(401, "invalid_credentials");
    assert_eq!(app.events("password_changed").await, 0);
    let client = app.anonymous().with("content-type", "application/json");
    client.send(Method::PUT, "/me/password", json_body(&change(NEW))).await.is_problem(401, "missing_token");
}

async fn a_weak_new_password_is_refused_before_any_hash(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for (new, reasons) in [
        ("short", &["new_password:too_short"][..]),
        ("password1", &["new_password:too_common"]),
        ("alice@example.com", &["new_password:personal"]),
        ("xAlicex1", &["new_password:personal"]),
    ] {
        // A wrong current password beside it: the rules come first.
        let body = json!({"current_password": "wrong password", "new_password": new});
        assert_eq!(put(&alice, &body).await.is_problem(422, "weak_password").reasons(), reasons);
    }
    let shape = put(&alice, &json!({"new_password": 1})).await.is_problem(422, "invalid_body");
    assert_eq!(shape.reasons(), ["current_password:missing", "new_password:wrong_type"]);
    let weak = json!({"current_password": PASSWORD, "new_password": "short"});
    let anonymous = app.anonymous().with("content-type", "application/json");
    anonymous.send(Method::PUT, "/me/password", json_body(&weak)).await.is_problem(422, "weak_password");
}

async fn of_two_changes_at_once_one_is_done(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (first, second) = (change("the first of the two"), change("the second of the two"));
    let (one, two) = tokio::join!(put(&alice, &first), put(&alice, &second));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 401], "{one:?} {two:?}");
    let works = if one.status == 204 { "the first of the two" } else { "the second of the two" };
    app.anonymous().login(&alice.email, works).await.is(200);
    assert_eq!(app.events("password_changed").await, 1);
}
