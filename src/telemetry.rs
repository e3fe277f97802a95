//! Log lines: one JSON object a line in a pipe, readable text on a terminal.
//!
//! Both escape control characters, so nothing that a client sends can break a line. Libraries below us stay at `warn`
//! unless `RUST_LOG` says otherwise: some of them log statements and frames, and those carry what may not be logged.

use std::io::{IsTerminal, stdout};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT_FILTER: &str = "warn,latchkey=info";
/// Crates that log bodies, statements or frames when asked for more: never above these levels, whatever `RUST_LOG` says.
const CAPPED: [&str; 5] = ["hyper=info", "h2=info", "rustls=info", "sqlx=warn", "redis=info"];

/// Starts logging to standard output.
pub(crate) fn start(format: LogFormat, filter: Option<&str>) {
    let given = filter.map(|text| if text == "info" { DEFAULT_FILTER } else { text }).unwrap_or(DEFAULT_FILTER);
    let mut filter = EnvFilter::try_new(given).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    for directive in CAPPED.iter().filter_map(|text| text.parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let builder = fmt().with_env_filter(filter).with_target(false);
    let started = if is_pretty(format) {
        builder.with_ansi(stdout().is_terminal()).compact().try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
    // A second start in one process (a test) keeps the first.
    let _ = started;
}

/// Whether people read along.
pub(crate) fn is_pretty(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => stdout().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    }
}
