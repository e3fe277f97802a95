//! Attempts of passwords, counted by name, by device and by session on all nodes together (`security.md` §5).

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use crate::{
    on_stacks,
    support::{Client, PASSWORD, Person, Reply, Stack, StackKind, Test, TestApp, json_body, scale},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL;
        five_wrong_passwords_are_free_and_then_there_is_a_wait,
        a_right_password_begins_anew,
        names_that_nobody_has_wait_alike,
        one_account_spelled_eight_ways_is_one_bucket,
        the_right_password_is_refused_among_two_hundred_parallel_ones,
        a_stranger_who_fails_all_day_does_not_keep_a_known_device_out,
        a_hundred_failures_make_strangers_wait_an_hour,
        a_reset_begins_anew_and_its_flow_vouches_for_a_while,
        a_device_token_is_made_once_and_is_good_for_its_person_only,
        a_device_token_comes_by_cookie_too,
        ending_sessions_gives_a_device_no_new_attempts,
        devices_from_before_the_first_proof_of_an_address_are_unknown,
        a_stolen_access_token_is_no_oracle,
        a_busy_server_counts_nothing,
        a_session_is_refreshed_thirty_times_a_minute,
        theft_is_told_however_often_somebody_asks,
        the_limit_of_accounts_can_be_switched_off,
        some_mails_a_day_are_kept_for_known_devices,
        a_known_device_ends_the_long_wait_of_every_name,
        collected_device_tokens_are_no_more_than_eight,
        a_right_password_is_no_failure_when_a_store_fails,
        a_login_that_a_reset_overtook_gets_no_device_token,
        what_a_device_token_costs_tells_nobody_who_exists,
    ];
    tests.extend(on_stacks![&StackKind::SHARED; two_nodes_count_together]);
    tests.extend(
        on_stacks![&StackKind::REDIS; without_redis_nothing_is_unlimited, a_name_costs_redis_little_and_not_for_long],
    );
    tests
}

async fn counting(stack: &Stack) -> TestApp {
    stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await
}

async fn wrong(client: &Client, email: &str) -> Reply {
    client.login(email, "a wrong password").await
}

async fn fail_five_times(client: &Client, email: &str) {
    for _ in 0..5 {
        wrong(client, email).await.is_problem(401, "invalid_credentials");
    }
}

async fn login_from(client: &Client, email: &str, password: &str, device: &str) -> Reply {
    client.post("/login", json!({"email": email, "password": password, "device_token": device})).await
}

async fn five_wrong_passwords_are_free_and_then_there_is_a_wait(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    fail_five_times(&alice.client, &alice.email).await;
    for wait in [1, 2, 4, 8] {
        let refused = wrong(&alice.client, &alice.email).await.is_problem(429, "too_many_attempts");
        assert_eq!(refused.header("retry-after"), wait.to_string());
        alice.client.login(&alice.email, PASSWORD).await.is_problem(429, "too_many_attempts");
        app.pass(Duration::from_secs(wait));
        wrong(&alice.client, &alice.email).await.is_problem(401, "invalid_credentials");
    }
    app.pass(Duration::from_secs(16));
    alice.client.login(&alice.email, PASSWORD).await.is(200);
}

async fn a_right_password_begins_anew(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    for _ in 0..3 {
        for _ in 0..4 {
            wrong(&alice.client, &alice.email).await.is_problem(401, "invalid_credentials");
        }
        alice.client.login(&alice.email, PASSWORD).await.is(200);
    }
}

async fn names_that_nobody_has_wait_alike(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let client = app.anonymous().with("x-request-id", "same");
    let mut told: Vec<Vec<(u16, Vec<u8>, String)>> = Vec::new();
    for name in [alice.email.as_str(), "nobody@example.com", "no address"] {
        let mut replies = Vec::new();
        for _ in 0..8 {
            let reply = wrong(&client, name).await;
            replies.push((reply.status, reply.body.clone(), reply.header("retry-after").to_owned()));
        }
        told.push(replies);
    }
    assert!(told.iter().all(|replies| *replies == told[0]), "{told:?}");
}

async fn one_account_spelled_eight_ways_is_one_bucket(stack: Stack) {
    let app = counting(&stack).await;
    let body = json!({"email": "alice@bücher.example", "password": PASSWORD});
    app.anonymous().post("/register", body).await.is(201);
    let spellings = [
        "alice@bücher.example",
        "ALICE@bücher.example",
        "alice@BÜCHER.example",
        "Alice@xn--bcher-kva.example",
        "alice@XN--BCHER-KVA.example",
        "alice@ｂücher.example",
        "aLiCe@bücher。example",
        "alice@bu\u{308}cher.example",
    ];
    let statuses = [401, 401, 401, 401, 401, 429, 429, 429];
    for (spelling, status) in spellings.iter().zip(statuses) {
        wrong(&app.anonymous(), spelling).await.is(status);
    }
    let usernames = ["Carol", "carol", "CAROL", "cArol", "caRol", "carOl"];
    for (username, status) in usernames.iter().zip(statuses) {
        app.anonymous().post("/login", json!({"username": username, "password": "a wrong one"})).await.is(status);
    }
}

async fn the_right_password_is_refused_among_two_hundred_parallel_ones(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on"), ("LATCHKEY_HASH_QUEUE", "1000")]).await;
    app.person("alice").await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let client = app.anonymous();
        tasks.spawn(async move {
            // Late enough that five others are reserved before it, whatever the order of the tasks.
            if number == 150 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                return client.login("alice@example.com", PASSWORD).await.status;
            }
            wrong(&client, "alice@example.com").await.status
        });
    }
    let statuses = tasks.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 195);
}

async fn a_stranger_who_fails_all_day_does_not_keep_a_known_device_out(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token");
    for _ in 0..40 {
        let _ = wrong(&app.anonymous(), &alice.email).await;
        app.pass(Duration::from_secs(61));
    }
    let _ = wrong(&app.anonymous(), &alice.email).await;
    alice.client.login(&alice.email, PASSWORD).await.is_problem(429, "too_many_attempts");
    login_from(&alice.client, &alice.email, PASSWORD, &device).await.is(200);
    // Its own failures count for it, and not for others.
    for _ in 0..5 {
        login_from(&alice.client, &alice.email, "a wrong one", &device).await.is_problem(401, "invalid_credentials");
    }
    login_from(&alice.client, &alice.email, PASSWORD, &device).await.is_problem(429, "too_many_attempts");
    alice.client.login(&alice.email, PASSWORD).await.is(200);
}

async fn a_hundred_failures_make_strangers_wait_an_hour(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token");
    for _ in 0..100 {
        wrong(&app.anonymous(), &alice.email).await.is_problem(401, "invalid_credentials");
        app.pass(Duration::from_secs(61));
    }
    for _ in 0..2 {
        let refused = alice.client.login(&alice.email, PASSWORD).await.is_problem(429, "too_many_attempts");
        assert_eq!(refused.header("retry-after"), "3600");
        app.pass(Duration::from_secs(3601));
    }
    login_from(&alice.client, &alice.email, PASSWORD, &device).await.is(200);
    alice.client.login(&alice.email, PASSWORD).await.is(200);
}

async fn a_reset_begins_anew_and_its_flow_vouches_for_a_while(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let mallory = app.person("mallory").await;
    let attack = async |until: u16| while wrong(&app.anonymous(), &alice.email).await.status != until {};
    attack(429).await;
    let coded = app.reset_code(&alice.email).await;
    app.anonymous().post("/password/reset", coded.reset("a staple for the horse")).await.is(204);
    alice.client.login(&alice.email, "a staple for the horse").await.is(200);
    attack(429).await;
    let flow = coded.body()["flow_id"].as_str().unwrap().to_owned();
    login_from(&alice.client, &alice.email, "a staple for the horse", &flow).await.is(200);
    attack(429).await;
    // It vouches for nobody else, and not for ever; and a flow that was not completed vouches for nobody.
    while wrong(&app.anonymous(), &mallory.email).await.status != 429 {}
    login_from(&alice.client, &mallory.email, PASSWORD, &flow).await.is_problem(429, "too_many_attempts");
    app.pass(Duration::from_secs(15 * 60));
    attack(429).await;
    login_from(&alice.client, &alice.email, "a staple for the horse", &flow).await.is_problem(429, "too_many_attempts");
    let pending = app.reset_code(&mallory.email).await.body()["flow_id"].as_str().unwrap().to_owned();
    while wrong(&app.anonymous(), &mallory.email).await.status != 429 {}
    login_from(&alice.client, &mallory.email, PASSWORD, &pending).await.is_problem(429, "too_many_attempts");
}

/// It takes an access token and no password, so whoever stole one could guess for ever.
async fn ending_sessions_gives_a_device_no_new_attempts(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let alice = app.person("alice").await;
    let device = alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token");
    for _ in 0..5 {
        login_from(&alice.client, &alice.email, "a wrong one", &device).await.is_problem(401, "invalid_credentials");
    }
    let client = alice.client.bearer(&alice.access);
    client.send(axum::http::Method::DELETE, "/me/sessions", axum::body::Body::empty()).await.is(204);
    login_from(&alice.client, &alice.email, PASSWORD, &device).await.is_problem(429, "too_many_attempts");
    // A completed reset does: who could read the mail need not wait for what strangers did.
    let coded = app.reset_code(&alice.email).await;
    while login_from(&alice.client, &alice.email, "a wrong one", &device).await.status != 429 {}
    app.anonymous().post("/password/reset", coded.reset("another fine password")).await.is(204);
    login_from(&alice.client, &alice.email, "another fine password", &device).await.is(200);
}

async fn a_device_token_is_made_once_and_is_good_for_its_person_only(stack: Stack) {
    let app = counting(&stack).await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let device = alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token");
    assert!(device.starts_with("lkd_"));
    let again = login_from(&alice.client, &alice.email, PASSWORD, &device).await.is(200);
    assert_eq!(again.json().get("device_token"), None, "the one it has is good");
    assert!(alice.client.refresh(&again.text("/refresh_token")).await.is(200).json().get("device_token").is_none());
    let other = login_from(&bob.client, &bob.email, PASSWORD, &device).await.is(200);
    assert_ne!(other.text("/device_token"), device);
    while wrong(&app.anonymous(), &bob.email).await.status != 429 {}
    login_from(&bob.client, &bob.email, PASSWORD, &device).await.is_problem(429, "too_many_attempts");
    for garbage in ["", "lkd_", "x", &device[..40]] {
        login_from(&alice.client, &alice.email, PASSWORD, garbage).await.is(200).text("/device_token");
    }
    // It proves no identity.
    alice.client.bearer(&device).get("/me").await.is_problem(401, "invalid_token");
    alice.client.refresh(&device).await.is_problem(401, "invalid_refresh_token");
    app.pass(Duration::from_secs(400 * 86_400));
    login_from(&alice.client, &alice.email, PASSWORD, &device).await.is(200).text("/device_token");
}

async fn a_device_token_comes_by_cookie_too(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token");
    while wrong(&app.anonymous(), &alice.email).await.status != 429 {}
    let cookie = |text: &str| alice.client.with("cookie", text);
    let with = cookie(&format!("a=b; __Host-latchkey_device={device}; c=d"));
    with.login(&alice.email, PASSWORD).await.is(200);
    while wrong(&app.anonymous(), &alice.email).await.status != 429 {}
    for text in
        [format!("latchkey_device={device}"), format!("__Host-latchkey_device=x; __Host-latchkey_device={device}")]
    {
        cookie(&text).login(&alice.email, PASSWORD).await.is_problem(429, "too_many_attempts");
    }
}

async fn devices_from_before_the_first_proof_of_an_address_are_unknown(stack: Stack) {
    let app = counting(&stack).await;
    let squatter = app.person("victim").await;
    let device = squatter.client.login(&squatter.email, PASSWORD).await.is(200).text("/device_token");
    app.pass(Duration::from_secs(120));
    let coded = app.reset_code(&squatter.email).await;
    app.anonymous().post("/password/reset", coded.reset("a staple for the horse")).await.is(204);
    app.pass(Duration::from_secs(20 * 60));
    while wrong(&app.anonymous(), &squatter.email).await.status != 429 {}
    login_from(&app.anonymous(), &squatter.email, "guess", &device).await.is_problem(429, "too_many_attempts");
}

async fn confirmations(person: &Person, password: &str) -> Vec<(Method, &'static str, Value)> {
    let _ = person;
    vec![
        (Method::PUT, "/me/password", json!({"current_password": password, "new_password": "a staple for the horse"})),
        (Method::PATCH, "/me", json!({"username": "another", "password": password})),
        (Method::POST, "/me/email", json!({"new_email": "other@example.org", "password": password})),
        (Method::DELETE, "/me", json!({"password": password})),
        (Method::POST, "/me/delete", json!({"password": password})),
    ]
}

async fn a_stolen_access_token_is_no_oracle(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let elsewhere = alice.elsewhere().await;
    let thief = alice.client.bearer(&alice.access).with("content-type", "application/json");
    for (number, (method, path, body)) in confirmations(&alice, "a wrong one").await.into_iter().enumerate() {
        let reply = thief.send(method, path, json_body(&body)).await;
        assert_eq!(reply.status, 401, "{number} {path}");
    }
    for (method, path, body) in confirmations(&alice, PASSWORD).await {
        thief.send(method, path, json_body(&body)).await.is_problem(429, "too_many_attempts");
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE username = 'alice'").await, 1);
    // Another session of the same person has nothing to do with it, and neither has signing in.
    let owner = elsewhere.client.bearer(&elsewhere.access).with("content-type", "application/json");
    let body = json_body(&json!({"username": "another", "password": PASSWORD}));
    owner.send(Method::PATCH, "/me", body).await.is(200);
    app.anonymous().login(&alice.email, PASSWORD).await.is(200);
}

async fn a_busy_server_counts_nothing(stack: Stack) {
    let app = stack
        .app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on"), ("LATCHKEY_HASH_THREADS", "1"), ("LATCHKEY_HASH_QUEUE", "1")])
        .await;
    let alice = app.person("alice").await;
    let (release, holder) = app.hold_hashing().await;
    // One waits for the thread and gives up after two seconds; the others find the queue full.
    let first = tokio::spawn({
        let client = alice.client.clone();
        async move { wrong(&client, "alice@example.com").await.status }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..20 {
        wrong(&alice.client, &alice.email).await.is_problem(503, "busy");
    }
    assert_eq!(first.await.unwrap(), 503);
    release.send(()).unwrap();
    holder.await.unwrap();
    // The one that gave up still has its place, until the thread has looked at it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    fail_five_times(&alice.client, &alice.email).await;
    wrong(&alice.client, &alice.email).await.is_problem(429, "too_many_attempts");
}

async fn a_session_is_refreshed_thirty_times_a_minute(stack: Stack) {
    let app = counting(&stack).await;
    let mut alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    for _ in 0..30 {
        alice.take(&alice.client.refresh(&alice.refresh).await.is(200));
    }
    app.pass(Duration::from_secs(20));
    let refused = alice.client.refresh(&alice.refresh).await.is_problem(429, "too_many_attempts");
    assert_eq!(refused.header("retry-after"), "40");
    assert!(alice.is_signed_in().await);
    alice.client.refresh(&other.refresh).await.is(200);
    app.pass(Duration::from_secs(40));
    alice.take(&alice.client.refresh(&alice.refresh).await.is(200));
}

async fn theft_is_told_however_often_somebody_asks(stack: Stack) {
    let app = counting(&stack).await;
    let mut alice = app.person("alice").await;
    let stolen = alice.refresh.clone();
    for _ in 0..30 {
        alice.take(&alice.client.refresh(&alice.refresh).await.is(200));
    }
    alice.client.refresh(&alice.refresh).await.is_problem(429, "too_many_attempts");
    alice.client.refresh(&stolen).await.is_problem(401, "refresh_token_reused");
    assert!(!alice.is_signed_in().await);
}

async fn the_limit_of_accounts_can_be_switched_off(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "off")]).await;
    let mut alice = app.person("alice").await;
    for _ in 0..12 {
        wrong(&alice.client, &alice.email).await.is_problem(401, "invalid_credentials");
    }
    for _ in 0..40 {
        alice.take(&alice.client.refresh(&alice.refresh).await.is(200));
    }
}

async fn some_mails_a_day_are_kept_for_known_devices(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token");
    app.deliver().await;
    for number in 0..12u8 {
        app.pass(Duration::from_secs(75 * 60));
        let stranger = app.anonymous().coming_from([10, number, 0, 1]);
        stranger.post("/password/forgot", json!({"email": alice.email})).await.is(202);
        app.deliver().await;
    }
    assert_eq!(app.mails_to("reset_password", &alice.email).len(), 7, "and the code of the registration");
    let ask = async |token: &str| {
        app.pass(Duration::from_secs(61));
        let body = json!({"email": alice.email, "device_token": token});
        alice.client.post("/password/forgot", body).await.is(202);
        app.deliver().await;
        app.mails_to("reset_password", &alice.email).len()
    };
    assert_eq!(ask("lkd_nonsense").await, 7);
    let bob = app.person("bob").await;
    let foreign = bob.client.login(&bob.email, PASSWORD).await.is(200).text("/device_token");
    assert_eq!(ask(&foreign).await, 7, "somebody else's is none");
    assert_eq!(ask(&device).await, 8);
    assert_eq!(ask(&device).await, 9);
    assert_eq!(ask(&device).await, 9, "ten a day over all");
}

async fn two_nodes_count_together(stack: Stack) {
    let (here, there) = (counting(&stack).await, counting(&stack).await);
    here.person("alice").await;
    let mut statuses = Vec::new();
    for number in 0..8 {
        let client = if number % 2 == 0 { here.anonymous() } else { there.anonymous() };
        statuses.push(wrong(&client, "alice@example.com").await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..scale::race() {
        let client = if number % 2 == 0 { here.anonymous() } else { there.anonymous() };
        tasks.spawn(async move { wrong(&client, "bob@example.com").await.status });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|status| *status == 401).count(), 5);
}

async fn without_redis_nothing_is_unlimited(stack: Stack) {
    let proxied = crate::faults::behind_with(&stack, "REDIS_URL", 6379, &[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let (proxy, app) = proxied;
    app.person("alice").await;
    proxy.set(crate::support::Mode::Reset);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..8 {
        wrong(&app.anonymous(), "alice@example.com").await.is_problem(503, "unavailable");
    }
}

/// A million names are what a botnet can ask for in a day; what each of them costs decides whether Redis stands it.
async fn a_name_costs_redis_little_and_not_for_long(stack: Stack) {
    let app = counting(&stack).await;
    for number in 0..20 {
        wrong(&app.anonymous(), &format!("nobody{number}@example.com")).await.is(401);
    }
    let settings = stack.settings().await;
    let (_, url) = settings.iter().find(|(name, _)| name == "REDIS_URL").unwrap();
    let mut redis = redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("{}:*", stack.redis_prefix());
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
    assert_eq!(keys.len(), 20);
    for key in keys {
        let bytes: u64 = redis::cmd("MEMORY").arg("USAGE").arg(&key).query_async(&mut redis).await.unwrap();
        let ttl: u64 = redis::cmd("TTL").arg(&key).query_async(&mut redis).await.unwrap();
        assert!(bytes <= 220 && ttl <= 25 * 3600, "{key}: {bytes} bytes for {ttl} s");
    }
}

async fn a_known_device_ends_the_long_wait_of_every_name(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token");
    let by_username =
        async |password: &str| app.anonymous().post("/login", json!({"username": "alice", "password": password})).await;
    for _ in 0..100 {
        by_username("a wrong password").await.is(401);
        app.pass(Duration::from_secs(61));
    }
    assert_eq!(by_username(PASSWORD).await.is(429).header("retry-after"), "3600");
    login_from(&alice.client, &alice.email, PASSWORD, &device).await.is(200);
    by_username(PASSWORD).await.is(200);
}

async fn collected_device_tokens_are_no_more_than_eight(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let mut devices = Vec::new();
    for _ in 0..40 {
        devices.push(alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token"));
    }
    let mut judged = 0;
    for _ in 0..6 {
        for device in &devices {
            judged += usize::from(login_from(&alice.client, &alice.email, "a wrong one", device).await.status == 401);
        }
    }
    assert!((5..=40).contains(&judged), "{judged} of 240");
}

async fn a_right_password_is_no_failure_when_a_store_fails(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    app.sql("ALTER TABLE events RENAME TO away").await;
    for _ in 0..12 {
        alice.client.login(&alice.email, PASSWORD).await.is(500);
    }
    app.sql("ALTER TABLE away RENAME TO events").await;
    alice.client.login(&alice.email, PASSWORD).await.is(200);
}

async fn a_login_that_a_reset_overtook_gets_no_device_token(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on"), ("LATCHKEY_HASH_THREADS", "1")]).await;
    let squatter = app.person("victim").await;
    let (release, holder) = app.hold_hashing().await;
    let client = squatter.client.clone();
    let login = tokio::spawn(async move { client.login("victim@example.com", PASSWORD).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    app.sql("UPDATE users SET epoch = epoch + 1").await;
    release.send(()).unwrap();
    holder.await.unwrap();
    let reply = login.await.unwrap().is(200).json();
    assert_eq!(reply.get("device_token"), None);
}

async fn what_a_device_token_costs_tells_nobody_who_exists(stack: Stack) {
    let app = counting(&stack).await;
    let alice = app.person("alice").await;
    let device = alice.client.login(&alice.email, PASSWORD).await.is(200).text("/device_token");
    let flow = app.reset_code(&alice.email).await.body()["flow_id"].as_str().unwrap().to_owned();
    for shown in [device.as_str(), &flow, "lkd_x", "AAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let mut costs = Vec::new();
        for email in ["nobody@example.com", "alice@example.com"] {
            let attempt = async { login_from(&app.anonymous(), email, "a wrong one", shown).await.status };
            costs.push(crate::budgets::spent(&app, attempt).await);
        }
        assert_eq!(costs[0], costs[1], "{shown}");
    }
}
