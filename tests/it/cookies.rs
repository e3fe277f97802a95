//! Cookie transport: setting, rotating and clearing, the origin check, and which credential counts. A real browser asks
//! the same in `scripts/verify-cookies`.

use std::time::Duration;

use axum::{body::Body, http::Method};
use serde_json::{Value, json};

use crate::{
    on_stacks,
    support::{Client, PASSWORD, Reply, Stack, StackKind, Test, TestApp},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL;
        a_login_in_cookie_transport_sets_cookies_and_no_body_tokens,
        a_refresh_by_cookie_rotates_the_cookie,
        a_logout_by_cookie_ends_the_session_and_clears_it,
        a_login_ends_the_session_of_the_cookie_it_came_with,
        nothing_happens_for_a_foreign_origin,
    ];
    tests.extend(on_stacks![&[StackKind::Embedded];
        the_device_cookie_is_set_once_and_stays,
        the_token_in_the_body_counts_before_the_cookie,
        the_cookie_counts_before_the_access_token,
        only_the_public_url_and_listed_origins_may_act_with_a_cookie,
        an_origin_is_compared_as_browsers_write_it,
        a_refused_cookie_is_left_where_it_is,
        two_cookies_of_one_name_are_none,
        a_neighbour_that_is_no_text_hides_nothing,
        everywhere_by_cookie_wants_a_live_one,
        transports_have_two_words,
    ]);
    tests
}

const OWN: &str = "http://localhost:3000";
const REFRESH: &str = "__Host-latchkey_refresh";
const DEVICE: &str = "__Host-latchkey_device";

/// A browser with a page of the server's own origin open.
fn page(app: &TestApp) -> Client {
    app.anonymous().with("origin", OWN)
}

fn credentials(email: &str) -> Value {
    json!({"email": email, "password": PASSWORD, "refresh_transport": "cookie"})
}

/// The `Set-Cookie` lines of an answer: name, value, attributes.
fn set(reply: &Reply) -> Vec<(String, String, String)> {
    let lines = reply.headers.get_all("set-cookie").iter();
    lines
        .map(|line| {
            let (pair, attributes) = line.to_str().unwrap().split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.to_owned(), attributes.to_owned())
        })
        .collect()
}

/// The value of the one cookie of this name that an answer sets.
fn value(reply: &Reply, name: &str) -> String {
    let found: Vec<_> = set(reply).into_iter().filter(|(set, ..)| set == name).collect();
    assert_eq!(found.len(), 1, "{name}: {:?}", set(reply));
    found[0].1.clone()
}

/// A browser that carries this refresh cookie.
fn carrying(client: &Client, refresh: &str) -> Client {
    client.with("cookie", &format!("theme=dark; {REFRESH}={refresh}"))
}

async fn empty(client: &Client, path: &str) -> Reply {
    client.send(Method::POST, path, Body::empty()).await
}

async fn a_login_in_cookie_transport_sets_cookies_and_no_body_tokens(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let reply = page(&app).post("/login", credentials(&alice.email)).await.is(200);
    let body = reply.json();
    let mut names: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["access_token", "expires_in", "refresh_expires_in", "session_id", "token_type"]);
    let cookies = set(&reply);
    assert_eq!(cookies.len(), 2);
    assert_eq!((cookies[0].0.as_str(), &cookies[0].1[..4]), (REFRESH, "lkr_"));
    assert_eq!(cookies[0].2, "Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=604800");
    assert_eq!(body["refresh_expires_in"], 604_800);
    assert_eq!((cookies[1].0.as_str(), &cookies[1].1[..4]), (DEVICE, "lkd_"));
    assert_eq!(cookies[1].2, "Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=34560000");
    // And the tokens are what they are in the other transport.
    alice.client.refresh(&cookies[0].1).await.is(200);
    app.anonymous().bearer(body["access_token"].as_str().unwrap()).get("/me").await.is(200);
}

async fn a_refresh_by_cookie_rotates_the_cookie(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_ABSOLUTE_TTL", "8d")]).await;
    let alice = app.person("alice").await;
    let page = page(&app);
    let mut cookie = value(&page.post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    for day in 1..=3 {
        app.pass(Duration::from_secs(86_400));
        let browser = carrying(&page, &cookie);
        let reply = match day {
            1 => empty(&browser, "/refresh").await,
            2 => browser.post("/refresh", json!({})).await,
            _ => browser.post("/refresh", json!({"refresh_token": null})).await,
        };
        let reply = reply.is(200);
        assert!(reply.json().get("refresh_token").is_none());
        assert_eq!(set(&reply).len(), 1, "no device cookie at a refresh");
        let next = value(&reply, REFRESH);
        assert_ne!(next, cookie);
        let lifetime = reply.json()["refresh_expires_in"].as_u64().unwrap();
        assert_eq!(lifetime, 7.min(8 - day) * 86_400);
        assert!(set(&reply)[0].2.ends_with(&format!("; Max-Age={lifetime}")));
        cookie = next;
    }
    // A stolen older one ends it, as in the other transport.
    app.pass(Duration::from_secs(60));
    let old = cookie.clone();
    cookie = value(&empty(&carrying(&page, &cookie), "/refresh").await.is(200), REFRESH);
    app.pass(Duration::from_secs(60));
    empty(&carrying(&page, &old), "/refresh").await.is_problem(401, "refresh_token_reused");
    empty(&carrying(&page, &cookie), "/refresh").await.is_problem(401, "invalid_refresh_token");
}

async fn a_logout_by_cookie_ends_the_session_and_clears_it(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let page = page(&app);
    let cookie = value(&page.post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    let browser = carrying(&page, &cookie);
    let reply = empty(&browser, "/logout").await.is(204);
    let attributes = "Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0";
    let cleared = [(REFRESH.to_owned(), String::new(), attributes.to_owned())];
    assert_eq!(set(&reply), cleared);
    empty(&browser, "/refresh").await.is_problem(401, "invalid_refresh_token");
    // A cookie of a session that is over, and one that is none of ours, go as well.
    assert_eq!(set(&empty(&browser, "/logout").await.is(204)), cleared);
    assert_eq!(set(&empty(&carrying(&page, "lkr_garbage"), "/logout").await.is(204)), cleared);
    assert!(alice.is_signed_in().await, "another session of the person goes on");
    assert_eq!(app.events("signed_out").await, 1);
}

async fn a_login_ends_the_session_of_the_cookie_it_came_with(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let page = page(&app);
    let first = value(&page.post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    let browser = carrying(&page, &first);

    let wrong = json!({"email": bob.email, "password": "wrong password", "refresh_transport": "cookie"});
    let reply = browser.post("/login", wrong).await.is_problem(401, "invalid_credentials");
    assert!(set(&reply).is_empty());
    let second = value(&empty(&browser, "/refresh").await.is(200), REFRESH);

    // In body transport the cookie is no matter.
    browser.login(&bob.email, PASSWORD).await.is(200);
    let third = value(&empty(&carrying(&page, &second), "/refresh").await.is(200), REFRESH);

    let next = value(&carrying(&page, &third).post("/login", credentials(&bob.email)).await.is(200), REFRESH);
    empty(&carrying(&page, &third), "/refresh").await.is_problem(401, "invalid_refresh_token");
    empty(&carrying(&page, &next), "/refresh").await.is(200);
    assert!(alice.is_signed_in().await && bob.is_signed_in().await);
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 1);
    let left = app.ephemeral.list(app.ambient.now(), alice.id).await.unwrap();
    assert_eq!(left.len(), 1, "its record takes no place under the cap");
    let whose = format!("SELECT COUNT(*) FROM events WHERE kind = 'signed_out' AND person_id = {}", app.id(alice.id));
    assert_eq!(app.number(&whose).await, 1);
}

async fn nothing_happens_for_a_foreign_origin(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let alice = app.person("alice").await;
    let cookie = value(&page(&app).post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    let sessions = app.number("SELECT COUNT(*) FROM events WHERE kind = 'signed_in'").await;
    let wrong = json!({"email": alice.email, "password": "wrong password", "refresh_transport": "cookie"});
    for client in [
        app.anonymous(),
        app.anonymous().with("origin", "http://localhost:3001"),
        app.anonymous().with("origin", "null"),
        app.anonymous().with("origin", OWN).with("origin", OWN),
    ] {
        let browser = carrying(&client, &cookie);
        let mut replies = vec![empty(&browser, "/refresh").await, empty(&browser, "/logout").await];
        replies.push(browser.post("/logout", json!({"all": true})).await);
        // Neither a right password nor many wrong ones are looked at.
        replies.push(client.post("/login", credentials(&alice.email)).await);
        for _ in 0..6 {
            replies.push(client.post("/login", wrong.clone()).await);
        }
        for reply in replies {
            assert!(set(&reply.is_problem(403, "bad_origin")).is_empty());
        }
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 0);
    assert_eq!(app.number("SELECT COUNT(*) FROM events WHERE kind = 'signed_in'").await, sessions);
    let moved = value(&empty(&carrying(&page(&app), &cookie), "/refresh").await.is(200), REFRESH);
    assert_ne!(moved, cookie, "it had not moved before");
    page(&app).post("/login", credentials(&alice.email)).await.is(200);
}

async fn the_device_cookie_is_set_once_and_stays(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let reply = page(&app).post("/login", credentials(&alice.email)).await.is(200);
    let (refresh, device) = (value(&reply, REFRESH), value(&reply, DEVICE));
    let known = page(&app).with("cookie", &format!("{DEVICE}={device}; {REFRESH}={refresh}"));
    assert_eq!(set(&empty(&known, "/logout").await.is(204)).len(), 1, "a logout leaves it");
    assert_eq!(set(&known.post("/login", credentials(&alice.email)).await.is(200)).len(), 1, "it is known already");
    let other = known.post("/login", credentials(&bob.email)).await.is(200);
    assert_ne!(value(&other, DEVICE), device, "it is good for one person");
    let body = known.login(&alice.email, PASSWORD).await.is(200);
    assert!(body.json().get("device_token").is_none() && set(&body).is_empty());
}

async fn the_token_in_the_body_counts_before_the_cookie(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let cookie = value(&page(&app).post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    // No page of ours: what is in the body needs none.
    let client = carrying(&app.anonymous().with("origin", "https://evil.example"), &cookie);
    let reply = client.refresh(&alice.refresh).await.is(200);
    assert!(set(&reply).is_empty() && reply.json()["refresh_token"].is_string());
    client.refresh("lkr_garbage").await.is_problem(401, "invalid_refresh_token");
    let moved = reply.text("/refresh_token");
    assert!(set(&client.post("/logout", json!({"refresh_token": moved})).await.is(204)).is_empty());
    assert!(!alice.is_signed_in().await);
    empty(&carrying(&page(&app), &cookie), "/refresh").await.is(200);
}

async fn the_cookie_counts_before_the_access_token(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let cookie = value(&page(&app).post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    let browser = carrying(&page(&app), &cookie).bearer(&bob.access);
    empty(&browser, "/logout").await.is(204);
    assert!(bob.is_signed_in().await);
    empty(&carrying(&page(&app), &cookie), "/refresh").await.is_problem(401, "invalid_refresh_token");
    // And it is not passed over for the other one when the page is foreign.
    let foreign = carrying(&app.anonymous(), &cookie).bearer(&bob.access);
    empty(&foreign, "/logout").await.is_problem(403, "bad_origin");
    assert!(bob.is_signed_in().await);
}

async fn only_the_public_url_and_listed_origins_may_act_with_a_cookie(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_CORS_ORIGINS", "http://localhost:5173,https://app.example.com")]).await;
    let alice = app.person("alice").await;
    for origin in [OWN, "http://localhost:5173", "https://app.example.com"] {
        let page = app.anonymous().with("origin", origin);
        let cookie = value(&page.post("/login", credentials(&alice.email)).await.is(200), REFRESH);
        empty(&carrying(&page, &cookie), "/refresh").await.is(200);
        empty(&carrying(&page, &cookie), "/logout").await.is(204);
    }
    for origin in [
        "http://localhost",
        "https://localhost:3000",
        "http://localhost:30000",
        "http://localhost:3000.evil.example",
        "http://localhost:3000/",
        "HTTP://LOCALHOST:3000",
        "http://app.example.com",
        "https://app.example.com.evil.example",
        "https://evil.example/https://app.example.com",
        "https://app.example.com https://evil.example",
        "",
    ] {
        let reply = app.anonymous().with("origin", origin).post("/login", credentials(&alice.email)).await;
        reply.is_problem(403, "bad_origin");
    }
}

async fn an_origin_is_compared_as_browsers_write_it(stack: Stack) {
    let listed = ("LATCHKEY_CORS_ORIGINS", "https://app.example.com:443,http://other.example:80");
    let app = stack.app_with(&[listed]).await;
    let alice = app.person("alice").await;
    for origin in ["https://app.example.com", "http://other.example"] {
        let page = app.anonymous().with("origin", origin);
        let reply = page.post("/login", credentials(&alice.email)).await.is(200);
        assert_eq!(reply.header("access-control-allow-origin"), origin);
    }
}

async fn a_refused_cookie_is_left_where_it_is(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let cookie = value(&page(&app).post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    app.anonymous().post("/logout", json!({"refresh_token": cookie})).await.is(204);
    let browser = carrying(&page(&app), &cookie);
    for reply in [
        empty(&browser, "/refresh").await.is_problem(401, "invalid_refresh_token"),
        browser.post("/logout", json!({"all": true})).await.is_problem(401, "invalid_refresh_token"),
        empty(&carrying(&page(&app), "x"), "/refresh").await.is_problem(401, "invalid_refresh_token"),
        empty(&carrying(&page(&app), ""), "/refresh").await.is_problem(401, "invalid_refresh_token"),
    ] {
        assert!(set(&reply).is_empty());
    }
    empty(&page(&app), "/refresh").await.is_problem(401, "missing_token");
    empty(&page(&app), "/logout").await.is_problem(400, "missing_token");
}

async fn two_cookies_of_one_name_are_none(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let cookie = value(&page(&app).post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    let browser = carrying(&carrying(&page(&app), &cookie), &alice.refresh);
    empty(&browser, "/refresh").await.is_problem(401, "missing_token");
    empty(&browser, "/logout").await.is_problem(400, "missing_token");
    let planted = page(&app).with("cookie", &format!("{}={cookie}", REFRESH.to_lowercase()));
    empty(&planted, "/refresh").await.is_problem(401, "missing_token");
}

/// Another host of the domain, or a script of a third party, may put anything beside our cookie.
async fn a_neighbour_that_is_no_text_hides_nothing(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let cookie = value(&page(&app).post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    let mut line = b"x=\xe9\xff; ".to_vec();
    line.extend(format!("{REFRESH}={cookie}; y=\u{e9}").into_bytes());
    let browser = page(&app).with_bytes("cookie", &line);
    empty(&browser, "/refresh").await.is(200);
    empty(&browser, "/logout").await.is(204);
    // What is no space of a cookie line does not make a name ours (no other prefix is looked after by browsers).
    let planted = page(&app).with_bytes("cookie", format!("\u{2000}{REFRESH}={cookie}").as_bytes());
    empty(&planted, "/refresh").await.is_problem(401, "missing_token");
}

async fn everywhere_by_cookie_wants_a_live_one(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let cookie = value(&page(&app).post("/login", credentials(&alice.email)).await.is(200), REFRESH);
    let browser = carrying(&page(&app), &cookie);
    let reply = browser.post("/logout", json!({"all": true})).await.is(204);
    assert_eq!(value(&reply, REFRESH), "");
    assert!(!alice.is_signed_in().await);
    browser.post("/logout", json!({"all": true})).await.is_problem(401, "invalid_refresh_token");
}

async fn transports_have_two_words(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for (transport, status) in [(json!("body"), 200), (Value::Null, 200), (json!("Cookie"), 422), (json!(1), 422)] {
        let body = json!({"email": alice.email, "password": PASSWORD, "refresh_transport": transport});
        let reply = page(&app).post("/login", body).await.is(status);
        assert!(set(&reply).is_empty());
    }
}
