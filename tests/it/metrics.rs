//! What `/metrics` tells: numbers that follow what was done, labels that are all ours, and an answer whatever is away.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::{body::Body, http::Method};
use latchkey::{
    accounts::operator::{self, Via, Who},
    metrics::{EndCause, Words},
    sessions::{Ledger, RefreshToken, operator as sessions_operator},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    faults::behind_with,
    on_stacks, once,
    smtp::mailing,
    support::{Client, Mode, Mood, PASSWORD, Person, Scrape, Sink, Stack, StackKind, Test, TestApp, json_body, scale},
};

pub fn tests() -> Vec<Test> {
    let mut tests = once![every_cause_of_an_event_that_ends_a_session_is_counted];
    tests.extend(on_stacks![&StackKind::ALL;
        logins_and_registrations_are_counted_by_outcome,
        refreshes_are_counted_by_outcome,
        codes_and_confirmations_are_counted_by_outcome,
        registrations_that_wait_are_counted,
        ends_of_sessions_are_counted_by_cause,
        an_end_that_was_not_committed_is_not_counted,
        mails_and_the_outbox_are_counted,
        nothing_of_a_person_becomes_a_label,
        what_the_stores_do_is_timed,
        a_database_that_is_away_is_told_of_in_time,
        a_fault_in_our_sql_is_told_apart,
    ]);
    tests.extend(on_stacks![&StackKind::SHARED; a_database_that_is_silent_is_told_of_in_time]);
    tests.extend(on_stacks![&StackKind::REDIS; a_redis_that_is_silent_is_told_of_in_time]);
    tests.extend(on_stacks![&[StackKind::Embedded];
        requests_are_counted_by_route_method_and_status,
        random_paths_and_methods_add_no_series,
        every_route_has_a_series_of_its_own,
        the_hash_queue_tells_its_depth_its_waits_and_whom_it_sent_away,
        limits_are_counted_by_policy,
        a_crowd_of_scrapes_is_one_question_to_the_stores,
        keys_and_the_process_tell_of_themselves,
    ]);
    tests
}

const NEW: &str = "a staple for the horse";

/// What this family grew by, as `{label="value"} number`.
async fn grown(app: &TestApp, before: &Scrape, family: &str) -> Vec<String> {
    app.scrape().await.since(before, family)
}

fn by(label: &str, counts: &[(&str, u32)]) -> Vec<String> {
    let mut lines: Vec<_> = counts.iter().map(|(word, count)| format!("{{{label}=\"{word}\"}} {count}")).collect();
    lines.sort();
    lines
}

async fn put(person: &Person, path: &str, body: &Value) -> u16 {
    let client = person.client.bearer(&person.access).with("content-type", "application/json");
    client.send(Method::PUT, path, json_body(body)).await.status
}

// --- use cases ---------------------------------------------------------------

async fn logins_and_registrations_are_counted_by_outcome(stack: Stack) {
    let app = stack
        .app_with(&[
            ("LATCHKEY_LIMIT_ACCOUNT", "on"),
            ("LATCHKEY_HASH_THREADS", "1"),
            ("LATCHKEY_REGISTRATION_DOMAINS", "example.com"),
        ])
        .await;
    let before = app.scrape().await;
    let alice = app.person("alice").await;
    for (email, username) in [("alice@example.com", "alice2"), ("bob@example.com", "alice"), ("c@example.org", "carol")]
    {
        let body = json!({"email": email, "username": username, "password": PASSWORD});
        let reply = app.anonymous().post("/register", body).await;
        assert!(reply.status == 409 || reply.status == 403, "{}", reply.status);
    }
    for _ in 0..5 {
        app.anonymous().login("nobody@example.com", PASSWORD).await.is(401);
    }
    app.anonymous().login("nobody@example.com", PASSWORD).await.is_problem(429, "too_many_attempts");
    let (release, holder) = app.hold_hashing().await;
    alice.client.login(&alice.email, PASSWORD).await.is_problem(503, "busy");
    let body = json!({"email": "dave@example.com", "password": PASSWORD});
    app.anonymous().post("/register", body).await.is_problem(503, "busy");
    release.send(()).unwrap();
    holder.await.unwrap();
    let logins = [("success", 1), ("wrong_credentials", 5), ("too_many_attempts", 1), ("busy", 1)];
    assert_eq!(grown(&app, &before, "latchkey_logins_total").await, by("outcome", &logins));
    let registrations = [("created", 1), ("email_taken", 1), ("username_taken", 1), ("closed", 1), ("busy", 1)];
    assert_eq!(grown(&app, &before, "latchkey_registrations_total").await, by("outcome", &registrations));
    assert_eq!(grown(&app, &before, "latchkey_sessions_opened_total").await, [" 1"]);
    assert_eq!(grown(&app, &before, "latchkey_limits_hit_total").await, by("policy", &[("attempts", 1)]));

    app.db.close().await;
    alice.client.login(&alice.email, PASSWORD).await.is(503);
    let body = json!({"email": "erin@example.com", "password": PASSWORD});
    alice.client.post("/register", body).await.is(503);
    let now = app.scrape().await;
    assert_eq!(now.of("latchkey_logins_total{outcome=\"failed\"}"), 1.0);
    assert_eq!(now.of("latchkey_registrations_total{outcome=\"failed\"}"), 1.0);
}

async fn refreshes_are_counted_by_outcome(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let (mut alice, bob) = (app.person("alice").await, app.person("bob").await);
    let before = app.scrape().await;
    let first = alice.refresh.clone();
    let reply = alice.client.refresh(&first).await.is(200);
    alice.take(&reply);
    alice.client.refresh(&first).await.is(200);
    alice.client.refresh("lkr_garbage").await.is(401);
    let mut ahead = RefreshToken::parse(&bob.refresh, &app.secrets).unwrap();
    ahead.generation = 3;
    bob.client.refresh(ahead.render(&app.secrets).expose()).await.is(200);
    bob.client.post("/logout", json!({"refresh_token": bob.refresh})).await.is(204);
    bob.client.refresh(&bob.refresh).await.is(401);
    app.pass(Duration::from_secs(60));
    alice.client.refresh(&first).await.is_problem(401, "refresh_token_reused");
    let refreshes = [("success", 1), ("repeated", 1), ("healed", 1), ("invalid", 2), ("reused", 1)];
    assert_eq!(grown(&app, &before, "latchkey_refreshes_total").await, by("outcome", &refreshes));

    let carol = app.person("carol").await;
    let before = app.scrape().await;
    for _ in 0..31 {
        let reply = carol.client.refresh(&carol.refresh).await;
        assert!(reply.status == 200 || reply.status == 429, "{}", reply.status);
    }
    app.db.close().await;
    carol.client.refresh(&carol.refresh).await.is(503);
    let refreshes = [("success", 1), ("repeated", 29), ("too_often", 1), ("failed", 1)];
    assert_eq!(grown(&app, &before, "latchkey_refreshes_total").await, by("outcome", &refreshes));
    assert_eq!(grown(&app, &before, "latchkey_limits_hit_total").await, by("policy", &[("session", 1)]));
}

async fn codes_and_confirmations_are_counted_by_outcome(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let alice = app.person("alice").await;
    let before = app.scrape().await;
    let coded = app.verify_code(&alice.email).await;
    for number in 0..5 {
        app.anonymous().post("/email/verify", coded.wrong(number).body()).await.is(400);
    }
    app.anonymous().post("/email/verify", coded.body()).await.is(400);
    app.anonymous().post("/email/verify", json!({"flow_id": "x", "code": "12345678"})).await.is(400);
    let change = app.change_code(&alice, "alice@example.org").await;
    app.anonymous().post("/password/reset", change.reset(NEW)).await.is(400);
    app.anonymous().post("/me/email/confirm", change.body()).await.is(204);
    let reset = app.reset_code("alice@example.org").await;
    app.anonymous().post("/password/reset", reset.reset(NEW)).await.is(204);
    let codes = [
        "{purpose=\"change\",outcome=\"right\"} 1",
        "{purpose=\"change\",outcome=\"wrong\"} 1",
        "{purpose=\"reset\",outcome=\"right\"} 1",
        "{purpose=\"verify\",outcome=\"spent\"} 1",
        "{purpose=\"verify\",outcome=\"unknown\"} 1",
        "{purpose=\"verify\",outcome=\"wrong\"} 5",
    ];
    assert_eq!(grown(&app, &before, "latchkey_codes_total").await, codes);

    let bob = app.person("bob").await;
    let before = app.scrape().await;
    let body = |password: &str| json!({"current_password": password, "new_password": NEW});
    for expected in [401, 401, 401, 401, 401, 429] {
        assert_eq!(put(&bob, "/me/password", &body("wrong password")).await, expected);
    }
    app.pass(Duration::from_secs(120));
    let bob = bob.elsewhere().await;
    assert_eq!(put(&bob, "/me/password", &body(PASSWORD)).await, 204);
    let confirmations = [("right", 1), ("wrong", 5), ("too_many_attempts", 1)];
    let family = "latchkey_password_confirmations_total";
    assert_eq!(grown(&app, &before, family).await, by("outcome", &confirmations));
    assert_eq!(grown(&app, &before, "latchkey_limits_hit_total").await, by("policy", &[("attempts", 1)]));
}

async fn registrations_that_wait_are_counted(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_EMAIL_VERIFICATION", "required")]).await;
    let before = app.scrape().await;
    let coded = app.registration_code(json!({"email": "frank@example.com", "password": PASSWORD})).await;
    app.anonymous().post("/email/verify", coded.body()).await.is(204);
    let registrations = [("pending", 1), ("completed", 1)];
    assert_eq!(grown(&app, &before, "latchkey_registrations_total").await, by("outcome", &registrations));
    assert_eq!(grown(&app, &before, "latchkey_codes_total").await, ["{purpose=\"register\",outcome=\"right\"} 1"]);
    app.sql("UPDATE users SET email_verified = FALSE").await;
    app.anonymous().login("frank@example.com", PASSWORD).await.is_problem(403, "email_not_verified");
    assert_eq!(grown(&app, &before, "latchkey_logins_total").await, by("outcome", &[("not_verified", 1)]));
}

async fn ends_of_sessions_are_counted_by_cause(stack: Stack) {
    let app = stack.app().await;
    let family = "latchkey_sessions_ended_total";
    let before = app.scrape().await;
    let mut alice = app.person("alice").await;
    // Twice the same end is one.
    for _ in 0..2 {
        alice.client.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    }
    assert_eq!(grown(&app, &before, family).await, by("cause", &[("signed_out", 1)]));
    alice.sign_in().await;
    alice.client.bearer(&alice.access).send(Method::DELETE, "/me/sessions", Body::empty()).await.is(204);
    let browser = app.anonymous().with("origin", "http://localhost:3000");
    let login = json!({"email": alice.email, "password": PASSWORD, "refresh_transport": "cookie"});
    let reply = browser.post("/login", login.clone()).await.is(200);
    let cookie = reply.headers.get_all("set-cookie").iter().next().unwrap().to_str().unwrap();
    browser.with("cookie", cookie.split(';').next().unwrap()).post("/login", login).await.is(200);
    let mut wanted = vec![("signed_out", 2), ("replaced", 1)];
    assert_eq!(grown(&app, &before, family).await, by("cause", &wanted));

    let (first, mut thief) = (alice.refresh.clone(), alice.clone());
    let reply = thief.client.refresh(&first).await.is(200);
    thief.take(&reply);
    app.pass(Duration::from_secs(60));
    alice.client.refresh(&first).await.is_problem(401, "refresh_token_reused");
    alice.sign_in().await;
    assert_eq!(put(&alice, "/me/password", &json!({"current_password": PASSWORD, "new_password": NEW})).await, 204);
    let reset = app.reset_code(&alice.email).await;
    app.anonymous().post("/password/reset", reset.reset(PASSWORD)).await.is(204);
    alice.sign_in().await;
    let change = app.change_code(&alice, "alice@example.org").await;
    app.anonymous().post("/me/email/confirm", change.body()).await.is(204);
    "alice@example.org".clone_into(&mut alice.email);
    alice.sign_in().await;
    let mut conn = app.db.read().await.unwrap();
    let person = operator::find(&mut conn, &Who::Id(alice.id)).await.unwrap().unwrap();
    drop(conn);
    let (ledger, via) = (Ledger::of(&app), Via::CommandLine);
    assert!(sessions_operator::revoke(&ledger, via, &person, alice.session).await.unwrap());
    let bob = app.person("bob").await;
    bob.client.bearer(&bob.access).post("/me/delete", json!({"password": PASSWORD})).await.is(204);
    operator::disable(&app.db, &app.ephemeral, &app.ambient, via, alice.id).await.unwrap();
    let causes =
        EndCause::ALL.iter().map(|cause| cause.word()).filter(|word| !["signed_out", "replaced"].contains(word));
    wanted.extend(causes.map(|word| (word, 1)));
    assert_eq!(grown(&app, &before, family).await, by("cause", &wanted));
}

async fn an_end_that_was_not_committed_is_not_counted(stack: Stack) {
    use latchkey::events::{Event, Kind};
    let app = stack.app().await;
    let before = app.scrape().await;
    let mut tx = app.db.begin(app.ambient.now()).await.unwrap();
    Event::new(Kind::PersonDeleted).record(&mut tx, &app.ambient).await.unwrap();
    drop(tx);
    assert!(grown(&app, &before, "latchkey_sessions_ended_total").await.is_empty());
    let mut tx = app.db.begin(app.ambient.now()).await.unwrap();
    Event::new(Kind::PersonDeleted).record(&mut tx, &app.ambient).await.unwrap();
    tx.commit().await.unwrap();
    let ended = grown(&app, &before, "latchkey_sessions_ended_total").await;
    assert_eq!(ended, by("cause", &[("person_deleted", 1)]));
}

/// A new cause would be written into events and into no metric.
fn every_cause_of_an_event_that_ends_a_session_is_counted() {
    let mut found = BTreeSet::new();
    for slice in ["accounts", "passwords", "sessions", "verification"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(slice);
        for entry in std::fs::read_dir(folder).unwrap() {
            let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
            let causes = text.split(".with(\"cause\", \"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(causes.map(str::to_owned));
        }
    }
    assert!(found.len() >= 3, "{found:?}");
    for cause in found {
        assert!(EndCause::parse(&cause).is_some(), "{cause}");
    }
}

// --- mails -------------------------------------------------------------------

async fn mails_and_the_outbox_are_counted(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    let before = app.scrape().await;
    assert_eq!(
        (before.of("latchkey_outbox_mails{state=\"pending\"}"), before.of("latchkey_outbox_oldest_seconds")),
        (0.0, 0.0)
    );
    app.person("alice").await;
    app.deliver().await;
    sink.set(Mood::Temporary);
    app.person("bob").await;
    app.pass(Duration::from_secs(7));
    let waiting = app.scrape().await;
    assert_eq!(waiting.of("latchkey_outbox_mails{state=\"pending\"}"), 1.0);
    assert_eq!(waiting.of("latchkey_outbox_overdue_seconds"), 7.0);
    app.deliver().await;
    app.pass(Duration::from_secs(5));
    let tried = app.scrape().await;
    assert_eq!((tried.of("latchkey_outbox_oldest_seconds"), tried.of("latchkey_outbox_overdue_seconds")), (12.0, 0.0));
    app.anonymous().post("/password/forgot", json!({"email": "nobody@example.com"})).await.is(202);
    for _ in 0..2 {
        app.pass(Duration::from_secs(24 * 60 * 60));
        app.deliver().await;
    }
    app.pass(Duration::from_secs(5));
    let now = app.scrape().await;
    assert_eq!(
        (now.of("latchkey_outbox_mails{state=\"pending\"}"), now.of("latchkey_outbox_mails{state=\"dead\"}")),
        (0.0, 1.0)
    );
    let mails = [
        "{kind=\"reset_password\",outcome=\"dropped\"} 1",
        "{kind=\"verify_address\",outcome=\"dead\"} 1",
        "{kind=\"verify_address\",outcome=\"refused\"} 1",
        "{kind=\"verify_address\",outcome=\"sent\"} 1",
    ];
    assert_eq!(now.since(&before, "latchkey_mails_total"), mails);

    // A stranger asks more often than the caps let through.
    sink.set(Mood::Accept);
    for _ in 0..2 {
        app.anonymous().post("/password/forgot", json!({"email": "alice@example.com"})).await.is(202);
    }
    app.deliver().await;
    assert_eq!(grown(&app, &before, "latchkey_limits_hit_total").await, by("policy", &[("mails", 1)]));
}

// --- requests ----------------------------------------------------------------

async fn requests_are_counted_by_route_method_and_status(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await;
    let alice = app.person("alice").await;
    let before = app.scrape().await;
    alice.me().await.is(200);
    alice.me().await.is(200);
    app.anonymous().get("/me").await.is(401);
    let session = format!("/me/sessions/{}", uuid::Uuid::nil());
    alice.client.bearer(&alice.access).send(Method::DELETE, &session, Body::empty()).await.is(404);
    app.anonymous().get("/login").await.is(405);
    app.anonymous().send("BREW".parse().unwrap(), "/login", Body::empty()).await.is(405);
    app.anonymous().get("/nowhere/at/all").await.is(404);
    let (release, holder) = app.hold_hashing().await;
    let gone = timeout(Duration::from_millis(200), alice.client.login(&alice.email, PASSWORD)).await;
    assert!(gone.is_err(), "the client hangs up");
    release.send(()).unwrap();
    holder.await.unwrap();
    let now = app.scrape().await;
    let wanted = [
        "{route=\"(unmatched)\",method=\"GET\",status=\"404\"} 1",
        "{route=\"/login\",method=\"(other)\",status=\"405\"} 1",
        "{route=\"/login\",method=\"GET\",status=\"405\"} 1",
        "{route=\"/login\",method=\"POST\",status=\"499\"} 1",
        "{route=\"/me\",method=\"GET\",status=\"200\"} 2",
        "{route=\"/me\",method=\"GET\",status=\"401\"} 1",
        "{route=\"/me/sessions/{id}\",method=\"DELETE\",status=\"404\"} 1",
        "{route=\"/metrics\",method=\"GET\",status=\"200\"} 1",
    ];
    assert_eq!(now.since(&before, "latchkey_http_requests_total"), wanted);
    let took = "latchkey_http_request_duration_seconds";
    let labels = "{route=\"/login\",method=\"POST\"}";
    let (count, sum) = (format!("{took}_count{labels}"), format!("{took}_sum{labels}"));
    assert_eq!(now.of(&count) - before.count(&count), 1.0);
    assert!(now.of(&sum) - before.count(&sum) >= 0.2, "it took as long as the client had patience");
    assert_eq!(now.of("latchkey_http_requests_running"), 1.0, "the scrape itself");
}

async fn random_paths_and_methods_add_no_series(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    client.get("/no").await.is(404);
    client.send("BREW".parse().unwrap(), "/no", Body::empty()).await.is(404);
    client.get("/me").await.is(401);
    client.send("BREW".parse().unwrap(), "/me", Body::empty()).await.is(405);
    app.scrape().await;
    let before = app.scrape().await.series();
    let count = scale::random_paths();
    for number in 0..count {
        let method: Method = format!("M{number}").parse().unwrap();
        let path = if number % 4 == 0 { "/me".to_owned() } else { format!("/{number:x}/{number}?q={number}") };
        let method = if number % 2 == 0 { method } else { Method::GET };
        let reply = client.send(method, &path, Body::empty()).await;
        assert!(reply.status == 404 || reply.status == 405, "{path}: {}", reply.status);
    }
    let after = app.scrape().await;
    assert_eq!(after.series(), before);
    let unmatched = "latchkey_http_requests_total{route=\"(unmatched)\",method=\"(other)\",status=\"404\"}";
    assert!(after.of(unmatched) >= f64::from(u32::try_from(count / 4).unwrap()));
}

async fn every_route_has_a_series_of_its_own(stack: Stack) {
    let app = stack.app().await;
    // Every route that a source names, and all operations of the document.
    let mut routes: BTreeSet<String> =
        latchkey::app::api_document("http://localhost:3000")["paths"].as_object().unwrap().keys().cloned().collect();
    for file in ["http/docs.rs", "http/health.rs", "passwords/page.rs"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        routes.extend(text.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    assert!(routes.len() > 25, "{routes:?}");
    let internal = Client::of(app.internal_router());
    for route in &routes {
        let path = route.replace("{id}", &uuid::Uuid::nil().to_string());
        for client in [&app.anonymous(), &internal] {
            client.get(&path).await;
        }
    }
    let seen = app.scrape().await;
    for route in routes {
        let prefix = format!("latchkey_http_requests_total{{route=\"{route}\",method=\"GET\"");
        assert!(seen.series().iter().any(|series| series.starts_with(&prefix)), "{route} has none");
    }
    assert!(!seen.text.contains("status=\"(other)\""), "every status that is answered is known");
}

/// Signs of one person that may be nowhere but in the database and in mails to her.
const CANARIES: [&str; 9] =
    ["canary", "kanarienvogel", "203.0.113.77", "canaryagent", "canary-request", "lkr_", "lkd_", "eyJ", PASSWORD];

async fn nothing_of_a_person_becomes_a_label(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let client = app
        .anonymous()
        .with("x-forwarded-for", "203.0.113.77")
        .with("user-agent", "canaryagent/1.0")
        .with("x-request-id", "canary-request")
        .with("accept-language", "de-canary");
    let person = client.register("canary").await;
    let mut forbidden: BTreeSet<String> = CANARIES.iter().map(|&canary| canary.to_owned()).collect();
    forbidden.extend([person.id.to_string(), person.id.simple().to_string(), person.session.to_string()]);
    forbidden.insert(app.keys.list()[0].kid.clone());
    let document = latchkey::app::api_document("http://localhost:3000");
    let bodies = [
        json!({"canary": "canary"}),
        json!({"email": "kanarienvogel@example.com", "username": "kanarienvogel", "password": PASSWORD}),
        json!({"email": person.email, "password": PASSWORD}),
        json!({"username": "canary", "password": "kanarienvogel"}),
        json!({"email": person.email}),
        json!({"refresh_token": person.refresh}),
        json!({"flow_id": "canary", "code": "12345678"}),
        json!({"flow_id": "canary", "code": "12345678", "new_password": "kanarienvogel"}),
        json!({"new_email": "kanarienvogel@example.com", "password": PASSWORD}),
        json!({"display_name": "Kanarienvogel"}),
        json!({"current_password": "kanarienvogel", "new_password": "canary canary"}),
        json!({"password": PASSWORD}),
    ];
    // What ends the session comes last.
    let last =
        |path: &str, method: &str| path == "/logout" || path == "/me/delete" || (path, method) == ("/me", "delete");
    let paths = document["paths"].as_object().unwrap();
    let mut operations: Vec<(&String, &String)> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (path, method)))
        .collect();
    operations.sort_by_key(|(path, method)| last(path, method));
    let mut asked = BTreeMap::new();
    for (path, method) in operations {
        for body in &bodies {
            let path = format!("{}?canary=canary", path.replace("{id}", "canary"));
            let client = client.bearer(&person.access).with("content-type", "application/json");
            let method: Method = method.to_uppercase().parse().unwrap();
            let reply = client.send(method, &path, json_body(body)).await;
            *asked.entry(reply.status).or_insert(0) += 1;
        }
    }
    for method in ["GET", "CANARY"] {
        client.send(method.parse().unwrap(), "/canary/canary@example.com", Body::empty()).await.is(404);
    }
    app.deliver().await;
    for status in [200, 201, 202, 204, 400, 401, 404, 422] {
        assert!(asked.contains_key(&status), "all sorts of answers: {asked:?}");
    }
    let text = app.scrape().await.text.to_lowercase();
    for canary in forbidden {
        assert!(!text.contains(&canary.to_lowercase()), "{canary}");
    }
}

// --- stores, threads, keys ---------------------------------------------------

async fn what_the_stores_do_is_timed(stack: Stack) {
    let app = stack.app().await;
    let store = if stack.kind == StackKind::PgRedis { "redis" } else { "sql" };
    let alice = app.person("alice").await;
    let before = app.scrape().await;
    alice.client.refresh(&alice.refresh).await.is(200);
    alice.me().await.is(200);
    alice.client.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    let now = app.scrape().await;
    for (verb, times) in [("rotate", 1.0), ("find", 1.0), ("close", 1.0), ("open", 0.0)] {
        let labels = format!("{{store=\"{store}\",operation=\"{verb}\"}}");
        let count = format!("latchkey_session_store_operation_duration_seconds_count{labels}");
        assert_eq!(now.of(&count) - before.of(&count), times, "{verb}");
    }
    let grew = |series: &str| now.of(series) - before.of(series);
    let operation =
        |word: &str| grew(&format!("latchkey_database_operation_duration_seconds_count{{operation=\"{word}\"}}"));
    let transactions = if store == "redis" { 1.0 } else { 3.0 };
    assert_eq!((operation("begin"), operation("commit")), (transactions, transactions));
    // End and event; on SQL also the rotation and the removal.
    let writes = if store == "redis" { 2.0 } else { operation("write") };
    assert_eq!(operation("write"), writes);
    assert!(writes >= 2.0 && operation("read") >= 2.0);
    let (read, write) = if stack.kind == StackKind::Embedded { ("read", "write") } else { ("shared", "shared") };
    let waits = |pool: &str| grew(&format!("latchkey_database_connection_wait_seconds_count{{pool=\"{pool}\"}}"));
    assert!(waits(read) >= 2.0 && waits(write) >= transactions);
    assert_eq!(
        (now.of("latchkey_database_up"), now.of(&format!("latchkey_session_store_up{{store=\"{store}\"}}"))),
        (1.0, 1.0)
    );

    let held = app.db.begin(app.ambient.now()).await.unwrap();
    let used = |scrape: &Scrape| {
        let of =
            |state: &str| scrape.of(&format!("latchkey_database_connections{{pool=\"{write}\",state=\"{state}\"}}"));
        (
            of("used"),
            of("used") + of("idle") <= scrape.of(&format!("latchkey_database_connections_max{{pool=\"{write}\"}}")),
        )
    };
    assert_eq!(used(&app.scrape().await), (1.0, true));
    held.commit().await.unwrap();
    crate::support::eventually("it comes back", || async { used(&app.scrape().await) == (0.0, true) }).await;

    let fault = || app.db.asked().failures.of(latchkey::metrics::SqlFailure::Unavailable);
    let failures = fault();
    app.db.close().await;
    alice.me().await.is(503);
    assert!(fault() > failures);
    assert!(app.scrape().await.of("latchkey_database_failures_total{cause=\"unavailable\"}") > 0.0);
}

/// A scrape that must come in time though something is away.
async fn in_time(app: &TestApp) -> Scrape {
    app.pass(Duration::from_secs(5));
    timeout(Duration::from_secs(3), app.scrape()).await.expect("a scrape in time")
}

async fn a_database_that_is_away_is_told_of_in_time(stack: Stack) {
    let app = stack.app().await;
    app.db.close().await;
    let scrape = in_time(&app).await;
    assert_eq!(scrape.of("latchkey_database_up"), 0.0);
    let store_up = if stack.kind == StackKind::PgRedis { 1.0 } else { 0.0 };
    let up = scrape.samples.iter().find(|sample| sample.name == "latchkey_session_store_up");
    assert_eq!(up.map(|sample| sample.value), Some(store_up));
    assert!(!scrape.text.contains("\nlatchkey_outbox_mails{"), "what is not known is not told");
    if stack.kind != StackKind::PgRedis {
        assert_eq!(scrape.of("latchkey_session_store_failures_total{store=\"sql\",cause=\"database\"}"), 1.0);
    }
    assert!(scrape.families.contains_key("latchkey_logins_total"));
}

async fn a_fault_in_our_sql_is_told_apart(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let before = app.scrape().await;
    // Whoever comes second to a unique key is no failure.
    let body = json!({"email": alice.email, "password": PASSWORD});
    alice.client.post("/register", body).await.is_problem(409, "email_taken");
    assert!(grown(&app, &before, "latchkey_database_failures_total").await.is_empty());
    app.sql("ALTER TABLE ended_sessions RENAME TO elsewhere").await;
    alice.me().await.is_problem(500, "internal_error");
    let failures = grown(&app, &before, "latchkey_database_failures_total").await;
    assert_eq!(failures, by("cause", &[("fault", 1)]));
    assert_eq!(app.scrape().await.of("latchkey_problems_total{code=\"internal_error\"}"), 1.0);
}

async fn a_database_that_is_silent_is_told_of_in_time(stack: Stack) {
    let (proxy, app) = behind_with(&stack, "DATABASE_URL", 5432, &[]).await;
    assert_eq!(in_time(&app).await.of("latchkey_database_up"), 1.0);
    proxy.set(Mode::BlackHole);
    let scrape = in_time(&app).await;
    assert_eq!(scrape.of("latchkey_database_up"), 0.0);
    assert!(scrape.of("latchkey_database_failures_total{cause=\"timeout\"}") >= 1.0);
    // Until it is asked again nobody waits.
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(app.scrape().await.of("latchkey_database_up"), 0.0);
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    proxy.set(Mode::Pass);
    crate::support::eventually("it is up again", || async { in_time(&app).await.of("latchkey_database_up") == 1.0 })
        .await;
}

async fn a_redis_that_is_silent_is_told_of_in_time(stack: Stack) {
    let (proxy, app) = behind_with(&stack, "REDIS_URL", 6379, &[]).await;
    let up = "latchkey_session_store_up{store=\"redis\"}";
    assert_eq!(in_time(&app).await.of(up), 1.0);
    proxy.set(Mode::BlackHole);
    let scrape = in_time(&app).await;
    assert_eq!((scrape.of(up), scrape.of("latchkey_database_up")), (0.0, 1.0));
    assert!(scrape.of("latchkey_session_store_failures_total{store=\"redis\",cause=\"timeout\"}") >= 1.0);
}

async fn a_crowd_of_scrapes_is_one_question_to_the_stores(stack: Stack) {
    let app = stack.app().await;
    let statements = || app.db.asked().statements.load(std::sync::atomic::Ordering::SeqCst);
    app.pass(Duration::from_secs(5));
    let before = statements();
    let scrapes = (0..scale::race()).map(|_| app.scrape());
    futures_util::future::join_all(scrapes).await;
    // The outbox, and the sign of life of the sessions, which are in the same file here.
    assert_eq!(statements() - before, 2);
    app.pass(Duration::from_secs(5));
    app.scrape().await;
    assert_eq!(statements() - before, 4);
}

async fn the_hash_queue_tells_its_depth_its_waits_and_whom_it_sent_away(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_HASH_THREADS", "1"), ("LATCHKEY_HASH_QUEUE", "2")]).await;
    let alice = app.person("alice").await;
    let before = app.scrape().await;
    assert_eq!((before.of("latchkey_hash_queue_capacity"), before.of("latchkey_hash_threads")), (2.0, 1.0));
    let (release, holder) = app.hold_hashing().await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let (client, email) = (alice.client.clone(), alice.email.clone());
            tokio::spawn(async move { client.login(&email, PASSWORD).await })
        })
        .collect();
    let depth = || async { app.scrape().await.of("latchkey_hash_queue_depth") };
    crate::support::eventually("two wait", || async { depth().await == 2.0 }).await;
    assert_eq!(app.scrape().await.of("latchkey_hash_threads_working"), 1.0);
    alice.client.login(&alice.email, PASSWORD).await.is_problem(503, "busy");
    for login in waiting {
        login.await.unwrap().is_problem(503, "busy");
    }
    release.send(()).unwrap();
    holder.await.unwrap();
    // Who gave up left the work behind; the thread throws it away.
    crate::support::eventually("none waits", || async { depth().await == 0.0 }).await;
    alice.client.login(&alice.email, PASSWORD).await.is(200);
    crate::support::eventually("the thread rests", || async {
        app.scrape().await.of("latchkey_hash_threads_working") == 0.0
    })
    .await;
    let now = app.scrape().await;
    let refused = [("queue_full", 1), ("waited_too_long", 2)];
    assert_eq!(now.since(&before, "latchkey_hash_refused_total"), by("cause", &refused));
    assert_eq!(now.of("latchkey_hash_queue_depth"), 0.0);
    for part in ["wait", "run"] {
        let count = format!("latchkey_hash_{part}_seconds_count");
        assert_eq!(now.of(&count) - before.of(&count), 2.0, "the one that held the thread, and the last one");
    }
    let sum = "latchkey_hash_run_seconds_sum";
    assert!(now.of(sum) - before.of(sum) > 1.5, "as long as the thread was held");

    app.sql("UPDATE users SET password_hash = 'nonsense'").await;
    alice.client.login(&alice.email, PASSWORD).await.is(401);
    assert_eq!(app.scrape().await.of("latchkey_unreadable_hashes_total"), 1.0);
}

async fn limits_are_counted_by_policy(stack: Stack) {
    let limits = ["REGISTER", "LOGIN", "REFRESH", "LOGOUT", "CODES"].map(|name| format!("LATCHKEY_LIMIT_{name}"));
    let settings: Vec<_> = limits.iter().map(|name| (name.as_str(), "1/1h")).collect();
    let app = stack.app_with(&settings).await;
    let before = app.scrape().await;
    let paths = [("/register", 1), ("/login", 2), ("/refresh", 3), ("/logout", 4), ("/password/forgot", 5)];
    for (path, over) in paths {
        for _ in 0..=over {
            app.anonymous().post(path, json!({})).await;
        }
    }
    // Networks of one /48 use up what that has.
    for number in 0..10 {
        let address: std::net::IpAddr = format!("2001:db8:1:{number:x}::1").parse().unwrap();
        app.anonymous().coming_from(address).post("/login", json!({})).await;
    }
    let hit = [("register", 1), ("login", 4), ("refresh", 3), ("logout", 4), ("codes", 5)];
    assert_eq!(grown(&app, &before, "latchkey_limits_hit_total").await, by("policy", &hit));
}

async fn keys_and_the_process_tell_of_themselves(stack: Stack) {
    let app = stack.app().await;
    let started = app.scrape().await;
    app.pass(Duration::from_secs(3600));
    let now = app.scrape().await;
    let states = ["next", "active", "retiring", "retired"];
    let keys = states.map(|state| now.of(&format!("latchkey_signing_keys{{state=\"{state}\"}}")));
    assert_eq!(keys, [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(now.of("latchkey_signing_key_age_seconds") - started.of("latchkey_signing_key_age_seconds"), 3600.0);
    assert_eq!(now.of("latchkey_signing_key_held"), 1.0);
    assert_eq!(now.of("process_start_time_seconds"), 1_795_344_960.0, "the clock of the test, as it stood");
    assert!(now.of("process_resident_memory_bytes") > 1e6 && now.of("process_threads") >= 2.0);
    assert!(now.of("process_open_fds") >= 3.0 && now.of("process_max_fds") >= now.of("process_open_fds"));
    assert!(now.of("process_cpu_seconds_total") > 0.0);
    let info = now.samples.iter().find(|sample| sample.name == "latchkey_build_info").unwrap();
    assert_eq!(info.labels["version"], env!("CARGO_PKG_VERSION"));
    assert!(info.labels["rustc"].starts_with("rustc 1."), "{info:?}");
}
