//! TLS of our own: versions, protocols, what is wrong with a pair of files, and how a new pair comes into force.

use std::{
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{body::Body, http::Request};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use latchkey::{
    config::{Config, Given, PublicUrl},
    db::Timestamp,
    http::{Certificates, Gate, Look, Pair, TlsFiles, TrustedProxies, serve_tls},
};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ProtocolVersion, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::ServerName,
        version::{TLS12, TLS13},
    },
};

use crate::{
    on_stacks, once,
    support::{Authority, PASSWORD, Process, Stack, StackKind, Test, TestApp, eventually},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&[StackKind::Embedded];
        tls_1_3_and_1_2_are_spoken,
        the_protocol_is_what_the_handshake_agreed_on,
        a_sign_in_works_over_tls_on_either_protocol,
        a_new_pair_is_for_new_connections_and_old_ones_live_on,
        a_bad_pair_changes_nothing,
        nothing_is_resumed_across_a_new_pair,
        a_silent_handshake_is_cut_off_and_hurts_nobody,
        a_slow_handshake_leaves_less_time_for_the_head,
        a_handshake_has_a_place_under_the_cap,
        who_speaks_no_tls_gets_no_answer,
        the_program_serves_tls_and_takes_new_files_by_itself_and_at_sighup,
        a_bad_pair_is_told_of_once,
    ];
    tests.extend(once![
        every_fault_of_the_pair_is_told_by_its_setting,
        a_start_and_a_check_tell_all_faults_at_once,
        other_commands_need_no_key,
        a_certificate_that_clients_refuse_is_warned_of,
        keys_of_the_usual_kinds_are_taken,
    ]);
    tests
}

/// Two files of a server, by an authority of their own.
struct Papers {
    dir: TempDir,
    authority: Authority,
}

impl Papers {
    fn new() -> Self {
        let papers = Self { dir: tempfile::tempdir().unwrap(), authority: Authority::new() };
        papers.renew();
        papers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { certificate: self.path("tls.crt"), key: self.path("tls.key") }
    }

    /// Puts a new certificate with a new key there.
    fn renew(&self) {
        self.authority.write_server_pem(&["localhost"], &self.path("tls.crt"), &self.path("tls.key"));
    }

    fn settings(&self) -> [(String, String); 2] {
        let text = |name: &str| self.path(name).display().to_string();
        [("LATCHKEY_TLS_CERT".to_owned(), text("tls.crt")), ("LATCHKEY_TLS_KEY".to_owned(), text("tls.key"))]
    }

    fn certificates(&self) -> Certificates {
        Certificates::new(self.files(), Pair::load(&self.files()).unwrap())
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], protocols: &[&str]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.authority.roots())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client that offers these protocols.
    async fn dial(&self, address: SocketAddr, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        dial(address, self.client(&[&TLS13, &TLS12], protocols)).await
    }

    /// What a new connection is shown.
    async fn shown(&self, address: SocketAddr) -> Vec<u8> {
        shown(&self.dial(address, &[]).await.unwrap())
    }
}

async fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn listening(app: &TestApp, gate: Gate, certificates: Certificates) -> (SocketAddr, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (serve_tls(listener, app.router.clone(), gate, certificates, stopped).unwrap().address, stop)
}

/// Whether `/health` is answered on HTTP/1.1.
async fn is_served(stream: &mut TlsStream<TcpStream>) -> bool {
    if stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_err() {
        return false;
    }
    let mut chunk = [0; 2048];
    let read = timeout(Duration::from_secs(10), stream.read(&mut chunk)).await;
    matches!(read, Ok(Ok(length)) if chunk[..length].starts_with(b"HTTP/1.1 200 "))
}

async fn tls_1_3_and_1_2_are_spoken(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let (address, _stop) = listening(&app, Gate::default(), papers.certificates()).await;
    for (offered, agreed) in [
        (&[&TLS13][..], ProtocolVersion::TLSv1_3),
        (&[&TLS12][..], ProtocolVersion::TLSv1_2),
        (&[&TLS12, &TLS13][..], ProtocolVersion::TLSv1_3),
    ] {
        let mut stream = dial(address, papers.client(offered, &[])).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(agreed));
        assert!(is_served(&mut stream).await);
    }
}

async fn the_protocol_is_what_the_handshake_agreed_on(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let (address, _stop) = listening(&app, Gate::default(), papers.certificates()).await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"][..], Some("h2")),
        (&["http/1.1"][..], Some("http/1.1")),
        (&[][..], None),
    ] {
        let mut stream = papers.dial(address, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
        // Who agreed on HTTP/2 and speaks another one is not answered in that.
        assert_eq!(is_served(&mut stream).await, agreed != Some("h2"), "{offered:?}");
    }
    assert!(papers.dial(address, &["spdy/3"]).await.is_err(), "nothing in common");
}

async fn a_sign_in_works_over_tls_on_either_protocol(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let alice = app.person("alice").await;
    let (address, _stop) = listening(&app, Gate::default(), papers.certificates()).await;
    let body = json!({"email": alice.email, "password": PASSWORD}).to_string();
    let login = |uri: &str| {
        let request = Request::post(uri).header("host", "localhost").header("content-type", "application/json");
        request.body(Body::from(body.clone())).unwrap()
    };
    let stream = TokioIo::new(papers.dial(address, &["h2"]).await.unwrap());
    let (mut two, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let stream = TokioIo::new(papers.dial(address, &["http/1.1"]).await.unwrap());
    let (mut one, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let answers = [
        two.send_request(login("https://localhost/login")).await.unwrap(),
        one.send_request(login("/login")).await.unwrap(),
    ];
    for answer in answers {
        let (parts, body) = answer.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!((parts.status.as_u16(), body["token_type"].as_str()), (200, Some("Bearer")), "{body}");
        assert!(parts.headers.contains_key("x-request-id"));
    }
}

async fn a_new_pair_is_for_new_connections_and_old_ones_live_on(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let certificates = papers.certificates();
    let (address, _stop) = listening(&app, Gate::default(), certificates.clone()).await;
    let mut old = papers.dial(address, &["http/1.1"]).await.unwrap();
    let stream = papers.dial(address, &["h2"]).await.unwrap();
    let (mut old_two, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let first = shown(&old);
    assert_eq!(papers.shown(address).await, first);
    assert_eq!(certificates.look(false).await, Look::Same);

    papers.renew();
    assert_eq!(certificates.look(false).await, Look::New);
    assert_ne!(papers.shown(address).await, first);
    assert!(is_served(&mut old).await, "the connection lives on");
    let request = Request::get("https://localhost/health").body(Body::empty()).unwrap();
    assert_eq!(old_two.send_request(request).await.unwrap().status(), 200);
    assert_eq!(certificates.look(false).await, Look::Same);
}

async fn a_bad_pair_changes_nothing(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let certificates = papers.certificates();
    let (address, _stop) = listening(&app, Gate::default(), certificates.clone()).await;
    let first = papers.shown(address).await;
    let good = std::fs::read(papers.path("tls.key")).unwrap();
    let foreign = KeyPair::generate().unwrap().serialize_pem();
    for bad in [foreign.as_bytes(), b"", b"no key"] {
        std::fs::write(papers.path("tls.key"), bad).unwrap();
        assert_eq!(certificates.look(false).await, Look::Refused);
        assert_eq!(papers.shown(address).await, first);
    }
    std::fs::remove_file(papers.path("tls.key")).unwrap();
    assert_eq!(certificates.look(false).await, Look::Refused);
    write_private(&papers.path("tls.key"), &good);
    assert_eq!(certificates.look(false).await, Look::Same, "as it was");
    // As a mounted secret changes: a link is swapped to files that lie there already.
    let other = Papers { dir: tempfile::tempdir().unwrap(), authority: papers.authority };
    other.renew();
    for name in ["tls.crt", "tls.key"] {
        std::fs::remove_file(papers.dir.path().join(name)).unwrap();
        std::os::unix::fs::symlink(other.path(name), papers.dir.path().join(name)).unwrap();
    }
    assert_eq!(certificates.look(false).await, Look::New);
    assert_ne!(other.shown(address).await, first);
}

/// Else who replaced a key that leaked would still be taken for its owner by who connected before.
async fn nothing_is_resumed_across_a_new_pair(stack: Stack) {
    use tokio_rustls::rustls::HandshakeKind::{Full, Resumed};
    let (app, papers) = (stack.app().await, Papers::new());
    let certificates = papers.certificates();
    let (address, _stop) = listening(&app, Gate::default(), certificates.clone()).await;
    let client = papers.client(&[&TLS13], &[]);
    let handshake = async || {
        let mut stream = dial(address, Arc::clone(&client)).await.unwrap();
        // With the answer comes what the next one can be resumed from.
        assert!(is_served(&mut stream).await);
        stream.get_ref().1.handshake_kind().unwrap()
    };
    assert_eq!(handshake().await, Full);
    assert_eq!(handshake().await, Resumed);
    papers.renew();
    certificates.look(false).await;
    assert_eq!(handshake().await, Full);
}

async fn a_silent_handshake_is_cut_off_and_hurts_nobody(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let (address, _stop) = listening(&app, Gate::default(), papers.certificates()).await;
    let mut slow = tokio::task::JoinSet::new();
    for number in 0..60 {
        slow.spawn(async move {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Nothing, the beginning of a record, and one that drips in.
            let record = [[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc].as_slice(), &[3; 200]].concat();
            let (first, rest) = record.split_at([0, 4, 6][number % 3]);
            stream.write_all(first).await.unwrap();
            for byte in rest {
                let mut chunk = [0; 64];
                let wait = Duration::from_millis(if number % 3 == 2 { 300 } else { 20_000 });
                if timeout(wait, stream.read(&mut chunk)).await.is_ok() || stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            begun.elapsed()
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..20 {
        let mut stream = timeout(Duration::from_secs(5), papers.dial(address, &[])).await.expect("at once").unwrap();
        assert!(is_served(&mut stream).await);
    }
    for took in slow.join_all().await {
        assert!((Duration::from_secs(9)..Duration::from_secs(14)).contains(&took), "{took:?}");
    }
}

async fn a_slow_handshake_leaves_less_time_for_the_head(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let (address, _stop) = listening(&app, Gate::default(), papers.certificates()).await;
    let begun = Instant::now();
    let stream = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let connector = TlsConnector::from(papers.client(&[&TLS13], &[]));
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("an end");
    assert!((9..14).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

async fn a_handshake_has_a_place_under_the_cap(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let gate = Gate::new(Some(1), TrustedProxies::default(), app.refusals.clone());
    let (address, _stop) = listening(&app, gate, papers.certificates()).await;
    let silent = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(papers.dial(address, &[]).await.is_err(), "the one place is taken");
    assert_eq!(app.refusals.connections(), 1);
    drop(silent);
    eventually("the place is free again", || async { papers.dial(address, &[]).await.is_ok() }).await;
}

async fn who_speaks_no_tls_gets_no_answer(stack: Stack) {
    let (app, papers) = (stack.app().await, Papers::new());
    let (address, _stop) = listening(&app, Gate::default(), papers.certificates()).await;
    for said in [&b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("an end");
        // An alert at most.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    }
}

async fn the_program_serves_tls_and_takes_new_files_by_itself_and_at_sighup(stack: Stack) {
    let papers = Papers::new();
    let mut settings = stack.settings().await;
    settings.extend(papers.settings());
    settings.push(("LATCHKEY_PUBLIC_URL".to_owned(), "http://localhost:3000".to_owned()));
    let mut process = Process::start(stack.dir.path(), &settings);
    let address = process.address;
    assert!(process.output().contains(&format!("https://{address}")), "{}", process.output());
    process.internal().get("/health/live").await.is(200);
    let mut old = papers.dial(address, &["http/1.1"]).await.unwrap();
    let first = shown(&old);
    assert!(is_served(&mut old).await);

    papers.renew();
    eventually("the new one is shown", || async { papers.shown(address).await != first }).await;
    let second = papers.shown(address).await;
    assert!(is_served(&mut old).await);

    process.hang_up();
    eventually("it looked", || async { process.output().contains("the certificate is the same as before") }).await;
    papers.renew();
    process.hang_up();
    eventually("the third one is shown", || async { papers.shown(address).await != second }).await;
    assert!(is_served(&mut old).await, "the first connection lives on through all of it");
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0), "{}", process.output());
}

async fn a_bad_pair_is_told_of_once(stack: Stack) {
    let papers = Papers::new();
    let mut settings = stack.settings().await;
    settings.extend(papers.settings());
    let process = Process::start(stack.dir.path(), &settings);
    let told = || process.output().matches("going on with the old ones").count();
    std::fs::write(papers.path("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    eventually("it is told", || async { told() == 1 }).await;
    // Through three more looks.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(told(), 1, "{}", process.output());
    assert!(process.output().contains("LATCHKEY_TLS_KEY") && !process.output().contains("PRIVATE KEY"));
    // Whoever asks is told again.
    process.hang_up();
    eventually("it is told again", || async { told() == 2 }).await;
    papers.dial(process.address, &[]).await.unwrap();
}

// --- the files ---------------------------------------------------------------

fn write_private(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::File::create(path).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    file.write_all(bytes).unwrap();
}

/// The faults of a server with these settings, each by name and with what was expected.
fn faults(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let faults = Config::for_server(&Given::from_pairs(pairs.iter().copied())).map(|_| Vec::new());
    faults.unwrap_or_else(|faults| faults.0.into_iter().map(|fault| (fault.name, fault.expected)).collect())
}

fn every_fault_of_the_pair_is_told_by_its_setting() {
    let papers = Papers::new();
    let (certificate, key) = (papers.path("tls.crt"), papers.path("tls.key"));
    let pair = |certificate: &Path, key: &Path| {
        faults(&[("LATCHKEY_TLS_CERT", certificate.to_str().unwrap()), ("LATCHKEY_TLS_KEY", key.to_str().unwrap())])
    };
    assert_eq!(pair(&certificate, &key), []);
    for (one, other) in [("LATCHKEY_TLS_CERT", "LATCHKEY_TLS_KEY"), ("LATCHKEY_TLS_KEY", "LATCHKEY_TLS_CERT")] {
        let found = faults(&[(one, certificate.to_str().unwrap())]);
        assert!(found.len() == 1 && found[0].0 == other && found[0].1.contains("set both"), "{found:?}");
    }
    let bad = papers.path("bad");
    let of_key = |bytes: &[u8]| {
        write_private(&bad, bytes);
        pair(&certificate, &bad)
    };
    let of_certificate = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        pair(&bad, &key)
    };
    let good = std::fs::read_to_string(&key).unwrap();
    let foreign = KeyPair::generate().unwrap().serialize_pem();
    let encrypted = good.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let torn = good.replace(&good[100..140], "");
    for (found, name, expected) in [
        (of_key(foreign.as_bytes()), "LATCHKEY_TLS_KEY", "the key of the certificate"),
        (of_key(encrypted.as_bytes()), "LATCHKEY_TLS_KEY", "unencrypted"),
        (of_key(torn.as_bytes()), "LATCHKEY_TLS_KEY", "a key of RSA"),
        (of_key(b"canary"), "LATCHKEY_TLS_KEY", "a private key in PEM"),
        (pair(&certificate, &papers.path("none")), "LATCHKEY_TLS_KEY", "cannot be read"),
        (pair(&certificate, papers.dir.path()), "LATCHKEY_TLS_KEY", "no file"),
        (of_certificate(b"canary"), "LATCHKEY_TLS_CERT", "in PEM"),
        (of_certificate(good.as_bytes()), "LATCHKEY_TLS_CERT", "in PEM"),
        (
            of_certificate(b"-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n"),
            "LATCHKEY_TLS_CERT",
            "in PEM",
        ),
        (pair(&papers.path("none"), &key), "LATCHKEY_TLS_CERT", "can read"),
    ] {
        let [(found, told)] = &found[..] else { panic!("{expected}: {found:?}") };
        assert!(found == name && told.contains(expected) && !told.contains("canary"), "{expected}: {told}");
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let found = pair(&certificate, &key);
    assert!(found.len() == 1 && found[0].0 == "LATCHKEY_TLS_KEY" && found[0].1.contains("chmod"), "{found:?}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(pair(&certificate, &key), [], "a mounted secret may be readable by its group");
}

fn a_start_and_a_check_tell_all_faults_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("LATCHKEY_TLS_CERT", "none.crt"), ("LATCHKEY_TLS_KEY", "none.key"), ("LATCHKEY_LOG", "loud")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for arguments in [&["serve"][..], &["config", "check"]] {
        let output = Process::command(dir.path(), &settings).args(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        for name in ["LATCHKEY_TLS_CERT: ", "LATCHKEY_TLS_KEY: ", "LATCHKEY_LOG: "] {
            assert!(told.contains(name), "{arguments:?}: {told}");
        }
    }
}

/// An operator beside the server, who is another user.
fn other_commands_need_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("LATCHKEY_TLS_CERT", "none.crt"), ("LATCHKEY_TLS_KEY", "none.key")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let output = Process::command(dir.path(), &settings).arg("openapi").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate of its own authority, as `change` makes it.
fn pair(change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(vec!["id.example.com".to_owned()]).unwrap();
    change(&mut params);
    let files = TlsFiles { certificate: dir.path().join("crt"), key: dir.path().join("key") };
    std::fs::write(&files.certificate, params.self_signed(key).unwrap().pem()).unwrap();
    write_private(&files.key, key.serialize_pem().as_bytes());
    Pair::load(&files).unwrap()
}

fn a_certificate_that_clients_refuse_is_warned_of() {
    let key = KeyPair::generate().unwrap();
    let holding = pair(
        |params| {
            params.not_before = rcgen::date_time_ymd(2026, 3, 1);
            params.not_after = rcgen::date_time_ymd(2026, 6, 1);
        },
        &key,
    );
    let url = PublicUrl::parse("https://id.example.com").unwrap();
    let at = |text: &str| {
        let instant: i64 = match text {
            "before" => 1_772_323_199_000,
            "within" => 1_772_323_201_000,
            "six days before the end" => 1_780_272_000_000 - 6 * 86_400_000,
            "eight days before the end" => 1_780_272_000_000 - 8 * 86_400_000,
            _ => 1_780_272_001_000,
        };
        holding.warnings(&url, Timestamp::from_millis(instant))
    };
    assert!(at("within").is_empty() && at("eight days before the end").is_empty(), "{:?}", at("within"));
    for (when, word) in [("before", "not hold yet"), ("six days before the end", "within a week"), ("after", "expired")]
    {
        assert!(at(when).len() == 1 && at(when)[0].contains(word), "{when}: {:?}", at(when));
    }
    let within = Timestamp::from_millis(1_772_323_201_000);
    for (url, is_named) in [("https://id.example.com:8443", true), ("https://other.example.com", false)] {
        let url = PublicUrl::parse(url).unwrap();
        assert_eq!(holding.warnings(&url, within).is_empty(), is_named, "{url:?}");
    }
}

fn keys_of_the_usual_kinds_are_taken() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        pair(|_| {}, &KeyPair::generate_for(algorithm).unwrap());
    }
    pair(|_| {}, &KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
}
