//! Registering where addresses must be verified: nobody is told who is here, and nothing is held for who does not prove.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    budgets::spent,
    on_stacks,
    support::{PASSWORD, Reply, Stack, StackKind, Test, TestApp, alike, refused, scale},
};

const MODE: (&str, &str) = ("LATCHKEY_EMAIL_VERIFICATION", "required");
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        the_answer_is_alike_for_a_new_and_a_taken_address,
        asking_for_a_code_costs_the_same_whoever_is_asked_for,
        whoever_has_the_address_is_told_once_a_day_and_nobody_else,
        of_several_who_wait_the_first_who_proves_is_the_person,
        registrations_that_are_proved_at_once_make_one_person,
        who_waits_holds_neither_address_nor_name,
        who_waits_is_unknown_at_a_login,
        an_unproved_person_is_told_so_with_the_right_password_only,
        a_registration_waits_for_a_day,
        who_may_not_register_leaves_nothing,
    ]
}

fn wanted(name: &str) -> Value {
    json!({"email": format!("{name}@example.com"), "password": PASSWORD})
}

/// A person, registered and proved in this mode.
async fn person(app: &TestApp, name: &str) {
    let mut body = wanted(name);
    body["username"] = name.into();
    let coded = app.registration_code(body).await;
    app.anonymous().post("/email/verify", coded.body()).await.is(204);
    app.pass(MINUTE);
}

/// The answer without the one thing that may differ.
fn without_flow(reply: Reply, pointer: &str) -> Reply {
    let mut body = reply.json();
    assert_eq!(body.pointer(pointer).and_then(Value::as_str).map(str::len), Some(27));
    *body.pointer_mut(pointer).unwrap() = "…".into();
    Reply { body: body.to_string().into_bytes(), ..reply }
}

async fn the_answer_is_alike_for_a_new_and_a_taken_address(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    person(&app, "taken").await;
    let client = app.anonymous().with("x-request-id", "same");
    let mut replies = Vec::new();
    for name in ["new", "taken", "new"] {
        let reply = client.post("/register", wanted(name)).await.is(202);
        assert_eq!(reply.text("/status"), "accepted");
        assert_eq!(reply.json()["verification"]["expires_in"], 600);
        replies.push((name.to_owned(), without_flow(reply, "/verification/flow_id")));
        app.deliver().await;
    }
    alike(&replies);
    for path in ["/email/verify/resend", "/password/forgot"] {
        let mut replies = Vec::new();
        for name in ["new", "taken", "unknown"] {
            let reply = client.post(path, json!({"email": format!("{name}@example.com")})).await.is(202);
            replies.push((name.to_owned(), without_flow(reply, "/flow_id")));
        }
        alike(&replies);
    }
}

async fn asking_for_a_code_costs_the_same_whoever_is_asked_for(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    for name in ["verified", "unverified", "disabled", "passwordless", "deleted"] {
        person(&app, name).await;
    }
    app.sql("UPDATE users SET email_verified = FALSE WHERE username = 'unverified'").await;
    app.sql("UPDATE users SET status = 'disabled' WHERE username = 'disabled'").await;
    app.sql("UPDATE users SET password_hash = NULL WHERE username = 'passwordless'").await;
    app.sql("UPDATE users SET deleted_at = 1 WHERE username = 'deleted'").await;
    let client = app.anonymous();
    client.post("/register", wanted("waiting")).await.is(202);
    for name in ["verified", "unverified", "disabled", "passwordless", "deleted", "waiting", "unknown"] {
        let email = json!({"email": format!("{name}@example.com")});
        for path in ["/email/verify/resend", "/password/forgot"] {
            let (cost, reply) = spent(&app, client.post(path, email.clone())).await;
            assert_eq!((cost, reply.status), ((1, 1, 0), 202), "{path} for {name}: the row of a mail");
        }
        let mut body = wanted(name);
        let (cost, reply) = spent(&app, client.post("/register", body.clone())).await;
        assert_eq!((cost, reply.status), ((2, 1, 0), 202), "{name}: the registration and the row of its mail");
        body["username"] = "nobodys".into();
        let (cost, reply) = spent(&app, client.post("/register", body)).await;
        assert_eq!((cost, reply.status), ((3, 1, 0), 202), "{name}: and whether somebody is called so");
    }
}

async fn whoever_has_the_address_is_told_once_a_day_and_nobody_else(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    person(&app, "alice").await;
    let before = app.all_mails_to("alice@example.com");
    for (wait, told) in [(MINUTE, 1), (MINUTE, 1), (DAY - 61 * SECOND, 1), (SECOND, 2), (MINUTE, 2)] {
        app.pass(wait);
        app.anonymous().post("/register", wanted("alice")).await.is(202);
        app.deliver().await;
        assert_eq!(app.mails_to("account_exists", "alice@example.com").len(), told, "after {wait:?} more");
    }
    assert_eq!(app.all_mails_to("alice@example.com"), before + 2, "and nothing else was mailed");
    let told = app.mail_to("account_exists", "alice@example.com").await;
    assert!(told.code().is_none() && told.link().is_none());
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 1);
}

async fn of_several_who_wait_the_first_who_proves_is_the_person(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    let mut coded = Vec::new();
    for number in 0..3 {
        let body = json!({"email": "alice@example.com", "username": format!("name{number}"),
            "password": format!("password number {number}")});
        coded.push(app.registration_code(body).await);
        app.pass(MINUTE);
    }
    let client = app.anonymous();
    assert_eq!(app.number("SELECT COUNT(*) FROM pending_registrations").await, 3);
    refused(&client, "/email/verify", coded[1].with_code_of(&coded[0]).body()).await;
    refused(&client, "/email/verify", coded[0].with_code_of(&coded[1]).body()).await;
    client.post("/email/verify", coded[1].body()).await.is(204);
    for late in [&coded[0], &coded[2], &coded[1]] {
        refused(&client, "/email/verify", late.body()).await;
    }
    for (number, status) in [(0, 401), (1, 200), (2, 401)] {
        let reply = client.login("alice@example.com", &format!("password number {number}")).await;
        assert_eq!(reply.status, status, "password {number}");
    }
    assert_eq!(app.text("SELECT username FROM users").await, "name1");
    assert_eq!((app.events("registered").await, app.events("address_verified").await), (1, 1));
}

async fn registrations_that_are_proved_at_once_make_one_person(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    for round in 0..5 * scale::races() {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(app.registration_code(wanted(&format!("race{round}"))).await);
            app.pass(MINUTE);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for coded in all {
            let client = app.anonymous();
            tasks.spawn(async move { client.post("/email/verify", coded.body()).await.status });
        }
        let mut statuses = tasks.join_all().await;
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 400, 400]);
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, i64::try_from(5 * scale::races()).unwrap());
}

async fn who_waits_holds_neither_address_nor_name(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    let client = app.anonymous();
    let mut first = wanted("first");
    first["username"] = "Alice".into();
    first["display_name"] = "Alice the First".into();
    first["locale"] = "de".into();
    let mut second = wanted("second");
    second["username"] = "alice".into();
    let first = app.registration_code(first).await;
    let second = app.registration_code(second).await;
    client.post("/email/verify", second.body()).await.is(204);
    client.post("/email/verify", first.body()).await.is(204);
    let tokens = client.login("first@example.com", PASSWORD).await.is(200);
    let me = client.bearer(&tokens.text("/access_token")).get("/me").await.is(200).json();
    assert_eq!((&me["username"], &me["display_name"]), (&json!(null), &json!("Alice the First")));
    assert_eq!(me["email_verified"], true);
    assert_eq!(app.text("SELECT locale FROM users WHERE email = 'first@example.com'").await, "de");
    let me = json!({"username": "alice", "password": PASSWORD});
    client.post("/login", me).await.is(200);

    // Now it is a real person's, and may be told: others see usernames anyhow.
    let rows = app.number("SELECT COUNT(*) FROM outbox").await;
    let mut third = wanted("third");
    third["username"] = "ALICE".into();
    client.post("/register", third).await.is_problem(409, "username_taken");
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox").await, rows);
    assert_eq!(app.number("SELECT COUNT(*) FROM pending_registrations").await, 0);
}

async fn who_waits_is_unknown_at_a_login(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    let client = app.anonymous().with("x-request-id", "same");
    let mut body = wanted("waiting");
    body["username"] = "waiting".into();
    app.registration_code(body).await;
    let mut replies = Vec::new();
    for name in ["waiting", "unknown"] {
        for login in [json!({"email": format!("{name}@example.com")}), json!({"username": name})] {
            let mut body = login;
            body["password"] = PASSWORD.into();
            let (cost, reply) = spent(&app, client.post("/login", body)).await;
            assert_eq!(cost, (1, 0, 0), "{name}");
            replies.push((name.to_owned(), reply.is_problem(401, "invalid_credentials")));
        }
    }
    alike(&replies);
}

async fn an_unproved_person_is_told_so_with_the_right_password_only(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    person(&app, "alice").await;
    app.sql("UPDATE users SET email_verified = FALSE").await;
    let client = app.anonymous();
    client.login("alice@example.com", PASSWORD).await.is_problem(403, "email_not_verified");
    client.login("alice@example.com", "wrong password").await.is_problem(401, "invalid_credentials");
    assert_eq!(app.events("signed_in").await, 0);
    app.sql("UPDATE users SET status = 'disabled'").await;
    client.login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    app.sql("UPDATE users SET status = 'active'").await;
    let coded = app.verify_code("alice@example.com").await;
    client.post("/email/verify", coded.body()).await.is(204);
    client.login("alice@example.com", PASSWORD).await.is(200);
}

async fn a_registration_waits_for_a_day(stack: Stack) {
    let app = stack.app_with(&[MODE]).await;
    let client = app.anonymous();
    let mut flows = Vec::new();
    for name in ["early", "late", "later"] {
        flows.push(client.post("/register", wanted(name)).await.is(202).text("/verification/flow_id"));
    }
    // The mails were held up; until the last moment they carry a code.
    app.sql("UPDATE outbox SET next_attempt_at = next_attempt_at + 86400000 WHERE recipient = 'later@example.com'")
        .await;
    app.pass(DAY - SECOND);
    let verify = async |number: usize, name: &str| {
        let code = app.mail_to("confirm_registration", &format!("{name}@example.com")).await.code().unwrap();
        client.post("/email/verify", json!({"flow_id": flows[number], "code": code})).await
    };
    verify(0, "early").await.is(204);
    app.sweep().await;
    assert_eq!(app.number("SELECT COUNT(*) FROM pending_registrations").await, 2);
    app.deliver().await;
    app.pass(SECOND);
    verify(1, "late").await.is_problem(400, "invalid_code");
    assert!(app.mails_to("confirm_registration", "later@example.com").is_empty(), "there is nothing to prove any more");
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE state = 'dropped'").await, 1);
    app.sweep().await;
    assert_eq!(app.number("SELECT COUNT(*) FROM pending_registrations").await, 0);
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 1);
}

async fn who_may_not_register_leaves_nothing(stack: Stack) {
    let app = stack.app_with(&[MODE, ("LATCHKEY_REGISTRATION_DOMAINS", "example.org")]).await;
    let client = app.anonymous();
    client.post("/register", wanted("alice")).await.is_problem(403, "registration_closed");
    let mut weak = wanted("alice");
    weak["password"] = "short".into();
    client.post("/register", weak).await.is_problem(422, "weak_password");
    assert_eq!(app.number("SELECT COUNT(*) FROM pending_registrations").await, 0);
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox").await, 0);
    let body = json!({"email": "alice@example.org", "password": PASSWORD});
    client.post("/register", body).await.is(202);
    let dir = stack.dir.path().join("other").display().to_string();
    let closed = stack.app_with(&[MODE, ("LATCHKEY_REGISTRATION", "closed"), ("LATCHKEY_DATA_DIR", &dir)]).await;
    let rows = closed.number("SELECT COUNT(*) FROM pending_registrations").await;
    closed.anonymous().post("/register", wanted("bob")).await.is_problem(403, "registration_closed");
    assert_eq!(closed.number("SELECT COUNT(*) FROM pending_registrations").await, rows);
}
