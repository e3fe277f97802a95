//! The servers as processes of their own: started, asked by `/proc` what they cost, stopped.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that serves.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process to its first 200.
    pub start: Duration,
}

impl Process {
    /// The program that is measured, on a free port, with these settings and no others.
    pub fn server(dir: &Path, settings: &[(String, String)]) -> Self {
        // Whoever takes the port in between lets the server say so and end.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let errors = fs::File::create(dir.join("server.log")).expect("a file");
        let began = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_latchkey"))
            .current_dir(dir)
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .env("LATCHKEY_LISTEN", free.to_string())
            // A line a request is written, as everywhere, and read by nobody.
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("the server starts");
        let mut process = Self { child, address: free, start: Duration::ZERO };
        while !is_healthy(free) {
            let log = || fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            assert!(process.child.try_wait().expect("its state").is_none(), "the server ended: {}", log());
            assert!(began.elapsed() < PATIENCE, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_micros(500));
        }
        process.start = began.elapsed();
        process
    }

    /// The bare handlers.
    pub fn floor(settings: &impl Serialize) -> Self {
        let began = Instant::now();
        let mut child = part("floor").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the floor starts");
        give(&mut child, settings);
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let address = line.trim().parse().unwrap_or_else(|_| panic!("the floor says where it listens: {line}"));
        Self { child, address, start: began.elapsed() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program, in another part.
fn part(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of a program that runs"));
    command.arg(name);
    command
}

fn give(child: &mut Child, settings: &impl Serialize) {
    let mut input = child.stdin.take().expect("its input");
    input.write_all(&serde_json::to_vec(settings).expect("JSON")).expect("it reads");
}

/// A job for this program in the part `name`, under way.
pub struct Running(Child);

pub fn begin(name: &str, job: &impl Serialize) -> Running {
    let mut child = part(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    give(&mut child, job);
    Running(child)
}

impl Running {
    /// Its answer.
    pub fn end<T: DeserializeOwned>(mut self) -> T {
        let mut text = String::new();
        self.0.stdout.take().expect("its output").read_to_string(&mut text).expect("text");
        let status = self.0.wait().expect("its end");
        assert!(status.success(), "a part of the bench failed");
        serde_json::from_str(&text).expect("an answer")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_healthy(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(&super::drive::get(address, "/health", None))?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        std::io::Result::Ok(head)
    };
    ask().is_ok_and(|head| head.ends_with(b" 200"))
}

/// CPU seconds that a process has used (proc(5), `stat`).
pub fn cpu_seconds(id: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name may have blanks; behind its last parenthesis comes field 3.
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(f64::NAN);
    // Linux shows hundredths to every program, whatever the kernel ticks by.
    (ticks(14) + ticks(15)) / 100.0
}

/// Resident memory of a process in MB.
pub fn resident(id: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}
