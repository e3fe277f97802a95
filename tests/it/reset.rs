//! A forgotten password: what a reset ends, what it wipes, what it leaves, and to whom its mail goes.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;

use crate::{
    on_stacks,
    support::{PASSWORD, Stack, StackKind, Test, alike, refused},
};

const NEW: &str = "a staple for the horse";

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL;
        a_reset_signs_nobody_in_and_tells_the_person,
        a_reset_kills_every_other_code_of_the_person,
        a_first_proof_of_the_address_wipes_what_was_set_before_it,
        a_proved_person_keeps_names_and_devices,
        a_person_without_a_password_gets_one,
        who_is_disabled_or_unknown_gets_no_mail,
        the_link_comes_from_the_settings_and_not_from_the_request,
        of_all_mails_only_that_of_a_reset_has_a_link,
    ];
    tests.extend(on_stacks![&StackKind::SHARED;
        a_reset_ends_every_session_on_every_node_at_once,
        a_login_held_while_a_reset_commits_opens_a_dead_session,
    ]);
    tests
}

async fn a_reset_signs_nobody_in_and_tells_the_person(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let record = app.ephemeral.find(app.ambient.now(), alice.id, alice.session).await.unwrap().unwrap();
    let coded = app.reset_code("alice@example.com").await;
    let reply = alice.client.bearer(&alice.access).post("/password/reset", coded.reset(NEW)).await.is(204);
    assert!(reply.body.is_empty() && reply.header("set-cookie").is_empty());
    assert!(!alice.is_signed_in().await && bob.is_signed_in().await);
    alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    // Even if the store brings a record back.
    app.ephemeral.open(app.ambient.now(), alice.id, alice.session, &record, 50, &[]).await.unwrap();
    assert!(!alice.is_signed_in().await);
    alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    assert_eq!(app.events("signed_in").await, 2, "only those of the personas");
    assert_eq!((app.events("password_reset").await, app.events("address_verified").await), (1, 1));
    let notice = app.mail_to("password_reset", "alice@example.com").await;
    assert!(notice.text().contains("127.0.0.1") && notice.code().is_none() && notice.link().is_none());
    alice.client.login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    let tokens = alice.client.login("alice@example.com", NEW).await.is(200);
    let me = alice.client.bearer(&tokens.text("/access_token")).get("/me").await.is(200).json();
    assert_eq!(me["email_verified"], true);

    // The second reset proves nothing new.
    let coded = app.reset_code("alice@example.com").await;
    app.anonymous().post("/password/reset", coded.reset(PASSWORD)).await.is(204);
    assert_eq!((app.events("password_reset").await, app.events("address_verified").await), (2, 1));
}

async fn a_reset_kills_every_other_code_of_the_person(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let verify = app.verify_code("alice@example.com").await;
    let change = app.change_code(&alice, "alice@example.org").await;
    let (used, other) = (app.reset_code("alice@example.com").await, app.reset_code("alice@example.com").await);
    let client = app.anonymous().with("x-request-id", "same");
    // Asked for before the reset and due after it: no mail any more.
    app.pass(Duration::from_secs(60));
    let body = json!({"new_email": "alice@example.net", "password": PASSWORD});
    let flow = client.bearer(&alice.access).post("/me/email", body).await.is(202).text("/flow_id");
    client.post("/password/reset", used.reset(NEW)).await.is(204);
    app.deliver().await;
    assert!(app.mails_to("change_address", "alice@example.net").is_empty());
    alike(&[
        refused(&client, "/me/email/confirm", change.body()).await,
        refused(&client, "/me/email/confirm", json!({"flow_id": flow, "code": "00000000"})).await,
        refused(&client, "/email/verify", verify.body()).await,
        refused(&client, "/password/reset", other.reset("yet another password")).await,
        refused(&client, "/password/reset", used.reset("yet another password")).await,
    ]);
    client.login("alice@example.com", NEW).await.is(200);
}

async fn a_first_proof_of_the_address_wipes_what_was_set_before_it(stack: Stack) {
    let app = stack.app().await;
    // Mallory registers with Alice's address, a name of his and his own device, and waits for Alice.
    let body = json!({"email": "alice@example.com", "username": "mallory", "display_name": "Call 555-0100",
        "password": PASSWORD});
    app.anonymous().post("/register", body).await.is(201);
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE CAST(devices AS TEXT) <> '[]'").await, 1);
    let coded = app.reset_code("alice@example.com").await;
    // The name is not hers, so it is no reason against a password.
    app.anonymous().post("/password/reset", coded.reset("xMalloryx7")).await.is(204);
    let clean = "SELECT COUNT(*) FROM users WHERE username IS NULL AND username_key IS NULL AND display_name IS NULL
        AND CAST(devices AS TEXT) = '[]' AND email_verified";
    assert_eq!(app.number(clean).await, 1);
    let body = json!({"username": "mallory", "password": "xMalloryx7"});
    app.anonymous().post("/login", body).await.is_problem(401, "invalid_credentials");
    let body = json!({"email": "bob@example.com", "username": "mallory", "password": PASSWORD});
    app.anonymous().post("/register", body).await.is(201);
}

async fn a_proved_person_keeps_names_and_devices(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    app.verify("alice@example.com").await;
    app.sql("UPDATE users SET display_name = 'Alice L'").await;
    let coded = app.reset_code("alice@example.com").await;
    app.anonymous().post("/password/reset", coded.reset(NEW)).await.is(204);
    let kept = "SELECT COUNT(*) FROM users WHERE username = 'alice' AND username_key = 'alice'
        AND display_name = 'Alice L' AND CAST(devices AS TEXT) <> '[]'";
    assert_eq!(app.number(kept).await, 1);
    app.anonymous().post("/login", json!({"username": "alice", "password": NEW})).await.is(200);
}

async fn a_person_without_a_password_gets_one(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    app.sql("UPDATE users SET password_hash = NULL").await;
    let coded = app.reset_code("alice@example.com").await;
    app.anonymous().post("/password/reset", coded.reset(NEW)).await.is(204);
    app.anonymous().login("alice@example.com", NEW).await.is(200);
}

async fn who_is_disabled_or_unknown_gets_no_mail(stack: Stack) {
    let app = stack.app().await;
    for name in ["active", "disabled", "deleted", "verified"] {
        app.person(name).await;
    }
    app.verify("verified@example.com").await;
    app.deliver().await;
    app.sql("UPDATE users SET status = 'disabled' WHERE username = 'disabled'").await;
    app.sql("UPDATE users SET deleted_at = 1 WHERE username = 'deleted'").await;
    app.pass(Duration::from_secs(60));
    for (name, resets, verifies) in
        [("active", 1, 1), ("disabled", 0, 0), ("deleted", 0, 0), ("unknown", 0, 0), ("verified", 1, 0)]
    {
        let email = format!("{name}@example.com");
        let before = app.all_mails_to(&email);
        for path in ["/password/forgot", "/email/verify/resend"] {
            app.anonymous().post(path, json!({"email": email})).await.is(202);
        }
        app.deliver().await;
        assert_eq!(app.mails_to("reset_password", &email).len(), resets, "{name}");
        assert_eq!(app.all_mails_to(&email), before + resets + verifies, "{name}");
    }
}

async fn the_link_comes_from_the_settings_and_not_from_the_request(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_PUBLIC_URL", "http://localhost:8080")]).await;
    app.person("alice").await;
    app.deliver().await;
    for (name, value) in [
        ("host", "evil.example"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "ftp"),
        ("forwarded", "host=evil.example;proto=https"),
        ("x-original-url", "http://evil.example/"),
        ("origin", "http://evil.example"),
    ] {
        app.pass(Duration::from_secs(60 * 60));
        let client = app.anonymous().coming_from([10, 0, u8::try_from(name.len()).unwrap(), 1]).with(name, value);
        let flow =
            client.post("/password/forgot", json!({"email": "alice@example.com"})).await.is(202).text("/flow_id");
        let mail = app.mail_to("reset_password", "alice@example.com").await;
        let link = format!("http://localhost:8080/reset#flow={flow}&code={}", mail.code().unwrap());
        assert_eq!(mail.link().unwrap(), link, "{name}");
        for part in [mail.text(), mail.html()] {
            assert!(part.contains("http://localhost:8080/reset#flow=") && !part.contains("evil"), "{name}: {part}");
        }
    }
}

async fn of_all_mails_only_that_of_a_reset_has_a_link(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let carol = app.person("carol").await;
    app.verify_code(&alice.email).await;
    app.reset_code(&alice.email).await;
    app.change_code(&bob, "bob@example.org").await;
    let body = json!({"new_email": "alice@example.com", "password": PASSWORD});
    bob.client.bearer(&bob.access).post("/me/email", body).await.is(202);
    let change = app.change_code(&carol, "carol@example.org").await;
    app.anonymous().post("/me/email/confirm", change.body()).await.is(204);
    app.anonymous().with("user-agent", "curl/8").login("alice@example.com", PASSWORD).await.is(200);
    let reset = app.reset_code(&alice.email).await;
    app.anonymous().post("/password/reset", reset.reset(NEW)).await.is(204);
    app.deliver().await;
    let mut seen = Vec::new();
    for kind in latchkey::mail::MailKind::WORDS {
        for address in
            ["alice@example.com", "bob@example.com", "bob@example.org", "carol@example.com", "carol@example.org"]
        {
            for mail in app.mails_to(kind, address) {
                let has_link = mail.link().is_some() || mail.html().contains("href") || mail.html().contains("://");
                assert_eq!(has_link, *kind == "reset_password", "{kind}: {}", mail.html());
                seen.push(*kind);
            }
        }
    }
    seen.dedup();
    assert_eq!(
        seen,
        [
            "verify_address",
            "reset_password",
            "change_address",
            "address_in_use",
            "address_change_requested",
            "address_changed",
            "password_reset",
            "new_device"
        ]
    );
}

async fn a_reset_ends_every_session_on_every_node_at_once(stack: Stack) {
    let (here, there) = (stack.app().await, stack.app().await);
    let alice = here.person("alice").await;
    let mut other = alice.clone();
    other.client = there.anonymous();
    other.sign_in().await;
    assert!(alice.is_signed_in().await && other.is_signed_in().await);
    let mut alice_there = alice.clone();
    alice_there.client = there.anonymous();
    assert!(alice_there.is_signed_in().await);
    let coded = here.reset_code("alice@example.com").await;
    there.pass(Duration::from_secs(60));
    here.anonymous().post("/password/reset", coded.reset(NEW)).await.is(204);
    for session in [&alice, &alice_there, &other] {
        session.me().await.is_problem(401, "invalid_token");
        session.client.refresh(&session.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    there.anonymous().login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    there.anonymous().login("alice@example.com", NEW).await.is(200);
}

async fn a_login_held_while_a_reset_commits_opens_a_dead_session(stack: Stack) {
    let (held, free) = (stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await, stack.app().await);
    free.person("alice").await;
    let coded = free.reset_code("alice@example.com").await;
    let (release, holder) = held.hold_hashing().await;
    let before = held.db.asked().statements.load(Ordering::SeqCst);
    let client = held.anonymous();
    let login = tokio::spawn(async move { client.login("alice@example.com", PASSWORD).await });
    while held.db.asked().statements.load(Ordering::SeqCst) == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    free.anonymous().post("/password/reset", coded.reset(NEW)).await.is(204);
    release.send(()).unwrap();
    holder.await.unwrap();
    let reply = login.await.unwrap().is(200);
    for node in [&held, &free] {
        node.anonymous().bearer(&reply.text("/access_token")).get("/me").await.is_problem(401, "invalid_token");
        node.anonymous().refresh(&reply.text("/refresh_token")).await.is_problem(401, "invalid_refresh_token");
    }
    free.anonymous().login("alice@example.com", NEW).await.is(200);
}
