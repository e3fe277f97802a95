//! What a check found, and how it is told.

use std::io::{self, IsTerminal};

use serde_json::json;

use crate::cli::user::output::{plain, say};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Ok,
    Warning,
    Failure,
}

/// What a check found.
#[derive(Debug)]
pub(super) struct Finding {
    pub check: &'static str,
    pub level: Level,
    found: String,
    mend: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), mend: None }
    }

    pub fn warning(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    pub fn failure(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Failure, found: found.into(), mend: Some(mend.into()) }
    }

    /// Two lines on a terminal, one JSON object in a pipe.
    pub fn tell(&self) -> io::Result<()> {
        let (status, mark) = match self.level {
            Level::Ok => ("ok", "ok"),
            Level::Warning => ("warning", "WARNING"),
            Level::Failure => ("failure", "FAILURE"),
        };
        // Some of it is what servers said.
        let (found, mend) = (plain(&self.found), self.mend.as_deref().map(plain));
        if !io::stdout().is_terminal() {
            let line = json!({"check": self.check, "status": status, "found": found, "mend": mend});
            return say(&line.to_string());
        }
        say(&format!("{mark:<8} {:<9} {found}", self.check))?;
        match mend {
            Some(mend) => say(&format!("{:<18} to mend: {mend}", "")),
            None => Ok(()),
        }
    }
}
