//! The client, in a process of its own: keep-alive connections over loopback, one request at a time on each.
//!
//! Requests are bytes that were made before, and answers are looked at no further than needed, because on a small machine
//! every instruction here is one that the server does not get. One thread, so that it cannot take more than one core.

use std::{
    cell::{Cell, RefCell},
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
    time::Instant,
};

use crate::process;

/// What to do, as JSON on standard input.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub address: SocketAddr,
    pub connections: usize,
    pub millis: u64,
    /// The file of requests.
    pub requests: PathBuf,
    /// The first request to send.
    pub from: usize,
    pub order: Order,
    /// Requests a second of all connections together; without it each connection asks as fast as it is answered.
    pub pace: Option<f64>,
    /// Besides 2xx, an answer that is no fault: counted apart.
    pub refusal: Option<u16>,
}

#[derive(Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub enum Order {
    /// All in turn, again and again.
    Round,
    /// Each once.
    Once,
    /// All in turn; the refresh token of an answer takes the place of the one that was sent. The file is written back.
    Refresh,
}

/// What came of it, as JSON on standard output. Times in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub answers: u64,
    pub refusals: u64,
    pub seconds: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// The request after the last one.
    pub next: usize,
    /// CPU seconds of the client itself.
    pub cpu: f64,
    /// What the first answer that should not have been was.
    pub fault: Option<String>,
}

/// The requests of a file: length and bytes, one after the other.
pub fn write_requests<R: AsRef<[u8]>>(requests: &[R]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(requests.iter().map(|request| request.as_ref().len() + 4).sum());
    for request in requests {
        let request = request.as_ref();
        bytes.extend(u32::try_from(request.len()).expect("a request is short").to_be_bytes());
        bytes.extend(request);
    }
    bytes
}

fn read_requests(mut bytes: &[u8]) -> Vec<Rc<[u8]>> {
    let mut requests = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (request, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        requests.push(request.into());
        bytes = rest;
    }
    requests
}

/// Does the job of standard input.
pub fn run() {
    let job: Job = serde_json::from_reader(io::stdin()).expect("a job");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = LocalSet::new().block_on(&runtime, drive(job));
    println!("{}", serde_json::to_string(&outcome).expect("JSON"));
}

struct Shared {
    requests: RefCell<Vec<Rc<[u8]>>>,
    next: Cell<usize>,
    times: RefCell<Histogram>,
    outcome: RefCell<Outcome>,
    job: Job,
}

async fn drive(job: Job) -> Outcome {
    let requests = read_requests(&fs::read(&job.requests).expect("the requests"));
    let mut streams = Vec::new();
    for _ in 0..job.connections {
        let stream = TcpStream::connect(job.address).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        streams.push(stream);
    }
    let cpu = process::cpu_seconds(std::process::id());
    let shared = Rc::new(Shared {
        requests: RefCell::new(requests),
        next: Cell::new(job.from),
        times: RefCell::default(),
        outcome: RefCell::default(),
        job,
    });
    let (began, mut clients) = (Instant::now(), Vec::new());
    for (number, stream) in streams.into_iter().enumerate() {
        clients.push(tokio::task::spawn_local(client(Rc::clone(&shared), stream, number, began)));
    }
    for client in clients {
        client.await.expect("a client that ends");
    }
    let mut outcome = shared.outcome.borrow().clone();
    let times = shared.times.borrow();
    outcome.seconds = began.elapsed().as_secs_f64();
    (outcome.p50, outcome.p99, outcome.p999) = (times.quantile(0.5), times.quantile(0.99), times.quantile(0.999));
    outcome.next = shared.next.get();
    outcome.cpu = process::cpu_seconds(std::process::id()) - cpu;
    if shared.job.order == Order::Refresh {
        fs::write(&shared.job.requests, write_requests(&shared.requests.borrow())).expect("the requests");
    }
    outcome
}

/// One connection.
async fn client(shared: Rc<Shared>, mut stream: TcpStream, number: usize, began: Instant) {
    let (job, end) = (&shared.job, began + Duration::from_millis(shared.job.millis));
    let period = job.pace.map(|pace| Duration::from_secs_f64(job.connections as f64 / pace));
    // Connections begin one after the other, evenly over a period.
    let mut due = began + period.unwrap_or_default().mul_f64(number as f64 / job.connections as f64);
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let count = shared.requests.borrow().len();
        let index = shared.next.get();
        if Instant::now() >= end || due >= end || (job.order == Order::Once && index >= count) {
            return;
        }
        shared.next.set(index + 1);
        let index = index % count;
        let request = Rc::clone(&shared.requests.borrow()[index]);
        // A request that had to wait for the one before is late, and its waiting is part of its time; that the timer rings
        // up to a millisecond after the time is not.
        let sent = if period.is_some() && Instant::now() < due {
            tokio::time::sleep_until(due).await;
            Instant::now()
        } else if period.is_some() {
            due
        } else {
            Instant::now()
        };
        let answer = ask(&mut stream, &request, &mut buffer).await;
        shared.times.borrow_mut().add(sent.elapsed());
        let mut outcome = shared.outcome.borrow_mut();
        match answer {
            Ok((200..=299, body)) => {
                outcome.answers += 1;
                if job.order == Order::Refresh {
                    shared.requests.borrow_mut()[index] = refreshed(job.address, &buffer[body]).into();
                }
            }
            Ok((status, _)) if job.refusal == Some(status) => outcome.refusals += 1,
            answer => {
                let what = match answer {
                    Ok((status, body)) => format!("{status}: {}", String::from_utf8_lossy(&buffer[body])),
                    Err(error) => error.to_string(),
                };
                outcome.fault.get_or_insert(what);
                return;
            }
        }
        if let Some(period) = period {
            due = (due + period).max(Instant::now());
        }
    }
}

/// Asks, and has the status and the place of the body in the buffer.
async fn ask(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<(u16, std::ops::Range<usize>)> {
    stream.write_all(request).await?;
    buffer.clear();
    let (head, length) = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break (head + 4, content_length(&buffer[..head]));
        }
    };
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    // "HTTP/1.1 200 OK"
    let status = std::str::from_utf8(&buffer[9..12]).ok().and_then(|digits| digits.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, head..head + length))
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let Some(at) = head.windows(NAME.len()).position(|part| part.eq_ignore_ascii_case(NAME)) else { return 0 };
    let digits = head[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// The request that follows this answer of `/refresh`.
fn refreshed(address: SocketAddr, body: &[u8]) -> Vec<u8> {
    const NAME: &str = "\"refresh_token\":\"";
    let body = std::str::from_utf8(body).expect("JSON");
    let from = body.find(NAME).expect("a refresh token") + NAME.len();
    let token = &body[from..from + body[from..].find('"').expect("its end")];
    post(address, "/refresh", &format!("{{\"refresh_token\":\"{token}\"}}"))
}

pub fn post(address: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: bench\r\naccept: */*\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub fn get(address: SocketAddr, path: &str, token: Option<&str>) -> Vec<u8> {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: bench\r\naccept: */*\r\n{authorization}\r\n")
        .into_bytes()
}

/// Times in buckets that are three percent wide.
struct Histogram(Vec<u64>);

const STEPS: u32 = 5;

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; 64 << STEPS])
    }
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1 << STEPS);
        let power = nanos.ilog2();
        // The power of two, and the five bits behind its first one.
        let bucket = (power << STEPS) + (nanos >> (power - STEPS)) as u32 - (1 << STEPS);
        self.0[bucket as usize] += 1;
    }

    /// The upper end of the bucket in which this part of all times has been seen, in microseconds.
    fn quantile(&self, part: f64) -> f64 {
        let wanted = self.0.iter().sum::<u64>() as f64 * part;
        let mut seen = 0;
        for (bucket, count) in (0u32..).zip(&self.0) {
            seen += count;
            if seen > 0 && seen as f64 >= wanted {
                let (power, step) = (bucket >> STEPS, bucket & ((1 << STEPS) - 1));
                return 2f64.powi(power as i32) * (1.0 + f64::from(step + 1) / f64::from(1 << STEPS)) / 1e3;
            }
        }
        f64::NAN
    }
}
