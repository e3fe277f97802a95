//! The contract of counting attempts and refreshes: the same waits on Redis and SQL, and none uncounted. And whose count
//! an attempt is in, and what empties it, as far as a request shows it.

use std::time::Duration;

use axum::http::Method;
use latchkey::{
    db::Timestamp,
    ephemeral::{Attempts, Decision, Device, Ephemeral, Key, NONCE_HASH, Rotate, SessionRecord},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    on_stacks,
    support::{Client, PASSWORD, Person, Reply, Stack, StackKind, Test, TestApp, json_body, scale},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::SESSIONS;
        five_attempts_are_free_and_then_the_waits_grow,
        what_is_cleared_begins_anew,
        an_attempt_that_was_never_judged_is_taken_back,
        a_bucket_is_forgotten_a_day_after_its_last_failure,
        a_hundred_failures_lock_only_where_there_is_a_lock,
        parallel_attempts_all_count,
        buckets_do_not_meet,
        a_lock_is_told_before_a_wait,
        a_day_is_counted_from_the_last_failure,
        the_minute_of_refreshes_begins_with_the_first,
        repeats_count_as_refreshes_also_at_once,
        a_reset_forgives_every_name_and_the_devices,
        a_right_password_of_somebody_signed_in_begins_anew,
        what_was_never_judged_counts_neither_for_a_session_nor_for_a_device,
        a_right_password_begins_anew_though_the_address_is_unproved,
        who_comes_from_a_reset_gets_a_device_token,
        nobody_is_told_of_a_device_that_is_known,
        a_known_device_may_wait_but_is_never_locked,
        a_wait_is_told_in_whole_seconds_and_never_too_short,
        mails_for_known_devices_come_by_cookie_and_for_codes_of_both_kinds,
        mails_are_not_kept_for_devices_from_before_the_first_proof,
    ]
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_795_344_960_000).after(Duration::from_millis(millis))
}

fn bucket(name: &str) -> Key<Attempts> {
    Key::new(name.as_bytes(), name.as_bytes())
}

async fn store(stack: &Stack) -> (TestApp, Ephemeral) {
    let app = stack.app().await;
    let store = app.ephemeral.clone();
    (app, store)
}

async fn five_attempts_are_free_and_then_the_waits_grow(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let (key, mut now) = (bucket("a"), 0);
    for _ in 0..5 {
        assert_eq!(store.reserve(at(now), &key, None).await.unwrap(), Ok(()));
    }
    for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|seconds: u64| seconds * 1000) {
        let refused = store.reserve(at(now), &key, None).await.unwrap();
        assert_eq!(refused, Err(Duration::from_millis(wait)));
        assert_eq!(store.reserve(at(now + 300), &key, None).await.unwrap(), Err(Duration::from_millis(wait - 300)));
        assert_eq!(store.reserve(at(now + wait - 1), &key, None).await.unwrap(), Err(Duration::from_millis(1)));
        now += wait;
        assert_eq!(store.reserve(at(now), &key, None).await.unwrap(), Ok(()), "after {wait} ms");
    }
}

async fn what_is_cleared_begins_anew(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let keys = [bucket("a"), bucket("b")];
    for key in &keys {
        while store.reserve(at(0), key, None).await.unwrap().is_ok() {}
    }
    store.clear(&keys).await.unwrap();
    for key in &keys {
        for _ in 0..5 {
            assert_eq!(store.reserve(at(0), key, None).await.unwrap(), Ok(()));
        }
    }
    store.clear(&[]).await.unwrap();
}

async fn an_attempt_that_was_never_judged_is_taken_back(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let key = bucket("a");
    store.take_back(at(0), &key).await.unwrap();
    for _ in 0..20 {
        assert_eq!(store.reserve(at(0), &key, None).await.unwrap(), Ok(()));
        store.take_back(at(0), &key).await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(store.reserve(at(0), &key, None).await.unwrap(), Ok(()));
    }
    store.take_back(at(0), &key).await.unwrap();
    assert_eq!(store.reserve(at(0), &key, None).await.unwrap(), Ok(()));
    assert!(store.reserve(at(0), &key, None).await.unwrap().is_err());
}

async fn a_bucket_is_forgotten_a_day_after_its_last_failure(stack: Stack) {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let (_app, store) = store(&stack).await;
    let key = bucket("a");
    for _ in 0..5 {
        assert_eq!(store.reserve(at(0), &key, None).await.unwrap(), Ok(()));
    }
    assert_eq!(store.reserve(at(DAY - 1), &key, None).await.unwrap(), Ok(()), "the wait of a second is over");
    assert!(store.reserve(at(DAY - 1), &key, None).await.unwrap().is_err(), "and it is still the seventh");
    for _ in 0..5 {
        assert_eq!(store.reserve(at(2 * DAY), &key, None).await.unwrap(), Ok(()));
    }
}

async fn a_hundred_failures_lock_only_where_there_is_a_lock(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let (key, mut now) = (bucket("a"), 0);
    for _ in 0..100 {
        now += 60_000;
        assert_eq!(store.reserve(at(now), &key, Some(100)).await.unwrap(), Ok(()));
    }
    for _ in 0..3 {
        now += 2 * 60 * 60 * 1000;
        assert_eq!(store.reserve(at(now), &key, Some(100)).await.unwrap(), Err(Duration::from_secs(3600)));
    }
    assert_eq!(store.reserve(at(now), &key, None).await.unwrap(), Ok(()));
    store.clear(&[key]).await.unwrap();
    assert_eq!(store.reserve(at(now), &bucket("a"), Some(100)).await.unwrap(), Ok(()));
}

async fn parallel_attempts_all_count(stack: Stack) {
    let (_app, store) = store(&stack).await;
    for round in 0..scale::races() {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..scale::race() {
            let (store, name) = (store.clone(), format!("race{round}"));
            tasks.spawn(async move { store.reserve(at(0), &bucket(&name), None).await.unwrap().is_ok() });
        }
        assert_eq!(tasks.join_all().await.into_iter().filter(|free| *free).count(), 5);
    }
}

async fn buckets_do_not_meet(stack: Stack) {
    let (_app, store) = store(&stack).await;
    while store.reserve(at(0), &bucket("a"), None).await.unwrap().is_ok() {}
    assert_eq!(store.reserve(at(0), &bucket("b"), None).await.unwrap(), Ok(()));
    store.clear(&[bucket("b")]).await.unwrap();
    assert!(store.reserve(at(0), &bucket("a"), None).await.unwrap().is_err());
}

async fn a_lock_is_told_before_a_wait(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let (key, mut now) = (bucket("a"), 0);
    for _ in 0..100 {
        now += 60_000;
        assert_eq!(store.reserve(at(now), &key, Some(100)).await.unwrap(), Ok(()));
    }
    assert_eq!(store.reserve(at(now), &key, Some(100)).await.unwrap(), Err(Duration::from_secs(3600)), "not a minute");
}

async fn a_day_is_counted_from_the_last_failure(stack: Stack) {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let (_app, store) = store(&stack).await;
    let key = bucket("a");
    for now in [0, 0, 0, 0, DAY - 5000, DAY] {
        assert_eq!(store.reserve(at(now), &key, None).await.unwrap(), Ok(()));
    }
    assert_eq!(store.reserve(at(DAY), &key, None).await.unwrap(), Err(Duration::from_secs(2)), "after the sixth");
}

/// A session that was opened at zero, and what a token of that generation asks of it.
async fn session(store: &Ephemeral) -> (Uuid, Uuid) {
    let (user, session) = (Uuid::from_u128(0xA11CE), Uuid::from_u128(0x5E55));
    let record = SessionRecord {
        epoch: 4,
        created_at: at(0),
        made_at: at(0),
        idle: Duration::from_secs(86_400),
        absolute: Duration::from_secs(10 * 86_400),
        generation: 0,
        nonce_hash: [9; NONCE_HASH],
        device: Device::default(),
        address: [192, 0, 2, 1].into(),
    };
    store.open(at(0), user, session, &record, 50, &[]).await.unwrap();
    (user, session)
}

fn rotate(generation: u32, most_a_minute: u32) -> Rotate {
    Rotate {
        generation,
        nonce_hash: [9; NONCE_HASH],
        epoch: Some(4),
        idle: Duration::from_secs(86_400),
        grace: Duration::from_secs(30),
        most_a_minute,
    }
}

async fn the_minute_of_refreshes_begins_with_the_first(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let (user, session) = session(&store).await;
    for (generation, now) in [(0, 0), (1, 20_000), (2, 40_000)] {
        let decision = store.rotate(at(now), user, session, &rotate(generation, 3)).await.unwrap();
        assert!(matches!(decision, Decision::Moved(_)), "{decision:?}");
    }
    let decision = store.rotate(at(59_000), user, session, &rotate(3, 3)).await.unwrap();
    assert_eq!(decision, Decision::Limited(Duration::from_secs(1)));
    let decision = store.rotate(at(60_000), user, session, &rotate(3, 3)).await.unwrap();
    assert!(matches!(decision, Decision::Moved(_)), "{decision:?}");
}

async fn repeats_count_as_refreshes_also_at_once(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let (user, session) = session(&store).await;
    let decision = store.rotate(at(0), user, session, &rotate(0, 10)).await.unwrap();
    assert!(matches!(decision, Decision::Moved(_)), "{decision:?}");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..scale::race() {
        let store = store.clone();
        tasks.spawn(async move { store.rotate(at(1000), user, session, &rotate(0, 10)).await.unwrap() });
    }
    let decisions = tasks.join_all().await;
    assert_eq!(decisions.iter().filter(|decision| matches!(decision, Decision::Repeated(_))).count(), 9);
    let wait = Decision::Limited(Duration::from_secs(59));
    assert_eq!(decisions.iter().filter(|decision| **decision == wait).count(), scale::race() - 9, "{decisions:?}");
}

const NEW: &str = "a staple for the horse";

async fn counting(stack: &Stack) -> TestApp {
    stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await
}

async fn login_from(client: &Client, email: &str, password: &str, device: &str) -> Reply {
    client.post("/login", json!({"email": email, "password": password, "device_token": device})).await
}

async fn device_of(person: &Person) -> String {
    person.client.login(&person.email, PASSWORD).await.is(200).text("/device_token")
}

/// Sends it until there is a wait.
async fn wear_out(client: &Client, body: Value) {
    let mut body = body;
    body["password"] = "a wrong password".into();
    for _ in 0..5 {
        client.post("/login", body.clone()).await.is_problem(401, "invalid_credentials");
    }
    client.post("/login", body).await.is_problem(429, "too_many_attempts");
}

async fn a_reset_forgives_every_name_and_the_devices(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    app.verify(&alice.email).await;
    let device = device_of(&alice).await;
    let coded = app.reset_code(&alice.email).await;
    let client = app.anonymous();
    // From here on the clock stands: no wait ends by itself.
    wear_out(&client, json!({"email": alice.email})).await;
    wear_out(&client, json!({"username": "alice"})).await;
    wear_out(&client, json!({"email": alice.email, "device_token": device})).await;
    client.post("/password/reset", coded.reset(NEW)).await.is(204);
    // Each of these empties the bucket of the one name that it names, so the devices come last.
    client.post("/login", json!({"username": "alice", "password": NEW})).await.is(200);
    client.login(&alice.email, NEW).await.is(200);
    login_from(&client, &alice.email, NEW, &device).await.is(200);
}

async fn rename(person: &Person, name: &str, password: &str) -> Reply {
    let body = json_body(&json!({"username": name, "password": password}));
    let client = person.client.bearer(&person.access).with("content-type", "application/json");
    client.send(Method::PATCH, "/me", body).await
}

async fn a_right_password_of_somebody_signed_in_begins_anew(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    for round in 0..3 {
        for _ in 0..4 {
            rename(&alice, "another", "a wrong one").await.is_problem(401, "invalid_credentials");
        }
        rename(&alice, &format!("alice{round}"), PASSWORD).await.is(200);
    }
}

async fn what_was_never_judged_counts_neither_for_a_session_nor_for_a_device(stack: Stack) {
    let busy = [("LATCHKEY_LIMIT_ACCOUNT", "on"), ("LATCHKEY_HASH_THREADS", "1"), ("LATCHKEY_HASH_QUEUE", "2")];
    let app = stack.app_with(&busy).await;
    let alice = app.person("alice").await;
    let device = device_of(&alice).await;
    for _ in 0..4 {
        rename(&alice, "another", "a wrong one").await.is(401);
        login_from(&alice.client, &alice.email, "a wrong one", &device).await.is(401);
    }
    let (release, holder) = app.hold_hashing().await;
    // Both find a place and give up before the thread is free.
    let (renamed, signed_in) = tokio::join!(
        rename(&alice, "another", "a wrong one"),
        login_from(&alice.client, &alice.email, "a wrong one", &device)
    );
    renamed.is_problem(503, "busy");
    signed_in.is_problem(503, "busy");
    release.send(()).unwrap();
    holder.await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for status in [401, 429] {
        rename(&alice, "another", "a wrong one").await.is(status);
        login_from(&alice.client, &alice.email, "a wrong one", &device).await.is(status);
    }
}

async fn a_right_password_begins_anew_though_the_address_is_unproved(stack: Stack) {
    let required = [("LATCHKEY_LIMIT_ACCOUNT", "on"), ("LATCHKEY_EMAIL_VERIFICATION", "required")];
    let app = stack.app_with(&required).await;
    let email = "alice@example.com";
    let coded = app.registration_code(json!({"email": email, "password": PASSWORD})).await;
    app.anonymous().post("/email/verify", coded.body()).await.is(204);
    app.sql("UPDATE users SET email_verified = FALSE").await;
    for _ in 0..3 {
        for _ in 0..4 {
            app.anonymous().login(email, "a wrong password").await.is_problem(401, "invalid_credentials");
        }
        app.anonymous().login(email, PASSWORD).await.is_problem(403, "email_not_verified");
    }
}

async fn who_comes_from_a_reset_gets_a_device_token(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let coded = app.reset_code(&alice.email).await;
    app.anonymous().post("/password/reset", coded.reset(NEW)).await.is(204);
    let device = login_from(&alice.client, &alice.email, NEW, &coded.flow).await.is(200).text("/device_token");
    wear_out(&app.anonymous(), json!({"email": alice.email})).await;
    let again = login_from(&alice.client, &alice.email, NEW, &device).await.is(200);
    assert_eq!(again.json().get("device_token"), None);
}

async fn nobody_is_told_of_a_device_that_is_known(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = device_of(&alice).await;
    let notices = app.notices().await;
    let travelling = alice.client.coming_from([203, 0, 113, 1]).with("user-agent", "Firefox/140.0");
    login_from(&travelling, &alice.email, PASSWORD, &device).await.is(200);
    assert_eq!(app.notices().await, notices);
    let stranger = alice.client.coming_from([198, 51, 100, 1]).with("user-agent", "Firefox/140.0");
    login_from(&stranger, &alice.email, PASSWORD, "lkd_nonsense").await.is(200);
    assert_eq!(app.notices().await, notices + 1);
}

async fn a_known_device_may_wait_but_is_never_locked(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = device_of(&alice).await;
    for _ in 0..101 {
        login_from(&alice.client, &alice.email, "a wrong one", &device).await.is_problem(401, "invalid_credentials");
        app.pass(Duration::from_secs(60));
    }
    login_from(&alice.client, &alice.email, PASSWORD, &device).await.is(200);
}

async fn a_wait_is_told_in_whole_seconds_and_never_too_short(stack: Stack) {
    let app = counting(&stack).await;
    wear_out(&app.anonymous(), json!({"email": "nobody@example.com"})).await;
    let told = async |millis: u64| {
        app.pass(Duration::from_millis(millis));
        app.anonymous().login("nobody@example.com", "x").await.header("retry-after").to_owned()
    };
    assert_eq!([told(1).await, told(998).await], ["1", "1"], "a second and its last millisecond");
    assert_eq!(told(1).await, "", "judged");
    assert_eq!([told(0).await, told(1).await, told(998).await, told(1).await], ["2", "2", "2", "1"]);
}

/// Strangers ask until there are no more mails for them.
async fn exhaust(app: &TestApp, email: &str) {
    app.deliver().await;
    for number in 0..12u8 {
        app.pass(Duration::from_secs(75 * 60));
        let stranger = app.anonymous().coming_from([10, number, 0, 1]);
        stranger.post("/password/forgot", json!({"email": email})).await.is(202);
        app.deliver().await;
    }
    app.pass(Duration::from_secs(75 * 60));
}

async fn mails_for_known_devices_come_by_cookie_and_for_codes_of_both_kinds(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = device_of(&alice).await;
    exhaust(&app, &alice.email).await;
    let mails = async |client: &Client, path: &str, body: Value| {
        client.post(path, body).await.is(202);
        app.deliver().await;
        app.all_mails_to(&alice.email)
    };
    let before = app.all_mails_to(&alice.email);
    let (nothing, token) = (json!({"email": alice.email}), json!({"email": alice.email, "device_token": device}));
    assert_eq!(mails(&alice.client, "/email/verify/resend", nothing.clone()).await, before);
    assert_eq!(mails(&alice.client, "/email/verify/resend", token).await, before + 1);
    let cookie = alice.client.with("cookie", &format!("__Host-latchkey_device={device}"));
    assert_eq!(mails(&cookie, "/password/forgot", nothing).await, before + 2);
}

async fn mails_are_not_kept_for_devices_from_before_the_first_proof(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let squatter = device_of(&alice).await;
    let coded = app.reset_code(&alice.email).await;
    app.anonymous().post("/password/reset", coded.reset(NEW)).await.is(204);
    let device = alice.client.login(&alice.email, NEW).await.is(200).text("/device_token");
    exhaust(&app, &alice.email).await;
    let ask = async |token: &str| {
        let body = json!({"email": alice.email, "device_token": token});
        alice.client.post("/password/forgot", body).await.is(202);
        app.deliver().await;
        app.mails_to("reset_password", &alice.email).len()
    };
    let before = app.mails_to("reset_password", &alice.email).len();
    assert_eq!((ask(&squatter).await, ask(&device).await), (before, before + 1));
}
