//! `latchkey completions`: text that is made from the commands beforehand and lies in `src/cli/completions`.
//!
//! The program holds that text, about a hundred kilobytes; clap's generator is a dependency of the tests alone, which keep
//! the text equal to what it makes.

use std::io::{self, Write};

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

pub(super) fn print(shell: Shell) -> anyhow::Result<()> {
    let text = match shell {
        Shell::Bash => include_str!("completions/latchkey.bash"),
        Shell::Zsh => include_str!("completions/latchkey.zsh"),
        Shell::Fish => include_str!("completions/latchkey.fish"),
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}
