//! What the program tells (`security.md` §8): nothing secret, wherever it was told and however loud; lines that nobody can
//! break; nobody waits for who reads them; and the words of the table of events.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use axum::{body::Body, http::Method};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use latchkey::events::Kind;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::{
    docs::OPERATIONS,
    on_stacks, once,
    process::{last_words, pairs, run},
    support::{
        Client, Collector, Mood, Process, Received, Reply, Sink, Stack, StackKind, Test, json_body,
        redis::{REDIS_PASSWORD, RedisServer},
    },
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&[StackKind::Embedded, StackKind::PgRedis];
        nothing_secret_is_told_anywhere_however_loud,
    ];
    tests.extend(on_stacks![&[StackKind::Embedded];
        nothing_breaks_a_line_in_either_format,
        libraries_tell_no_more_than_info_whatever_is_asked,
        a_warning_says_whose_request_it_was_where_requests_are_not_logged,
        a_reader_that_stalls_holds_up_nobody,
    ]);
    tests.extend(once![the_kinds_of_events_are_the_ones_that_were_reviewed]);
    tests
}

// --- canaries ----------------------------------------------------------------

/// Every secret that the walk knows of, by what it is.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

impl Canaries {
    fn add(&mut self, secret: impl Into<String>, what: impl Into<String>) {
        let secret = secret.into();
        if secret.len() >= 6 {
            self.0.insert(secret, what.into());
        }
    }

    /// Every secret that an answer carries.
    fn learn(&mut self, reply: &Reply, route: &str) {
        fn walk(value: &Value, route: &str, found: &mut Canaries) {
            for (name, value) in value.as_object().into_iter().flatten() {
                match (name.as_str(), value.as_str()) {
                    ("access_token", Some(token)) => {
                        // The head is the same in all of them.
                        token.split('.').skip(1).for_each(|part| found.add(part, format!("access token of {route}")));
                    }
                    ("refresh_token" | "device_token", Some(token)) => {
                        found.token(token, &format!("{name} of {route}"))
                    }
                    _ => walk(value, route, found),
                }
            }
        }
        for line in reply.headers.get_all("set-cookie") {
            let value = line.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap().1;
            self.token(value, &format!("cookie of {route}"));
        }
        if let Ok(body) = serde_json::from_slice(&reply.body) {
            walk(&body, route, self);
        }
    }

    /// A token of ours, and what alone makes it one: nonce and MAC, at its end.
    fn token(&mut self, token: &str, what: &str) {
        if token.len() > 40 {
            self.add(&token[token.len() - 32..], format!("end of {what}"));
            self.add(token, what);
        }
    }

    /// The ways in which a secret may show, each with a name.
    fn disguises(secret: &str) -> Vec<(&'static str, String)> {
        let bytes = secret.as_bytes();
        let percent = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
        let hex: String = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let list = format!("{bytes:?}");
        let mut all = vec![
            ("as it is", secret.to_owned()),
            ("percent-encoded", percent),
            ("in lower-case hex", hex.clone()),
            ("in upper-case hex", hex.to_uppercase()),
            ("as a list of bytes", list.trim_matches(['[', ']']).to_owned()),
            ("backwards", secret.chars().rev().collect()),
        ];
        // In the midst of something longer: what does not depend on the neighbours, for each place in a group of three.
        for skip in 0..3 {
            let inner = &bytes[skip.min(bytes.len())..];
            let whole = &inner[..inner.len() / 3 * 3];
            all.push(("in base64", STANDARD_NO_PAD.encode(whole)));
            all.push(("in base64url", URL_SAFE_NO_PAD.encode(whole)));
        }
        // What is a secret in base64 shows as bytes, too.
        if let Ok(raw) = STANDARD.decode(secret).or_else(|_| URL_SAFE_NO_PAD.decode(secret))
            && raw.len() >= 12
        {
            let hex = raw.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            all.push(("decoded, in hex", hex));
            all.push(("decoded, as a list of bytes", format!("{raw:?}").trim_matches(['[', ']']).to_owned()));
        }
        all.retain(|(_, text)| text.len() >= 8);
        all
    }

    /// Where `text` tells one of them.
    fn told_in(&self, place: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (secret, what) in &self.0 {
            for (how, disguise) in Self::disguises(secret) {
                for (at, _) in text.match_indices(&disguise) {
                    // Eight digits in the midst of a longer number, or of an id, are no code.
                    let before = text[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
                    let after = text[at + disguise.len()..].chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
                    if disguise.bytes().all(|b| b.is_ascii_digit()) && (before || after) {
                        continue;
                    }
                    let line = text[..at].rfind('\n').map_or(0, |start| start + 1);
                    let line = text[line..].lines().next().unwrap_or_default();
                    let line: String = line.chars().take(400).collect();
                    found.push(format!("{place}: {what} {how}: {line}"));
                    break;
                }
            }
        }
        found
    }
}

/// A walk through the whole API, which notes what it asked and which secrets it met.
struct Walk<'a> {
    process: &'a Process,
    sink: &'a Sink,
    canaries: &'a mut Canaries,
    asked: &'a mut BTreeSet<(String, String)>,
    mails: usize,
}

impl Walk<'_> {
    async fn send(&mut self, client: &Client, method: Method, route: &str, path: &str, body: Option<Value>) -> Reply {
        let (client, body) = match &body {
            Some(body) => (client.with("content-type", "application/json"), json_body(body)),
            None => (client.clone(), Body::empty()),
        };
        let reply = client.send(method.clone(), path, body).await;
        self.asked.insert((route.to_owned(), method.as_str().to_lowercase()));
        self.canaries.learn(&reply, route);
        reply
    }

    async fn post(&mut self, client: &Client, route: &str, body: Value) -> Reply {
        self.send(client, Method::POST, route, route, Some(body)).await
    }

    async fn get(&mut self, client: &Client, route: &str) -> Reply {
        self.send(client, Method::GET, route, route, None).await
    }

    /// The next mail, whose code and text are secrets.
    async fn mail(&mut self) -> Received {
        self.mails += 1;
        let mail = self.sink.wait_for(self.mails).await[self.mails - 1].clone();
        if let Some(code) = mail.code() {
            self.canaries.add(format!("{} {}", &code[..4], &code[4..]), "code in a mail, as it is written there");
            self.canaries.add(code, "code in a mail");
        }
        let body = mail.text().lines().find(|line| line.len() > 40).unwrap_or_default().to_owned();
        self.canaries.add(body, "text of a mail");
        mail
    }

    /// Mails until one has a code.
    async fn code(&mut self) -> String {
        loop {
            if let Some(code) = self.mail().await.code() {
                return code;
            }
        }
    }

    /// Everything that a person can do, right and wrong.
    async fn people(&mut self) {
        let client = self.process.client();
        let (password, second, third) = ("kanarienvogel-p-11", "kanarienvogel-p-22", "kanarienvogel-p-33");
        let wrong = "kanarienvogel-w-44";
        let email = "alice@example.com";
        let reply = self.post(&client, "/register", json!({"email": email, "password": password})).await.is(201);
        let (flow, code) = (reply.text("/verification/flow_id"), self.code().await);
        self.post(&client, "/email/verify", json!({"flow_id": flow, "code": "00000000"})).await.is(400);
        self.post(&client, "/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);
        self.post(&client, "/email/verify/resend", json!({"email": email})).await.is(202);
        self.post(&client, "/register", json!({"email": email, "password": password})).await.is(409);

        self.post(&client, "/login", json!({"email": email, "password": wrong})).await.is(401);
        let login = json!({"email": email, "password": password});
        let reply = self.post(&client, "/login", login.clone()).await.is(200);
        let device = reply.json()["device_token"].clone();
        let again = json!({"email": email, "password": password, "device_token": device});
        let reply = self.post(&client, "/login", again).await.is(200);
        let alice = client.bearer(&reply.text("/access_token"));
        self.get(&alice, "/me").await.is(200);
        let refreshed =
            self.post(&client, "/refresh", json!({"refresh_token": reply.text("/refresh_token")})).await.is(200);
        self.post(&client, "/refresh", json!({"refresh_token": reply.text("/refresh_token")})).await.is(401);
        self.post(&client, "/refresh", json!({"refresh_token": refreshed.text("/refresh_token")})).await.is(401);

        // A browser.
        let page = client.with("origin", "http://localhost:3000");
        let cookie = json!({"email": email, "password": password, "refresh_transport": "cookie"});
        let reply = self.post(&page, "/login", cookie).await.is(200);
        let jar: Vec<_> = reply
            .headers
            .get_all("set-cookie")
            .iter()
            .map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned())
            .collect();
        let browser = page.with("cookie", &jar.join("; "));
        let reply = self.send(&browser, Method::POST, "/refresh", "/refresh", None).await.is(200);
        let rotated = reply.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let browser = page.with("cookie", &rotated);
        self.send(&browser.with("origin", "https://evil.example"), Method::POST, "/refresh", "/refresh", None).await;
        self.send(&browser, Method::POST, "/logout", "/logout", None).await.is(204);

        // The profile, and sessions.
        let reply = self.post(&client, "/login", login.clone()).await.is(200);
        let (alice, session) = (client.bearer(&reply.text("/access_token")), reply.text("/session_id"));
        let patch = |password: &str| Some(json!({"username": "alice", "password": password}));
        self.send(&alice, Method::PATCH, "/me", "/me", patch(wrong)).await.is(401);
        self.send(&alice, Method::PATCH, "/me", "/me", patch(password)).await.is(200);
        self.get(&alice, "/me/sessions").await.is(200);
        self.send(&alice, Method::DELETE, "/me/sessions", "/me/sessions", None).await;
        self.send(&alice, Method::DELETE, "/me/sessions/{id}", "/me/sessions/kanarienvogel-path-1", None).await;
        self.send(&alice, Method::DELETE, "/me/sessions/{id}", &format!("/me/sessions/{session}"), None).await;
        let reply = self.post(&client, "/login", login).await.is(200);
        let alice = client.bearer(&reply.text("/access_token"));

        // Another password, another address, a forgotten password, the end.
        let change = |current: &str, new: &str| Some(json!({"current_password": current, "new_password": new}));
        self.send(&alice, Method::PUT, "/me/password", "/me/password", change(wrong, second)).await.is(401);
        self.send(&alice, Method::PUT, "/me/password", "/me/password", change(password, "kanarie")).await.is(422);
        self.send(&alice, Method::PUT, "/me/password", "/me/password", change(password, second)).await.is(204);
        let body = json!({"new_email": "alice@example.org", "password": second});
        self.post(&alice, "/me/email", json!({"new_email": "alice@example.org", "password": wrong})).await.is(401);
        let flow = self.post(&alice, "/me/email", body).await.is(202).text("/flow_id");
        let code = self.code().await;
        self.post(&client, "/me/email/confirm", json!({"flow_id": flow, "code": "00000000"})).await.is(400);
        self.post(&client, "/me/email/confirm", json!({"flow_id": flow, "code": code})).await.is(204);
        let flow = self
            .post(&client, "/password/forgot", json!({"email": "alice@example.org"}))
            .await
            .is(202)
            .text("/flow_id");
        let code = self.code().await;
        let reset = |code: &str, new: &str| json!({"flow_id": flow, "code": code, "new_password": new});
        self.post(&client, "/password/reset", reset("00000000", third)).await.is(400);
        self.post(&client, "/password/reset", reset(&code, "kanarienvogel\n")).await.is(422);
        self.post(&client, "/password/reset", reset(&code, third)).await.is(204);
        let reply = self.post(&client, "/login", json!({"username": "alice", "password": third})).await.is(200);
        let alice = client.bearer(&reply.text("/access_token"));
        self.send(&alice, Method::DELETE, "/me", "/me", Some(json!({"password": wrong}))).await.is(401);
        self.post(&alice, "/me/delete", json!({"password": third})).await.is(204);
    }

    /// Secrets where they do not belong, and requests that are no good.
    async fn strangers(&mut self) {
        let client = self.process.client();
        for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/health", "/openapi.json"] {
            self.get(&client, path).await.is(200);
        }
        let body = json!({"email": "dora@example.com", "password": "kanarienvogel-p-55"});
        self.post(&client, "/register", body.clone()).await.is(201);
        let access = self.post(&client, "/login", body).await.is(200).text("/access_token");
        let query = format!("?access_token={access}&code=kanarienvogel-q-1&password=kanarienvogel-q-2");
        for path in [format!("/me{query}"), format!("/no/kanarienvogel-path-2{query}"), format!("/login{query}")] {
            client.get(&path).await;
            client.bearer(&access).get(&path).await;
        }
        let decorated = client
            .bearer(&access)
            .with("cookie", "__Host-latchkey_refresh=lkr_kanarienvogel-c-1; s=kanarienvogel-c-2")
            .with("x-api-key", "kanarienvogel-h-1")
            .with("proxy-authorization", "Basic kanarienvogel-h-2")
            .with("x-request-id", "kanarienvogel h-3")
            .with("x-forwarded-for", "kanarienvogel-h-4")
            .with("user-agent", "kanarienvogel-h-5")
            .with("accept-language", "kanarienvogel-h-6")
            .with("tracestate", "kanarienvogel=h-7")
            .with("traceparent", "00-kanarienvogel-h-8");
        decorated.get("/me").await.is(200);
        decorated.post("/refresh", json!({})).await;
        for credential in
            ["Basic kanarienvogel-b-1", "Bearer kanarienvogel.kanarienvogel.kanarienvogel", "kanarienvogel"]
        {
            client.with("authorization", credential).get("/me").await.is(401);
        }
        client.bearer(&access).with("authorization", "Bearer kanarienvogel-b-2").get("/me").await.is(400);
        let broken = [
            "{\"password\":\"kanarienvogel-j-1",
            "{\"email\":\"a@b.de\",\"password\":\"kanarienvogel-j-2\",}",
            "{\"email\":[\"kanarienvogel-j-3\"],\"kanarienvogel-j-4\":\"kanarienvogel-j-5\"}",
            "\"kanarienvogel-j-6\"",
            "password=kanarienvogel-j-7",
        ];
        for (path, method, _) in OPERATIONS {
            for body in broken {
                let method: Method = method.to_uppercase().parse().unwrap();
                let path = path.replace("{id}", "kanarienvogel-path-3");
                let typed = client.bearer(&access).with("content-type", "application/json");
                typed.send(method.clone(), &path, Body::from(body)).await;
                client.with("content-type", "text/kanarienvogel").send(method, &path, Body::from(body)).await;
            }
        }
        for path in ["/health/live", "/health/ready", "/metrics", "/metrics?token=kanarienvogel-q-3"] {
            self.process.internal().get(path).await;
        }
    }
}

/// PostgreSQL asks nobody for a password here, and takes one all the same.
fn with_password(url: &str, canaries: &mut Canaries) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, place) = rest.split_once('@').unwrap_or(("latchkey", rest));
    let (user, password) = user.split_once(':').unwrap_or((user, "kanarienvogel-db"));
    canaries.add(password, "password of the database");
    format!("{scheme}://{user}:{password}@{place}")
}

async fn nothing_secret_is_told_anywhere_however_loud(stack: Stack) {
    let mut canaries = Canaries::default();
    canaries.add("kanarienvogel", "something that a client sent");
    canaries.add("$argon2", "a hash of a password");
    let collector = Collector::start().await;
    let sink = Sink::start().await;
    let redis = match stack.kind {
        StackKind::PgRedis => Some(RedisServer::start(&[]).await),
        _ => None,
    };
    let mut settings = stack.settings().await;
    for (name, value) in &mut settings {
        match (name.as_str(), &redis) {
            ("DATABASE_URL", _) => *value = with_password(value, &mut canaries),
            ("REDIS_URL", Some(redis)) => {
                *value = redis.url();
                canaries.add(REDIS_PASSWORD, "password of Redis");
            }
            _ => {}
        }
    }
    let (secret, pepper) = ("9WPcZ0Qq1yE8mJtX3vB7Kd5Rf2Hs6Ln4UoAaGxTiVhY=", "kVq8rZ1uX0cWmB4nT7yLpA==");
    canaries.add(secret, "the server secret");
    canaries.add(pepper, "the pepper");
    settings.extend(pairs(&[
        ("RUST_LOG", "trace,hyper=trace,hyper::proto=trace,hyper_util=trace,sqlx::query=trace,sqlx_core::logger=trace,redis=trace,redis::aio=trace,rustls=trace,rustls::conn=trace,lettre=trace,h2=trace,tower_governor=trace"),
        ("LATCHKEY_REFRESH_GRACE", "0s"),
        ("LATCHKEY_SECRET", secret),
        ("LATCHKEY_PEPPER", &format!("p1:{pepper}")),
        ("SMTP_URL", &sink.url_at("mailer:kanarienvogel-smtp@127.0.0.1")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=kanarienvogel-otlp"),
    ]));

    let mut process = Process::start(stack.dir.path(), &settings);
    let mut asked = BTreeSet::new();
    let mut walk = Walk { process: &process, sink: &sink, canaries: &mut canaries, asked: &mut asked, mails: 0 };
    walk.people().await;
    walk.strangers().await;
    let metrics = String::from_utf8(process.internal().get("/metrics").await.body).unwrap();

    // Stores and mail servers that fail say much.
    sink.set(Mood::WrongPassword);
    let body = json!({"email": "emil@example.com", "password": "kanarienvogel-p-66"});
    process.client().post("/register", body).await.is(201);
    sink.set(Mood::Permanent);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let commands: Vec<_> = [
        &["config", "check"][..],
        &["doctor"],
        &["mail", "list"],
        &["user", "list"],
        &["user", "show", "dora@example.com"],
        &["keys", "list"],
        &["keys", "rotate"],
        &["user", "disable", "dora@example.com"],
    ]
    .into_iter()
    .map(|words| (words, run(stack.dir.path(), &settings, words)))
    .collect();
    if let Some(redis) = redis {
        redis.kill();
        for path in ["/login", "/refresh"] {
            process.client().post(path, json!({"email": "dora@example.com", "password": "kanarienvogel-p-55", "refresh_token": "lkr_kanarienvogel"})).await;
        }
    }

    let listed: BTreeSet<_> =
        OPERATIONS.iter().map(|(path, method, _)| ((*path).to_owned(), (*method).to_owned())).collect();
    assert_eq!(
        listed.difference(&asked).collect::<Vec<_>>(),
        Vec::<&(String, String)>::new(),
        "the walk goes everywhere"
    );
    for entry in std::fs::read_dir(stack.dir.path().join("jwt")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        text.lines().filter(|line| !line.starts_with("-----")).for_each(|line| canaries.add(line, "a private key"));
    }
    let (output, lines) = last_words(&mut process).await;
    let mut found = canaries.told_in("log", &output);
    // The headers are the collector's own; a key is meant for it.
    let bodies: String = collector.posted().iter().map(|posted| format!("{}\n", posted.body)).collect();
    found.extend(canaries.told_in("spans", &bodies));
    found.extend(canaries.told_in("metrics", &metrics));
    for (words, ended) in &commands {
        found.extend(canaries.told_in(&format!("{words:?}"), &format!("{}{}", ended.stdout, ended.stderr)));
    }
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));

    // So that this is about something.
    assert!(canaries.0.len() > 40, "{:?}", canaries.0.values());
    assert!(lines.iter().filter(|line| line["message"] == "request").count() > 200);
    assert!(collector.spans().iter().filter(|span| span.kind == 2).count() > 200);
    assert!(commands.iter().filter(|(_, ended)| ended.code == Some(0)).count() >= 5, "{commands:?}");
    let levels: BTreeSet<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert!(levels.contains("DEBUG") && levels.contains("WARN"), "{levels:?}");
}

// --- lines -------------------------------------------------------------------

async fn nothing_breaks_a_line_in_either_format(stack: Stack) {
    for format in ["json", "pretty"] {
        let mut settings = stack.settings().await;
        let data = stack.dir.path().join(format!("{format}\u{202e}\u{2028}data")).display().to_string();
        settings.extend(pairs(&[("RUST_LOG", "trace"), ("LATCHKEY_DATA_DIR", &data)]));
        // A path is an operator's own, and goes through the same door as everything else.
        let mut child = Process::command(stack.dir.path(), &settings)
            .env("LATCHKEY_LOG", format)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (address, mut rest) = address_of(&mut child);
        let client = Client::at(address);
        for evil in ["a\tb", "x\u{9}\"}{"] {
            let evil = client.with("x-request-id", evil).with("user-agent", evil).with("authorization", evil);
            evil.get("/me?a=%0a%0d%1b%5b2J&b=%e2%80%a8%e2%80%ae").await.is(401);
            evil.get("/no/%0a%1b%5b2J/%e2%80%ae").await.is(404);
            evil.post(
                "/register",
                json!({"email": "a\n\u{1b}[2J\u{2028}\u{202e}@example.com", "password": "\u{1b}\n\n\n\n\n\n\n\n"}),
            )
            .await
            .is(422);
        }
        client.with_bytes("x-request-id", b"\x80\x9b2J").get("/health").await.is(200);
        client.register(&format!("person-{format}")).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        terminate(&child);
        child.wait().unwrap();
        let mut text = String::new();
        rest.read_to_string(&mut text).unwrap();
        let unsafe_ones: BTreeSet<char> =
            text.chars().filter(|c| *c != '\n' && latchkey::names::is_unsafe(*c)).collect();
        assert!(unsafe_ones.is_empty(), "{format}: {unsafe_ones:?}");
        assert!(text.contains("202e"), "{format}: the path of the mail is told, escaped: {text}");
        for line in text.lines().filter(|line| !line.is_empty()) {
            match format {
                "json" => assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}"),
                _ => assert!(line.starts_with("20") && line.as_bytes()[10] == b'T', "no line of its own: {line:?}"),
            }
        }
        assert!(text.lines().filter(|line| line.contains("/health") || line.contains("/me")).count() >= 3);
    }
}

/// Where a server listens that was told to write in whatever format, and the rest of what it writes.
fn address_of(child: &mut Child) -> (std::net::SocketAddr, BufReader<std::process::ChildStdout>) {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut found) = (String::new(), None);
    while found.is_none() {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the server ended");
        if line.contains("listening") || line.contains("listens on") {
            let url = &line[line.find("http://").unwrap() + 7..];
            let end = url.find(|c: char| !c.is_ascii_digit() && !".:".contains(c)).unwrap_or(url.len());
            found = Some(url[..end].parse().unwrap());
        }
    }
    if line.contains("listens on") {
        // The greeting, which is no log line.
        while !line.contains("/me -H") {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the server ended");
        }
    }
    (found.unwrap(), reader)
}

fn terminate(child: &Child) {
    assert!(std::process::Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
}

async fn libraries_tell_no_more_than_info_whatever_is_asked(stack: Stack) {
    let mut settings = stack.settings().await;
    settings.extend(pairs(&[("RUST_LOG", "trace,sqlx=trace,sqlx::query=trace,hyper=trace,h2=trace,rustls=trace")]));
    let mut process = Process::start(stack.dir.path(), &settings);
    process.client().register("alice").await.me().await.is(200);
    let (output, lines) = last_words(&mut process).await;
    let (ours, theirs): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.get("target").is_none());
    assert!(ours.iter().any(|line| line["level"] == "INFO"), "{output}");
    let loud: Vec<_> = theirs.iter().filter(|line| line["level"] == "DEBUG" || line["level"] == "TRACE").collect();
    assert!(loud.is_empty(), "{loud:?}");
    assert!(!output.contains("SELECT") && !output.contains("INSERT"), "no statement: {output}");
}

async fn a_warning_says_whose_request_it_was_where_requests_are_not_logged(stack: Stack) {
    let mut settings = stack.settings().await;
    settings.extend(pairs(&[("RUST_LOG", "error,latchkey::sessions=warn"), ("LATCHKEY_REFRESH_GRACE", "0s")]));
    // The line that says where it listens is at `info`.
    settings.retain(|(name, _)| name != "LATCHKEY_LISTEN");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    settings.extend(pairs(&[("LATCHKEY_LISTEN", &address.to_string())]));
    let mut child = Process::command(stack.dir.path(), &settings).stdout(Stdio::piped()).spawn().unwrap();
    crate::support::eventually("it listens", || async { std::net::TcpStream::connect(address).is_ok() }).await;
    let client = Client::at(address);
    let alice = client.register("alice").await;
    client.refresh(&alice.refresh).await.is(200);
    client.with("x-request-id", "theft").refresh(&alice.refresh).await.is_problem(401, "refresh_token_reused");
    terminate(&child);
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [line] = lines.as_slice() else { panic!("one warning: {text}") };
    assert_eq!((&line["level"], &line["request_id"]), (&json!("WARN"), &json!("theft")));
    assert_eq!((&line["person"], &line["session"]), (&json!(alice.id), &json!(alice.session)));
}

async fn a_reader_that_stalls_holds_up_nobody(stack: Stack) {
    let mut settings = stack.settings().await;
    settings.extend(pairs(&[("LATCHKEY_LOG", "json")]));
    let mut child = Process::command(stack.dir.path(), &settings).stdout(Stdio::piped()).spawn().unwrap();
    let (address, mut rest) = address_of(&mut child);
    // More than the pipe and the buffer hold.
    let count = 6400_u64;
    let mut tasks = tokio::task::JoinSet::new();
    let long = "x".repeat(120);
    for _ in 0..8 {
        let client = Client::at(address).with("x-request-id", &long);
        tasks.spawn(async move {
            for _ in 0..count / 8 {
                client.get("/health").await.is(200);
            }
        });
    }
    let finished = tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await;
    assert!(finished.is_ok(), "requests wait for the reader of the log");
    terminate(&child);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::thread::sleep(Duration::from_millis(300));
        rest.read_to_string(&mut text).unwrap();
        text
    });
    let started = Instant::now();
    child.wait().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    let text = reader.join().unwrap();
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("half a line: {line}"))).collect();
    let told = lines.iter().filter(|line| line["message"] == "request").count();
    let lost: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert!(lost > 0 && told > 2000, "{told} told, {lost} lost");
    // A line or two of the stop may be among the lost ones.
    let all = told as u64 + lost;
    assert!((count..count + 5).contains(&all), "what is lost is counted: {told} told, {lost} lost");
}

// --- events ------------------------------------------------------------------

fn the_kinds_of_events_are_the_ones_that_were_reviewed() {
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    insta::assert_json_snapshot!(kinds, @r#"
    [
      "registered",
      "signed_in",
      "signed_out",
      "session_ended",
      "session_healed",
      "profile_changed",
      "password_changed",
      "password_reset",
      "address_verified",
      "address_changed",
      "person_disabled",
      "person_enabled",
      "person_deleted",
      "key_published",
      "key_rotated",
      "key_retired",
      "database_restored"
    ]
    "#);
    let unique: BTreeSet<_> = kinds.iter().collect();
    assert_eq!(unique.len(), kinds.len());
}
