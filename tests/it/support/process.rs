//! The real program as a process.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::Client;

/// A running server.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    pub internal: SocketAddr,
    output: Arc<Mutex<String>>,
}

impl Process {
    /// The program with these settings and no others, in `dir`.
    pub fn command(dir: &Path, settings: &[(String, String)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command.current_dir(dir).env_clear().envs(settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a server and waits until it says where it listens.
    pub fn start(dir: &Path, settings: &[(String, String)]) -> Self {
        Self::try_start(dir, settings).unwrap_or_else(|output| panic!("the server does not start:\n{output}"))
    }

    /// As [`Process::start`], for a server that may refuse; then with what it said.
    pub fn try_start(dir: &Path, settings: &[(String, String)]) -> Result<Self, String> {
        let mut command = Self::command(dir, settings);
        command.stderr(Stdio::piped());
        Self::of(command)
    }

    /// As [`Process::try_start`], by a command of one's own.
    pub fn of(mut command: Command) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if let Some(errors) = child.stderr.take() {
            let (mut errors, heard) = (BufReader::new(errors).lines(), Arc::clone(&output));
            std::thread::spawn(move || {
                while let Some(Ok(line)) = errors.next() {
                    *heard.lock().unwrap() += &(line + "\n");
                }
            });
        }
        let listening = loop {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.wait();
                std::thread::sleep(Duration::from_millis(50));
                return Err(output.lock().unwrap().clone());
            };
            *output.lock().unwrap() += &format!("{line}\n");
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "listening" {
                break event;
            }
        };
        let heard = Arc::clone(&output);
        std::thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        let address = |name: &str| {
            listening[name].as_str().and_then(|url| url.split_once("://")).and_then(|(_, address)| address.parse().ok())
        };
        Ok(Self {
            child,
            address: address("listen").expect("an address"),
            internal: address("internal").expect("an address"),
            output,
        })
    }

    pub fn client(&self) -> Client {
        Client::at(self.address)
    }

    pub fn internal(&self) -> Client {
        Client::at(self.internal)
    }

    /// Everything it wrote so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < patience, "the server did not end; it said:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
