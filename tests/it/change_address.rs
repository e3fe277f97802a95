//! Another address for who is signed in: the new mailbox proves itself, the old one is told, and nobody learns who is here.

use std::time::Duration;

use serde_json::json;

use crate::{
    budgets::spent,
    on_stacks,
    support::{PASSWORD, Person, Reply, Stack, StackKind, Test, TestApp, alike, refused, scale},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        asking_needs_a_session_and_the_right_password,
        who_is_sent_away_busy_has_asked_for_nothing,
        a_taken_address_is_told_and_the_asker_is_not,
        of_two_who_want_one_address_one_gets_it,
        the_old_address_is_told_twice_and_the_code_goes_to_the_new_one,
        without_a_token_every_session_ends,
        with_ones_own_token_that_session_goes_on,
        with_somebody_elses_token_nobody_else_is_harmed,
        a_dead_token_is_refused_before_the_code_is_judged,
        the_old_address_is_free_afterwards,
    ]
}

async fn ask(person: &Person, new_email: &str, password: &str) -> Reply {
    let body = json!({"new_email": new_email, "password": password});
    person.client.bearer(&person.access).post("/me/email", body).await
}

async fn email_of(app: &TestApp, name: &str) -> String {
    app.text(&format!("SELECT email FROM users WHERE username = '{name}'")).await
}

async fn asking_needs_a_session_and_the_right_password(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let rows = app.number("SELECT COUNT(*) FROM outbox").await;
    ask(&alice, "alice@example.org", "wrong password").await.is_problem(401, "invalid_credentials");
    let body = json!({"new_email": "alice@example.org", "password": PASSWORD});
    app.anonymous().post("/me/email", body.clone()).await.is_problem(401, "missing_token");
    app.anonymous().bearer("x").post("/me/email", body).await.is_problem(401, "invalid_token");
    let reply = ask(&alice, "alice@", PASSWORD).await.is_problem(422, "invalid_email");
    assert_eq!(reply.reasons(), ["new_email:invalid_email"]);
    app.sql("UPDATE users SET password_hash = NULL").await;
    ask(&alice, "alice@example.org", PASSWORD).await.is_problem(401, "invalid_credentials");
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox").await, rows, "no mail to anybody");
}

async fn who_is_sent_away_busy_has_asked_for_nothing(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await;
    let alice = app.person("alice").await;
    let rows = app.number("SELECT COUNT(*) FROM outbox").await;
    let (release, holder) = app.hold_hashing().await;
    ask(&alice, "alice@example.org", PASSWORD).await.is_problem(503, "busy");
    app.anonymous().post("/password/forgot", json!({"email": alice.email})).await.is(202);
    release.send(()).unwrap();
    holder.await.unwrap();
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox").await, rows + 1, "what needs no hash is not held up");
}

async fn a_taken_address_is_told_and_the_asker_is_not(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    app.deliver().await;
    let mut replies = Vec::new();
    let (mut flows, mut costs) = (Vec::new(), Vec::new());
    for address in ["bob@example.com", "nobody@example.org", "BOB@Example.com"] {
        let client = alice.client.bearer(&alice.access).with("x-request-id", "same");
        let body = json!({"new_email": address, "password": PASSWORD});
        let (cost, reply) = spent(&app, client.post("/me/email", body)).await;
        costs.push(cost);
        let mut reply = reply.is(202);
        let mut body = reply.json();
        assert_eq!((&body["status"], &body["expires_in"]), (&json!("accepted"), &json!(600)));
        flows.push(body["flow_id"].take());
        reply.body = body.to_string().into_bytes();
        replies.push((address.to_owned(), reply));
    }
    alike(&replies);
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    let told = app.mail_to("address_in_use", "bob@example.com").await;
    assert!(told.code().is_none() && told.link().is_none());
    assert!(!told.text().contains("alice"), "who it was is nobody's business");
    assert_eq!(app.mails_to("address_in_use", "bob@example.com").len(), 1, "once a day");
    assert!(app.mails_to("change_address", "bob@example.com").is_empty());
    assert_eq!(app.mails_to("change_address", "nobody@example.org").len(), 1);
    refused(&app.anonymous(), "/me/email/confirm", json!({"flow_id": flows[0], "code": "12345678"})).await;
    assert!(alice.is_signed_in().await && bob.is_signed_in().await);
    assert_eq!(email_of(&app, "alice").await, "alice@example.com");
}

async fn of_two_who_want_one_address_one_gets_it(stack: Stack) {
    let app = stack.app().await;
    for round in 0..4 * scale::races() {
        let wanted = format!("wanted{round}@example.org");
        let mut confirmations = Vec::new();
        let mut people = Vec::new();
        for name in ["alice", "bob"] {
            let person = app.person(&format!("{name}{round}")).await;
            confirmations.push(app.change_code(&person, &wanted).await.body());
            people.push(person);
            app.pass(Duration::from_secs(60));
        }
        let client = app.anonymous();
        let confirm = async |number: usize| client.post("/me/email/confirm", confirmations[number].clone()).await;
        // Together, and in the last round one after the other.
        let (one, two) =
            if round % 4 < 3 { tokio::join!(confirm(0), confirm(1)) } else { (confirm(0).await, confirm(1).await) };
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 400], "{one:?} {two:?}");
        assert_eq!(app.number(&format!("SELECT COUNT(*) FROM users WHERE email = '{wanted}'")).await, 1);
        let loser = &people[usize::from(one.status == 204)];
        assert!(loser.is_signed_in().await, "who did not get it goes on as before");
    }
}

async fn the_old_address_is_told_twice_and_the_code_goes_to_the_new_one(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    // What a stranger chose would be told to nobody: see `courier`.
    app.deliver().await;
    app.sql("UPDATE users SET email_verified = TRUE").await;
    let coded = app.change_code(&alice, "alice@example.org").await;
    let asked = app.mail_to("address_change_requested", "alice@example.com").await;
    assert!(asked.text().contains("alice@example.org") && asked.text().contains("127.0.0.1"));
    assert!(app.mails_to("address_changed", "alice@example.com").is_empty());
    app.anonymous().post("/me/email/confirm", coded.body()).await.is(204);
    let done = app.mail_to("address_changed", "alice@example.com").await;
    assert!(done.text().contains("alice@example.org"));
    for mail in [&asked, &done] {
        assert!(mail.code().is_none() && !mail.data.contains(&coded.code[..4]));
    }
    assert_eq!(app.all_mails_to("alice@example.org"), 1, "the code");
    assert_eq!(app.all_mails_to("alice@example.com"), 3, "the code of the registration, and the two");
    assert_eq!(app.events("address_changed").await, 1);
}

async fn without_a_token_every_session_ends(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let other = alice.elsewhere().await;
    let coded = app.change_code(&alice, "alice@example.org").await;
    app.anonymous().post("/me/email/confirm", coded.body()).await.is(204);
    for session in [&alice, &other] {
        session.me().await.is_problem(401, "invalid_token");
        session.client.refresh(&session.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    assert!(bob.is_signed_in().await);
    app.anonymous().login("alice@example.org", PASSWORD).await.is(200);
    app.anonymous().login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
}

async fn with_ones_own_token_that_session_goes_on(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    let record = app.ephemeral.find(app.ambient.now(), other.id, other.session).await.unwrap().unwrap();
    let coded = app.change_code(&alice, "alice@example.org").await;
    alice.client.bearer(&alice.access).post("/me/email/confirm", coded.body()).await.is(204);
    alice.me().await.is(200);
    alice.client.refresh(&alice.refresh).await.is(200);
    // Even if the store brings a record back.
    app.ephemeral.open(app.ambient.now(), other.id, other.session, &record, 50, &[]).await.unwrap();
    other.me().await.is_problem(401, "invalid_token");
    other.client.refresh(&other.refresh).await.is_problem(401, "invalid_refresh_token");
}

async fn with_somebody_elses_token_nobody_else_is_harmed(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let bob_elsewhere = bob.elsewhere().await;
    let coded = app.change_code(&alice, "alice@example.org").await;
    bob.client.bearer(&bob.access).post("/me/email/confirm", coded.body()).await.is(204);
    assert!(!alice.is_signed_in().await);
    assert!(bob.is_signed_in().await && bob_elsewhere.is_signed_in().await);
    bob.client.refresh(&bob.refresh).await.is(200);
    assert_eq!((email_of(&app, "alice").await, email_of(&app, "bob").await).0, "alice@example.org");
    assert_eq!(email_of(&app, "bob").await, "bob@example.com");
}

async fn a_dead_token_is_refused_before_the_code_is_judged(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let dead = alice.elsewhere().await;
    dead.client.post("/logout", json!({"refresh_token": dead.refresh})).await.is(204);
    let coded = app.change_code(&alice, "alice@example.org").await;
    for token in [&*dead.access, "x", &alice.refresh] {
        for number in 0..3 {
            let client = app.anonymous().bearer(token);
            client.post("/me/email/confirm", coded.wrong(number).body()).await.is_problem(401, "invalid_token");
            client.post("/me/email/confirm", coded.body()).await.is_problem(401, "invalid_token");
        }
    }
    alice.client.bearer(&alice.access).post("/me/email/confirm", coded.body()).await.is(204);
    assert!(alice.is_signed_in().await);
}

async fn the_old_address_is_free_afterwards(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let coded = app.change_code(&alice, "alice@example.org").await;
    app.anonymous().post("/me/email/confirm", coded.body()).await.is(204);
    let body = json!({"email": "alice@example.com", "password": "another person's own"});
    let second = app.anonymous().post("/register", body).await.is(201);
    assert_ne!(second.text("/user/id"), alice.id.to_string());
    app.anonymous().login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    // What is told of Alice's account from now on does not go to whoever has her old address.
    app.deliver().await;
    let before = app.all_mails_to("alice@example.com");
    let reset = app.reset_code("alice@example.org").await;
    app.anonymous().post("/password/reset", reset.reset("a staple for the horse")).await.is(204);
    app.deliver().await;
    assert_eq!(app.all_mails_to("alice@example.com"), before);
    assert_eq!(app.mails_to("password_reset", "alice@example.org").len(), 1);
}
