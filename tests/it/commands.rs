//! Commands that stand alone: `health`.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    time::{Duration, Instant},
};

use crate::{
    process::{pairs, run},
    support::{Process, Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&[StackKind::Embedded];
        health_is_what_the_internal_listener_says,
    );
    tests.extend(crate::on_stacks!(&StackKind::SHARED; ready_is_asked_for_and_live_is_not_the_same));
    tests.extend(crate::once!(
        without_a_server_there_is_no_health,
        a_silent_server_is_not_waited_for,
    ));
    tests
}

/// These settings, with the internal listener where the server really has it.
fn asking(settings: &[(String, String)], internal: std::net::SocketAddr) -> Vec<(String, String)> {
    let mut settings = settings.to_vec();
    settings.push(("LATCHKEY_INTERNAL_LISTEN".to_owned(), internal.to_string()));
    settings
}

async fn health_is_what_the_internal_listener_says(stack: Stack) {
    let settings = stack.settings().await;
    let mut process = Process::start(stack.dir.path(), &settings);
    let here = asking(&settings, process.internal);
    for arguments in [&["health"][..], &["health", "--ready"]] {
        let ended = run(stack.dir.path(), &here, arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "ok\n"), "{arguments:?}: {ended:?}");
    }
    // In a container it listens on every address, and is asked on one.
    let everywhere = asking(&settings, std::net::SocketAddr::from(([0, 0, 0, 0], process.internal.port())));
    assert_eq!(run(stack.dir.path(), &everywhere, &["health"]).code, Some(0));
    // The public listener is not the one to ask.
    let ended = run(stack.dir.path(), &asking(&settings, process.address), &["health"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("404"), "{ended:?}");

    // Who is about to stop is no longer live.
    let slow = tokio::net::TcpStream::connect(process.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut { slow }, b"POST /login HTTP/1.1\r\n").await.unwrap();
    process.terminate();
    process.wait(Duration::from_secs(60));
    assert_eq!(run(stack.dir.path(), &here, &["health"]).code, Some(1));
}

async fn ready_is_asked_for_and_live_is_not_the_same(stack: Stack) {
    let settings = stack.settings().await;
    let process = Process::start(stack.dir.path(), &settings);
    let here = asking(&settings, process.internal);
    assert_eq!(run(stack.dir.path(), &here, &["health", "--ready"]).code, Some(0));
    // The folder for mail files can be no folder any more.
    let data = stack.dir.path().join("data");
    fs::remove_dir_all(&data).unwrap();
    fs::write(&data, "").unwrap();
    let ended = run(stack.dir.path(), &here, &["health", "--ready"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("503"), "{ended:?}");
    assert_eq!(run(stack.dir.path(), &here, &["health"]).code, Some(0), "it serves all the same");
}

fn without_a_server_there_is_no_health() {
    let dir = tempfile::TempDir::new().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (listen, word) in [(free.as_str(), "no answer"), ("off", "off"), ("127.0.0.1:0", "port")] {
        let ended = run(dir.path(), &pairs(&[("LATCHKEY_INTERNAL_LISTEN", listen)]), &["health"]);
        assert_eq!(ended.code, Some(1), "{listen}: {ended:?}");
        assert!(ended.stderr.contains(word), "{listen}: {ended:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

fn a_silent_server_is_not_waited_for() {
    let dir = tempfile::TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // It takes the connection and says a little now and then, but no whole line.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 1024]);
                for byte in b"HTTP/1.1 200 OK and so on and on and on" {
                    std::thread::sleep(Duration::from_millis(400));
                    if std::io::Write::write_all(&mut stream, &[*byte]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let started = Instant::now();
    let ended = run(dir.path(), &pairs(&[("LATCHKEY_INTERNAL_LISTEN", &address)]), &["health"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("too long"), "{ended:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "three seconds and the start of a program");
}
