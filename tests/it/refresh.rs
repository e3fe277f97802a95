//! `POST /refresh`: rotation, the window, theft, healing (`security.md` §3).

use std::time::Duration;

use latchkey::sessions::RefreshToken;
use serde_json::json;
use uuid::Uuid;

use crate::{
    on_stacks,
    support::{Person, Stack, StackKind, Test, TestApp, scale},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::SESSIONS;
        refreshing_moves_the_chain_and_both_tokens_work,
        the_token_before_gets_the_very_same_successor_inside_the_window,
        a_replayed_refresh_token_ends_the_session,
        the_window_does_not_slide,
        without_a_window_every_replay_is_theft,
        a_token_two_generations_back_is_theft_at_once,
        theft_told_to_many_at_once_is_one_event_and_one_mail,
        a_generation_ahead_heals_the_session,
        a_generation_far_ahead_is_theft,
        refreshes_of_one_token_at_once_make_one_successor,
        a_token_with_another_nonce_or_grant_is_refused_and_hurts_nobody,
        a_session_that_comes_back_from_the_dead_stays_ended,
        garbage_is_refused_without_touching_a_store,
        a_missing_token_is_asked_for,
        one_persons_token_is_no_good_for_another_session,
    ]
}

async fn refreshing_moves_the_chain_and_both_tokens_work(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let session = alice.session;
    for _ in 0..3 {
        app.pass(Duration::from_secs(60));
        let (before, access) = (alice.refresh.clone(), alice.access.clone());
        let reply = alice.client.refresh(&alice.refresh).await.is(200);
        alice.take(&reply);
        assert_ne!((before, access), (alice.refresh.clone(), alice.access.clone()));
        assert_eq!(alice.session, session);
        alice.me().await.is(200);
    }
    assert_eq!(app.events("session_ended").await, 0);
}

async fn the_token_before_gets_the_very_same_successor_inside_the_window(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let first = alice.client.refresh(&alice.refresh).await.is(200);
    app.pass(Duration::from_millis(29_999));
    let again = alice.client.refresh(&alice.refresh).await.is(200);
    assert_eq!(first.text("/refresh_token"), again.text("/refresh_token"));
    assert_eq!(first.text("/session_id"), again.text("/session_id"));
    app.anonymous().bearer(&again.text("/access_token")).get("/me").await.is(200);
    alice.client.refresh(&first.text("/refresh_token")).await.is(200);
}

async fn ends_as_theft(app: &TestApp, thief: &Person, token: &str, current: &str) {
    let other = thief.elsewhere().await;
    let reply = thief.client.refresh(token).await.is_problem(401, "refresh_token_reused");
    assert_eq!(reply.header("www-authenticate"), "");
    assert!(!thief.is_signed_in().await, "the access token is dead too");
    thief.client.refresh(current).await.is_problem(401, "invalid_refresh_token");
    thief.client.refresh(token).await.is_problem(401, "invalid_refresh_token");
    assert!(other.is_signed_in().await, "other sessions go on");

    assert_eq!(app.events("session_ended").await, 1);
    let session = app.id(thief.session);
    assert_eq!(app.number(&format!("SELECT COUNT(*) FROM ended_sessions WHERE session_id = {session}")).await, 1);
    let mail = "SELECT COUNT(*) FROM outbox WHERE kind = 'session_stolen' AND state = 'pending' AND recipient = 'alice@example.com'";
    assert_eq!(app.number(mail).await, 1);
}

async fn a_replayed_refresh_token_ends_the_session(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let current = alice.client.refresh(&alice.refresh).await.is(200).text("/refresh_token");
    app.pass(Duration::from_secs(30));
    ends_as_theft(&app, &alice, &alice.refresh, &current).await;
}

async fn the_window_does_not_slide(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let current = alice.client.refresh(&alice.refresh).await.is(200).text("/refresh_token");
    for _ in 0..2 {
        app.pass(Duration::from_secs(14));
        alice.client.refresh(&alice.refresh).await.is(200);
    }
    app.pass(Duration::from_secs(2));
    ends_as_theft(&app, &alice, &alice.refresh, &current).await;
}

async fn without_a_window_every_replay_is_theft(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_GRACE", "0s")]).await;
    let alice = app.person("alice").await;
    let current = alice.client.refresh(&alice.refresh).await.is(200).text("/refresh_token");
    ends_as_theft(&app, &alice, &alice.refresh, &current).await;
}

async fn a_token_two_generations_back_is_theft_at_once(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let second = alice.client.refresh(&alice.refresh).await.is(200).text("/refresh_token");
    let third = alice.client.refresh(&second).await.is(200).text("/refresh_token");
    ends_as_theft(&app, &alice, &alice.refresh, &third).await;
}

async fn theft_told_to_many_at_once_is_one_event_and_one_mail(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_GRACE", "0s")]).await;
    let alice = app.person("alice").await;
    alice.client.refresh(&alice.refresh).await.is(200);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..scale::race() {
        let alice = alice.clone();
        tasks.spawn(async move { alice.client.refresh(&alice.refresh).await.status });
    }
    assert!(tasks.join_all().await.into_iter().all(|status| status == 401));
    assert_eq!(app.events("session_ended").await, 1);
    assert_eq!(app.notices().await, 1);
}

/// The same token at another place in its chain.
fn moved(app: &TestApp, token: &str, change: impl FnOnce(&mut RefreshToken)) -> String {
    let mut token = RefreshToken::parse(token, &app.secrets).expect("one of ours");
    change(&mut token);
    token.render(&app.secrets).expose().to_owned()
}

async fn a_generation_ahead_heals_the_session(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let now = app.ambient.now();
    let lost = app.ephemeral.find(now, alice.id, alice.session).await.unwrap().unwrap();
    let mut token = alice.refresh.clone();
    for _ in 0..3 {
        token = alice.client.refresh(&token).await.is(200).text("/refresh_token");
    }
    // The store fails over to a replica that had not heard of any of these.
    app.ephemeral.open(now, alice.id, alice.session, &lost, 50, &[]).await.unwrap();
    let healed = alice.client.refresh(&token).await.is(200).text("/refresh_token");
    assert_eq!(app.events("session_healed").await, 1);
    assert_eq!(
        alice.client.refresh(&token).await.is(200).text("/refresh_token"),
        healed,
        "a lost answer after healing"
    );
    alice.client.refresh(&healed).await.is(200);
    assert_eq!((app.events("session_healed").await, app.events("session_ended").await), (1, 0));
}

async fn a_generation_far_ahead_is_theft(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let ahead = moved(&app, &alice.refresh, |token| token.generation = 1001);
    ends_as_theft(&app, &alice, &ahead, &alice.refresh).await;
}

async fn refreshes_of_one_token_at_once_make_one_successor(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    for _ in 0..scale::races() {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..scale::race() {
            let alice = alice.clone();
            tasks.spawn(async move { alice.client.refresh(&alice.refresh).await.is(200).text("/refresh_token") });
        }
        let mut successors = tasks.join_all().await;
        successors.dedup();
        assert_eq!(successors.len(), 1, "{successors:?}");
        let reply = alice.client.refresh(&successors[0]).await.is(200);
        alice.take(&reply);
    }
    assert!(alice.is_signed_in().await);
}

async fn a_token_with_another_nonce_or_grant_is_refused_and_hurts_nobody(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for forged in [
        moved(&app, &alice.refresh, |token| token.nonce = [0; 16]),
        moved(&app, &alice.refresh, |token| {
            token.nonce = [0; 16];
            token.generation = 5000;
        }),
        moved(&app, &alice.refresh, |token| token.grant = 1),
        moved(&app, &alice.refresh, |token| token.session = Uuid::from_u128(1)),
        moved(&app, &alice.refresh, |token| token.person = Uuid::from_u128(1)),
    ] {
        alice.client.refresh(&forged).await.is_problem(401, "invalid_refresh_token");
    }
    assert!(alice.is_signed_in().await);
    alice.client.refresh(&alice.refresh).await.is(200);
}

async fn a_session_that_comes_back_from_the_dead_stays_ended(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let now = app.ambient.now();
    let record = app.ephemeral.find(now, alice.id, alice.session).await.unwrap().unwrap();
    alice.client.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    // The store loses the deletion: a cut link, a promoted replica.
    app.ephemeral.open(now, alice.id, alice.session, &record, 50, &[]).await.unwrap();
    alice.me().await.is_problem(401, "invalid_token");
    alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    assert_eq!(app.events("session_ended").await, 0, "nobody stole it");
}

async fn garbage_is_refused_without_touching_a_store(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let asked = || (app.db.asked().statements.load(std::sync::atomic::Ordering::SeqCst), app.ephemeral.round_trips());
    let before = asked();
    let cut = &alice.refresh[..alice.refresh.len() - 1];
    let longer = format!("{}A", alice.refresh);
    for garbage in [
        "",
        "x",
        "lkr_",
        "lkr_AAAA",
        cut,
        &longer,
        &alice.access,
        &"A".repeat(5000),
        "lkr_\u{0}",
        &alice.refresh.replacen("lkr_", "lkd_", 1),
    ] {
        alice.client.refresh(garbage).await.is_problem(401, "invalid_refresh_token");
    }
    assert_eq!(asked(), before);
}

async fn a_missing_token_is_asked_for(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    client.post("/refresh", json!({})).await.is_problem(401, "missing_token");
    client.post("/refresh", json!({"refresh_token": null})).await.is_problem(401, "missing_token");
    client.send(axum::http::Method::POST, "/refresh", axum::body::Body::empty()).await.is_problem(401, "missing_token");
    client.post("/refresh", json!({"refresh_token": 7})).await.is_problem(422, "invalid_body");
    client.post("/refresh", json!({"refresh_token": "x", "scope": "y"})).await.is_problem(422, "unknown_field");
    let alice = app.person("alice").await;
    alice.client.bearer(&alice.access).post("/refresh", json!({})).await.is_problem(401, "missing_token");
}

async fn one_persons_token_is_no_good_for_another_session(stack: Stack) {
    let app = stack.app().await;
    let (alice, mallory) = (app.person("alice").await, app.person("mallory").await);
    let forged = moved(&app, &mallory.refresh, |token| {
        token.person = alice.id;
        token.session = alice.session;
    });
    mallory.client.refresh(&forged).await.is_problem(401, "invalid_refresh_token");
    assert!(alice.is_signed_in().await && mallory.is_signed_in().await);
}
