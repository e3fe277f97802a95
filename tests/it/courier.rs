//! The worker behind the outbox, attacked: what strangers learn from it, what they can have it send, and whom they can
//! hold up.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;
use uuid::Uuid;

use crate::{
    on_stacks,
    support::{Mood, PASSWORD, Person, Sink, Stack, StackKind, Test, TestApp},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        a_try_on_a_code_costs_the_same_whoever_has_the_address,
        a_stranger_learns_nothing_from_the_flow_of_a_registration,
        notices_to_an_unproved_address_are_few_and_carry_nothing_of_the_strangers,
        a_request_for_an_address_silences_no_notice,
        devices_wiped_while_a_login_was_hashing_stay_wiped,
        a_row_of_a_newer_node_holds_up_nobody,
        a_change_of_address_by_somebody_who_changed_since_mails_nothing,
        a_registration_that_was_completed_is_not_told_that_it_exists,
        a_warning_to_the_old_address_survives_another_change,
        one_slow_recipient_holds_up_nobody,
    ]
}

/// Statements, transactions and Redis trips of `work`.
async fn spent(app: &TestApp, work: impl Future<Output = u16>) -> (u64, u64, u64, u16) {
    let asked = || {
        let sql = app.db.asked();
        (sql.statements.load(Ordering::SeqCst), sql.transactions.load(Ordering::SeqCst), app.ephemeral.round_trips())
    };
    let before = asked();
    let status = work.await;
    let after = asked();
    (after.0 - before.0, after.1 - before.1, after.2 - before.2, status)
}

async fn try_code(app: &TestApp, path: &str, flow: &str) -> (u64, u64, u64, u16) {
    let body = match path {
        "/password/reset" => json!({"flow_id": flow, "code": "00000000", "new_password": "a staple for the horse"}),
        _ => json!({"flow_id": flow, "code": "00000000"}),
    };
    spent(app, async { app.anonymous().post(path, body).await.is_problem(400, "invalid_code").status }).await
}

async fn a_try_on_a_code_costs_the_same_whoever_has_the_address(stack: Stack) {
    let app = stack.app().await;
    for name in ["known", "proved", "disabled"] {
        app.person(name).await;
    }
    app.deliver().await;
    app.pass(Duration::from_secs(120));
    app.sql("UPDATE users SET email_verified = TRUE WHERE username = 'proved'").await;
    app.sql("UPDATE users SET status = 'disabled' WHERE username = 'disabled'").await;
    for (ask, path) in [("/password/forgot", "/password/reset"), ("/email/verify/resend", "/email/verify")] {
        let mut costs = Vec::new();
        for name in ["known", "proved", "disabled", "unknown", "known"] {
            let reply = app.anonymous().post(ask, json!({"email": format!("{name}@example.com")})).await.is(202);
            app.deliver().await;
            for _ in 0..7 {
                costs.push((name, try_code(&app, path, &reply.text("/flow_id")).await));
            }
        }
        // Tries one to five are judged, the others are not: for everybody, and also over a cap (the second "known").
        for (at, (name, cost)) in costs.iter().enumerate() {
            assert_eq!(*cost, costs[at % 7].1, "{path} {name}, try {}", at % 7 + 1);
        }
        assert_ne!(costs[0].1, costs[6].1, "the sixth try is not judged");
        app.pass(Duration::from_secs(120));
    }
}

async fn a_stranger_learns_nothing_from_the_flow_of_a_registration(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_EMAIL_VERIFICATION", "optional")]).await;
    app.person("taken").await;
    drop(app);
    let app = stack.app_with(&[("LATCHKEY_EMAIL_VERIFICATION", "required")]).await;
    let mut costs = Vec::new();
    for name in ["taken", "free", "taken"] {
        let body = json!({"email": format!("{name}@example.com"), "password": PASSWORD});
        let reply = app.anonymous().post("/register", body).await.is(202);
        app.deliver().await;
        costs.push(try_code(&app, "/email/verify", &reply.text("/verification/flow_id")).await);
    }
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
}

async fn change_password(app: &TestApp, alice: &mut Person, from: &str, to: &str) {
    let reply = app.anonymous().login(&alice.email, from).await.is(200);
    alice.take(&reply);
    let body = json!({"current_password": from, "new_password": to});
    let client = alice.client.bearer(&alice.access).with("content-type", "application/json");
    client.send("PUT".parse().unwrap(), "/me/password", body.to_string().into()).await.is(204);
}

async fn notices_to_an_unproved_address_are_few_and_carry_nothing_of_the_strangers(stack: Stack) {
    let app = stack.app().await;
    let mut thief = app.person("victim").await;
    let bearer = thief.client.bearer(&thief.access);
    let body = json!({"new_email": "claim.your.prize@evil.example", "password": PASSWORD});
    bearer.post("/me/email", body).await.is(202);
    let told = app.mail_to("address_change_requested", "victim@example.com").await;
    assert!(!told.text().contains("evil") && !told.html().contains("evil"), "{}", told.text());

    let (mut from, mut to) = (PASSWORD.to_owned(), "a staple for the horse".to_owned());
    for _ in 0..12 {
        app.pass(Duration::from_secs(11 * 60));
        change_password(&app, &mut thief, &from, &to).await;
        app.deliver().await;
        std::mem::swap(&mut from, &mut to);
    }
    let sent = "SELECT COUNT(*) FROM outbox WHERE state = 'sent' AND kind = 'password_changed'";
    let few = app.number(sent).await;
    assert!((5..=9).contains(&few), "{few} of twelve in two hours");

    let mut owner = app.person("owner").await;
    app.sql("UPDATE users SET email_verified = TRUE WHERE username = 'owner'").await;
    let (mut from, mut to) = (PASSWORD.to_owned(), "a staple for the horse".to_owned());
    for _ in 0..12 {
        app.pass(Duration::from_secs(11 * 60));
        change_password(&app, &mut owner, &from, &to).await;
        app.deliver().await;
        std::mem::swap(&mut from, &mut to);
    }
    assert_eq!(app.number(sent).await, few + 12, "a proved mailbox is told everything");
}

async fn a_request_for_an_address_silences_no_notice(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    for _ in 0..100 {
        alice.client.post("/password/forgot", json!({"email": alice.email})).await.is(202);
    }
    app.deliver().await;
    change_password(&app, &mut alice, PASSWORD, "a staple for the horse").await;
    app.mail_to("password_changed", "alice@example.com").await;
}

async fn devices_wiped_while_a_login_was_hashing_stay_wiped(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await;
    app.person("alice").await;
    let (release, holder) = app.hold_hashing().await;
    let client = app.anonymous().with("user-agent", "Mozilla/5.0 (X11; Linux) Firefox/140.0");
    let login = tokio::spawn(async move { client.login("alice@example.com", PASSWORD).await.status });
    tokio::time::sleep(Duration::from_millis(300)).await;
    app.sql("UPDATE users SET devices = '[]', epoch = epoch + 1").await;
    release.send(()).unwrap();
    holder.await.unwrap();
    login.await.unwrap();
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE devices = '[]'").await, 1);
}

async fn a_row_of_a_newer_node_holds_up_nobody(stack: Stack) {
    let app = stack.app().await;
    for (number, kind, data) in [(1u128, "hologram", "{}"), (2, "reset_password", r#"{"flow": {"of": [1, 2]}}"#)] {
        let id = app.id(Uuid::from_u128(number));
        app.sql(&format!(
            "INSERT INTO outbox (id, kind, person_id, recipient, locale, data, state, attempts, created_at, next_attempt_at)
             VALUES ({id}, '{kind}', NULL, 'ada@example.com', NULL, '{data}', 'pending', 0, 1, 1)"
        ))
        .await;
    }
    let newest = app.ambient.now().millis();
    app.sql(&format!("UPDATE outbox SET created_at = {newest}")).await;
    app.anonymous().post("/register", json!({"email": "alice@example.com", "password": PASSWORD})).await.is(201);
    app.mail_to("verify_address", "alice@example.com").await;
    assert_eq!(app.text("SELECT state FROM outbox WHERE kind = 'hologram'").await, "pending", "a newer node takes it");
    app.pass(Duration::from_secs(25 * 60 * 60));
    app.deliver().await;
    assert_eq!(app.text("SELECT state FROM outbox WHERE kind = 'hologram'").await, "dead");
}

async fn a_change_of_address_by_somebody_who_changed_since_mails_nothing(stack: Stack) {
    let app = stack.app().await;
    for change in ["status = 'disabled'", "epoch = epoch + 1", "deleted_at = 1"] {
        let name = change.split(' ').next().unwrap();
        let alice = app.person(name).await;
        let new = format!("{name}@example.org");
        let body = json!({"new_email": new, "password": PASSWORD});
        alice.client.bearer(&alice.access).post("/me/email", body).await.is(202);
        app.sql(&format!("UPDATE users SET {change} WHERE username = '{name}'")).await;
        app.deliver().await;
        assert!(app.mails_to("change_address", &new).is_empty(), "{change}");
    }
}

async fn a_registration_that_was_completed_is_not_told_that_it_exists(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_EMAIL_VERIFICATION", "required")]).await;
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    let flow = app.anonymous().post("/register", body).await.is(202).text("/verification/flow_id");
    let code = app.mail_to("confirm_registration", "alice@example.com").await.code().unwrap();
    app.anonymous().post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);
    // As if nobody had seen the mail server's answer: the row comes up again, with its facts.
    let data = format!(r#"{{"flow": "{flow}", "client": "127.0.0.1", "registration": "{}"}}"#, Uuid::from_u128(7));
    app.sql(&format!("UPDATE outbox SET state = 'pending', data = '{data}', finished_at = NULL")).await;
    app.pass(Duration::from_secs(60));
    app.deliver().await;
    assert!(app.mails_to("account_exists", "alice@example.com").is_empty());
}

async fn a_warning_to_the_old_address_survives_another_change(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let id = app.id(alice.id);
    for (number, to) in [(1u128, "alice@example.com"), (2, "thief@example.org")] {
        let (row, at) = (app.id(Uuid::from_u128(number)), app.ambient.now().millis() + i64::try_from(number).unwrap());
        app.sql(&format!(
            "INSERT INTO outbox (id, kind, person_id, recipient, locale, data, state, attempts, created_at, next_attempt_at)
             VALUES ({row}, 'address_changed', {id}, '{to}', NULL, '{{}}', 'pending', 0, {at}, 1)"
        ))
        .await;
    }
    app.mail_to("address_changed", "alice@example.com").await;
    app.mail_to("address_changed", "thief@example.org").await;
}

/// In real time, with the real worker: the mail server takes the first mail and thinks about it for ever.
async fn one_slow_recipient_holds_up_nobody(stack: Stack) {
    let sink = Sink::start().await;
    let url = sink.url();
    let app = stack.app_with(&[("SMTP_URL", &url)]).await;
    let worker = tokio::spawn(latchkey::verification::courier::run(app.app.clone()));
    sink.set(Mood::TarPit(Duration::from_secs(60)));
    app.anonymous().post("/password/forgot", json!({"email": "nobody@example.com"})).await.is(202);
    app.anonymous().post("/register", json!({"email": "slow@example.com", "password": PASSWORD})).await.is(201);
    tokio::time::timeout(Duration::from_secs(20), async {
        while sink.connections() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the worker connects");
    sink.set(Mood::Accept);
    app.anonymous().post("/register", json!({"email": "quick@example.com", "password": PASSWORD})).await.is(201);
    tokio::time::timeout(Duration::from_secs(8), sink.wait_for(1)).await.expect("the other mail does not wait");
    assert_eq!(sink.mails()[0].to, ["quick@example.com"]);
    app.begin_stop();
    worker.abort();
}
