//! `/me/sessions`: the list, ending one, ending all others.

use std::time::Duration;

use axum::{body::Body, http::Method};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    on_stacks,
    support::{PASSWORD, Person, Reply, Stack, StackKind, Test, scale},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::SESSIONS;
        the_list_tells_what_a_person_is_signed_in_with,
        what_is_not_known_of_a_device_is_null,
        the_list_leaves_out_what_is_dead_in_either_store,
        a_person_sees_no_sessions_of_others,
        the_list_has_no_more_than_the_cap,
        one_session_can_be_ended_from_another,
        the_current_session_can_be_ended,
        only_a_living_session_of_ones_own_can_be_ended,
        a_session_of_an_epoch_that_is_over_cannot_be_ended,
        an_end_is_in_sql_before_the_record_goes,
        all_others_can_be_ended_and_the_current_one_goes_on,
        ending_all_others_voids_codes_that_were_mailed,
        of_two_who_end_a_session_one_writes_the_event,
    ];
    tests.extend(on_stacks![&StackKind::REDISES; an_ended_session_that_came_back_is_not_listed]);
    tests.extend(on_stacks![&StackKind::ALL;
        of_sessions_that_end_each_other_one_is_left,
        a_session_that_asks_twice_at_once_survives_itself,
        what_a_spared_session_does_meanwhile_is_let_in,
        a_late_end_of_all_others_ends_nothing,
        a_list_asks_for_the_ends_of_what_it_lists_only,
    ]);
    tests
}

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

async fn delete(person: &Person, path: &str) -> Reply {
    person.client.bearer(&person.access).send(Method::DELETE, path, Body::empty()).await
}

async fn list(person: &Person) -> Vec<Value> {
    let reply = person.client.bearer(&person.access).get("/me/sessions").await.is(200);
    reply.json()["sessions"].as_array().unwrap().clone()
}

fn ids(sessions: &[Value]) -> Vec<Uuid> {
    sessions.iter().map(|session| session["id"].as_str().unwrap().parse().unwrap()).collect()
}

async fn the_list_tells_what_a_person_is_signed_in_with(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    app.pass(Duration::from_secs(60));
    let mut other = alice.clone();
    other.client = other.client.with("user-agent", FIREFOX).coming_from([192, 0, 2, 7]);
    other.sign_in().await;
    app.pass(Duration::from_secs(60));
    let reply = alice.client.refresh(&alice.refresh).await.is(200);
    alice.take(&reply);
    let sessions = list(&other).await;
    assert_eq!(ids(&sessions), [alice.session, other.session], "the last used first");
    assert_eq!(
        sessions[1],
        json!({
            "id": other.session,
            "current": true,
            "created_at": "2026-11-22T10:57:00.000Z",
            "last_used_at": "2026-11-22T10:57:00.000Z",
            "expires_at": "2026-11-29T10:57:00.000Z",
            "ip": "192.0.2.7",
            "user_agent": "Firefox on Linux",
        })
    );
    let first = &sessions[0];
    assert_eq!(
        (&first["current"], &first["created_at"], &first["last_used_at"], &first["expires_at"]),
        (
            &json!(false),
            &json!("2026-11-22T10:56:00.000Z"),
            &json!("2026-11-22T10:58:00.000Z"),
            &json!("2026-11-29T10:58:00.000Z")
        )
    );
}

async fn what_is_not_known_of_a_device_is_null(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    assert_eq!(list(&alice).await[0]["user_agent"], Value::Null);
    let mut script = alice.clone();
    script.client = script.client.with("user-agent", "<script>alert(1)</script>");
    script.sign_in().await;
    assert_eq!(list(&script).await[0]["user_agent"], Value::Null);
}

async fn the_list_leaves_out_what_is_dead_in_either_store(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_IDLE_TTL", "1h")]).await;
    let mut alice = app.person("alice").await;
    let ended = alice.elsewhere().await;
    app.sql(&format!(
        "INSERT INTO ended_sessions (session_id, user_id, \"until\") VALUES ({}, {}, 9999999999999)",
        app.id(ended.session),
        app.id(alice.id)
    ))
    .await;
    assert_eq!(ids(&list(&alice).await), [alice.session]);
    let idle = alice.elsewhere().await;
    app.pass(Duration::from_secs(1800));
    let reply = alice.client.refresh(&alice.refresh).await.is(200);
    alice.take(&reply);
    assert_eq!(ids(&list(&alice).await), [alice.session, idle.session]);
    app.pass(Duration::from_secs(1800));
    let reply = alice.client.refresh(&alice.refresh).await.is(200);
    alice.take(&reply);
    assert_eq!(ids(&list(&alice).await), [alice.session]);
    // Sessions of an epoch that is over.
    app.sql(&format!("UPDATE users SET epoch = epoch + 1 WHERE id = {}", app.id(alice.id))).await;
    alice.sign_in().await;
    assert_eq!(ids(&list(&alice).await), [alice.session]);
}

async fn a_person_sees_no_sessions_of_others(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    assert_eq!(ids(&list(&alice).await), [alice.session]);
    assert_eq!(ids(&list(&bob).await), [bob.session]);
    app.anonymous().get("/me/sessions").await.is_problem(401, "missing_token");
}

async fn the_list_has_no_more_than_the_cap(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_MAX_SESSIONS", "3")]).await;
    let alice = app.person("alice").await;
    let mut last = alice.clone();
    for _ in 0..4 {
        app.pass(Duration::from_secs(1));
        last = alice.elsewhere().await;
    }
    let sessions = list(&last).await;
    assert_eq!((sessions.len(), &sessions[0]["current"]), (3, &json!(true)));
    assert!(!alice.is_signed_in().await, "the least recently used went");
}

async fn one_session_can_be_ended_from_another(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (stolen, third) = (alice.elsewhere().await, alice.elsewhere().await);
    assert!(delete(&alice, &format!("/me/sessions/{}", stolen.session)).await.is(204).body.is_empty());
    stolen.me().await.is_problem(401, "invalid_token");
    stolen.client.refresh(&stolen.refresh).await.is_problem(401, "invalid_refresh_token");
    assert!(alice.is_signed_in().await && third.is_signed_in().await);
    assert_eq!(list(&alice).await.len(), 2);
    assert_eq!(app.events("signed_out").await, 1);
    let by = app.text("SELECT CAST(data AS TEXT) FROM events WHERE kind = 'signed_out'").await;
    assert!(by.contains(&alice.session.to_string()), "{by}");
    delete(&alice, &format!("/me/sessions/{}", stolen.session)).await.is_problem(404, "not_found");
}

async fn the_current_session_can_be_ended(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    delete(&alice, &format!("/me/sessions/{}", alice.session)).await.is(204);
    assert!(!alice.is_signed_in().await && other.is_signed_in().await);
}

async fn only_a_living_session_of_ones_own_can_be_ended(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let upper = alice.session.to_string().to_uppercase();
    for path in [
        format!("/me/sessions/{}", bob.session),
        format!("/me/sessions/{}", Uuid::from_u128(alice.session.as_u128() ^ 1)),
        format!("/me/sessions/{}", alice.session.simple()),
        format!("/me/sessions/{{{}}}", alice.session).replace('{', "%7B").replace('}', "%7D"),
        "/me/sessions/x".to_owned(),
        "/me/sessions/%ff".to_owned(),
        "/me/sessions/".to_owned(),
    ] {
        delete(&alice, &path).await.is_problem(404, "not_found");
    }
    assert!(alice.is_signed_in().await && bob.is_signed_in().await);
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 0);
    app.anonymous()
        .send(Method::DELETE, &format!("/me/sessions/{}", bob.session), Body::empty())
        .await
        .is_problem(401, "missing_token");
    app.anonymous().send(Method::DELETE, "/me/sessions/x", Body::empty()).await.is_problem(401, "missing_token");
    // RFC 9562 §4: the hexadecimal digits may be written either way.
    delete(&alice, &format!("/me/sessions/{upper}")).await.is(204);
}

/// Its record may still be there, since the epoch alone ends it.
async fn a_session_of_an_epoch_that_is_over_cannot_be_ended(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let old = alice.session;
    app.sql(&format!("UPDATE users SET epoch = epoch + 1 WHERE id = {}", app.id(alice.id))).await;
    alice.sign_in().await;
    assert!(app.ephemeral.find(app.ambient.now(), alice.id, old).await.unwrap().is_some());
    delete(&alice, &format!("/me/sessions/{old}")).await.is_problem(404, "not_found");
    assert_eq!(app.events("signed_out").await, 0);
}

async fn an_end_is_in_sql_before_the_record_goes(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    app.sql("ALTER TABLE ended_sessions RENAME TO ended_sessions_away").await;
    let reply = delete(&alice, &format!("/me/sessions/{}", other.session)).await;
    assert!(reply.status >= 500, "{}", reply.status);
    app.sql("ALTER TABLE ended_sessions_away RENAME TO ended_sessions").await;
    assert!(other.is_signed_in().await, "an end that nobody was told of did not happen by halves");
}

async fn all_others_can_be_ended_and_the_current_one_goes_on(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let bob = app.person("bob").await;
    let others = [alice.elsewhere().await, alice.elsewhere().await];
    delete(&alice, "/me/sessions").await.is(204);
    for other in &others {
        assert!(!other.is_signed_in().await);
        other.client.refresh(&other.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    assert!(alice.is_signed_in().await && bob.is_signed_in().await);
    assert_eq!(ids(&list(&alice).await), [alice.session]);
    let reply = alice.client.refresh(&alice.refresh).await.is(200);
    alice.take(&reply);
    alice.sign_in().await;
    assert!(alice.is_signed_in().await, "and may sign in anew");
    assert_eq!(app.events("signed_out").await, 1);
    assert!(app.text("SELECT CAST(data AS TEXT) FROM events WHERE kind = 'signed_out'").await.contains("others"));
}

async fn ending_all_others_voids_codes_that_were_mailed(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let coded = app.reset_code(&alice.email).await;
    delete(&alice, "/me/sessions").await.is(204);
    let body = coded.reset("another fine password");
    app.anonymous().post("/password/reset", body).await.is_problem(400, "invalid_code");
    alice.client.login(&alice.email, PASSWORD).await.is(200);
}

async fn of_two_who_end_a_session_one_writes_the_event(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (other, path) = (alice.elsewhere().await, "/me/sessions");
    let path = format!("{path}/{}", other.session);
    let both = tokio::join!(delete(&alice, &path), delete(&alice, &path));
    for reply in [&both.0, &both.1] {
        assert!([204, 404].contains(&reply.status), "{}", reply.status);
    }
    assert!(both.0.status == 204 || both.1.status == 204);
    assert_eq!(app.events("signed_out").await, 1);
}

/// A promoted replica may not have heard of a deletion.
async fn an_ended_session_that_came_back_is_not_listed(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    let record = app.ephemeral.find(app.ambient.now(), alice.id, other.session).await.unwrap().unwrap();
    delete(&alice, &format!("/me/sessions/{}", other.session)).await.is(204);
    app.ephemeral.open(app.ambient.now(), alice.id, other.session, &record, 50, &[]).await.unwrap();
    assert_eq!(ids(&list(&alice).await), [alice.session]);
    assert!(!other.is_signed_in().await);
    // Who asks again, since an answer was lost perhaps, is told that it is over, and the record goes.
    delete(&alice, &format!("/me/sessions/{}", other.session)).await.is(204);
    delete(&alice, &format!("/me/sessions/{}", other.session)).await.is_problem(404, "not_found");
    assert_eq!(app.events("signed_out").await, 1);
}

/// Every race has one winner: of sessions that put each other out at once one is left, and may go on.
async fn of_sessions_that_end_each_other_one_is_left(stack: Stack) {
    let app = stack.app().await;
    for round in 0..scale::race() / 5 {
        let alice = app.person(&format!("alice{round}")).await;
        let crowd = [alice.elsewhere().await, alice.elsewhere().await, alice];
        let replies = futures_util::future::join_all(crowd.iter().map(|one| delete(one, "/me/sessions"))).await;
        let mut left = 0;
        for (one, reply) in crowd.iter().zip(&replies) {
            let lives = one.is_signed_in().await;
            assert_eq!(lives, reply.status == 204, "who was told that all others are over is the one who is left");
            assert!([204, 401].contains(&reply.status), "{}", reply.status);
            left += u32::from(lives);
            let refreshed = one.client.refresh(&one.refresh).await.status;
            assert_eq!(refreshed == 200, lives);
        }
        assert_eq!(left, 1);
    }
}

/// A double click: both times the others are over, and the one that asks goes on.
async fn a_session_that_asks_twice_at_once_survives_itself(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for _ in 0..scale::race() / 5 {
        let other = alice.elsewhere().await;
        let replies = futures_util::future::join_all((0..2).map(|_| delete(&alice, "/me/sessions"))).await;
        for reply in replies {
            reply.is(204);
        }
        assert!(alice.is_signed_in().await && !other.is_signed_in().await);
    }
}

/// Person and record are read one after the other, and the record moves along after the commit.
async fn what_a_spared_session_does_meanwhile_is_let_in(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    for _ in 0..scale::race() / 5 {
        let client = alice.client.bearer(&alice.access);
        let (ended, refreshed, listed, me) = tokio::join!(
            delete(&alice, "/me/sessions"),
            alice.client.refresh(&alice.refresh),
            client.get("/me/sessions"),
            alice.me(),
        );
        for reply in [&ended, &listed, &me] {
            assert!([200, 204].contains(&reply.status), "{}", String::from_utf8_lossy(&reply.body));
        }
        alice.take(&refreshed.is(200));
    }
}

/// An act of a session that was over by then ends nothing that came after.
async fn a_late_end_of_all_others_ends_nothing(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let old = alice.elsewhere().await;
    let event = latchkey::events::Event::new(latchkey::events::Kind::SignedOut);
    alice.client.bearer(&alice.access).post("/logout", json!({"all": true})).await.is(204);
    let fresh = alice.elsewhere().await;
    let ledger = latchkey::sessions::Ledger::of(&app);
    assert!(!ledger.end_all(alice.id, Some(0), Some(old.session), event).await.unwrap());
    assert!(fresh.is_signed_in().await && !old.is_signed_in().await);
}

/// Years of remembered ends cost a list nothing.
async fn a_list_asks_for_the_ends_of_what_it_lists_only(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let gone = alice.elsewhere().await;
    app.anonymous().post("/logout", json!({"refresh_token": gone.refresh})).await.is(204);
    let (cost, sessions) = super::budgets::spent(&app, list(&alice)).await;
    assert_eq!((ids(&sessions), cost.1), (vec![alice.session], 0));
    let statements = if stack.kind == StackKind::PgRedis { (2, 0, 2) } else { (4, 0, 0) };
    assert_eq!(cost, statements, "who is asking, and the list");
}
