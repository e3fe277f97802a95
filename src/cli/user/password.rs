//! Taking a password in: from a terminal that does not show it, or as one line of standard input.

use std::io::{self, BufRead, Read, Write};

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::secret::SecretText;

/// More than any password may have: what is cut here is refused as too long.
const MOST_BYTES: u64 = 4096;

/// Where a password comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// Somebody types it, twice.
    Terminal,
    /// It is piped in.
    StandardInput,
}

/// The password as given; whether it is a good one is asked elsewhere.
pub(super) async fn read(source: Source) -> anyhow::Result<SecretText> {
    let password = match source {
        Source::StandardInput => read_line()?,
        Source::Terminal => {
            let password = ask("Password: ").await?;
            if password.expose() != ask("The same again: ").await?.expose() {
                bail!("nobody was made: the two passwords are not the same");
            }
            password
        }
    };
    if password.expose().is_empty() {
        bail!("nobody was made: the password is empty; --no-password leaves it to the person");
    }
    Ok(password)
}

/// Asks on standard error, since standard output may be a pipe.
async fn ask(question: &str) -> anyhow::Result<SecretText> {
    // The terminal shows again whatever happens; a signal that just ended us would leave it mute.
    let _hidden = Hidden::start().context("the terminal cannot hide what is typed; use --password-stdin")?;
    eprint!("{question}");
    io::stderr().flush()?;
    let typed = tokio::task::spawn_blocking(read_line);
    tokio::select! {
        typed = typed => typed?,
        _ = tokio::signal::ctrl_c() => {
            eprintln!();
            bail!("interrupted; nobody was made")
        }
    }
}

/// A terminal that does not show what is typed, until it is dropped.
struct Hidden(Termios);

impl Hidden {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // The end of the line alone is shown.
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// One line, without its end; an end as Windows writes it is one too.
fn read_line() -> anyhow::Result<SecretText> {
    // With all its room from the beginning, so that growing leaves no copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize));
    io::stdin().lock().take(MOST_BYTES).read_until(b'\n', &mut line).context("cannot read the password")?;
    let text = line.strip_suffix(b"\n").map_or(&line[..], |text| text.strip_suffix(b"\r").unwrap_or(text));
    let text = std::str::from_utf8(text).ok().context("the password is no UTF-8 text")?;
    Ok(SecretText::new(text))
}
