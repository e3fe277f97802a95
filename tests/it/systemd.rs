//! A server under systemd: sockets that were opened before it, telling when it serves, and SIGHUP.

use std::{
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::net::TcpStream;

use crate::{
    on_stacks,
    support::{Client, Process, Stack, StackKind, Test, eventually},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&[StackKind::Embedded];
        sockets_that_were_handed_over_are_served_and_stay_open_after_a_stop,
        a_socket_alone_is_the_public_one,
        sockets_of_another_process_are_not_taken,
        what_is_no_listening_socket_is_refused,
        systemd_is_told_when_it_serves_and_when_it_stops,
        sighup_takes_in_a_new_key_and_never_ends_the_process,
    ]
}

/// The server in this folder with two open sockets at 3 and 4, as systemd starts it. A shell tells the process its number:
/// nobody else can know it before.
fn started(settings: &[(String, String)], stack: &Stack, handed: [OwnedFd; 2], environment: &str) -> Command {
    let program = Process::command(stack.dir.path(), settings);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("exec 3<&0 4<&2 0</dev/null 2>/dev/null; exec env {environment} \"$0\""))
        .arg(program.get_program())
        .current_dir(stack.dir.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(settings.iter().map(|(name, value)| (name, value)));
    let [third, fourth] = handed;
    command.stdin(Stdio::from(third)).stderr(Stdio::from(fourth));
    command
}

/// Two open sockets, and where they listen.
fn sockets() -> ([TcpListener; 2], [SocketAddr; 2]) {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [sockets[0].local_addr().unwrap(), sockets[1].local_addr().unwrap()];
    (sockets, addresses)
}

fn handed(sockets: &[TcpListener; 2]) -> [OwnedFd; 2] {
    [sockets[0].try_clone().unwrap().into(), sockets[1].try_clone().unwrap().into()]
}

async fn sockets_that_were_handed_over_are_served_and_stay_open_after_a_stop(stack: Stack) {
    let settings = stack.settings().await;
    for (names, public) in [("public:internal", 0), ("internal:public", 1)] {
        let (sockets, addresses) = sockets();
        let environment = format!("LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES={names}");
        let mut process = Process::of(started(&settings, &stack, handed(&sockets), &environment)).unwrap();
        assert_eq!((process.address, process.internal), (addresses[public], addresses[1 - public]), "{names}");
        process.client().get("/health").await.is(200);
        process.internal().get("/health/live").await.is(200);
        process.terminate();
        assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0), "{}", process.output());
        // Who comes now waits for the next one, and is not refused.
        TcpStream::connect(addresses[public]).await.expect("the socket is systemd's");
    }
}

async fn a_socket_alone_is_the_public_one(stack: Stack) {
    let settings = stack.settings().await;
    let (sockets, addresses) = sockets();
    let environment = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=latchkey.socket";
    let process = Process::of(started(&settings, &stack, handed(&sockets), environment)).unwrap();
    assert_eq!(process.address, addresses[0]);
    assert_ne!(process.internal, addresses[1]);
    process.client().get("/health").await.is(200);
    process.internal().get("/health/live").await.is(200);
}

async fn sockets_of_another_process_are_not_taken(stack: Stack) {
    let settings = stack.settings().await;
    let (sockets, addresses) = sockets();
    let environment = "LISTEN_PID=1 LISTEN_FDS=2 LISTEN_FDNAMES=public:internal";
    let process = Process::of(started(&settings, &stack, handed(&sockets), environment)).unwrap();
    assert!(!addresses.contains(&process.address) && !addresses.contains(&process.internal));
}

async fn what_is_no_listening_socket_is_refused(stack: Stack) {
    let settings = stack.settings().await;
    let (sockets, addresses) = sockets();
    let connected = std::net::TcpStream::connect(addresses[0]).unwrap();
    let file = std::fs::File::create(stack.dir.path().join("a file")).unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for (number, bad) in [OwnedFd::from(connected), file.into(), datagrams.into()].into_iter().enumerate() {
        let [good, _] = handed(&sockets);
        let environment = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=public:internal";
        // Its complaint would go to standard error, which is the socket here.
        let mut child = started(&settings, &stack, [good, bad], environment).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if begun.elapsed() > Duration::from_secs(10) => break None,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        if status.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{number}");
    }
}

async fn systemd_is_told_when_it_serves_and_when_it_stops(stack: Stack) {
    let mut settings = stack.settings().await;
    let path = stack.dir.path().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    settings.push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
    let mut process = Process::start(stack.dir.path(), &settings);
    let hear = || {
        let mut message = [0; 64];
        let length = told.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    assert_eq!(hear(), "READY=1");
    process.internal().get("/health/live").await.is(200);
    process.terminate();
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0), "{}", process.output());
    // Where nobody listens, the server serves all the same.
    drop(told);
    Process::start(stack.dir.path(), &settings).client().get("/health").await.is(200);
}

/// The kids that are published.
async fn published(client: &Client) -> Vec<String> {
    let keys = client.get("/.well-known/jwks.json").await.is(200).json();
    keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn sighup_takes_in_a_new_key_and_never_ends_the_process(stack: Stack) {
    let settings = stack.settings().await;
    let mut process = Process::start(stack.dir.path(), &settings);
    let alice = process.client().register("alice").await;
    let before = published(&process.client()).await;
    let key = stack.dir.path().join("jwt").join("mine.pem");
    let made = Command::new("openssl")
        .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
        .arg(&key)
        .status()
        .expect("this test needs openssl: install it");
    assert!(made.success());
    Command::new("chmod").arg("600").arg(&key).status().unwrap();
    // It is nobody's business before somebody says so.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(published(&process.client()).await, before);
    process.hang_up();
    eventually("it is published", || async { published(&process.client()).await.len() == before.len() + 1 }).await;
    let listed = Process::command(stack.dir.path(), &settings).args(["keys", "list"]).output().unwrap();
    let lines = String::from_utf8(listed.stdout).unwrap();
    let keys: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let new: Vec<_> = keys.iter().filter(|key| !before.contains(&key["kid"].as_str().unwrap().to_owned())).collect();
    assert!(new.len() == 1 && new[0]["state"] == "next" && new[0]["held"] == true, "{lines}");

    // What is no key is told of, and takes nothing away.
    std::fs::write(stack.dir.path().join("jwt").join("bad.pem"), "no key").unwrap();
    process.hang_up();
    eventually("it is told", || async { process.output().contains("bad.pem") }).await;
    for _ in 0..20 {
        process.hang_up();
    }
    alice.me().await.is(200);
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0), "{}", process.output());
}
