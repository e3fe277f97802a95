//! What a code is good for, and everything it is not: `security.md` §4.

use std::time::Duration;

use axum::http::Method;
use latchkey::verification::FlowId;
use serde_json::{Value, json};

use crate::{
    on_stacks,
    support::{Coded, PASSWORD, Stack, StackKind, Test, TestApp, alike, json_body, refused, scale},
};

const NEW: &str = "a staple for the horse";

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        spaces_and_hyphens_in_a_code_do_not_matter,
        of_many_who_send_the_right_code_at_once_one_is_served,
        the_sixth_try_is_not_judged,
        parallel_guesses_are_all_counted,
        a_code_dies_ten_minutes_after_its_mail,
        every_refusal_of_a_code_is_the_same_bytes,
        a_code_is_good_for_its_own_purpose_only,
        what_ends_the_sessions_kills_the_codes,
        a_disabled_persons_codes_do_nothing,
        bodies_of_a_wrong_shape_cost_no_try,
        a_weak_new_password_costs_no_try,
        a_busy_server_costs_no_try,
    ]
}

async fn spaces_and_hyphens_in_a_code_do_not_matter(stack: Stack) {
    let app = stack.app().await;
    for (number, spelling) in ["A B", "A-B", "  A - B\u{a0}"].into_iter().enumerate() {
        let alice = app.person(&format!("alice{number}")).await;
        let coded = app.verify_code(&alice.email).await;
        let code = spelling.replace('A', &coded.code[..3]).replace('B', &coded.code[3..]);
        app.anonymous().post("/email/verify", Coded { code, ..coded }.body()).await.is(204);
    }
}

/// One node, or two of the same stores.
async fn nodes(stack: &Stack) -> Vec<TestApp> {
    let settings = [("LATCHKEY_HASH_QUEUE", "1000")];
    let mut nodes = vec![stack.app_with(&settings).await];
    if stack.kind != StackKind::Embedded {
        nodes.push(stack.app_with(&settings).await);
    }
    nodes
}

/// The sorted statuses of this request, sent to all nodes at once again and again.
async fn race(nodes: &[TestApp], now: &TestApp, path: &'static str, body: impl Fn(usize) -> Value) -> Vec<u16> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..scale::race() {
        let node = &nodes[number % nodes.len()];
        node.clock.store(now.ambient.now().millis(), std::sync::atomic::Ordering::SeqCst);
        let (client, body) = (node.anonymous(), body(number));
        tasks.spawn(async move { client.post(path, body).await.status });
    }
    let mut statuses = tasks.join_all().await;
    statuses.sort_unstable();
    statuses
}

async fn of_many_who_send_the_right_code_at_once_one_is_served(stack: Stack) {
    let nodes = nodes(&stack).await;
    let app = &nodes[0];
    let mut expected = vec![400; scale::race()];
    expected[0] = 204;
    for round in 0..scale::races() {
        let alice = app.person(&format!("alice{round}")).await;
        let verify = app.verify_code(&alice.email).await;
        assert_eq!(race(&nodes, app, "/email/verify", |_| verify.body()).await, expected);
        let change = app.change_code(&alice, &format!("alice{round}@example.org")).await;
        assert_eq!(race(&nodes, app, "/me/email/confirm", |_| change.body()).await, expected);
        let reset = app.reset_code(&format!("alice{round}@example.org")).await;
        let password = |number| format!("the password of number {number}");
        assert_eq!(race(&nodes, app, "/password/reset", |number| reset.reset(&password(number))).await, expected);
    }
    let rounds = i64::try_from(scale::races()).unwrap();
    for kind in ["address_verified", "address_changed", "password_reset"] {
        assert_eq!(app.events(kind).await, rounds, "{kind}");
    }
}

async fn the_sixth_try_is_not_judged(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let client = app.anonymous();
    for (email, wrong, status) in [(&alice.email, 4, 204), (&bob.email, 5, 400)] {
        let coded = app.verify_code(email).await;
        for number in 0..wrong {
            refused(&client, "/email/verify", coded.wrong(number).body()).await;
        }
        assert_eq!(client.post("/email/verify", coded.body()).await.status, status, "after {wrong} wrong ones");
        refused(&client, "/email/verify", coded.body()).await;
    }
}

async fn parallel_guesses_are_all_counted(stack: Stack) {
    let nodes = nodes(&stack).await;
    let app = &nodes[0];
    for round in 0..4 {
        let alice = app.person(&format!("alice{round}")).await;
        let coded = app.verify_code(&alice.email).await;
        // Five at once count as five; of forty, five that were answered are the five that were judged.
        let guesses = if round < 2 { 5 } else { 40 };
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..guesses {
            let node = &nodes[number as usize % nodes.len()];
            node.clock.store(app.ambient.now().millis(), std::sync::atomic::Ordering::SeqCst);
            let (client, body) = (node.anonymous(), coded.wrong(number).body());
            tasks.spawn(async move { client.post("/email/verify", body).await.is_problem(400, "invalid_code") });
        }
        for _ in 0..5 {
            tasks.join_next().await.unwrap().unwrap();
        }
        refused(&app.anonymous(), "/email/verify", coded.body()).await;
        tasks.join_all().await;
        refused(&app.anonymous(), "/email/verify", coded.body()).await;
    }
}

async fn a_code_dies_ten_minutes_after_its_mail(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    for (name, seconds, status) in [("alice", 599, 204), ("bob", 600, 400)] {
        app.person(name).await;
        app.deliver().await;
        app.pass(Duration::from_secs(60));
        let email = format!("{name}@example.com");
        let flow = client.post("/password/forgot", json!({"email": email})).await.is(202).text("/flow_id");
        // The mail was late; the ten minutes count from its acceptance.
        app.pass(Duration::from_secs(3600));
        let code = app.mail_to("reset_password", &email).await.code().unwrap();
        app.pass(Duration::from_secs(seconds));
        let reply = client.post("/password/reset", Coded { flow, code }.reset(NEW)).await;
        assert_eq!(reply.status, status, "after {seconds} s");
    }
}

async fn every_refusal_of_a_code_is_the_same_bytes(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let client = app.anonymous().with("x-request-id", "same");
    let verify = "/email/verify";
    let mut replies = Vec::new();

    let spent = app.verify_code(&alice.email).await;
    for number in 0..5 {
        replies.push(refused(&client, verify, spent.wrong(number).body()).await);
    }
    replies.push(refused(&client, verify, spent.body()).await);
    app.pass(Duration::from_secs(11 * 60));
    let first = app.verify_code(&alice.email).await;
    let second = app.verify_code(&alice.email).await;
    let others = app.verify_code(&bob.email).await;
    for coded in [first.with_code_of(&second), second.with_code_of(&first), first.with_code_of(&others)] {
        replies.push(refused(&client, verify, coded.body()).await);
    }
    client.post(verify, first.body()).await.is(204);
    replies.push(refused(&client, verify, first.body()).await);
    app.pass(Duration::from_secs(600));
    replies.push(refused(&client, verify, others.body()).await);

    let unknown = FlowId::draw("nobody@example.com", &app.secrets, &app.ambient).to_string();
    let long = "x".repeat(4000);
    for flow in [&*unknown, "", "x", "\u{0}", &first.flow[1..], &format!("{}=", first.flow), &long, "ß", "../../etc"] {
        replies.push(refused(&client, verify, json!({"flow_id": flow, "code": "12345678"})).await);
    }
    for code in ["", "1234567", "123456789", "abcdefgh", "１２３４５６７８", "12345678\n", "\u{0}", "1234+678", &long]
    {
        replies.push(refused(&client, verify, json!({"flow_id": second.flow, "code": code})).await);
    }
    replies.push(refused(&client, "/password/reset", second.reset(NEW)).await);
    replies.push(refused(&client, "/me/email/confirm", second.body()).await);
    alike(&replies);
}

async fn a_code_is_good_for_its_own_purpose_only(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let verify = app.verify_code(&alice.email).await;
    let reset = app.reset_code(&alice.email).await;
    let change = app.change_code(&alice, "alice@example.org").await;
    let client = app.anonymous();
    for (coded, own) in [(&verify, "/email/verify"), (&reset, "/password/reset"), (&change, "/me/email/confirm")] {
        for path in ["/email/verify", "/password/reset", "/me/email/confirm"].into_iter().filter(|path| *path != own) {
            let body = if path == "/password/reset" { coded.reset(NEW) } else { coded.body() };
            refused(&client, path, body).await;
        }
    }
    for (one, other) in [(&verify, &reset), (&reset, &change), (&change, &verify)] {
        refused(&client, "/email/verify", one.with_code_of(other).body()).await;
    }
    // Three tries each, and they are as good as ever for what they are for.
    client.post("/email/verify", verify.body()).await.is(204);
    client.bearer(&alice.access).post("/me/email/confirm", change.body()).await.is(204);
    alice.email = "alice@example.org".into();
    // The new address is another epoch: the reset that was asked for before it is over.
    refused(&client, "/password/reset", reset.reset(NEW)).await;
    assert!(alice.is_signed_in().await);
}

async fn what_ends_the_sessions_kills_the_codes(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous().with("x-request-id", "same");
    let mut replies = Vec::new();
    for act in ["nothing", "password", "reset", "address", "disabled", "everywhere", "deleted"] {
        let alice = app.person(act).await;
        let bearer = alice.client.bearer(&alice.access).with("content-type", "application/json");
        let verify = app.verify_code(&alice.email).await;
        let reset = app.reset_code(&alice.email).await;
        let change = app.change_code(&alice, &format!("{act}@example.org")).await;
        match act {
            "password" => {
                let body = json_body(&json!({"current_password": PASSWORD, "new_password": NEW}));
                bearer.send(Method::PUT, "/me/password", body).await.is(204);
            }
            "reset" => {
                let other = app.reset_code(&alice.email).await;
                client.post("/password/reset", other.reset(NEW)).await.is(204);
            }
            "address" => {
                let other = app.change_code(&alice, &format!("{act}@example.net")).await;
                bearer.post("/me/email/confirm", other.body()).await.is(204);
            }
            "disabled" => {
                let sql = "UPDATE users SET status = 'disabled', epoch = epoch + 1 WHERE username = 'disabled'";
                app.sql(sql).await;
                app.sql("UPDATE users SET status = 'active' WHERE username = 'disabled'").await;
            }
            "everywhere" => {
                let body = json!({"refresh_token": alice.refresh, "all": true});
                client.post("/logout", body).await.is(204);
            }
            "deleted" => {
                bearer.send(Method::DELETE, "/me", json_body(&json!({"password": PASSWORD}))).await.is(204);
            }
            _ => {
                client.post("/email/verify", verify.body()).await.is(204);
                client.post("/me/email/confirm", change.body()).await.is(204);
                continue;
            }
        }
        replies.push(refused(&client, "/email/verify", verify.body()).await);
        replies.push(refused(&client, "/password/reset", reset.reset("yet another password")).await);
        replies.push(refused(&client, "/me/email/confirm", change.body()).await);
    }
    alike(&replies);
    assert_eq!(app.events("address_verified").await, 1 + 1, "by the code, and by the reset");
}

async fn a_disabled_persons_codes_do_nothing(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let verify = app.verify_code(&alice.email).await;
    let reset = app.reset_code(&alice.email).await;
    let change = app.change_code(&alice, "alice@example.org").await;
    for sql in ["status = 'disabled'", "status = 'active', deleted_at = 1"] {
        app.sql(&format!("UPDATE users SET {sql}")).await;
        refused(&app.anonymous(), "/email/verify", verify.body()).await;
        refused(&app.anonymous(), "/password/reset", reset.reset(NEW)).await;
        refused(&app.anonymous(), "/me/email/confirm", change.body()).await;
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE email_verified OR epoch > 0").await, 0);
}

async fn bodies_of_a_wrong_shape_cost_no_try(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let reset = app.reset_code(&alice.email).await;
    let client = app.anonymous();
    for _ in 0..6 {
        let code: u64 = reset.code.parse().unwrap();
        let body = json!({"flow_id": reset.flow, "code": code, "new_password": null});
        let reply = client.post("/password/reset", body).await.is_problem(422, "invalid_body");
        assert_eq!(reply.reasons(), ["code:wrong_type", "new_password:missing"]);
        let mut body = reset.reset(NEW);
        body["email"] = json!(alice.email);
        let reply = client.post("/password/reset", body).await.is_problem(422, "unknown_field");
        assert_eq!(reply.reasons(), ["email:unknown_field"]);
    }
    client.post("/password/reset", reset.reset(NEW)).await.is(204);
    for path in ["/email/verify", "/me/email/confirm"] {
        let reply = client.post(path, json!({"flow_id": [], "code": {}})).await.is_problem(422, "invalid_body");
        assert_eq!(reply.reasons(), ["flow_id:wrong_type", "code:wrong_type"]);
        client.post(path, reset.reset(NEW)).await.is_problem(422, "unknown_field");
        client.post(path, json!({})).await.is_problem(422, "invalid_body");
    }
    for path in ["/password/forgot", "/email/verify/resend"] {
        client.post(path, json!({"email": 1})).await.is_problem(422, "invalid_body");
        client.post(path, json!({"email": "a@b.de", "user": 1})).await.is_problem(422, "unknown_field");
        let reply = client.post(path, json!({"email": "alice@"})).await.is_problem(422, "invalid_email");
        assert_eq!(reply.reasons(), ["email:invalid_email"]);
    }
}

async fn a_weak_new_password_costs_no_try(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.verify(&alice.email).await;
    let coded = app.reset_code(&alice.email).await;
    let client = app.anonymous();
    for number in 0..6 {
        let reply = client.post("/password/reset", coded.wrong(number).reset("short")).await;
        assert_eq!(reply.is_problem(422, "weak_password").reasons(), ["new_password:too_short"]);
        // With the right code only, it is said that this is the person's own name.
        let reply = client.post("/password/reset", coded.reset("xAlicex1")).await.is_problem(422, "weak_password");
        assert_eq!(reply.reasons(), ["new_password:personal"]);
    }
    refused(&client, "/password/reset", coded.wrong(1).reset("xAlicex1")).await;
    client.post("/password/reset", coded.reset(NEW)).await.is(204);
}

async fn a_busy_server_costs_no_try(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await;
    let alice = app.person("alice").await;
    let coded = app.reset_code(&alice.email).await;
    let (release, holder) = app.hold_hashing().await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..6 {
        let (client, body) =
            (app.anonymous(), if number == 0 { coded.clone() } else { coded.wrong(number) }.reset(NEW));
        waiting.spawn(async move { client.post("/password/reset", body).await });
    }
    for reply in waiting.join_all().await {
        reply.is_problem(503, "busy");
    }
    release.send(()).unwrap();
    holder.await.unwrap();
    app.anonymous().post("/password/reset", coded.reset(NEW)).await.is(204);
}
