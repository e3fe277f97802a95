//! `latchkey hash calibrate`: the settings for hashes that take a given time on this machine.
//!
//! The settings alone go to standard output, so that they can be put behind a `.env`; what they mean goes to standard
//! error.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::{ambient::Ambient, config::Config, hashing};

#[derive(Debug, Subcommand)]
pub(super) enum HashCommand {
    /// Measure hashes on this machine, and print the LATCHKEY_ARGON2_ settings that come nearest to a time, but below it
    ///
    /// Memory grows before passes. Passwords that were hashed at another cost keep working: a weaker hash is made anew at
    /// the next login. Run it where the server runs, with its limits of memory and CPU, and not while it is busy.
    Calibrate {
        /// How long a hash may take, from 5ms to 1s
        #[arg(long, default_value = "250ms", value_parser = target)]
        target: Duration,
    },
}

fn target(text: &str) -> Result<Duration, String> {
    let expected = || "a time from 5ms to 1s, as 250ms".to_owned();
    let millis = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse().map_err(|_| expected())?,
        (None, Some(number)) => number.parse::<u64>().map_err(|_| expected())?.saturating_mul(1000),
        (None, None) => return Err(expected()),
    };
    if (5..=1000).contains(&millis) { Ok(Duration::from_millis(millis)) } else { Err(expected()) }
}

pub(super) async fn run(config: &Config, command: HashCommand) -> anyhow::Result<()> {
    let HashCommand::Calibrate { target } = command;
    let is_terminal = stderr().is_terminal();
    let threads = config.passwords.hash_threads;
    let tell = |memory: u32, passes: u32, took: Duration| {
        if is_terminal {
            eprint!("\r{memory:>6} KiB, {passes} passes: {:>7.1} ms ", millis(took));
        }
    };
    let found = hashing::calibrate(&config.passwords, target, &Ambient::system(), tell).await;
    if is_terminal {
        eprint!("\r{:40}\r", "");
    }
    let Some(found) = found.context("there is no memory, or no time, to measure with")? else {
        bail!("the least hash that is allowed takes longer than {} ms here", target.as_millis());
    };
    let memory = usize::try_from(found.memory_kib)?.saturating_mul(threads.get()).div_ceil(1024);
    eprintln!(
        "A hash takes {:.0} ms here. With {threads} hashing thread(s) that is {:.1} logins a second on this node, and up to \
         {memory} MiB of memory.",
        millis(found.alone),
        found.a_second
    );
    println!("LATCHKEY_ARGON2_MEMORY_KIB={}", found.memory_kib);
    println!("LATCHKEY_ARGON2_ITERATIONS={}", found.iterations);
    println!("LATCHKEY_ARGON2_PARALLELISM=1");
    let passwords = crate::config::PasswordSettings {
        memory_kib: found.memory_kib,
        iterations: found.iterations,
        ..config.passwords.clone()
    };
    if passwords.is_below_floor() {
        eprintln!("warning: this is below the OWASP floor (19456 KiB with 2 iterations, or an equal); allow more time");
    }
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
