//! `POST /register`.

use serde_json::{Value, json};

use crate::{
    on_stacks,
    support::{PASSWORD, Stack, StackKind, Test, scale},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        registering_makes_a_person_and_tells_no_secret,
        an_address_is_taken_however_it_is_spelled,
        a_username_is_taken_however_it_is_spelled,
        the_address_is_told_before_the_name,
        addresses_that_mail_cannot_go_to_are_refused,
        bad_names_are_refused_and_all_faults_told_at_once,
        weak_passwords_are_refused_with_every_reason,
        a_body_of_the_wrong_shape_names_each_field,
        closed_registration_refuses_and_writes_nothing,
        only_listed_domains_may_register,
        registrations_of_one_address_at_once_make_one_account,
        registrations_of_one_username_at_once_make_one_account,
        a_deleted_persons_address_is_free_again,
    ]
}

fn alice() -> Value {
    json!({"email": "alice@example.com", "password": PASSWORD})
}

async fn registering_makes_a_person_and_tells_no_secret(stack: Stack) {
    let app = stack.app().await;
    let body = json!({"email": "Alice@Bücher.Example", "password": PASSWORD, "username": "Alice_L",
        "display_name": "Alice Liddell", "locale": "de-AT"});
    let reply = app.anonymous().post("/register", body).await.is(201);
    assert_eq!(reply.header("location"), "/me");
    let mut answer = reply.json();
    let id: uuid::Uuid = answer["user"]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    answer["user"]["id"] = "…".into();
    let flow = answer["verification"]["flow_id"].take();
    assert_eq!(flow.as_str().map(str::len), Some(27));
    assert_eq!(
        answer,
        json!({"verification": {"flow_id": null, "expires_in": 600}, "user": {
            "id": "…", "email": "alice@xn--bcher-kva.example", "email_verified": false, "username": "Alice_L",
            "display_name": "Alice Liddell", "roles": [], "status": "active",
            "created_at": "2026-11-22T10:56:00.000Z", "updated_at": "2026-11-22T10:56:00.000Z", "last_login_at": null,
        }})
    );
    assert!(app.text("SELECT password_hash FROM users").await.starts_with("$argon2id$v=19$m=7168,t=1,p=1$"));
    assert_eq!(app.text("SELECT locale FROM users").await, "de-AT");
    assert_eq!(app.events("registered").await, 1);
}

async fn an_address_is_taken_however_it_is_spelled(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    client.post("/register", json!({"email": "alice@bücher.example", "password": PASSWORD})).await.is(201);
    for spelling in
        ["alice@bücher.example", "ALICE@BÜCHER.example", "alice@xn--bcher-kva.example", "Alice@ｂücher。example"]
    {
        let body = json!({"email": spelling, "password": PASSWORD});
        client.post("/register", body).await.is_problem(409, "email_taken");
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 1);
    assert_eq!(app.events("registered").await, 1, "a refusal is no event");
}

async fn a_username_is_taken_however_it_is_spelled(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let body = json!({"email": "other@example.com", "password": PASSWORD, "username": "ALICE"});
    app.anonymous().post("/register", body).await.is_problem(409, "username_taken");
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 1);
}

async fn the_address_is_told_before_the_name(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let body = json!({"email": "alice@example.com", "password": PASSWORD, "username": "alice"});
    app.anonymous().post("/register", body).await.is_problem(409, "email_taken");
}

async fn addresses_that_mail_cannot_go_to_are_refused(stack: Stack) {
    let app = stack.app().await;
    for email in [
        "",
        "alice",
        "@example.com",
        "alice@",
        "a@b@c.de",
        "\"alice\"@example.com",
        "alice@[127.0.0.1]",
        "alice@127.0.0.1",
        "alice@example.com\n",
        "alice\u{0}@example.com",
        "alice@exa\u{0}mple.com",
        "\u{202e}alice@example.com",
        "аlice@example.com",
        "alice@-example.com",
        "alice@exa_mple.com",
        "alice@example.com.",
    ] {
        let reply = app.anonymous().post("/register", json!({"email": email, "password": PASSWORD})).await;
        assert_eq!(reply.is_problem(422, "invalid_email").reasons(), ["email:invalid_email"], "{email:?}");
    }
    let long = format!("{}@{}.example.com", "a".repeat(64), ["b".repeat(60), "c".repeat(60), "d".repeat(60)].join("."));
    app.anonymous()
        .post("/register", json!({"email": long, "password": PASSWORD}))
        .await
        .is_problem(422, "invalid_email");
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 0);
}

async fn bad_names_are_refused_and_all_faults_told_at_once(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    let body = json!({"email": "alice@example.com", "password": PASSWORD, "username": "admin"});
    client.post("/register", body).await.is_problem(422, "invalid_username");
    let body = json!({"email": "alice@example.com", "password": PASSWORD, "display_name": "a\r\nBcc: x"});
    client.post("/register", body).await.is_problem(422, "invalid_display_name");
    let body = json!({"email": "alice@example.com", "password": PASSWORD, "locale": "../../etc"});
    client.post("/register", body).await.is_problem(422, "invalid_locale");

    let body = json!({"email": "alice", "password": "short", "username": "a\u{0}b", "display_name": "\u{0}", "locale": "\u{0}"});
    let reply = client.post("/register", body).await.is_problem(422, "invalid_email");
    assert_eq!(
        reply.reasons(),
        [
            "email:invalid_email",
            "username:invalid_username",
            "display_name:invalid_display_name",
            "locale:invalid_locale",
            "password:too_short"
        ]
    );
}

async fn weak_passwords_are_refused_with_every_reason(stack: Stack) {
    let app = stack.app().await;
    for (password, reasons) in [
        ("xq7-pl2", &["password:too_short"][..]),
        ("password1", &["password:too_common"]),
        ("Latchkey!", &["password:personal"]),
        ("alice", &["password:too_short", "password:personal"]),
        ("with\u{0}nul-inside", &["password:forbidden_character"]),
        ("with\nline-inside", &["password:forbidden_character"]),
    ] {
        let body = json!({"email": "alice@example.com", "password": password});
        let reply = app.anonymous().post("/register", body).await.is_problem(422, "weak_password");
        assert_eq!(reply.reasons(), reasons, "{password:?}");
    }
    for length in [129, 4 * 1024, 15 * 1024] {
        let body = json!({"email": "alice@example.com", "password": "x".repeat(length)});
        let reply = app.anonymous().post("/register", body).await.is_problem(422, "weak_password");
        assert_eq!(reply.reasons(), ["password:too_long"], "{length}");
    }
    let longer =
        stack.app_with(&[("LATCHKEY_PASSWORD_MIN_LENGTH", "15"), ("LATCHKEY_DATA_DIR", &other_dir(&stack))]).await;
    let body = json!({"email": "bob@example.com", "password": "fourteen chars"});
    longer.anonymous().post("/register", body).await.is_problem(422, "weak_password");
}

/// A folder beside the stack's own: the embedded database takes one server.
fn other_dir(stack: &Stack) -> String {
    stack.dir.path().join("other").display().to_string()
}

async fn a_body_of_the_wrong_shape_names_each_field(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    let reply = client
        .post("/register", json!({"email": ["a@b.de"], "password": 12_345_678}))
        .await
        .is_problem(422, "invalid_body");
    assert_eq!(reply.reasons(), ["email:wrong_type", "password:wrong_type"]);
    let reply = client.post("/register", json!({})).await.is_problem(422, "invalid_body");
    assert_eq!(reply.reasons(), ["email:missing", "password:missing"]);
    let reply =
        client.post("/register", json!({"email": null, "password": null})).await.is_problem(422, "invalid_body");
    assert_eq!(reply.reasons(), ["email:missing", "password:missing"]);
    for body in [json!([]), json!("x"), json!(1), json!(null)] {
        client.post("/register", body).await.is_problem(422, "invalid_body");
    }
    let mut body = alice();
    body["roles"] = json!(["admin"]);
    body["surprise<script>"] = json!(1);
    let reply = client.post("/register", body).await.is_problem(422, "unknown_field");
    assert_eq!(reply.reasons(), ["roles:unknown_field", "(unknown):unknown_field"], "a client's words are not echoed");
    let body = json!({"email": "alice@example.com", "password": PASSWORD, "username": null, "display_name": null});
    client.post("/register", body).await.is(201);
}

async fn closed_registration_refuses_and_writes_nothing(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REGISTRATION", "closed")]).await;
    app.anonymous().post("/register", alice()).await.is_problem(403, "registration_closed");
    app.anonymous().post("/register", json!({"email": "x"})).await.is_problem(422, "invalid_body");
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 0);
}

async fn only_listed_domains_may_register(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REGISTRATION_DOMAINS", "Bücher.example, example.org")]).await;
    let register =
        async |email: &str| app.anonymous().post("/register", json!({"email": email, "password": PASSWORD})).await;
    register("alice@xn--bcher-kva.example").await.is(201);
    register("alice@EXAMPLE.org").await.is(201);
    for email in ["alice@example.com", "alice@sub.example.org", "alice@example.org.evil.com", "example.org@evil.com"] {
        register(email).await.is_problem(403, "registration_closed");
    }
}

async fn registrations_of_one_address_at_once_make_one_account(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_QUEUE", "1000")]).await;
    for round in 0..scale::races() {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..scale::race() {
            let client = app.anonymous();
            let email =
                if number % 2 == 0 { format!("race{round}@example.com") } else { format!("RACE{round}@Example.COM") };
            tasks.spawn(
                async move { client.post("/register", json!({"email": email, "password": PASSWORD})).await.status },
            );
        }
        let mut statuses = tasks.join_all().await;
        statuses.sort_unstable();
        let mut expected = vec![409; scale::race()];
        expected[0] = 201;
        assert_eq!(statuses, expected);
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, i64::try_from(scale::races()).unwrap());
}

async fn registrations_of_one_username_at_once_make_one_account(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_QUEUE", "1000")]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..scale::race() {
        let client = app.anonymous();
        let body = json!({"email": format!("n{number}@example.com"), "username": "Same", "password": PASSWORD});
        tasks.spawn(async move { client.post("/register", body).await.status });
    }
    let made = tasks.join_all().await.into_iter().filter(|status| *status == 201).count();
    assert_eq!(made, 1);
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 1);
}

async fn a_deleted_persons_address_is_free_again(stack: Stack) {
    let app = stack.app().await;
    let first = app.person("alice").await;
    app.sql("UPDATE users SET deleted_at = 1, password_hash = NULL, epoch = epoch + 1").await;
    assert!(!first.is_signed_in().await);
    let second = app.person("alice").await;
    assert_ne!(first.id, second.id);
}
