use latchkey::ephemeral::Device;
use serde_json::json;

use crate::{
    on_stacks,
    support::{PASSWORD, Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL;
        a_session_remembers_where_it_was_opened,
        an_event_tells_who_where_and_by_which_request,
    ];
    tests.extend(on_stacks![&[StackKind::Embedded];
        two_people_with_one_password_have_two_hashes,
        a_hash_of_the_older_argon2_version_is_made_anew,
        a_stored_tag_of_few_bytes_is_an_alarm,
        every_refusal_of_a_login_costs_one_current_hash,
    ]);
    tests
}

/// An Argon2 PHC string of any kind.
fn argon2_phc(password: &str, version: argon2::Version, memory_kib: u32, iterations: u32, tag_bytes: usize) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
    let params = argon2::Params::new(memory_kib, iterations, 1, Some(tag_bytes)).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, version, params);
    let mut tag = vec![0; tag_bytes];
    argon.hash_password_into(password.as_bytes(), &[5; 16], &mut tag).unwrap();
    let (salt, tag) = (STANDARD_NO_PAD.encode([5; 16]), STANDARD_NO_PAD.encode(tag));
    format!("$argon2id$v={}$m={memory_kib},t={iterations},p=1${salt}${tag}", version as u32)
}

async fn two_people_with_one_password_have_two_hashes(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    app.person("bob").await;
    assert_eq!(app.number("SELECT COUNT(DISTINCT password_hash) FROM users").await, 2);
}

async fn a_hash_of_the_older_argon2_version_is_made_anew(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let old = argon2_phc(PASSWORD, argon2::Version::V0x10, 7168, 1, 32);
    app.sql(&format!("UPDATE users SET password_hash = '{old}'")).await;
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    let renewed = app.text("SELECT password_hash FROM users").await;
    assert!(renewed.starts_with("$argon2id$v=19$"), "{renewed}");
}

async fn a_stored_tag_of_few_bytes_is_an_alarm(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let short = argon2_phc(PASSWORD, argon2::Version::V0x13, 7168, 1, 12);
    app.sql(&format!("UPDATE users SET password_hash = '{short}'")).await;
    app.anonymous().login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    assert_eq!(app.hasher.alarms(), 1);
}

async fn a_session_remembers_where_it_was_opened(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let reply = app.anonymous().with("user-agent", firefox).login("alice@example.com", PASSWORD).await.is(200);
    let person = app.anonymous().bearer(&reply.text("/access_token")).get("/me").await.is(200).text("/id");
    let (person, session) = (person.parse().unwrap(), reply.text("/session_id").parse().unwrap());
    let record = app.ephemeral.find(app.ambient.now(), person, session).await.unwrap().unwrap();
    assert_eq!(record.device, Device { browser: 4, system: 7 });
    assert_eq!(record.address.to_string(), "127.0.0.1");
}

async fn an_event_tells_who_where_and_by_which_request(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous().with("x-request-id", "the-id");
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    client.post("/register", body.clone()).await.is(201);
    let tokens = client.post("/login", body.clone()).await.is(200);
    client.post("/logout", json!({"refresh_token": tokens.text("/refresh_token")})).await.is(204);
    let everywhere = client.post("/login", body.clone()).await.is(200);
    client.post("/logout", json!({"refresh_token": everywhere.text("/refresh_token"), "all": true})).await.is(204);
    let complete = "person_id = (SELECT id FROM users) AND address = '127.0.0.1' AND request_id = 'the-id'";
    for (kind, number, more) in [
        ("registered", 1, "session_id IS NULL AND client_id IS NULL"),
        ("signed_in", 2, "session_id IS NOT NULL AND client_id = 'latchkey'"),
        ("signed_out", 1, "session_id IS NOT NULL AND client_id = 'latchkey'"),
        ("signed_out", 1, "session_id IS NULL AND CAST(data AS TEXT) LIKE '%\"all\"%true%'"),
    ] {
        let sql = format!("SELECT COUNT(*) FROM events WHERE kind = '{kind}' AND {complete} AND {more}");
        assert_eq!(app.number(&sql).await, number, "{kind}: {more}");
    }
}

/// Counted in memory that was written, since a clock on a busy machine tells nothing.
async fn every_refusal_of_a_login_costs_one_current_hash(stack: Stack) {
    let settings = [("LATCHKEY_HASH_THREADS", "1"), ("LATCHKEY_ARGON2_ITERATIONS", "2")];
    let app = stack.app_with(&settings).await;
    for name in ["wrong", "disabled", "passwordless"] {
        app.person(name).await;
    }
    app.sql("UPDATE users SET status = 'disabled' WHERE username = 'disabled'").await;
    app.sql("UPDATE users SET password_hash = NULL WHERE username = 'passwordless'").await;
    let spent = async || app.hasher.run(|memory| memory.spent()).await.unwrap();
    for (name, password) in [
        ("wrong@example.com", "a wrong password"),
        ("disabled@example.com", PASSWORD),
        ("passwordless@example.com", PASSWORD),
        ("unknown@example.com", PASSWORD),
        ("no address at all", PASSWORD),
    ] {
        let before = spent().await;
        app.anonymous().login(name, password).await.is_problem(401, "invalid_credentials");
        assert_eq!(spent().await - before, 2 * 7168, "{name}");
    }
}
