//! `GET /me`, and the Bearer credential (RFC 6750) as far as it is no token's own affair (`tokens.rs`).

use std::time::Duration;

use axum::{body::Body, http::Method};
use serde_json::json;

use crate::{
    on_stacks,
    support::{Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::SESSIONS;
        me_tells_who_the_token_belongs_to,
        a_missing_credential_is_asked_for,
        two_authorization_headers_are_refused,
        tokens_in_a_query_are_not_looked_at,
        a_disabled_person_is_out_at_once,
        a_moved_epoch_ends_the_session,
        a_session_ends_with_its_idle_and_absolute_lifetime,
        head_is_get_without_a_body,
    ]
}

async fn me_tells_who_the_token_belongs_to(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    app.sql("UPDATE users SET roles = '[\"admin\",\"ops\"]' WHERE username = 'bob'").await;
    let me = alice.me().await.is(200).json();
    assert_eq!(me["id"], json!(alice.id));
    assert_eq!(
        me.as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "created_at",
            "display_name",
            "email",
            "email_verified",
            "id",
            "last_login_at",
            "roles",
            "status",
            "updated_at",
            "username"
        ]
    );
    assert_eq!(me["last_login_at"], "2026-11-22T10:56:00.000Z");
    let me = bob.me().await.is(200).json();
    assert_eq!((&me["email"], &me["roles"]), (&json!("bob@example.com"), &json!(["admin", "ops"])));
}

async fn a_missing_credential_is_asked_for(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    for reply in [
        client.get("/me").await,
        client.with("authorization", "Basic YWxpY2U6c2VjcmV0").get("/me").await,
        client.with("authorization", "Bearerx abc").get("/me").await,
    ] {
        assert_eq!(reply.is_problem(401, "missing_token").header("www-authenticate"), "Bearer");
    }
    for token in ["Bearer", "Bearer ", "bearer x", "Bearer a.b.c", "BEARER lkr_x", "Bearer ..", "Bearer a b"] {
        let reply = client.with("authorization", token).get("/me").await.is_problem(401, "invalid_token");
        assert_eq!(reply.header("www-authenticate"), "Bearer error=\"invalid_token\"", "{token}");
    }
    let alice = app.person("alice").await;
    client.with("authorization", &format!("bEaReR {}", alice.access)).get("/me").await.is(200);
}

async fn two_authorization_headers_are_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let token = format!("Bearer {}", alice.access);
    let twice = app.anonymous().with("authorization", &token).with("authorization", &token);
    twice.get("/me").await.is_problem(400, "invalid_request");
}

async fn tokens_in_a_query_are_not_looked_at(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let path = format!("/me?access_token={}", alice.access);
    app.anonymous().get(&path).await.is_problem(401, "missing_token");
}

async fn a_disabled_person_is_out_at_once(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    app.sql("UPDATE users SET status = 'disabled' WHERE username = 'alice'").await;
    alice.me().await.is_problem(401, "invalid_token");
    alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    bob.me().await.is(200);
}

async fn a_moved_epoch_ends_the_session(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for change in ["+ 1", "- 2"] {
        app.sql(&format!("UPDATE users SET epoch = epoch {change}")).await;
        alice.me().await.is_problem(401, "invalid_token");
        alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    app.sql("UPDATE users SET epoch = epoch + 1").await;
    alice.me().await.is(200);
}

async fn a_session_ends_with_its_idle_and_absolute_lifetime(stack: Stack) {
    let settings =
        [("LATCHKEY_ACCESS_TTL", "90d"), ("LATCHKEY_REFRESH_IDLE_TTL", "2d"), ("LATCHKEY_REFRESH_ABSOLUTE_TTL", "3d")];
    let app = stack.app_with(&settings).await;
    let alice = app.person("alice").await;
    let mut kept = alice.elsewhere().await;
    app.pass(Duration::from_secs(2 * 86_400 - 1));
    alice.me().await.is(200);
    let reply = kept.client.refresh(&kept.refresh).await.is(200);
    assert_eq!(reply.json()["refresh_expires_in"], json!(86_401), "the rest of the absolute lifetime");
    kept.take(&reply);
    app.pass(Duration::from_secs(1));
    alice.me().await.is_problem(401, "invalid_token");
    alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    kept.me().await.is(200);
    app.pass(Duration::from_secs(86_400));
    kept.me().await.is_problem(401, "invalid_token");
    kept.client.refresh(&kept.refresh).await.is_problem(401, "invalid_refresh_token");
}

async fn head_is_get_without_a_body(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let reply = alice.client.bearer(&alice.access).send(Method::HEAD, "/me", Body::empty()).await.is(200);
    assert!(reply.body.is_empty());
    app.anonymous().send(Method::HEAD, "/me", Body::empty()).await.is(401);
}
