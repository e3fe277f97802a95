//! `POST /login`.

use std::time::Duration;

use axum::http::Method;
use serde_json::json;

use crate::{
    on_stacks,
    support::{PASSWORD, Stack, StackKind, Test, json_body},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::SESSIONS;
        a_person_signs_in_by_address_or_username,
        the_answer_is_what_the_contract_says,
        every_refusal_is_the_same_bytes,
        exactly_one_name_is_needed,
        hostile_text_is_refused_and_never_an_error,
        a_name_of_one_kind_does_not_work_as_the_other,
        a_weaker_hash_is_made_anew_once,
        hashes_of_other_schemes_work_and_are_made_anew,
        a_hash_outside_the_bounds_is_a_failed_login,
        a_login_held_while_the_epoch_moves_gets_tokens_that_nothing_accepts,
        a_rehash_never_brings_an_old_password_back,
        at_the_cap_the_least_recently_used_session_goes,
        a_full_queue_is_busy_at_once,
        a_login_whose_client_is_gone_still_ends_whole,
    ]
}

async fn a_person_signs_in_by_address_or_username(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for name in
        [json!({"email": "alice@example.com"}), json!({"email": "ALICE@Example.com"}), json!({"username": "Alice"})]
    {
        let mut body = name;
        body["password"] = PASSWORD.into();
        let reply = app.anonymous().post("/login", body).await.is(200);
        let me = app.anonymous().bearer(&reply.text("/access_token")).get("/me").await.is(200);
        assert_eq!(me.json()["id"], json!(alice.id));
    }
    assert_eq!(app.events("signed_in").await, 4);
    // Composed and decomposed spellings of a password are one password.
    let body = json!({"email": "bob@example.com", "password": "pa\u{308}sswort-xyz"});
    app.anonymous().post("/register", body).await.is(201);
    app.anonymous().login("bob@example.com", "p\u{e4}sswort-xyz").await.is(200);
}

async fn the_answer_is_what_the_contract_says(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let body = json!({"email": "alice@example.com", "password": PASSWORD, "refresh_transport": "body"});
    let reply = app.anonymous().post("/login", body).await.is(200);
    let tokens = reply.json();
    assert_eq!(
        tokens.as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "access_token",
            "device_token",
            "expires_in",
            "refresh_expires_in",
            "refresh_token",
            "session_id",
            "token_type"
        ]
    );
    assert!(tokens["device_token"].as_str().unwrap().starts_with("lkd_"));
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"], &tokens["refresh_expires_in"]),
        (&json!("Bearer"), &json!(300), &json!(7 * 86_400))
    );
    assert!(tokens["refresh_token"].as_str().unwrap().starts_with("lkr_"));
    assert_eq!(reply.header("cache-control"), "no-store");
}

async fn every_refusal_is_the_same_bytes(stack: Stack) {
    let app = stack.app().await;
    for name in ["wrong", "disabled", "passwordless", "deleted"] {
        app.person(name).await;
    }
    app.sql("UPDATE users SET status = 'disabled' WHERE username = 'disabled'").await;
    app.sql("UPDATE users SET password_hash = NULL WHERE username = 'passwordless'").await;
    app.sql("UPDATE users SET deleted_at = 1 WHERE username = 'deleted'").await;
    let client = app.anonymous().with("x-request-id", "same");
    let mut replies = Vec::new();
    for (name, password) in [
        ("wrong", "wrong password"),
        ("disabled", PASSWORD),
        ("passwordless", PASSWORD),
        ("deleted", PASSWORD),
        ("unknown", PASSWORD),
    ] {
        for login in [json!({"email": format!("{name}@example.com")}), json!({"username": name})] {
            let mut body = login;
            body["password"] = password.into();
            let reply = client.post("/login", body).await.is_problem(401, "invalid_credentials");
            replies.push((format!("{:?}", reply.headers), reply.body));
        }
    }
    assert!(replies.windows(2).all(|pair| pair[0] == pair[1]), "{replies:?}");
    assert_eq!(app.events("signed_in").await, 4, "only those of the personas");
}

async fn exactly_one_name_is_needed(stack: Stack) {
    let app = stack.app().await;
    for body in [
        json!({"password": PASSWORD}),
        json!({"email": "alice@example.com", "username": "alice", "password": PASSWORD}),
        json!({"email": null, "username": null, "password": PASSWORD}),
    ] {
        let reply = app.anonymous().post("/login", body).await.is_problem(422, "invalid_body");
        assert_eq!(reply.reasons(), ["email:exactly_one"]);
    }
    let body = json!({"email": "alice@example.com", "password": PASSWORD, "refresh_transport": "pigeon"});
    app.anonymous().post("/login", body).await.is_problem(422, "invalid_body");
    app.anonymous().post("/login", json!({"email": "alice@example.com"})).await.is_problem(422, "invalid_body");
}

async fn hostile_text_is_refused_and_never_an_error(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    for name in ["\u{0}", "alice@example.com\u{0}", "alice\r\n", "\u{202e}"] {
        for field in ["email", "username"] {
            let body = json!({field: name, "password": PASSWORD});
            let reply = app.anonymous().post("/login", body).await.is_problem(422, "invalid_body");
            assert_eq!(reply.reasons(), [format!("{field}:forbidden_character")]);
        }
    }
    for name in ["", "alice@example.com ", "a'; DROP TABLE users; --", "х".repeat(5000).as_str()] {
        for field in ["email", "username"] {
            let body = json!({field: name, "password": PASSWORD});
            app.anonymous().post("/login", body).await.is_problem(401, "invalid_credentials");
        }
    }
    for password in ["", " ", "x", "\u{1F980}", "no such password", "ﬁ"] {
        app.anonymous().login("alice@example.com", password).await.is_problem(401, "invalid_credentials");
    }
    for password in ["a\u{0}b", "a\nb", "\u{202e}", &"x".repeat(513), &"x".repeat(4096), &"ä".repeat(7000)] {
        app.anonymous().login("alice@example.com", password).await.is_problem(422, "invalid_body");
    }
    let huge = json!({"email": "alice@example.com", "password": "x".repeat(1 << 20)});
    app.anonymous().post("/login", huge).await.is_problem(413, "body_too_large");
}

async fn a_name_of_one_kind_does_not_work_as_the_other(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let body = json!({"email": "alice", "password": PASSWORD});
    app.anonymous().post("/login", body).await.is_problem(401, "invalid_credentials");
    let body = json!({"username": "alice@example.com", "password": PASSWORD});
    app.anonymous().post("/login", body).await.is_problem(401, "invalid_credentials");
    // People without a username or an address are not found by an empty one.
    app.sql("UPDATE users SET username = NULL, username_key = NULL, email = NULL").await;
    for field in ["email", "username"] {
        app.anonymous()
            .post("/login", json!({field: "", "password": PASSWORD}))
            .await
            .is_problem(401, "invalid_credentials");
    }
}

async fn a_weaker_hash_is_made_anew_once(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_ARGON2_ITERATIONS", "2")]).await;
    app.person("alice").await;
    let fresh = app.text("SELECT password_hash FROM users").await;
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    assert_eq!(app.text("SELECT password_hash FROM users").await, fresh, "a current hash stays");

    let weaker = argon2_hash(PASSWORD, 1);
    app.sql(&format!("UPDATE users SET password_hash = '{weaker}'")).await;
    app.anonymous().login("alice@example.com", "wrong password").await.is(401);
    assert_eq!(app.text("SELECT password_hash FROM users").await, weaker, "a failed login changes nothing");
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    let renewed = app.text("SELECT password_hash FROM users").await;
    assert!(renewed.starts_with("$argon2id$v=19$m=7168,t=2,p=1$"), "{renewed}");
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    assert_eq!(app.text("SELECT password_hash FROM users").await, renewed, "once");
}

fn argon2_hash(password: &str, iterations: u32) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
    let params = argon2::Params::new(7168, iterations, 1, Some(32)).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut tag = [0; 32];
    argon.hash_password_into(password.as_bytes(), &[5; 16], &mut tag).unwrap();
    let (salt, tag) = (STANDARD_NO_PAD.encode([5; 16]), STANDARD_NO_PAD.encode(tag));
    format!("$argon2id$v=19$m=7168,t={iterations},p=1${salt}${tag}")
}

async fn hashes_of_other_schemes_work_and_are_made_anew(stack: Stack) {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
    let app = stack.app().await;
    app.person("alice").await;
    let phc =
        |head: &str, tag: &[u8]| format!("{head}${}${}", STANDARD_NO_PAD.encode([7; 16]), STANDARD_NO_PAD.encode(tag));
    let (mut scrypt_tag, mut pbkdf2_tag) = ([0; 32], [0; 32]);
    scrypt::scrypt(PASSWORD.as_bytes(), &[7; 16], &scrypt::Params::new(10, 8, 1).unwrap(), &mut scrypt_tag).unwrap();
    let rounds = std::num::NonZeroU32::new(1000).unwrap();
    aws_lc_rs::pbkdf2::derive(
        aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        &[7; 16],
        PASSWORD.as_bytes(),
        &mut pbkdf2_tag,
    );
    for stored in [
        bcrypt::hash(PASSWORD, 4).unwrap(),
        phc("$scrypt$ln=10,r=8,p=1", &scrypt_tag),
        phc("$pbkdf2-sha256$i=1000", &pbkdf2_tag),
    ] {
        app.sql(&format!("UPDATE users SET password_hash = '{stored}'")).await;
        app.anonymous().login("alice@example.com", "wrong password").await.is_problem(401, "invalid_credentials");
        app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
        assert!(app.text("SELECT password_hash FROM users").await.starts_with("$argon2id$"), "{stored}");
        app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    }
}

async fn a_hash_outside_the_bounds_is_a_failed_login(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let good = app.text("SELECT password_hash FROM users").await;
    for (number, bad) in
        [good.replace("m=7168", "m=4000000"), good.replace("t=1", "t=4000000000"), "nonsense".to_owned()]
            .iter()
            .enumerate()
    {
        app.sql(&format!("UPDATE users SET password_hash = '{bad}'")).await;
        app.anonymous().login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
        assert_eq!(app.hasher.alarms(), number as u64 + 1, "{bad}");
    }
}

async fn a_login_held_while_the_epoch_moves_gets_tokens_that_nothing_accepts(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await;
    let alice = app.person("alice").await;
    let (release, holder) = app.hold_hashing().await;
    let client = app.anonymous();
    let before = app.db.asked().statements.load(std::sync::atomic::Ordering::SeqCst);
    let login = tokio::spawn(async move { client.login("alice@example.com", PASSWORD).await });
    while app.db.asked().statements.load(std::sync::atomic::Ordering::SeqCst) == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The login has read hash and epoch, or is about to see the answer of that read; wait until it waits for its hash.
    tokio::time::sleep(Duration::from_millis(700)).await;
    app.sql("UPDATE users SET epoch = epoch + 1").await;
    release.send(()).unwrap();
    holder.await.unwrap();

    let reply = login.await.unwrap().is(200);
    app.anonymous().bearer(&reply.text("/access_token")).get("/me").await.is_problem(401, "invalid_token");
    app.anonymous().refresh(&reply.text("/refresh_token")).await.is_problem(401, "invalid_refresh_token");
    assert!(!alice.is_signed_in().await);
}

async fn a_rehash_never_brings_an_old_password_back(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1"), ("LATCHKEY_ARGON2_ITERATIONS", "2")]).await;
    app.person("alice").await;
    app.sql(&format!("UPDATE users SET password_hash = '{}'", argon2_hash(PASSWORD, 1))).await;
    let changed = argon2_hash("another password entirely", 2);
    let (release, holder) = app.hold_hashing().await;
    let client = app.anonymous();
    let before = app.db.asked().statements.load(std::sync::atomic::Ordering::SeqCst);
    let login = tokio::spawn(async move { client.login("alice@example.com", PASSWORD).await });
    while app.db.asked().statements.load(std::sync::atomic::Ordering::SeqCst) == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    app.sql(&format!("UPDATE users SET epoch = epoch + 1, password_hash = '{changed}'")).await;
    release.send(()).unwrap();
    holder.await.unwrap();
    login.await.unwrap();
    assert_eq!(app.text("SELECT password_hash FROM users").await, changed);
}

async fn at_the_cap_the_least_recently_used_session_goes(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_MAX_SESSIONS", "3")]).await;
    let first = app.person("alice").await;
    app.pass(Duration::from_secs(1));
    let second = first.elsewhere().await;
    app.pass(Duration::from_secs(1));
    let third = first.elsewhere().await;
    app.pass(Duration::from_secs(1));
    let mut kept = first.clone();
    let reply = first.client.refresh(&first.refresh).await.is(200);
    kept.take(&reply);
    let fourth = first.elsewhere().await;
    assert_eq!(
        (
            kept.is_signed_in().await,
            second.is_signed_in().await,
            third.is_signed_in().await,
            fourth.is_signed_in().await
        ),
        (true, false, true, true)
    );
}

async fn a_full_queue_is_busy_at_once(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1"), ("LATCHKEY_HASH_QUEUE", "2")]).await;
    app.person("alice").await;
    let (release, holder) = app.hold_hashing().await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let client = app.anonymous();
        waiting.spawn(async move { client.login("alice@example.com", PASSWORD).await });
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let started = std::time::Instant::now();
    let reply = app.anonymous().login("alice@example.com", PASSWORD).await.is_problem(503, "busy");
    assert!(reply.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert!(started.elapsed() < Duration::from_secs(1), "it did not wait for a place");
    // Those that wait for over two seconds are sent away as well, with the thread still held.
    for reply in waiting.join_all().await {
        reply.is_problem(503, "busy");
    }
    release.send(()).unwrap();
    holder.await.unwrap();
    // The thread passes over those that were sent away; then there is room.
    for _ in 0..100 {
        if app.anonymous().login("alice@example.com", PASSWORD).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the queue stays full");
}

async fn a_login_whose_client_is_gone_still_ends_whole(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await;
    app.person("alice").await;
    let (release, holder) = app.hold_hashing().await;
    let body = json_body(&json!({"email": "alice@example.com", "password": PASSWORD}));
    let client = app.anonymous().with("content-type", "application/json");
    // The server drops a handler when its client hangs up, which is what the time-out does here.
    let dropped = tokio::time::timeout(Duration::from_millis(200), client.send(Method::POST, "/login", body)).await;
    assert!(dropped.is_err());
    release.send(()).unwrap();
    holder.await.unwrap();
    for _ in 0..200 {
        if app.events("signed_in").await == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the login did not go on");
}
