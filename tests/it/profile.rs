//! `PATCH /me`, `DELETE /me`, `POST /me/delete`.

use std::time::Duration;

use axum::{body::Body, http::Method};
use serde_json::{Value, json};

use crate::{
    on_stacks,
    support::{PASSWORD, Person, Reply, Stack, StackKind, Test, json_body},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        a_display_name_is_changed_and_taken_away,
        a_username_needs_the_password_beside_it,
        a_username_is_taken_however_it_is_spelled,
        one_name_goes_to_one_of_many_who_want_it,
        what_may_not_be_patched_is_an_unknown_field,
        bad_names_are_refused_before_anybody_is_asked_who,
        a_merge_patch_may_say_so,
        deleting_needs_the_password_and_ends_everything,
        a_deleted_person_leaves_nothing_after_the_retention,
        an_act_that_waited_while_the_epoch_moved_is_not_done,
    ]
}

async fn patch(person: &Person, body: Value) -> Reply {
    let client = person.client.bearer(&person.access).with("content-type", "application/json");
    client.send(Method::PATCH, "/me", json_body(&body)).await
}

async fn delete(person: &Person, password: &str) -> Reply {
    let client = person.client.bearer(&person.access).with("content-type", "application/json");
    client.send(Method::DELETE, "/me", json_body(&json!({"password": password}))).await
}

async fn a_display_name_is_changed_and_taken_away(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.pass(Duration::from_secs(5));
    let user = patch(&alice, json!({"display_name": "A\u{308}lice"})).await.is(200).json();
    assert_eq!((&user["display_name"], &user["username"]), (&json!("Älice"), &json!("alice")));
    assert_eq!(user["updated_at"], "2026-11-22T10:56:05.000Z");
    assert_eq!(alice.me().await.json(), user);
    assert_eq!(patch(&alice, json!({"display_name": null})).await.is(200).json()["display_name"], Value::Null);
    assert_eq!(app.events("profile_changed").await, 2);
    patch(&alice, json!({})).await.is(200);
    assert_eq!(app.events("profile_changed").await, 2, "nothing changed");
    assert!(alice.is_signed_in().await, "a name is no reason to end sessions");
}

async fn a_username_needs_the_password_beside_it(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let reply = patch(&alice, json!({"username": "al"})).await.is_problem(422, "invalid_body");
    assert_eq!(reply.reasons(), ["password:missing"]);
    patch(&alice, json!({"username": "alice2", "password": "wrong password"}))
        .await
        .is_problem(401, "invalid_credentials");
    assert_eq!(alice.me().await.json()["username"], "alice");
    let user = patch(&alice, json!({"username": "Alice_2", "password": PASSWORD})).await.is(200).json();
    assert_eq!(user["username"], "Alice_2");
    app.anonymous().post("/login", json!({"username": "ALICE_2", "password": PASSWORD})).await.is(200);
    app.anonymous().post("/login", json!({"username": "alice", "password": PASSWORD})).await.is(401);
    patch(&alice, json!({"username": null, "password": PASSWORD})).await.is(200);
    assert_eq!(alice.me().await.json()["username"], Value::Null);
}

async fn a_username_is_taken_however_it_is_spelled(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    patch(&bob, json!({"username": "ALICE", "password": PASSWORD})).await.is_problem(409, "username_taken");
    patch(&alice, json!({"username": "ALICE", "password": PASSWORD})).await.is(200);
    delete(&alice, PASSWORD).await.is(204);
    patch(&bob, json!({"username": "alice", "password": PASSWORD})).await.is(200);
}

async fn one_name_goes_to_one_of_many_who_want_it(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_QUEUE", "1000")]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let person = app.person(&format!("person{number}")).await;
        tasks.spawn(async move { patch(&person, json!({"username": "wanted", "password": PASSWORD})).await.status });
    }
    let mut statuses = tasks.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
}

async fn what_may_not_be_patched_is_an_unknown_field(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for field in ["email", "email_verified", "roles", "status", "id", "epoch", "surprise"] {
        let reply = patch(&alice, json!({field: "x", "display_name": "Y"})).await.is_problem(422, "unknown_field");
        let named = if field == "surprise" { "(unknown)" } else { field };
        assert_eq!(reply.reasons(), [format!("{named}:unknown_field")]);
    }
    assert_eq!(alice.me().await.json()["display_name"], Value::Null);
}

async fn bad_names_are_refused_before_anybody_is_asked_who(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let body = json!({"display_name": "a\nb", "username": "admin", "password": PASSWORD});
    let reply = patch(&alice, body.clone()).await.is_problem(422, "invalid_display_name");
    assert_eq!(reply.reasons(), ["display_name:invalid_display_name", "username:invalid_username"]);
    let anonymous = app.anonymous().with("content-type", "application/json");
    anonymous.send(Method::PATCH, "/me", json_body(&body)).await.is_problem(422, "invalid_display_name");
    anonymous.send(Method::PATCH, "/me", json_body(&json!({}))).await.is_problem(401, "missing_token");
    let number = json!({"display_name": 7});
    anonymous.send(Method::PATCH, "/me", json_body(&number)).await.is_problem(422, "invalid_body");
}

async fn a_merge_patch_may_say_so(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let client = alice.client.bearer(&alice.access).with("content-type", "application/merge-patch+json");
    client.send(Method::PATCH, "/me", json_body(&json!({"display_name": "A"}))).await.is(200);
    client
        .send(Method::DELETE, "/me", json_body(&json!({"password": "x"})))
        .await
        .is_problem(415, "unsupported_media_type");
    let plain = alice.client.bearer(&alice.access).with("content-type", "text/plain");
    plain.send(Method::PATCH, "/me", Body::from("{}")).await.is_problem(415, "unsupported_media_type");
}

async fn deleting_needs_the_password_and_ends_everything(stack: Stack) {
    let app = stack.app().await;
    for by_post in [false, true] {
        let alice = app.person("alice").await;
        let other = alice.elsewhere().await;
        delete(&alice, "wrong password").await.is_problem(401, "invalid_credentials");
        assert!(alice.is_signed_in().await);
        let record = app.ephemeral.find(app.ambient.now(), other.id, other.session).await.unwrap().unwrap();
        if by_post {
            alice.client.bearer(&alice.access).post("/me/delete", json!({"password": PASSWORD})).await.is(204);
        } else {
            delete(&alice, PASSWORD).await.is(204);
        }
        // Even if the store brings a record back.
        app.ephemeral.open(app.ambient.now(), other.id, other.session, &record, 50, &[]).await.unwrap();
        for person in [&alice, &other] {
            person.me().await.is_problem(401, "invalid_token");
            person.client.refresh(&person.refresh).await.is_problem(401, "invalid_refresh_token");
        }
        app.anonymous().login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
        let wiped = format!("SELECT COUNT(*) FROM users WHERE id = {} AND password_hash IS NULL", app.id(alice.id));
        assert_eq!(app.number(&wiped).await, 1);
        delete(&alice, PASSWORD).await.is_problem(401, "invalid_token");
    }
    assert_eq!(app.events("person_deleted").await, 2);
    let again = app.person("alice").await;
    assert!(again.is_signed_in().await, "the address is free, for a new person");
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 3);
}

async fn a_deleted_person_leaves_nothing_after_the_retention(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_GRACE", "0s")]).await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    alice.client.refresh(&alice.refresh).await.is(200);
    alice.client.refresh(&alice.refresh).await.is_problem(401, "refresh_token_reused");
    let alice = alice.elsewhere().await;
    delete(&alice, PASSWORD).await.is(204);
    let (id, mails) = (app.id(alice.id), "SELECT COUNT(*) FROM outbox WHERE recipient = 'alice@example.com'");
    let told = format!("SELECT COUNT(*) FROM events WHERE person_id = {id} AND address IS NOT NULL");
    app.pass(Duration::from_secs(30 * 86_400));
    app.sweep().await;
    assert_eq!(
        (app.number("SELECT COUNT(*) FROM users").await, app.number(mails).await),
        (2, 2),
        "a code and a notice"
    );
    assert!(app.number(&told).await > 0);
    app.pass(Duration::from_secs(1));
    app.sweep().await;
    assert_eq!((app.number("SELECT COUNT(*) FROM users").await, app.number(mails).await), (1, 0));
    assert_eq!(app.number(&told).await, 0);
    let others = format!("SELECT COUNT(*) FROM events WHERE person_id = {} AND address IS NOT NULL", app.id(bob.id));
    assert!(app.number(&others).await > 0, "other people's are kept");
}

async fn an_act_that_waited_while_the_epoch_moved_is_not_done(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await;
    let alice = app.person("alice").await;
    let (release, holder) = app.hold_hashing().await;
    let mut acts = tokio::task::JoinSet::new();
    let (one, two, three) = (alice.clone(), alice.clone(), alice.clone());
    acts.spawn(async move { delete(&one, PASSWORD).await });
    acts.spawn(async move { patch(&two, json!({"username": "other", "password": PASSWORD})).await });
    acts.spawn(async move {
        let client = three.client.bearer(&three.access).with("content-type", "application/json");
        let body = json!({"current_password": PASSWORD, "new_password": "a staple for the horse"});
        client.send(Method::PUT, "/me/password", json_body(&body)).await
    });
    tokio::time::sleep(Duration::from_millis(800)).await;
    app.sql("UPDATE users SET epoch = epoch + 1").await;
    release.send(()).unwrap();
    holder.await.unwrap();
    for reply in acts.join_all().await {
        reply.is_problem(401, "invalid_token");
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE deleted_at IS NULL AND username = 'alice'").await, 1);
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
}
