//! Log lines: one JSON object a line in a pipe, readable text on a terminal.
//!
//! Nothing that a client sends is logged but what was found harmless (the request id) or is quoted, so that nobody can
//! break a line. Libraries below us stay at `warn` unless `RUST_LOG` says otherwise: some of them log statements and
//! frames, and those carry what may not be logged.

use std::io::{IsTerminal, stderr, stdout};

use tracing_subscriber::{
    EnvFilter,
    fmt::{self, writer::BoxMakeWriter},
};

use crate::config::LogFormat;

/// Crates that log bodies, statements or frames when asked for more: never above these levels, unless `RUST_LOG`
/// names one of their modules.
const CAPPED: [&str; 5] = ["hyper=info", "h2=info", "rustls=info", "sqlx=warn", "redis=info"];

/// Starts logging: a server to standard output, a command to standard error, since its output is what it was asked for.
pub(crate) fn start(format: LogFormat, filter: &str, is_server: bool) {
    // Settings refused a filter that cannot be read.
    let mut filter = EnvFilter::new(filter);
    for directive in CAPPED.iter().filter_map(|text| text.parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let writer = if is_server { BoxMakeWriter::new(stdout) } else { BoxMakeWriter::new(stderr) };
    let builder = fmt::fmt().with_env_filter(filter).with_target(false).with_writer(writer);
    let started = if is_pretty(format) {
        builder.with_ansi(stdout().is_terminal() && stderr().is_terminal()).compact().try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
    log_panics();
    // A second start in one process (a test) keeps the first.
    let _ = started;
}

/// Logs where a panic happened, and nothing of what it said: messages of panics quote what was being worked on.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
}

/// Whether people read along.
pub(crate) fn is_pretty(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => stdout().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        panic,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_one_line_with_its_place_and_without_its_words() {
        let written = Written::default();
        let writer = written.clone();
        let log = fmt::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
        let before = panic::take_hook();
        log_panics();
        let outcome = tracing::subscriber::with_default(log, || panic::catch_unwind(|| panic!("kanarienvogel")));
        panic::set_hook(before);
        assert!(outcome.is_err());
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
        assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("ERROR"), Some("panic")), "{text}");
        assert!(line["place"].as_str().is_some_and(|place| place.starts_with("src/telemetry.rs:")), "{text}");
        assert!(!text.contains("kanarienvogel"), "{text}");
    }
}
