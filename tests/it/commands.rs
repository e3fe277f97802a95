//! Commands that stand alone: `health`, `hash calibrate`, `completions`, and the manual pages that are made beside them.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use clap_complete::{Shell, generate};

use crate::{
    process::{Ended, pairs, run},
    support::{Process, Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&[StackKind::Embedded];
        health_is_what_the_internal_listener_says,
        calibrated_settings_are_taken,
    );
    tests.extend(crate::on_stacks!(&StackKind::SHARED; ready_is_asked_for_and_live_is_not_the_same));
    tests.extend(crate::once!(
        without_a_server_there_is_no_health,
        a_silent_server_is_not_waited_for,
        a_target_that_cannot_be_met_is_told,
        completions_are_those_of_the_commands,
        manual_pages_are_those_of_the_commands,
        bash_takes_the_completions,
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

// --- the cost of hashes ------------------------------------------------------

fn calibrated(ended: &Ended) -> BTreeMap<String, u32> {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.stdout.lines().map(|line| line.split_once('=').expect("a setting a line"));
    lines.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

async fn calibrated_settings_are_taken(stack: Stack) {
    let mut settings = stack.settings().await;
    settings.retain(|(name, _)| !name.starts_with("LATCHKEY_ARGON2_"));
    // So long that the least hash fits on any machine, however much there is to do beside it.
    let ended = run(stack.dir.path(), &settings, &["hash", "calibrate", "--target", "500ms"]);
    let found = calibrated(&ended);
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["LATCHKEY_ARGON2_ITERATIONS", "LATCHKEY_ARGON2_MEMORY_KIB", "LATCHKEY_ARGON2_PARALLELISM"]);
    let (memory, passes) = (found["LATCHKEY_ARGON2_MEMORY_KIB"], found["LATCHKEY_ARGON2_ITERATIONS"]);
    assert!((7168..=262_144).contains(&memory) && (1..=10).contains(&passes), "{found:?}");
    assert!(ended.stderr.contains("logins a second") && ended.stderr.contains("MiB of memory"), "{ended:?}");
    settings.extend(ended.stdout.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.into(), v.into())));
    let check = run(stack.dir.path(), &settings, &["config", "check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains(ended.stdout.lines().next().unwrap()), "{check:?}");
    assert!(!stack.dir.path().join("data").exists(), "nothing was made");
}

fn a_target_that_cannot_be_met_is_told() {
    let dir = tempfile::TempDir::new().unwrap();
    for target in ["4ms", "2s", "250", "much", "-1ms"] {
        let ended = run(dir.path(), &[], &["hash", "calibrate", &format!("--target={target}")]);
        assert_eq!(ended.code, Some(2), "{target}: {ended:?}");
        assert!(ended.stderr.contains("from 5ms to 1s"), "{target}: {ended:?}");
    }
    // Eight lanes of nothing: the least hash in an unoptimized build, or on a very fast machine, either way an answer.
    let ended = run(dir.path(), &[], &["hash", "calibrate", "--target=5ms"]);
    assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
    assert_eq!(ended.stdout.is_empty(), ended.code == Some(1), "{ended:?}");
    assert!(ended.stderr.contains("longer than 5 ms") || ended.stderr.contains("OWASP floor"), "{ended:?}");
}

// --- what is made from the commands ------------------------------------------

/// Keeps files equal to what is made; with `LATCHKEY_TEST_UPDATE` writes them.
#[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
fn keep(folder: &str, made: &BTreeMap<String, Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if std::env::var("LATCHKEY_TEST_UPDATE").is_ok() {
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in made {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let mut there: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    there.sort();
    let names: Vec<_> = there.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, made.keys().cloned().collect::<Vec<_>>(), "in {}", folder.display());
    for path in there {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_same = fs::read(&path).unwrap() == made[name];
        assert!(is_same, "{name} is not what the commands are; LATCHKEY_TEST_UPDATE=1 writes it anew");
    }
}

fn completions() -> BTreeMap<String, Vec<u8>> {
    [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")]
        .into_iter()
        .map(|(shell, end)| {
            let mut text = Vec::new();
            generate(shell, &mut latchkey::cli::command(), "latchkey", &mut text);
            (format!("latchkey.{end}"), text)
        })
        .collect()
}

fn completions_are_those_of_the_commands() {
    let made = completions();
    keep("src/cli/completions", &made);
    let dir = tempfile::TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        // Whatever the settings are: a package is built without any.
        let ended = run(dir.path(), &pairs(&[("LATCHKEY_NO_SUCH_THING", "1")]), &["completions", shell]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let is_same = ended.stdout.as_bytes() == made[&format!("latchkey.{shell}")];
        assert!(is_same, "{shell}: the program was built before its completions were");
        for word in ["doctor", "calibrate", "restore"] {
            assert!(ended.stdout.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(run(dir.path(), &[], &["completions", "cmd"]).code, Some(2));
}

fn manual_pages_are_those_of_the_commands() {
    let dir = tempfile::TempDir::new().unwrap();
    clap_mangen::generate_to(latchkey::cli::command(), dir.path()).unwrap();
    let pages = fs::read_dir(dir.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    });
    let pages: BTreeMap<_, _> = pages.collect();
    assert!(pages.contains_key("latchkey.1") && pages.contains_key("latchkey-doctor.1"), "{:?}", pages.keys());
    keep("deploy/man", &pages);
}

fn bash_takes_the_completions() {
    let script = format!(
        "source {}/src/cli/completions/latchkey.bash
         COMP_WORDS=(latchkey do) COMP_CWORD=1
         _latchkey latchkey do latchkey
         echo \"${{COMPREPLY[@]}}\"",
        env!("CARGO_MANIFEST_DIR")
    );
    let output = Command::new("bash").arg("-c").arg(script).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "doctor", "{:?}", String::from_utf8(output.stderr));
}
