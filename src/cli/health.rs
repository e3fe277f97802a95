//! `latchkey health`: asks the server on this machine how it is, for containers that have no `curl`.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;

use crate::config::Config;

/// For all of it: whoever runs this asks again in a few seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// A status line is far shorter.
const MOST_BYTES: usize = 64;

#[derive(Debug, Args)]
pub(super) struct HealthCommand {
    /// Ask whether database, sessions and mail can be reached too (/health/ready): for people, not for probes, since a
    /// database that stumbles would have every node restarted
    #[arg(long)]
    ready: bool,
}

pub(super) fn run(config: &Config, command: &HealthCommand) -> anyhow::Result<()> {
    let address = match config.internal_listen {
        None => bail!("LATCHKEY_INTERNAL_LISTEN is off, so nobody can be asked"),
        Some(address) if address.port() == 0 => bail!("LATCHKEY_INTERNAL_LISTEN has no fixed port to ask at"),
        Some(address) => super::connectable(address),
    };
    let path = if command.ready { "/health/ready" } else { "/health/live" };
    let status = ask(address, path).with_context(|| format!("no answer from http://{address}{path}"))?;
    if status != 200 {
        bail!("http://{address}{path} answers {status}");
    }
    println!("ok");
    Ok(())
}

/// The status of the answer.
fn ask(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let deadline = Instant::now() + PATIENCE;
    let left = || -> anyhow::Result<Duration> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { bail!("it took too long") } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let (mut head, mut chunk) = (Vec::new(), [0; MOST_BYTES]);
    while head.len() < MOST_BYTES && !head.contains(&b'\n') {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => head.extend(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("it took too long")
            }
            Err(error) => return Err(error.into()),
        }
    }
    let line = String::from_utf8_lossy(&head);
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    status.context("this is no answer of Latchkey")
}
