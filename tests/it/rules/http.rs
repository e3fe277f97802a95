use std::time::Duration;

use axum::{Router, routing::get};
use latchkey::{
    error::ApiError,
    http::{self, Gate, serve},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    on_stacks,
    support::{Client, Stack, StackKind, Test, TestApp},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&[StackKind::Embedded];
        a_head_over_64_kib_is_refused_whatever_its_lines,
        ready_is_no_when_mail_cannot_leave_or_a_stop_was_asked_for,
        a_panic_is_one_500_and_ends_nothing_else,
    ]
}

async fn listening(app: &TestApp) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (serve(listener, app.router.clone(), Gate::default(), stopped).unwrap().address, stop)
}

async fn raw(address: std::net::SocketAddr, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}
// ---- paste from here

async fn a_head_over_64_kib_is_refused_whatever_its_lines(stack: Stack) {
    let app = stack.app().await;
    let (address, _stop) = listening(&app).await;
    let head = |lines: usize| {
        let lines: String = (0..lines).map(|number| format!("x-{number}: {}\r\n", "x".repeat(7 * 1024))).collect();
        format!("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n")
    };
    let answer = raw(address, head(8).as_bytes(), Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = raw(address, head(40).as_bytes(), Duration::from_secs(5)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

async fn ready_is_no_when_mail_cannot_leave_or_a_stop_was_asked_for(stack: Stack) {
    // Nobody listens there.
    let app = stack.app_with(&[("SMTP_URL", "smtp://127.0.0.1:1")]).await;
    let internal = Client::of(app.internal_router());
    let reply = internal.get("/health/ready").await.is(503);
    assert!(reply.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    assert_eq!((reply.text("/status"), reply.text("/checks/mail/status")), ("down".into(), "down".into()));
    drop((app, internal));

    let app = stack.app().await;
    let internal = Client::of(app.internal_router());
    internal.get("/health/ready").await.is(200);
    app.begin_stop();
    internal.get("/health/ready").await.is(503);
    let reply = internal.get("/health/live").await.is(503);
    assert!(reply.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
}

async fn a_panic_is_one_500_and_ends_nothing_else(stack: Stack) {
    let app = stack.app().await;
    async fn panics() -> Result<&'static str, ApiError> {
        panic!("kanarienvogel")
    }
    let in_a_task = async || http::finish(panics()).await;
    let routes =
        Router::new().route("/handler", get(panics)).route("/task", get(in_a_task)).route("/fine", get("fine"));
    let (_stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serving = serve(listener, app.wrap(routes), Gate::default(), stopped).unwrap();
    // One connection for all.
    let requests = "GET /handler HTTP/1.1\r\nhost: x\r\n\r\nGET /task HTTP/1.1\r\nhost: x\r\n\r\n\
                    GET /fine HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = raw(serving.address, requests.as_bytes(), Duration::from_secs(5)).await;
    let statuses: Vec<_> =
        answers.match_indices("HTTP/1.1 ").map(|(at, line)| &answers[at + line.len()..][..3]).collect();
    assert_eq!(statuses, ["500", "500", "200"], "{answers}");
    assert_eq!(answers.matches("\"code\":\"internal_error\"").count(), 2, "{answers}");
    assert!(answers.ends_with("fine") && !answers.contains("kanarienvogel"), "{answers}");
}
