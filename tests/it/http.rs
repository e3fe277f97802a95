//! The conventions of `api.md` §1: bodies, problems, headers, order of refusals.

use std::time::Duration;

use axum::{body::Body, http::Method};
use latchkey::http::{Gate, serve};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    on_stacks,
    support::{Client, PASSWORD, Stack, StackKind, Test, TestApp},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&[StackKind::Embedded];
        problems_have_the_shape_of_rfc_9457,
        text_that_is_no_json_is_malformed,
        a_body_needs_a_content_type_and_an_empty_one_does_not,
        a_body_over_16_kib_is_refused_declared_or_not,
        refusals_come_in_their_order,
        unknown_paths_and_methods_are_told_apart,
        every_answer_has_the_common_headers,
        https_adds_strict_transport_security,
        request_ids_are_taken_when_harmless,
        long_header_lines_are_431,
        what_is_no_http_is_closed_and_hurts_nobody,
        a_slow_head_is_closed_and_a_slow_body_is_408,
        jwks_and_health_answer,
    ]
}

/// The app behind a real socket.
async fn listening(app: &TestApp) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (serve(listener, app.router.clone(), Gate::default(), stopped).unwrap().address, stop)
}

/// Writes bytes and reads until the server closes, or for `patience`.
async fn raw(address: std::net::SocketAddr, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn problems_have_the_shape_of_rfc_9457(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous().with("x-request-id", "the-id");
    let reply = client.login("alice@example.com", "wrong password").await.is_problem(401, "invalid_credentials");
    insta::assert_json_snapshot!(reply.json(), @r#"
    {
      "code": "invalid_credentials",
      "detail": "The name or the password is wrong.",
      "request_id": "the-id",
      "status": 401,
      "title": "Invalid credentials",
      "type": "http://localhost:3000/docs/errors#invalid_credentials"
    }
    "#);
    let reply = client.post("/register", json!({"email": "x"})).await.is_problem(422, "invalid_body");
    insta::assert_json_snapshot!(reply.json(), @r#"
    {
      "code": "invalid_body",
      "detail": "The body does not have the expected shape. See `errors` for each field.",
      "errors": [
        {
          "code": "missing",
          "detail": "This field is required.",
          "field": "password"
        }
      ],
      "request_id": "the-id",
      "status": 422,
      "title": "Invalid body",
      "type": "http://localhost:3000/docs/errors#invalid_body"
    }
    "#);
}

async fn text_that_is_no_json_is_malformed(stack: Stack) {
    let app = stack.app().await;
    let deep = format!("{{\"email\":{}{}}}", "[".repeat(40), "]".repeat(40));
    for body in [
        &b"{"[..],
        b"email=alice",
        b"{\"email\":\"\xff\"}",
        b"{\"email\":\"\\ud800\"}",
        b"{\"email\":\"a\",\"email\":\"b\"}",
        b"{\"email\":\"a\"} trailing",
        b"\xef\xbb\xbf{}",
        deep.as_bytes(),
    ] {
        for path in ["/register", "/login", "/refresh", "/logout"] {
            let reply = app.anonymous().post_raw(path, "application/json", body.to_vec()).await;
            reply.is_problem(400, "malformed_json");
        }
    }
}

async fn a_body_needs_a_content_type_and_an_empty_one_does_not(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    let body = json!({"email": "alice@example.com", "password": PASSWORD}).to_string();
    client.send(Method::POST, "/login", Body::from(body.clone())).await.is_problem(415, "unsupported_media_type");
    for wrong in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/problem+json", ""]
    {
        client.post_raw("/login", wrong, body.clone()).await.is_problem(415, "unsupported_media_type");
    }
    for right in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=UTF-8"] {
        client.post_raw("/login", right, body.clone()).await.is_problem(401, "invalid_credentials");
    }
    client.send(Method::POST, "/login", Body::empty()).await.is_problem(422, "invalid_body");
    client.send(Method::POST, "/logout", Body::empty()).await.is_problem(400, "missing_token");
}

async fn a_body_over_16_kib_is_refused_declared_or_not(stack: Stack) {
    let app = stack.app().await;
    let body = |length: usize| {
        let frame = json!({"refresh_token": ""}).to_string().len();
        json!({"refresh_token": "x".repeat(length - frame)}).to_string()
    };
    let client = app.anonymous();
    client.post_raw("/refresh", "application/json", body(16 * 1024)).await.is_problem(401, "invalid_refresh_token");
    client.post_raw("/refresh", "application/json", body(16 * 1024 + 1)).await.is_problem(413, "body_too_large");

    let (address, _stop) = listening(&app).await;
    let head = "POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let declared = format!("{head}content-length: 1048576\r\n\r\n{{");
    let answer = raw(address, declared.as_bytes(), Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    let endless =
        format!("{head}transfer-encoding: chunked\r\n\r\n{}", format!("1000\r\n{}\r\n", "x".repeat(4096)).repeat(8));
    let answer = raw(address, endless.as_bytes(), Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
}

async fn refusals_come_in_their_order(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    let long = "x".repeat(9 * 1024);
    let huge = "{".repeat(17 * 1024);
    client
        .with("x-long", &long)
        .post_raw("/login", "text/plain", huge.clone())
        .await
        .is_problem(431, "header_too_large");
    client.post_raw("/login", "text/plain", huge).await.is_problem(413, "body_too_large");
    client.post_raw("/login", "text/plain", "{").await.is_problem(415, "unsupported_media_type");
    client.post_raw("/login", "application/json", "{").await.is_problem(400, "malformed_json");
    client.post_raw("/logout", "application/json", "{\"all\":1}").await.is_problem(422, "invalid_body");
}

async fn unknown_paths_and_methods_are_told_apart(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    for path in [
        "/",
        "/nothing",
        "/me/",
        "/ME",
        "/login/x",
        "/health/live",
        "/health/ready",
        "/metrics",
        "//login",
        "/%2e%2e/me",
    ] {
        client.get(path).await.is_problem(404, "not_found");
    }
    for (method, path, allowed) in [
        (Method::GET, "/login", "POST"),
        (Method::DELETE, "/refresh", "POST"),
        (Method::PUT, "/me", "GET,HEAD,PATCH,DELETE"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::POST, "/.well-known/jwks.json", "GET,HEAD"),
    ] {
        let reply = client.send(method, path, Body::empty()).await.is_problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), allowed, "{path}");
    }
}

async fn every_answer_has_the_common_headers(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let client = app.anonymous();
    let replies = [
        client.get("/health").await.is(200),
        client.get("/nothing").await.is(404),
        client.send(Method::PUT, "/login", Body::empty()).await.is(405),
        client.get("/me").await.is(401),
        alice.me().await.is(200),
        alice.client.bearer(&alice.access).post("/logout", json!({})).await.is(204),
        client.with("x-long", &"x".repeat(9000)).get("/me").await.is(431),
        Client::get(&client, "/.well-known/jwks.json").await.is(200),
    ];
    for (number, reply) in replies.iter().enumerate() {
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{number}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{number}");
        assert_eq!(reply.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{number}");
        assert!(!reply.header("x-request-id").is_empty(), "{number}");
        assert_eq!(reply.header("strict-transport-security"), "", "{number}");
        let cached = if number == 7 { "public, max-age=300" } else { "no-store" };
        assert_eq!(reply.header("cache-control"), cached, "{number}");
    }
}

async fn https_adds_strict_transport_security(stack: Stack) {
    // The keys are made on a development URL first: with https nothing is made by itself.
    drop(stack.app().await);
    let settings = [("LATCHKEY_PUBLIC_URL", "https://id.example.com"), ("SMTP_URL", "smtp://mail.example.com")];
    let app = stack.app_with(&settings).await;
    let reply = app.anonymous().get("/me").await.is(401);
    assert_eq!(reply.header("strict-transport-security"), "max-age=63072000");
    assert_eq!(reply.json()["type"], "https://id.example.com/docs/errors#missing_token");
}

async fn request_ids_are_taken_when_harmless(stack: Stack) {
    let app = stack.app().await;
    let id = async |given: &str| {
        app.anonymous().with("x-request-id", given).get("/health").await.header("x-request-id").to_owned()
    };
    for harmless in ["a", "A.b_c-9", &"x".repeat(128)] {
        assert_eq!(id(harmless).await, harmless);
    }
    for harmful in ["", "a b", "a/b", "<script>", "ä", &"x".repeat(129)] {
        let made = id(harmful).await;
        assert_eq!(made.parse::<uuid::Uuid>().unwrap().get_version_num(), 7, "{harmful}");
    }
}

async fn long_header_lines_are_431(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    client.with("x-long", &"x".repeat(8 * 1024 - 6)).get("/health").await.is(200);
    client.with("x-long", &"x".repeat(8 * 1024 - 5)).get("/health").await.is_problem(431, "header_too_large");
    let (address, _stop) = listening(&app).await;
    let long = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(200 * 1024));
    let answer = raw(address, long.as_bytes(), Duration::from_secs(5)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

async fn what_is_no_http_is_closed_and_hurts_nobody(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    ] {
        let answer = raw(address, bytes, Duration::from_secs(5)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    Client::at(address).get("/health").await.is(200);
}

async fn a_slow_head_is_closed_and_a_slow_body_is_408(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let head = "POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let patience = Duration::from_secs(20);
    let started = std::time::Instant::now();
    let (silent, half, body) = tokio::join!(
        raw(address, b"", patience),
        raw(address, b"GET /health HTTP/1.1\r\nhost:", patience),
        raw(address, head.as_bytes(), patience)
    );
    assert!(started.elapsed() < Duration::from_secs(16), "closed by the server");
    for answer in [silent, half] {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("request_timeout"), "{body}");
}

async fn jwks_and_health_answer(stack: Stack) {
    let app = stack.app().await;
    let health = app.anonymous().get("/health").await.is(200).json();
    assert_eq!(health, json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}));
    let internal = app.internal_router();
    let ready = Client::of(internal.clone()).get("/health/ready").await.is(200).json();
    for check in ["database", "sessions", "mail"] {
        assert_eq!(ready["checks"][check]["status"], "ok", "{ready}");
        assert!(ready["checks"][check]["latency_ms"].is_number());
    }
    Client::of(internal.clone()).get("/health/live").await.is(200);
    app.begin_stop();
    Client::of(internal.clone()).get("/health/live").await.is(503);
    Client::of(internal).get("/login").await.is_problem(404, "not_found");
}
