//! HTTP/2 (RFC 9113): spoken to who knows beforehand, within the limits of HTTP/1.1 and those that only it needs.
//!
//! Most clients here write their frames by hand, since a good client does none of this.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use latchkey::http::{Gate, serve};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::{
    on_stacks,
    support::{PASSWORD, Process, Stack, StackKind, Test, TestApp, eventually, scale},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&[StackKind::Embedded], scale::only_in_a_soak; a_rest_ends_with_a_goodbye];
    tests.extend(on_stacks![&[StackKind::Embedded];
        who_knows_beforehand_is_answered_on_http_2,
        nobody_is_upgraded,
        settings_say_what_a_client_may,
        a_slow_beginning_is_cut_off,
        a_slow_head_is_cut_off_while_others_are_answered,
        a_rest_is_no_slowness,
        who_is_gone_without_a_word_is_noticed,
        a_slow_body_is_refused_and_its_neighbours_are_not,
        a_body_that_is_longer_than_allowed_is_refused,
        a_head_too_large_is_refused_as_on_http_1,
        a_head_that_unpacks_to_much_is_refused,
        a_head_without_end_ends_the_connection,
        there_are_so_many_streams_at_once,
        who_takes_back_what_it_asks_is_cut_off,
        who_leaves_a_page_is_not_cut_off,
        a_connect_is_no_tunnel,
        a_stop_says_goodbye_and_finishes_what_runs,
    ]);
    tests
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The status in a head of an answer, as the server packs it (RFC 7541): from the static table, or as text.
    fn status(&self) -> u16 {
        assert_eq!(self.kind, HEADERS, "{self:?}");
        let known = [200, 204, 206, 304, 400, 404, 500];
        match self.payload[..] {
            [index @ 0x88..=0x8e, ..] => known[usize::from(index - 0x88)],
            [0x48 | 0x08, 0x03, a, b, c, ..] => [a, b, c].iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')),
            [0x48 | 0x08, length @ 0x81..=0x84, ref rest @ ..] => digits(&rest[..usize::from(length - 0x80)]),
            _ => panic!("no status: {self:?}"),
        }
    }
}

/// Three digits in Huffman's code (RFC 7541, appendix B): 0 to 2 have five bits, the others six.
fn digits(packed: &[u8]) -> u16 {
    let bits: Vec<u16> = packed.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1))).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let value = |length: usize| bits[at..at + length].iter().fold(0, |value, bit| value << 1 | bit);
        let (length, digit) = if value(5) < 3 { (5, value(5)) } else { (6, value(6) - 0b01_1001 + 3) };
        (at, number) = (at + length, number * 10 + digit);
    }
    number
}

/// A client that writes frames by hand, and answers what it has to unless told otherwise.
struct Raw {
    stream: TcpStream,
    is_polite: bool,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = text.len();
        // A prefix of seven bits, and what is left in groups of seven (RFC 7541 §5.1).
        let mut packed = vec![u8::try_from(length.min(127)).unwrap()];
        let mut rest = length.checked_sub(127);
        while let Some(left) = rest {
            let more = left >= 128;
            packed.push(u8::try_from(left % 128).unwrap() | if more { 128 } else { 0 });
            rest = more.then_some(left / 128);
        }
        [packed, text.as_bytes().to_vec()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// The head of a request without more headers.
fn head(is_post: bool, path: &str) -> Vec<u8> {
    let path = [&[0x04, u8::try_from(path.len()).unwrap()], path.as_bytes()].concat();
    [&[if is_post { 0x83 } else { 0x82 }, 0x86][..], &path, b"\x01\x09localhost"].concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(false, path))
}

/// A request with a body that is still to come.
fn post(stream: u32, path: &str) -> Vec<u8> {
    let head = [head(true, path), literal("content-type", "application/json")].concat();
    frame(HEADERS, END_HEADERS, stream, &head)
}

impl Raw {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), is_polite: true }
    }

    /// Connected and past the settings.
    async fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await;
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` when the connection is over.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [high, middle, low, kind, flags, a, b, c, d] = head;
        let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
        self.stream.read_exact(&mut payload).await.ok()?;
        if self.is_polite && [SETTINGS, PING].contains(&kind) && flags & ACK == 0 {
            let answer: &[u8] = if kind == PING { &payload } else { b"" };
            let _ = self.stream.write_all(&frame(kind, ACK, 0, answer)).await;
        }
        Some(Frame { kind, flags, stream: u32::from_be_bytes([a, b, c, d]), payload })
    }

    /// The next frame that `wanted` wants; `None` when the connection is over before.
    async fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let find = async {
            loop {
                let frame = self.next().await?;
                if wanted(&frame) {
                    return Some(frame);
                }
            }
        };
        timeout(Duration::from_secs(60), find).await.expect("a frame, or an end")
    }

    /// The status of the answer on this stream; `None` when the connection is over.
    async fn status(&mut self, stream: u32) -> Option<u16> {
        self.find(|frame| frame.kind == HEADERS && frame.stream == stream).await.map(|frame| frame.status())
    }

    /// How long until the connection is over, whatever comes before.
    async fn ends(&mut self, begun: Instant) -> Duration {
        let _ = self.find(|_| false).await;
        begun.elapsed()
    }

    /// Until the server has read all that was sent.
    async fn is_heard(&mut self) -> bool {
        self.stream.write_all(&frame(PING, 0, 0, b"is heard")).await.is_ok()
            && self.find(|frame| frame.kind == PING && frame.flags & ACK != 0).await.is_some()
    }
}

async fn listening(app: &TestApp) -> (SocketAddr, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (serve(listener, app.router.clone(), Gate::default(), stopped).unwrap().address, stop)
}

async fn who_knows_beforehand_is_answered_on_http_2(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    client.send(&[get(1, "/health"), get(3, "/nothing-here")].concat()).await;
    // In whatever order they are made.
    let mut answers = BTreeMap::new();
    while answers.len() < 2 {
        let answer = client.find(|frame| frame.kind == HEADERS).await.expect("an answer");
        answers.insert(answer.stream, answer.status());
    }
    assert_eq!(answers, BTreeMap::from([(1, 200), (3, 404)]));
    // With a body, and on the same connection again.
    client.send(&post(5, "/login")).await;
    let body = json!({"email": "nobody@example.com", "password": "x"}).to_string();
    client.send(&frame(DATA, END_STREAM, 5, body.as_bytes())).await;
    assert_eq!(client.status(5).await, Some(401));
}

async fn nobody_is_upgraded(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let asked = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings, close\r\n\
                 upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

async fn settings_say_what_a_client_may(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    let settings = client.find(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await.unwrap().payload;
    let value = |wanted: u16| {
        let setting = settings.chunks(6).find(|setting| setting[..2] == wanted.to_be_bytes());
        setting.map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()))
    };
    assert_eq!(value(3), Some(128), "streams at once");
    assert_eq!(value(4), Some(65_535), "bytes of a body before it is read");
    assert_eq!(value(6), Some(64 * 1024), "bytes of a head");
    assert_eq!(value(8), None, "no tunnels for web sockets");
}

/// Sends these bytes, one each half a second, from the third on; how long until it is cut off.
async fn drip(mut client: Raw, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    let (first, rest) = bytes.split_at(3);
    client.send(first).await;
    for byte in rest.iter().cycle() {
        let closed = timeout(Duration::from_millis(500), client.find(|_| false)).await.is_ok();
        if closed || begun.elapsed().as_secs() > 20 || client.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
    }
    begun.elapsed()
}

#[track_caller]
fn is_ten_seconds(took: Duration, what: &str) {
    assert!((Duration::from_secs(9)..Duration::from_secs(14)).contains(&took), "{what}: {took:?}");
}

async fn a_slow_beginning_is_cut_off(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let silent = async {
        let (begun, mut client) = (Instant::now(), Raw::connect(address).await);
        is_ten_seconds(client.ends(begun).await, "nothing at all");
    };
    let greets = async {
        let (begun, mut client) = (Instant::now(), Raw::greeted(address).await);
        is_ten_seconds(client.ends(begun).await, "a preface and no request");
    };
    let pings = async {
        let (begun, mut client) = (Instant::now(), Raw::greeted(address).await);
        while begun.elapsed().as_secs() < 20 && client.is_heard().await {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        is_ten_seconds(begun.elapsed(), "pings and no request");
    };
    let drips = async {
        is_ten_seconds(drip(Raw::connect(address).await, PREFACE).await, "a preface that drips in");
        is_ten_seconds(drip(Raw::greeted(address).await, &get(1, "/health")).await, "a first head that drips in");
    };
    tokio::join!(silent, greets, pings, drips);
}

async fn a_slow_head_is_cut_off_while_others_are_answered(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let served = async || {
        let mut client = Raw::greeted(address).await;
        client.send(&get(1, "/health")).await;
        assert_eq!(client.status(1).await, Some(200));
        client
    };
    let drips = async {
        is_ten_seconds(drip(served().await, &get(3, "/health")).await, "a head that drips in");
    };
    let halves = async {
        let (mut client, begun) = (served().await, Instant::now());
        client.send(&frame(HEADERS, END_STREAM, 3, &head(false, "/health"))).await;
        is_ten_seconds(client.ends(begun).await, "a head that is never ended");
    };
    let stops = async {
        let (mut client, begun) = (served().await, Instant::now());
        client.send(&post(3, "/login")).await;
        client.send(&frame(DATA, 0, 3, &[b' '; 1000])[..500]).await;
        is_ten_seconds(client.ends(begun).await, "a body that ends amid a frame");
    };
    let other = async {
        let mut client = served().await;
        for stream in (3..).step_by(2).take(20) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            client.send(&get(stream, "/health")).await;
            assert_eq!(client.status(stream).await, Some(200), "stream {stream}");
        }
    };
    tokio::join!(drips, halves, stops, other);
}

/// Nor are pings a head that began.
async fn a_rest_is_no_slowness(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    client.send(&get(1, "/health")).await;
    assert_eq!(client.status(1).await, Some(200));
    for _ in 0..14 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(client.is_heard().await);
    }
    client.send(&get(3, "/health")).await;
    assert_eq!(client.status(3).await, Some(200));
}

async fn a_rest_ends_with_a_goodbye(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    client.send(&get(1, "/health")).await;
    assert_eq!(client.status(1).await, Some(200));
    let rests = Instant::now();
    let goodbye = timeout(Duration::from_secs(100), async {
        loop {
            match client.next().await {
                Some(frame) if frame.kind == GOAWAY => return true,
                Some(_) => {}
                None => return false,
            }
        }
    });
    assert!(goodbye.await.expect("it rests for ever"), "it was closed without a word");
    assert!((Duration::from_secs(70)..Duration::from_secs(90)).contains(&rests.elapsed()), "{:?}", rests.elapsed());
    client.ends(rests).await;
}

async fn who_is_gone_without_a_word_is_noticed(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    client.send(&get(1, "/health")).await;
    assert_eq!(client.status(1).await, Some(200));
    client.is_polite = false;
    let took = client.ends(Instant::now()).await;
    assert!((15..45).contains(&took.as_secs()), "long before its rest is over, and not at once: {took:?}");
}

async fn a_slow_body_is_refused_and_its_neighbours_are_not(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    let begun = Instant::now();
    client.send(&[post(1, "/login"), frame(DATA, 0, 1, b"{\"em"), post(3, "/login")].concat()).await;
    let mut answers = Vec::new();
    for stream in (5..).step_by(2).take(8) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.send(&get(stream, "/health")).await;
        answers.push(client.find(|frame| frame.kind == HEADERS).await.unwrap());
    }
    assert!(answers.iter().all(|answer| answer.stream >= 5 && answer.status() == 200), "{answers:?}");
    let slow = client.find(|frame| frame.kind == HEADERS && frame.stream <= 3).await.unwrap();
    assert_eq!(slow.status(), 408);
    assert!((4..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    // What is still to come of a body that nobody waits for is not wanted, and its place is free.
    assert!(client.find(|frame| frame.kind == RST_STREAM && frame.stream <= 3).await.is_some());
    client.send(&get(41, "/health")).await;
    assert_eq!(client.status(41).await, Some(200), "the connection goes on");
}

async fn a_body_that_is_longer_than_allowed_is_refused(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    client.send(&[post(1, "/login"), frame(DATA, 0, 1, &[b' '; 9000])].concat()).await;
    // Also when the settings are known in between.
    assert!(client.is_heard().await);
    client.send(&frame(DATA, 0, 1, &[b' '; 9000])).await;
    assert_eq!(client.status(1).await, Some(413));
}

async fn a_head_too_large_is_refused_as_on_http_1(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let ask = async |lines: Vec<(String, usize)>| {
        let mut client = Raw::greeted(address).await;
        let lines = lines.iter().flat_map(|(name, length)| literal(name, &"x".repeat(*length)));
        let block: Vec<u8> = head(false, "/health").into_iter().chain(lines).collect();
        let mut parts: Vec<&[u8]> = block.chunks(16_000).collect();
        let (first, last) = (parts.remove(0), parts.pop());
        let ends = if last.is_none() { END_HEADERS } else { 0 };
        client.send(&frame(HEADERS, ends | END_STREAM, 1, first)).await;
        for part in parts {
            client.send(&frame(CONTINUATION, 0, 1, part)).await;
        }
        if let Some(last) = last {
            client.send(&frame(CONTINUATION, END_HEADERS, 1, last)).await;
        }
        let status = client.status(1).await;
        client.send(&get(3, "/health")).await;
        assert_eq!(client.status(3).await, Some(200), "the connection goes on");
        status
    };
    let lines = |count: usize, length: usize| (0..count).map(|at| (format!("x-{at}"), length)).collect::<Vec<_>>();
    assert_eq!(ask(lines(1, 8000)).await, Some(200));
    assert_eq!(ask(lines(1, 8190)).await, Some(431), "a line of more than 8 KiB");
    assert_eq!(ask(lines(100, 8)).await, Some(200));
    assert_eq!(ask(lines(101, 8)).await, Some(431), "more than a hundred lines");
    assert_eq!(ask(lines(7, 8000)).await, Some(200));
    assert_eq!(ask(lines(9, 8000)).await, Some(431), "more than 64 KiB");
}

/// Each byte stands for a line of four thousand.
async fn a_head_that_unpacks_to_much_is_refused(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    let mut line = literal("x", &"x".repeat(3900));
    // With incremental indexing: from here on 62 is this line.
    line[0] = 0x40;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[head(false, "/health"), line].concat())).await;
    assert_eq!(client.status(1).await, Some(200));
    let unpacks_to = async |client: &mut Raw, stream, lines| {
        let head = [head(false, "/health"), vec![0x80 | 62; lines]].concat();
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)).await;
        client.status(stream).await
    };
    assert_eq!(unpacks_to(&mut client, 3, 10).await, Some(200));
    assert_eq!(unpacks_to(&mut client, 5, 20).await, Some(431), "more than 64 KiB");
    assert_eq!(unpacks_to(&mut client, 7, 10).await, Some(200), "the connection goes on");
    assert_eq!(unpacks_to(&mut client, 9, 15_000).await, None, "sixty megabytes: nobody does that by mistake");
}

async fn a_head_without_end_ends_the_connection(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    let begun = Instant::now();
    client.send(&frame(HEADERS, END_STREAM, 1, &head(false, "/health"))).await;
    let part = frame(CONTINUATION, 0, 1, &literal("x", "y"));
    let mut sent = 0;
    while sent < 100 && client.stream.write_all(&part).await.is_ok() {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(client.ends(begun).await < Duration::from_secs(8), "cut off by number, not by time");
}

async fn there_are_so_many_streams_at_once(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    assert!(client.is_heard().await);
    for stream in (1..).step_by(2).take(129) {
        client.send(&post(stream, "/login")).await;
    }
    let refused = client.find(|frame| frame.kind == RST_STREAM).await.unwrap();
    assert_eq!(
        (refused.stream, &refused.payload[..]),
        (257, &[0, 0, 0, 7][..]),
        "REFUSED_STREAM, which is safe to repeat"
    );
    // One that ends makes room.
    client.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    assert_eq!(client.status(1).await, Some(400));
    client.send(&get(259, "/health")).await;
    assert_eq!(client.status(259).await, Some(200));
}

async fn who_takes_back_what_it_asks_is_cut_off(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    let mut taken_back = 0;
    for stream in (1..).step_by(2).take(2000) {
        let request = [post(stream, "/login"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat();
        // Each is seen before it is taken back: the library itself bounds only those that were not.
        if client.stream.write_all(&request[..]).await.is_err() || !client.is_heard().await {
            break;
        }
        taken_back += 1;
    }
    assert!((200..400).contains(&taken_back), "{taken_back}");
    // At once, without a look in between, it is over even sooner.
    let mut client = Raw::greeted(address).await;
    let requests: Vec<u8> = (1..)
        .step_by(2)
        .take(2000)
        .flat_map(|stream| [get(stream, "/health"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat())
        .collect();
    let _ = client.stream.write_all(&requests).await;
    assert!(client.ends(Instant::now()).await < Duration::from_secs(8));
}

async fn who_leaves_a_page_is_not_cut_off(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    let mut streams = (1..).step_by(2);
    for _ in 0..5 {
        // All that a page asked for at once is taken back, and the next page waits for as much.
        let open: Vec<u32> = streams.by_ref().take(100).collect();
        for stream in &open {
            client.send(&post(*stream, "/login")).await;
        }
        assert!(client.is_heard().await);
        for stream in open {
            client.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await;
        }
        for stream in streams.by_ref().take(100) {
            client.send(&get(stream, "/health")).await;
            assert_eq!(client.status(stream).await, Some(200));
        }
    }
}

async fn a_connect_is_no_tunnel(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let mut client = Raw::greeted(address).await;
    let connect = [b"\x02\x07CONNECT".to_vec(), b"\x01\x0blocalhost:1".to_vec()].concat();
    client.send(&frame(HEADERS, END_HEADERS, 1, &connect)).await;
    assert_eq!(client.status(1).await, Some(404));
    client.send(&get(3, "/health")).await;
    assert_eq!(client.status(3).await, Some(200));
}

async fn a_stop_says_goodbye_and_finishes_what_runs(stack: Stack) {
    let mut process = Process::start(stack.dir.path(), &stack.settings().await);
    let alice = process.client().register("alice").await;
    let body = json!({"email": alice.email, "password": PASSWORD}).to_string();
    let (first, rest) = body.split_at(body.len() / 2);
    let mut running = Raw::greeted(process.address).await;
    running.send(&[post(1, "/login"), frame(DATA, 0, 1, first.as_bytes())].concat()).await;
    assert!(running.is_heard().await, "from here on the request runs");
    let mut resting = Raw::greeted(process.address).await;
    resting.send(&get(1, "/health")).await;
    assert_eq!(resting.status(1).await, Some(200));

    let told = Instant::now();
    process.terminate();
    assert!(resting.find(|frame| frame.kind == GOAWAY).await.is_some());
    assert!(resting.ends(told).await < Duration::from_secs(5), "nothing keeps a connection that rests");
    assert!(running.find(|frame| frame.kind == GOAWAY).await.is_some());
    let address = process.address;
    eventually("new connections are refused", || async { TcpStream::connect(address).await.is_err() }).await;
    running.send(&frame(DATA, END_STREAM, 1, rest.as_bytes())).await;
    assert_eq!(running.status(1).await, Some(200));
    running.ends(told).await;
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0), "{}", process.output());
    assert!(told.elapsed() < Duration::from_secs(15), "it waited for nobody: {:?}", told.elapsed());
}
