//! The limits of each client network, whose address counts, and what operators see (`security.md` §5). The governor has
//! a clock of its own: windows here are real and short.

use std::{net::IpAddr, process::Command, time::Duration};

use axum::http::Method;
use serde_json::json;

use crate::{
    on_stacks,
    support::{Client, PASSWORD, Process, Reply, Stack, StackKind, Test, json_body},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&[StackKind::Embedded, StackKind::PgRedis];
        each_route_has_its_limit_and_tells_it,
        a_limit_that_is_off_tells_nothing,
        a_network_is_one_client,
        a_wide_network_has_eight_times_as_much,
        what_is_used_up_comes_back,
        a_wide_network_gets_it_back_eight_times_as_fast,
        the_limit_comes_before_the_body,
        routes_of_codes_share_a_limit,
        only_a_trusted_proxy_is_believed,
        one_proxy_and_the_other_header_can_be_named,
        a_header_is_no_way_around_a_limit,
        events_and_notices_name_the_clients_address,
        bad_limits_are_faults_by_name,
        operators_see_what_was_refused,
        a_word_with_two_statuses_is_one_count,
        the_doctor_explains_an_address,
    ]
}

async fn login(client: &Client) -> Reply {
    client.login("nobody@example.com", "a wrong password").await
}

async fn each_route_has_its_limit_and_tells_it(stack: Stack) {
    let app = stack
        .app_with(&[
            ("LATCHKEY_LIMIT_REGISTER", "10/1h:5"),
            ("LATCHKEY_LIMIT_LOGIN", "60/1m"),
            ("LATCHKEY_LIMIT_REFRESH", "600/1m"),
            ("LATCHKEY_LIMIT_LOGOUT", "600/1m"),
            ("LATCHKEY_LIMIT_CODES", "20/1m"),
        ])
        .await;
    let client = app.anonymous();
    for (path, body, policy, first) in [
        ("/register", json!({"email": "x"}), "\"register\";q=10;w=3600", "\"register\";r=4;t=3600"),
        ("/login", json!({}), "\"login\";q=60;w=60", "\"login\";r=59;t=60"),
        ("/refresh", json!({}), "\"refresh\";q=600;w=60", "\"refresh\";r=599;t=60"),
        ("/logout", json!({}), "\"logout\";q=600;w=60", "\"logout\";r=599;t=60"),
        ("/password/forgot", json!({}), "\"codes\";q=20;w=60", "\"codes\";r=19;t=60"),
    ] {
        let reply = client.post(path, body).await;
        assert_eq!((reply.header("ratelimit-policy"), reply.header("ratelimit")), (policy, first), "{path}");
        assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("x-ratelimit")), "{path}");
        assert_eq!(reply.header("retry-after"), "", "{path}");
    }
    for number in 0..4 {
        client.post("/register", json!({})).await.is_problem(422, "invalid_body");
        assert!(number < 4);
    }
    let refused = client.post("/register", json!({})).await.is_problem(429, "rate_limited");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=361).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), format!("\"register\";r=0;t={wait}"));
    assert_eq!(refused.header("ratelimit-policy"), "\"register\";q=10;w=3600");
    assert!(refused.headers.keys().all(|name| !name.as_str().starts_with("x-ratelimit")));
    client.login("nobody@example.com", "x").await.is(401);
    let me = client.get("/me").await;
    assert_eq!(me.header("ratelimit"), "", "what has no limit tells none");
}

async fn a_limit_that_is_off_tells_nothing(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_LOGIN", "off")]).await;
    for _ in 0..100 {
        let reply = login(&app.anonymous()).await.is(401);
        assert_eq!((reply.header("ratelimit"), reply.header("ratelimit-policy")), ("", ""));
    }
}

async fn a_network_is_one_client(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_LOGIN", "2/1h")]).await;
    let from =
        async |address: &str| login(&app.anonymous().coming_from(address.parse::<IpAddr>().unwrap())).await.status;
    assert_eq!([from("192.0.2.1").await, from("::ffff:192.0.2.1").await, from("192.0.2.1").await], [401, 401, 429]);
    assert_eq!(from("192.0.2.2").await, 401, "an IPv4 address is one client");
    assert_eq!([from("2001:db8::1").await, from("2001:db8::ffff").await, from("2001:db8::2").await], [401, 401, 429]);
    // Of a thousand /64s of one /48 two may share a slot.
    let others = ["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1"];
    assert!([from(others[0]).await, from(others[1]).await, from(others[2]).await].contains(&401), "another /64");
}

async fn a_wide_network_has_eight_times_as_much(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_LOGIN", "2/1h")]).await;
    let mut taken = 0;
    for number in 0..40 {
        let address: IpAddr = format!("2001:db8:1:{number:x}::1").parse().unwrap();
        taken += usize::from(login(&app.anonymous().coming_from(address)).await.status == 401);
    }
    assert_eq!(taken, 16);
    let other: IpAddr = "2001:db8:2::1".parse().unwrap();
    login(&app.anonymous().coming_from(other)).await.is(401);
}

async fn what_is_used_up_comes_back(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_LOGIN", "2/2s:1")]).await;
    let client = app.anonymous();
    login(&client).await.is(401);
    let refused = login(&client).await.is(429);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert_eq!(wait, 1);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    login(&client).await.is(401);
}

async fn the_limit_comes_before_the_body(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_LOGIN", "1/1h")]).await;
    let client = app.anonymous();
    login(&client).await.is(401);
    client.post_raw("/login", "text/plain", "x").await.is_problem(429, "rate_limited");
    client.post_raw("/login", "application/json", "{").await.is_problem(429, "rate_limited");
    // What is too large is refused before anything is counted.
    client.post_raw("/login", "application/json", "x".repeat(17 * 1024)).await.is_problem(429, "rate_limited");
    let huge = client.with("content-length", &(17 * 1024).to_string());
    huge.post_raw("/login", "application/json", "x").await.is_problem(413, "body_too_large");
}

async fn routes_of_codes_share_a_limit(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_CODES", "6/1h")]).await;
    let client = app.anonymous();
    for path in [
        "/password/forgot",
        "/password/reset",
        "/email/verify",
        "/email/verify/resend",
        "/me/email",
        "/me/email/confirm",
    ] {
        client.post(path, json!({})).await.is_problem(422, "invalid_body");
    }
    for path in [
        "/password/forgot",
        "/password/reset",
        "/email/verify",
        "/email/verify/resend",
        "/me/email",
        "/me/email/confirm",
    ] {
        client.post(path, json!({})).await.is_problem(429, "rate_limited");
    }
}

async fn only_a_trusted_proxy_is_believed(stack: Stack) {
    let settings = [("LATCHKEY_LIMIT_LOGIN", "1/1h"), ("LATCHKEY_TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8:aaaa::/48")];
    let app = stack.app_with(&settings).await;
    let proxy = app.anonymous().coming_from([10, 0, 0, 1]);
    let via =
        async |client: &Client, header: &'static str, value: &str| login(&client.with(header, value)).await.status;
    for number in 1..=3 {
        let address = format!("198.51.100.{number}");
        assert_eq!(via(&proxy, "x-forwarded-for", &address).await, 401, "{address}");
        assert_eq!(via(&proxy, "x-forwarded-for", &format!("203.0.113.7, {address}")).await, 429, "what it claims");
    }
    let stranger = app.anonymous().coming_from([192, 0, 2, 1]);
    assert_eq!(via(&stranger, "x-forwarded-for", "198.51.100.77").await, 401);
    assert_eq!(via(&stranger, "x-forwarded-for", "198.51.100.78").await, 429, "nobody believes a stranger");
}

async fn a_header_is_no_way_around_a_limit(stack: Stack) {
    let settings = [("LATCHKEY_LIMIT_LOGIN", "1/1h"), ("LATCHKEY_TRUSTED_PROXIES", "10.0.0.0/8")];
    let app = stack.app_with(&settings).await;
    let proxy = app.anonymous().coming_from([10, 0, 0, 1]);
    login(&proxy).await.is(401);
    for (header, value) in [
        ("x-forwarded-for", "unknown"),
        ("x-forwarded-for", ""),
        ("x-forwarded-for", "198.51.100.1, nonsense"),
        ("x-forwarded-for", "\"\u{e9}"),
        ("x-forwarded-for", "999.1.1.1"),
        ("x-forwarded-for", "198.51.100.1:99999"),
        ("x-real-ip", "198.51.100.2"),
        ("forwarded", "for=198.51.100.3"),
        ("true-client-ip", "198.51.100.4"),
        ("x_forwarded_for", "198.51.100.5"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-for", "10.0.0.1, ::ffff:10.0.0.1"),
    ] {
        login(&proxy.with(header, value)).await.is_problem(429, "rate_limited");
    }
}

async fn events_and_notices_name_the_clients_address(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_TRUSTED_PROXIES", "10.0.0.0/8")]).await;
    let alice = app.person("alice").await;
    let proxy = app.anonymous().coming_from([10, 0, 0, 1]).with("x-forwarded-for", "198.51.100.9, 10.0.0.2");
    let access = proxy.login(&alice.email, PASSWORD).await.is(200).text("/access_token");
    let body = json_body(&json!({"current_password": PASSWORD, "new_password": "a staple for the horse"}));
    let client = proxy.bearer(&access).with("content-type", "application/json");
    client.send(Method::PUT, "/me/password", body).await.is(204);
    let addresses = "SELECT COUNT(*) FROM events WHERE address = '198.51.100.9'";
    assert_eq!(app.number(addresses).await, 2);
    assert!(app.mail_to("password_changed", &alice.email).await.text().contains("198.51.100.9"));
}

async fn bad_limits_are_faults_by_name(stack: Stack) {
    for (name, value) in [
        ("LATCHKEY_LIMIT_LOGIN", "60"),
        ("LATCHKEY_LIMIT_LOGIN", "0/1m"),
        ("LATCHKEY_LIMIT_CODES", "60/0s"),
        ("LATCHKEY_LIMIT_REGISTER", "10/1h:0"),
        ("LATCHKEY_LIMIT_REFRESH", "-1/1m"),
        ("LATCHKEY_LIMIT_LOGOUT", "none"),
        ("LATCHKEY_LIMIT_ACCOUNT", "yes"),
        ("LATCHKEY_MAX_CONNECTIONS_PER_ADDRESS", "0"),
        ("LATCHKEY_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("LATCHKEY_TRUSTED_PROXIES", "proxy.example"),
        ("LATCHKEY_TRUSTED_PROXIES", "0.0.0.0/0"),
        ("LATCHKEY_TRUSTED_PROXIES", "10.0.0.0/8, ::/0"),
        ("LATCHKEY_LIMIT_LOGIN", "1/365d:1000000"),
        ("LATCHKEY_PROXY_HEADER", "x-real-ip"),
    ] {
        let mut settings = stack.settings().await;
        settings.push((name.to_owned(), value.to_owned()));
        let output = Process::try_start(stack.dir.path(), &settings).err().unwrap_or_else(|| panic!("{name}={value}"));
        assert!(output.contains(name) && output.contains("1 fault"), "{name}={value}: {output}");
    }
}

async fn operators_see_what_was_refused(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_LOGIN", "2/1h"), ("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    for _ in 0..5 {
        let _ = login(&app.anonymous()).await;
    }
    for number in 0..6 {
        let _ = login(&app.anonymous().coming_from([10, 0, 0, number])).await;
    }
    let metrics = Client::of(app.internal_router()).get("/metrics").await.is(200);
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(metrics.body.clone()).unwrap();
    for line in [
        "latchkey_problems_total{code=\"rate_limited\"} 3",
        "latchkey_problems_total{code=\"too_many_attempts\"} 3",
        "latchkey_problems_total{code=\"invalid_credentials\"} 5",
        "latchkey_connections_refused_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let mut names: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "no series stands twice");
    app.anonymous().get("/metrics").await.is_problem(404, "not_found");
}

async fn the_doctor_explains_an_address(stack: Stack) {
    let mut settings = stack.settings().await;
    settings.push(("LATCHKEY_TRUSTED_PROXIES".to_owned(), "10.0.0.0/8".to_owned()));
    let doctor = |arguments: &[&str]| {
        let mut command: Command = Process::command(stack.dir.path(), &settings);
        let output = command.arg("doctor").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for (peer, headers, client, why) in [
        ("10.0.0.7", &["X-Forwarded-For: 203.0.113.9, 10.0.0.8"][..], "203.0.113.9", "behind 1 trusted"),
        ("10.0.0.7", &["X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 198.51.100.1"], "198.51.100.1", "appended"),
        ("192.0.2.1", &["X-Forwarded-For: 203.0.113.9"], "192.0.2.1", "not in LATCHKEY_TRUSTED_PROXIES"),
        ("10.0.0.7", &["X-Forwarded-For: nonsense"], "10.0.0.7", "no address"),
    ] {
        let (code, told) = doctor(&[&["--peer", peer, "--explain-address"], headers].concat());
        assert_eq!(code, Some(0));
        assert!(told.contains(&format!("client   {client}\n")) && told.contains(why), "{told}");
    }
    assert_eq!(doctor(&["--explain-address", "no colon"]).0, Some(1));
    assert_eq!(doctor(&["--peer", "10.0.0.7"]).0, Some(2), "a question without its headers");
}

async fn a_wide_network_gets_it_back_eight_times_as_fast(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_LOGIN", "4/4s:1")]).await;
    let taken = async || {
        let mut taken = 0;
        // Each from a /64 of its own, so that only the limit of the /48 is in the way.
        for number in 0..40 {
            let address: IpAddr = format!("2001:db8:1:{number:x}::1").parse().unwrap();
            taken += usize::from(login(&app.anonymous().coming_from(address)).await.status == 401);
        }
        taken
    };
    // It comes back meanwhile, too: one in 125 ms.
    assert!((8..40).contains(&taken().await));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!((8..40).contains(&taken().await));
}

async fn one_proxy_and_the_other_header_can_be_named(stack: Stack) {
    let app = stack
        .app_with(&[
            ("LATCHKEY_LIMIT_LOGIN", "1/1h"),
            ("LATCHKEY_TRUSTED_PROXIES", "10.0.0.1"),
            ("LATCHKEY_PROXY_HEADER", "Forwarded"),
        ])
        .await;
    let proxy = app.anonymous().coming_from([10, 0, 0, 1]);
    for number in 1..=3 {
        login(&proxy.with("forwarded", &format!("for=198.51.100.{number}"))).await.is(401);
    }
    login(&proxy.with("x-forwarded-for", "198.51.100.4")).await.is(401);
    login(&proxy.with("x-forwarded-for", "198.51.100.5")).await.is_problem(429, "rate_limited");
    let neighbour = app.anonymous().coming_from([10, 0, 0, 2]);
    login(&neighbour.with("forwarded", "for=198.51.100.6")).await.is(401);
    login(&neighbour.with("forwarded", "for=198.51.100.7")).await.is_problem(429, "rate_limited");
}

async fn a_word_with_two_statuses_is_one_count(stack: Stack) {
    let app = stack.app().await;
    app.anonymous().get("/me").await.is_problem(401, "missing_token");
    app.anonymous().post("/logout", json!({})).await.is_problem(400, "missing_token");
    let metrics = Client::of(app.internal_router()).get("/metrics").await.is(200);
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("latchkey_problems_total{code=\"missing_token\"} 2\n"), "{text}");
}
