//! Sockets and floods (`security.md` §7): slow ones are closed, resting ones are kept, one address cannot have them all,
//! and whoever asks for too many hashes is told so at once while everybody else is served.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use latchkey::http::{Gate, TrustedProxies, serve};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::{
    on_stacks,
    support::{PASSWORD, Process, Stack, StackKind, Test, TestApp, scale},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&[StackKind::Embedded], scale::only_in_a_soak; a_rest_ends];
    tests.extend(quick());
    tests
}

fn quick() -> Vec<Test> {
    on_stacks![&[StackKind::Embedded, StackKind::PgRedis];
        a_resting_connection_is_kept_longer_than_proxies_keep_theirs,
        a_head_that_drips_in_is_cut_off_also_on_a_connection_that_rested,
        who_reads_no_answers_is_cut_off,
        a_request_that_was_slow_from_first_to_last_is_answered,
        who_reads_slowly_is_not_cut_off,
        one_address_has_so_many_connections_and_gets_its_places_back,
        ipv4_clients_of_an_ipv6_listener_have_places_of_their_own,
        the_program_caps_connections_as_its_settings_say,
        slow_sockets_hurt_nobody,
        a_flood_of_logins_is_shed_quickly_and_costs_no_memory,
        clients_that_hang_up_leave_every_slot_free,
    ]
}

async fn listening(app: &TestApp, gate: Gate) -> (SocketAddr, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (serve(listener, app.router.clone(), gate, stopped).unwrap().address, stop)
}

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Reads one answer; `None` when the connection was closed.
async fn answer(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match timeout(Duration::from_secs(5), stream.read(&mut chunk)).await.ok()? {
            Ok(0) | Err(_) => return None,
            Ok(length) => bytes.extend(&chunk[..length]),
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
    }
}

async fn is_closed_within(stream: &mut TcpStream, patience: Duration) -> bool {
    let mut chunk = [0; 64];
    matches!(timeout(patience, stream.read(&mut chunk)).await, Ok(Ok(0) | Err(_)))
}

async fn a_resting_connection_is_kept_longer_than_proxies_keep_theirs(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app, Gate::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for rest in [0, 14] {
        tokio::time::sleep(Duration::from_secs(rest)).await;
        stream.write_all(HEALTH).await.unwrap();
        assert!(answer(&mut stream).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")), "after {rest} s");
    }
}

/// Also when the timer of the head ran out while the answer was made, and after a head that came slowly.
async fn a_rest_ends(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app, Gate::default()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for pause in [0, 9] {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (first, last) = HEALTH.split_at(20);
            stream.write_all(first).await.unwrap();
            tokio::time::sleep(Duration::from_secs(pause)).await;
            stream.write_all(last).await.unwrap();
            answer(&mut stream).await.expect("an answer");
            let rests = Instant::now();
            assert!(is_closed_within(&mut stream, Duration::from_secs(100)).await, "it rests for ever");
            rests.elapsed()
        });
    }
    for rested in tasks.join_all().await {
        assert!((Duration::from_secs(60)..Duration::from_secs(90)).contains(&rested), "{rested:?}");
    }
}

async fn a_head_that_drips_in_is_cut_off_also_on_a_connection_that_rested(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app, Gate::default()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for rests in [false, true] {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if rests {
                stream.write_all(HEALTH).await.unwrap();
                answer(&mut stream).await.unwrap();
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            let begun = Instant::now();
            for byte in HEALTH.iter().cycle() {
                if stream.write_all(&[*byte | 0x20]).await.is_err() {
                    break;
                }
                if is_closed_within(&mut stream, Duration::from_millis(500)).await || begun.elapsed().as_secs() > 20 {
                    break;
                }
            }
            begun.elapsed()
        });
    }
    for took in tasks.join_all().await {
        assert!((Duration::from_secs(9)..Duration::from_secs(14)).contains(&took), "{took:?}");
    }
}

async fn who_reads_no_answers_is_cut_off(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app, Gate::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    let document = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50);
    // As long as anything is taken: then the server stands before a full pipe.
    while begun.elapsed() < Duration::from_secs(40) {
        match timeout(Duration::from_secs(25), stream.write_all(&document)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => panic!("the server neither reads nor ends"),
        }
    }
    panic!("the server read all of it");
}

async fn one_address_has_so_many_connections_and_gets_its_places_back(stack: Stack) {
    let app = stack.app().await;
    let gate = Gate::new(Some(3), TrustedProxies::default(), app.refusals.clone());
    let (address, _stop) = listening(&app, gate).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(HEALTH).await.unwrap();
        assert!(answer(&mut stream).await.is_some());
        held.push(stream);
    }
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(HEALTH).await;
        assert!(answer(&mut stream).await.is_none());
    }
    assert_eq!(app.refusals.connections(), 4);
    held.pop();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(HEALTH).await.unwrap();
    assert!(answer(&mut stream).await.is_some(), "a place that was given back");

    let trusted = TrustedProxies { networks: vec!["127.0.0.0/8".parse().unwrap()], ..TrustedProxies::default() };
    let (address, _stop) = listening(&app, Gate::new(Some(1), trusted, app.refusals.clone())).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(HEALTH).await.unwrap();
        assert!(answer(&mut stream).await.is_some(), "behind a proxy are many clients");
        held.push(stream);
    }
}

async fn slow_sockets_hurt_nobody(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (address, _stop) = listening(&app, Gate::default()).await;
    let mut slow = Vec::new();
    for number in 0..scale::sockets() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let begun: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /me HTTP/1.1\r\nhost: loc",
            _ => b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{\"em",
        };
        stream.write_all(begun).await.unwrap();
        slow.push(stream);
    }
    let client = crate::support::Client::at(address).bearer(&alice.access);
    for _ in 0..20 {
        timeout(Duration::from_secs(8), client.get("/me")).await.expect("before one of the slow ones ends").is(200);
    }
    let closed = async {
        for stream in &mut slow {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    };
    timeout(Duration::from_secs(20), closed).await.expect("each of them is closed in time");
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A thousand clients, each with an address of its own behind a trusted proxy, all at once.
async fn a_flood_of_logins_is_shed_quickly_and_costs_no_memory(stack: Stack) {
    let mut settings = stack.settings().await;
    for (name, value) in [
        ("LATCHKEY_ARGON2_MEMORY_KIB", "19456"),
        ("LATCHKEY_ARGON2_ITERATIONS", "2"),
        ("LATCHKEY_HASH_THREADS", "2"),
        ("LATCHKEY_HASH_QUEUE", "16"),
        ("LATCHKEY_LIMIT_LOGIN", "60/1m"),
        ("LATCHKEY_TRUSTED_PROXIES", "127.0.0.0/8"),
    ] {
        settings.push((name.to_owned(), value.to_owned()));
    }
    let process = Process::start(stack.dir.path(), &settings);
    let alice = process.client().register("alice").await;
    let base = resident(process.id());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..1000_u32 {
        let client = process.client().with("x-forwarded-for", &format!("198.18.{}.{}", number / 250, number % 250));
        tasks.spawn(async move {
            let body = json!({"email": format!("nobody{number}@example.com"), "password": "a wrong password"});
            client.post("/login", body).await
        });
    }
    let mut most = 0;
    for _ in 0..10 {
        // So long only when other tests keep the machine busy as well.
        timeout(Duration::from_secs(15), alice.me()).await.expect("other routes go on").is(200);
        most = most.max(resident(process.id()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let replies = tasks.join_all().await;
    let busy = replies.iter().filter(|reply| reply.status == 503).count();
    let judged = replies.iter().filter(|reply| reply.status == 401).count();
    assert_eq!(busy + judged, 1000);
    assert!(busy > 100 && judged > 1, "{busy} were shed, {judged} were judged");
    assert!(replies.iter().filter(|reply| reply.status == 503).all(|reply| !reply.header("retry-after").is_empty()));
    most = most.max(resident(process.id()));
    // Two threads with 19 MiB each; the rest is a thousand connections and a busy allocator. A hash for each would be
    // nineteen gigabytes.
    assert!(most < base + 2 * 19_456 + 96 * 1024, "{base} KiB before, {most} KiB at most");
    timeout(Duration::from_secs(30), async {
        while process.client().login("alice@example.com", PASSWORD).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("it is over when it is over");
}

async fn clients_that_hang_up_leave_every_slot_free(stack: Stack) {
    let settings = [("LATCHKEY_HASH_THREADS", "2"), ("LATCHKEY_HASH_QUEUE", "32")];
    let app = stack.app_with(&settings).await;
    let alice = app.person("alice").await;
    let (address, _stop) = listening(&app, Gate::default()).await;
    let body = json!({"email": alice.email, "password": "a wrong password"}).to_string();
    let request = format!(
        "POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let request = request.clone();
        tasks.spawn(async move {
            let Ok(mut stream) = TcpStream::connect(address).await else { return };
            let _ = stream.write_all(request.as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        });
    }
    tasks.join_all().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // As many at once as there are threads and places: each finds one.
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let client = alice.client.clone();
        tasks.spawn(async move { client.login("alice@example.com", PASSWORD).await.status });
    }
    assert!(tasks.join_all().await.into_iter().all(|status| status == 200));
}

/// The limit on a head ends with the head: a body has one of its own.
async fn a_request_that_was_slow_from_first_to_last_is_answered(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app, Gate::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = json!({"email": "nobody@example.com", "password": "x"}).to_string();
    let length = body.len();
    stream.write_all(b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    stream.write_all(format!("content-length: {length}\r\n\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 401")));
}

async fn who_reads_slowly_is_not_cut_off(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app, Gate::default()).await;
    let socket = TcpSocket::new_v4().unwrap();
    // So that little is on its way at a time.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let (mut reader, mut writer) = socket.connect(address).await.unwrap().into_split();
    let asking = tokio::spawn(async move {
        // The server takes no more of these than it can answer.
        let document = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50);
        while writer.write_all(&document).await.is_ok() {}
    });
    let mut chunk = vec![0; 1 << 20];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(21) {
        // Enough to make room in the pipe, and then a rest in which the server waits.
        let mut taken = 0;
        while taken < 5 << 20 {
            taken += match timeout(Duration::from_secs(5), reader.read(&mut chunk)).await {
                Ok(Ok(length)) if length > 0 => length,
                other => panic!("cut off after {:?}: {other:?}", begun.elapsed()),
            };
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    asking.abort();
}

async fn from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

async fn is_served(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(HEALTH).await;
    answer(stream).await.is_some()
}

async fn ipv4_clients_of_an_ipv6_listener_have_places_of_their_own(stack: Stack) {
    let app = stack.app().await;
    // A machine without IPv6 has no such listener.
    let Ok(listener) = TcpListener::bind("[::]:0").await else { return };
    let port = listener.local_addr().unwrap().port();
    let (_stop, stopped) = watch::channel(false);
    let gate = Gate::new(Some(1), TrustedProxies::default(), app.refusals.clone());
    serve(listener, app.router.clone(), gate, stopped).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut held = Vec::new();
    for last in 1..=3 {
        let mut stream = from([127, 0, 0, last], address).await;
        assert!(is_served(&mut stream).await, "127.0.0.{last}");
        held.push(stream);
    }
    assert!(!is_served(&mut from([127, 0, 0, 2], address).await).await, "it has its one");
}

async fn the_program_caps_connections_as_its_settings_say(stack: Stack) {
    for (proxies, is_capped) in [("", true), ("127.0.0.0/8", false)] {
        let mut settings = stack.settings().await;
        settings.push(("LATCHKEY_MAX_CONNECTIONS_PER_ADDRESS".to_owned(), "2".to_owned()));
        settings.push(("LATCHKEY_TRUSTED_PROXIES".to_owned(), proxies.to_owned()));
        let process = Process::start(stack.dir.path(), &settings);
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(process.address).await.unwrap();
            assert!(is_served(&mut stream).await);
            held.push(stream);
        }
        let mut third = TcpStream::connect(process.address).await.unwrap();
        assert_eq!(is_served(&mut third).await, !is_capped, "trusted: {proxies:?}");
        // The listener of probes knows no cap: what watches the server must not be shut out with everybody else.
        let mut probes = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(process.internal).await.unwrap();
            stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            assert!(answer(&mut stream).await.is_some());
            probes.push(stream);
        }
    }
}
