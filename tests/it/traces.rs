//! Traces: trace context as it comes in, spans as they go out, and a collector that may do what it likes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use latchkey::ambient::Ambient;
use serde_json::{Value, json};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::{
    on_stacks,
    process::{last_words, pairs},
    support::{Answer, Authority, Client, Collector, PASSWORD, Process, Span, Stack, StackKind, Test, attribute},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&[StackKind::Embedded, StackKind::PgRedis];
        a_request_is_one_server_span_with_what_it_asked_for_below,
    ];
    tests.extend(on_stacks![&[StackKind::Embedded];
        a_mail_is_a_trace_of_its_own,
        a_callers_trace_goes_on_here,
        whatever_is_no_trace_context_is_ignored,
        without_a_collector_lines_still_name_the_callers_trace,
        a_stranger_does_not_decide_what_is_recorded,
        a_trusted_proxy_decides_where_the_sampler_is_parent_based,
        a_share_of_requests_is_recorded_whatever_ids_strangers_choose,
        a_collector_that_is_away_is_nobody_elses_affair,
        a_collector_that_says_later_gets_the_same_again_then,
        a_collector_that_says_no_is_not_asked_again,
        what_a_collector_did_not_keep_is_told,
        a_collector_that_hangs_fills_the_queue_and_nothing_else,
        a_stop_posts_what_is_there,
        a_collector_behind_tls_gets_the_headers_it_wants,
    ]);
    tests
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A server that posts its spans to `collector`.
async fn traced(stack: &Stack, collector: &str, more: &[(&str, &str)]) -> Process {
    let mut settings = stack.settings().await;
    settings.extend(pairs(&[("OTEL_EXPORTER_OTLP_ENDPOINT", collector)]));
    settings.extend(pairs(more));
    Process::start(stack.dir.path(), &settings)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The server span of the request with this id.
fn of<'a>(spans: &'a [Span], request_id: &str) -> Option<&'a Span> {
    spans.iter().find(|span| attribute(&span.attributes, "latchkey.request_id").as_deref() == Some(request_id))
}

/// Asks for something cheap, as request `id`.
async fn ask(client: &Client, id: &str) {
    client.with("x-request-id", id).get("/health").await.is(200);
}

/// The server span of request `id`, once it is there.
async fn span_of(collector: &Collector, id: &str) -> Span {
    let spans = collector.wait_for(id, |spans| of(spans, id).is_some()).await;
    of(&spans, id).unwrap().clone()
}

/// The request's lines of the log.
fn lines_of<'a>(lines: &'a [Value], id: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["request_id"] == id).collect()
}

async fn a_request_is_one_server_span_with_what_it_asked_for_below(stack: Stack) {
    let collector = Collector::start().await;
    let more = [("OTEL_SERVICE_NAME", "doors"), ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test%20bed")];
    let mut process = traced(&stack, &collector.url(), &more).await;
    let client = process.client();
    let millis = || u64::try_from(Ambient::system().now().millis()).unwrap();
    let before = millis();
    client.register("alice").await;
    let login = json!({"email": "alice@example.com", "password": PASSWORD});
    client.with("x-request-id", "in").post("/login", login).await.is(200);
    client.with("x-request-id", "out").login("alice@example.com", "wrong password").await.is(401);
    client.with("x-request-id", "nowhere").get("/no/such/path?token=x").await.is(404);
    let spans = collector.wait_for("all of them", |spans| of(spans, "nowhere").is_some()).await;

    let login = of(&spans, "in").unwrap();
    assert_eq!((login.name.as_str(), login.kind, login.parent_span_id.len()), ("POST /login", 2, 0));
    assert_eq!((login.trace_id.len(), login.span_id.len(), login.flags), (16, 8, 0x101));
    assert!(login.status.is_none(), "what is well has no status: {login:?}");
    let mut told: Vec<_> = login
        .attributes
        .iter()
        .map(|pair| (pair.key.clone(), attribute(&login.attributes, &pair.key).unwrap()))
        .collect();
    told.sort();
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/login"),
        ("latchkey.request_id", "in"),
        ("url.scheme", "http"),
    ];
    assert_eq!(told, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    // Milliseconds are cut off, here and where a trace begins.
    let (earliest, latest) = ((before - 1) * 1_000_000, (millis() + 1) * 1_000_000);
    assert!(earliest <= login.start_time_unix_nano && login.start_time_unix_nano < login.end_time_unix_nano);
    assert!(login.end_time_unix_nano <= latest, "{login:?}");

    let below: Vec<_> = spans.iter().filter(|span| span.parent_span_id == login.span_id).collect();
    let named = |name: &str| below.iter().filter(|span| span.name == name).count();
    assert!(named("database") >= 2, "a read and a write: {below:?}");
    assert_eq!((named("hash queue"), named("hash")), (1, 1), "{below:?}");
    assert_eq!(named("redis") >= 1, stack.kind == StackKind::PgRedis, "{below:?}");
    for span in &below {
        assert_eq!((&span.trace_id, span.span_id.len(), span.flags), (&login.trace_id, 8, 0x101));
        assert_ne!(span.span_id, login.span_id);
        assert!(login.start_time_unix_nano <= span.start_time_unix_nano, "{span:?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        let is_store = ["database", "redis"].contains(&span.name.as_str());
        assert_eq!(span.kind, if is_store { 3 } else { 1 }, "{span:?}");
        if is_store {
            let system = attribute(&span.attributes, "db.system.name").unwrap();
            let expected: &[&str] =
                if stack.kind == StackKind::Embedded { &["sqlite"] } else { &["postgresql", "redis"] };
            assert!(expected.contains(&system.as_str()), "{span:?}");
        }
    }
    let (waiting, hashing) = (
        below.iter().find(|span| span.name == "hash queue").unwrap(),
        below.iter().find(|span| span.name == "hash").unwrap(),
    );
    assert!(waiting.end_time_unix_nano <= hashing.start_time_unix_nano, "first one, then the other");

    // A wrong password is the client's failure, and an unknown path is nobody's name.
    let refused = of(&spans, "out").unwrap();
    assert_eq!(attribute(&refused.attributes, "error.type").as_deref(), Some("invalid_credentials"));
    assert!(refused.status.is_none());
    let nowhere = of(&spans, "nowhere").unwrap();
    assert_eq!((nowhere.name.as_str(), attribute(&nowhere.attributes, "http.route")), ("GET", None));
    let mut ids: Vec<_> = spans.iter().map(|span| &span.span_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");

    let posted = &collector.posted()[0];
    assert_eq!(posted.headers["content-type"], "application/json");
    let scope = &posted.request().resource_spans[0].scope_spans[0].scope;
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("latchkey", env!("CARGO_PKG_VERSION")));
    let resource = posted.request().resource_spans[0].resource.attributes.clone();
    for (key, value) in [
        ("service.name", "doors"),
        ("deployment.environment.name", "test bed"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(attribute(&resource, key).as_deref(), Some(value));
    }

    // A line and its span find each other.
    let (_, lines) = last_words(&mut process).await;
    let lines = lines_of(&lines, "in");
    assert!(!lines.is_empty());
    for line in lines {
        assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(hex(&login.trace_id)), &json!(hex(&login.span_id))));
    }
}

async fn a_mail_is_a_trace_of_its_own(stack: Stack) {
    let collector = Collector::start().await;
    let process = traced(&stack, &collector.url(), &[("SMTP_URL", "smtp://127.0.0.1:1")]).await;
    process.client().register("zoe").await;
    let is_handing = |span: &&Span| span.name == "hand over";
    let spans = collector.wait_for("a mail that fails", |spans| spans.iter().any(|span| is_handing(&span))).await;
    let failed = spans.iter().find(is_handing).unwrap();
    assert_eq!(failed.status.as_ref().map(|status| status.code), Some(2), "{failed:?}");
    drop((process, collector));

    let collector = Collector::start().await;
    let process = traced(&stack, &collector.url(), &[]).await;
    process.client().register("alice").await;
    let spans = collector.wait_for("a mail", |spans| spans.iter().any(|span| span.name == "mail")).await;
    let mail = spans.iter().find(|span| span.name == "mail").unwrap();
    assert_eq!((mail.kind, mail.parent_span_id.len()), (1, 0));
    assert_eq!(attribute(&mail.attributes, "latchkey.mail.kind").as_deref(), Some("verify_address"));
    let below: Vec<_> = spans.iter().filter(|span| span.parent_span_id == mail.span_id).collect();
    assert!(below.iter().any(|span| span.name == "hand over" && span.kind == 3 && span.status.is_none()), "{below:?}");
    assert!(below.iter().any(|span| span.name == "database"), "{below:?}");
    assert!(spans.iter().all(|span| span.name != "POST /register" || span.trace_id != mail.trace_id));
    // Looking into the outbox each second is no trace.
    let roots = spans.iter().filter(|span| span.parent_span_id.is_empty() && span.kind != 2);
    assert!(roots.map(|span| span.name.as_str()).all(|name| name == "mail"), "{spans:?}");
}

async fn a_callers_trace_goes_on_here(stack: Stack) {
    let collector = Collector::start().await;
    let mut process = traced(&stack, &collector.url(), &[]).await;
    let client = process.client();
    let state = "rojo=00f067aa0ba902b7,1tenant@congo=t61rcWkgMzE";
    for (id, version, flags) in [("one", "00", "01"), ("two", "00", "00"), ("three", "7f", "01-later")] {
        let caller =
            client.with("traceparent", &format!("{version}-{TRACE}-{PARENT}-{flags}")).with("tracestate", state);
        ask(&caller, id).await;
        let span = span_of(&collector, id).await;
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()), "{id}");
        assert_eq!((span.trace_state.as_str(), span.flags), (state, 0x301), "handed on, and the parent is remote");
        assert_ne!(hex(&span.span_id), PARENT);
    }
    let unreadable = client.with("traceparent", &format!("00-{TRACE}-{PARENT}-01")).with("tracestate", "Not=a state");
    ask(&unreadable, "four").await;
    let span = span_of(&collector, "four").await;
    assert_eq!((hex(&span.trace_id).as_str(), span.trace_state.as_str()), (TRACE, ""));

    let reply = client.with("traceparent", &format!("00-{TRACE}-{PARENT}-01")).get("/health").await;
    assert_eq!(reply.header("traceresponse"), "");
    let (_, lines) = last_words(&mut process).await;
    for id in ["one", "two", "three", "four"] {
        assert!(lines_of(&lines, id).iter().all(|line| line["trace_id"] == TRACE), "{lines:?}");
        assert_eq!(lines_of(&lines, id).len(), 1);
    }
}

async fn whatever_is_no_trace_context_is_ignored(stack: Stack) {
    let collector = Collector::start().await;
    let mut process = traced(&stack, &collector.url(), &[]).await;
    let bad = [
        format!("00-{TRACE}-{PARENT}-01-more"),
        format!("ff-{TRACE}-{PARENT}-01"),
        format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        "kanarienvogel".to_owned(),
    ];
    for (number, text) in bad.iter().enumerate() {
        ask(
            &process.client().with("traceparent", text).with("tracestate", "a=kanarienvogel"),
            &format!("bad-{number}"),
        )
        .await;
    }
    let good = format!("00-{TRACE}-{PARENT}-01");
    ask(&process.client().with("traceparent", &good).with("traceparent", &good), "bad-6").await;
    for number in 0..=bad.len() {
        let span = span_of(&collector, &format!("bad-{number}")).await;
        assert!(
            hex(&span.trace_id) != TRACE && span.parent_span_id.is_empty() && span.trace_state.is_empty(),
            "{span:?}"
        );
    }
    let (output, _) = last_words(&mut process).await;
    assert!(!output.contains("kanarien") && !collector.text().contains("kanarien"));
}

async fn without_a_collector_lines_still_name_the_callers_trace(stack: Stack) {
    let mut process = Process::start(stack.dir.path(), &stack.settings().await);
    let client = process.client();
    ask(&client.with("traceparent", &format!("00-{TRACE}-{PARENT}-00")), "with").await;
    ask(&client, "without").await;
    let (_, lines) = last_words(&mut process).await;
    assert_eq!(lines_of(&lines, "with")[0]["trace_id"], TRACE);
    assert_eq!(lines_of(&lines, "without")[0].get("trace_id"), None);
}

async fn a_stranger_does_not_decide_what_is_recorded(stack: Stack) {
    for (sampler, is_recorded) in
        [("parentbased_always_off", false), ("parentbased_always_on", true), ("always_on", true)]
    {
        let collector = Collector::start().await;
        let mut process = traced(&stack, &collector.url(), &[("OTEL_TRACES_SAMPLER", sampler)]).await;
        for flags in ["00", "01"] {
            ask(&process.client().with("traceparent", &format!("00-{TRACE}-{PARENT}-{flags}")), flags).await;
        }
        let (_, lines) = last_words(&mut process).await;
        for flags in ["00", "01"] {
            assert_eq!(of(&collector.spans(), flags).is_some(), is_recorded, "{sampler} {flags}");
            let line = lines_of(&lines, flags)[0];
            assert_eq!((line["trace_id"] == TRACE, line.get("span_id").is_some()), (true, is_recorded), "{line}");
        }
    }
}

async fn a_trusted_proxy_decides_where_the_sampler_is_parent_based(stack: Stack) {
    for (sampler, expected) in [
        ("parentbased_always_off", [false, true]),
        ("parentbased_always_on", [false, true]),
        ("always_on", [true, true]),
        ("always_off", [false, false]),
    ] {
        let collector = Collector::start().await;
        let more = [("OTEL_TRACES_SAMPLER", sampler), ("LATCHKEY_TRUSTED_PROXIES", "127.0.0.0/8")];
        let mut process = traced(&stack, &collector.url(), &more).await;
        for flags in ["00", "01"] {
            ask(&process.client().with("traceparent", &format!("00-{TRACE}-{PARENT}-{flags}")), flags).await;
        }
        last_words(&mut process).await;
        let found = ["00", "01"].map(|flags| of(&collector.spans(), flags).is_some());
        assert_eq!(found, expected, "{sampler}");
    }
}

async fn a_share_of_requests_is_recorded_whatever_ids_strangers_choose(stack: Stack) {
    let collector = Collector::start().await;
    let more = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.2")];
    let mut process = traced(&stack, &collector.url(), &more).await;
    // An id that lies in every share, as anybody can read in the specification.
    let lowest = process.client().with("traceparent", &format!("00-1{:031}-{PARENT}-01", 0));
    for number in 0..100 {
        ask(&lowest, &format!("chosen-{number}")).await;
        ask(&process.client(), &format!("own-{number}")).await;
    }
    last_words(&mut process).await;
    let spans = collector.spans();
    for way in ["chosen", "own"] {
        let count = (0..100).filter(|number| of(&spans, &format!("{way}-{number}")).is_some()).count();
        // One run in a billion falls out of this by chance.
        assert!((1..50).contains(&count), "{way}: {count} of 100");
    }
}

/// That the server answers as ever.
async fn is_well(client: &Client) {
    let started = Instant::now();
    for _ in 0..20 {
        client.get("/health").await.is(200);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

async fn a_collector_that_is_away_is_nobody_elses_affair(stack: Stack) {
    // Bound and not listening: nobody else is given the port.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://127.0.0.1:{}", nobody.local_addr().unwrap().port());
    let mut process = traced(&stack, &url, &[]).await;
    is_well(&process.client()).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    is_well(&process.client()).await;
    let started = Instant::now();
    let (output, lines) = last_words(&mut process).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    let away = lines.iter().filter(|line| line["message"] == "the collector of traces does not take them").count();
    assert_eq!(away, 1, "once, and not at each try: {output}");
    let lost: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert!(lost >= 40, "what was lost is told: {output}");
}

async fn a_collector_that_says_later_gets_the_same_again_then(stack: Stack) {
    let collector = Collector::start().await;
    let process = traced(&stack, &collector.url(), &[]).await;
    for (id, status, after, least) in [("a", 503, None, 1), ("b", 429, Some(3), 3)] {
        collector.set(Answer::Refuse(status, after));
        let before = collector.posted().len();
        ask(&process.client(), id).await;
        crate::support::eventually("a first try", || async { collector.posted().len() > before }).await;
        collector.set(Answer::Take);
        span_of(&collector, id).await;
        let tries = collector.posted()[before..].to_vec();
        assert_eq!(tries[0].body, tries[1].body, "the same batch");
        let waited = tries[1].at - tries[0].at;
        assert!(waited >= Duration::from_secs(least), "{status}: {waited:?}");
    }
    let last = process.output().lines().last().unwrap().to_owned();
    assert!(last.contains("takes them again"), "{last}");
}

async fn a_collector_that_says_no_is_not_asked_again(stack: Stack) {
    let collector = Collector::start().await;
    let mut process = traced(&stack, &collector.url(), &[]).await;
    for status in [400, 401, 404, 500, 301] {
        collector.set(Answer::Refuse(status, Some(1)));
        let (before, id) = (collector.posted().len(), format!("to-{status}"));
        ask(&process.client(), &id).await;
        crate::support::eventually("a try", || async { collector.posted().len() > before }).await;
    }
    collector.set(Answer::Take);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (output, lines) = last_words(&mut process).await;
    let tries: Vec<_> = collector.posted();
    for status in [400, 401, 404, 500, 301] {
        let count = tries.iter().filter(|posted| posted.body.contains(&format!("\"to-{status}\""))).count();
        assert_eq!(count, 1, "{status}");
    }
    assert_eq!(lines.iter().filter_map(|line| line["lost"].as_u64()).sum::<u64>(), 5, "{output}");
}

async fn what_a_collector_did_not_keep_is_told(stack: Stack) {
    let collector = Collector::start().await;
    collector.set(Answer::Partly(7));
    let mut process = traced(&stack, &collector.url(), &[]).await;
    ask(&process.client(), "x").await;
    span_of(&collector, "x").await;
    let (output, lines) = last_words(&mut process).await;
    assert_eq!(lines.iter().filter_map(|line| line["lost"].as_u64()).sum::<u64>(), 7, "{output}");
}

async fn a_collector_that_hangs_fills_the_queue_and_nothing_else(stack: Stack) {
    let collector = Collector::start().await;
    collector.set(Answer::Hang);
    let mut process = traced(&stack, &collector.url(), &[]).await;
    let count = 3200;
    let client = process.client();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..count / 8 {
                client.get("/health").await.is(200);
            }
        });
    }
    tasks.join_all().await;
    is_well(&process.client()).await;
    // The stop waits two seconds for a collector, and no longer.
    let started = Instant::now();
    let (output, lines) = last_words(&mut process).await;
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    let told = |what: &str| {
        lines.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(what))).count()
    };
    assert_eq!(told("did not take the last spans in time"), 1, "{output}");
    assert_eq!(lines.iter().filter(|line| line["message"] == "request").count(), count + 20);
    let lost: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert_eq!(lost, count as u64 + 20, "all of it is lost, and told: {lost}");
    assert!(collector.posted()[0].request().resource_spans[0].scope_spans[0].spans.len() <= 512);
}

async fn a_stop_posts_what_is_there(stack: Stack) {
    let collector = Collector::start().await;
    collector.set(Answer::Late(Duration::from_millis(500)));
    let mut process = traced(&stack, &collector.url(), &[]).await;
    for number in 0..700 {
        ask(&process.client(), &format!("r{number}")).await;
    }
    last_words(&mut process).await;
    let spans = collector.spans();
    let missing: Vec<_> = (0..700).filter(|number| of(&spans, &format!("r{number}")).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

async fn a_collector_behind_tls_gets_the_headers_it_wants(stack: Stack) {
    let authority = Authority::new();
    let path = |name: &str| stack.dir.path().join(name);
    authority.write_server_pem(&["localhost"], &path("cert.pem"), &path("key.pem"));
    authority.write_pem(&path("ca.pem"));
    let chain = CertificateDer::pem_file_iter(path("cert.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(path("key.pem")).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let collector = Collector::start_with(Some(TlsAcceptor::from(Arc::new(server)))).await;
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20kanarienvogel,x-tenant=doors");
    let ca = path("ca.pem").display().to_string();
    let more = [headers, ("SSL_CERT_FILE", ca.as_str()), ("RUST_LOG", "trace")];
    let mut process = traced(&stack, &collector.url(), &more).await;
    ask(&process.client(), "x").await;
    span_of(&collector, "x").await;
    let posted = &collector.posted()[0];
    assert_eq!(
        (&posted.headers["authorization"], &posted.headers["x-tenant"]),
        (&"Bearer kanarienvogel".parse().unwrap(), &"doors".parse().unwrap())
    );
    let (output, _) = last_words(&mut process).await;
    assert!(!output.contains("kanarien"), "{output}");

    // Who cannot prove to be the collector gets nothing.
    drop(process);
    let mut process = traced(&stack, &collector.url(), &[headers]).await;
    ask(&process.client(), "y").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    last_words(&mut process).await;
    assert!(of(&collector.spans(), "y").is_none());
}
