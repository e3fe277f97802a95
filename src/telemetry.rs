//! What the program tells of itself: log lines, and spans for a collector of traces.
//!
//! 1. One layer of tracing takes everything ([`Telemetry`]) and decides once for each place in the sources whether anybody
//!    wants to hear from it; a place that nobody hears costs one comparison.
//! 2. A line is JSON in a pipe and text on a terminal (`telemetry/line.rs`). It carries what is known of the request that it
//!    belongs to: id, client address, person, session, trace.
//! 3. A server's lines leave through a thread of their own (`telemetry/out.rs`).
//! 4. With a collector, requests have spans (`telemetry/spans.rs`), and a task posts them (`telemetry/export.rs`).
//!
//! Libraries log statements, frames and bodies when they are asked for much, and those carry what may not be logged. So
//! nobody but this crate ever tells more than `info`, whatever `RUST_LOG` says: no list of libraries to keep, and nothing
//! to be undone by naming a module. What this crate logs it has found harmless or made itself.
//!
//! tracing-subscriber's own formatter keeps a span's fields as JSON text, which it parses and writes anew with each further
//! field and each line: 6 µs and 42 allocations for the span and line of one request, against 1 µs and 2 here.

mod context;
mod export;
mod line;
mod otlp;
mod out;
mod spans;

use std::{
    cell::RefCell,
    io::{IsTerminal, stderr, stdout},
    sync::{Arc, OnceLock},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

pub(crate) use self::{
    export::Exporting,
    spans::{SPAN, Server, arrive},
};
use self::{
    line::{Fields, Style},
    out::Out,
    spans::Tracer,
};
use crate::{
    ambient::Ambient,
    config::{Config, LogFormat},
};

static TELEMETRY: OnceLock<(Out, Option<Tracer>)> = OnceLock::new();

/// A request's span: the word by which the envelope's is known here.
pub(crate) const REQUEST: &str = "request";

/// Starts telling: a server to standard output, a command to standard error, since its output is what it was asked for.
pub(crate) fn start(config: &Config, is_server: bool) {
    let out = if is_server { Out::server() } else { Out::Direct };
    let tracer = config.traces.as_ref().filter(|_| is_server).map(|settings| Tracer {
        queue: Arc::new(export::Queue::new(config.public_url.is_https())),
        sampler: settings.sampler,
        ambient: Ambient::system(),
    });
    // A second start in one process (a test) keeps the first.
    if TELEMETRY.set((out.clone(), tracer.clone())).is_err() {
        return;
    }
    let style = match is_pretty(config.log) {
        true => Style::Pretty(if is_server { stdout().is_terminal() } else { stderr().is_terminal() }),
        false => Style::Json,
    };
    // Settings refused a filter that cannot be read.
    let filter = config.log_filter.parse().unwrap_or_default();
    let telemetry = Telemetry { filter, style, out, tracer, ambient: Ambient::system() };
    let _ = tracing_subscriber::registry().with(telemetry).try_init();
    log_panics();
}

/// Starts posting spans, if there is a collector; needs a Tokio runtime.
pub(crate) fn export(config: &Config) -> Option<Exporting> {
    let (tracer, settings) = (tracer()?, config.traces.clone()?);
    Some(export::start(Arc::clone(&tracer.queue), settings))
}

/// Waits until every line is out, for a while: the last thing that a program does.
pub(crate) fn flush() {
    if let Some((out, _)) = TELEMETRY.get() {
        out.flush();
    }
}

fn tracer() -> Option<&'static Tracer> {
    TELEMETRY.get()?.1.as_ref()
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

/// Whether this is about ourselves.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().strip_prefix("latchkey").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The layer.
struct Telemetry {
    filter: Targets,
    style: Style,
    out: Out,
    tracer: Option<Tracer>,
    ambient: Ambient,
}

/// What a span says of itself, as it stands in a line.
struct Said(String);

thread_local! {
    /// Where a line is put together.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Telemetry {
    fn hears(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            // A warning says whose request it was, even where requests themselves are not logged.
            return match metadata.target() {
                SPAN => self.tracer.is_some(),
                _ => is_ours(metadata) && metadata.name() == REQUEST,
            };
        }
        // sqlx tells slow statements at `warn`, and others below.
        let most = if metadata.target().starts_with("sqlx") { Level::WARN } else { Level::INFO };
        (is_ours(metadata) || *metadata.level() <= most)
            && self.filter.would_enable(metadata.target(), metadata.level())
    }

    fn write(&self, line: &mut String, event: &Event<'_>, said: impl Iterator<Item = impl FnOnce(&mut String)>) {
        line.clear();
        line::begin(line, self.style, self.ambient.now().millis(), *event.metadata().level());
        event.record(&mut Fields { into: line, style: self.style });
        if !is_ours(event.metadata()) {
            line::target(line, self.style, event.metadata().target());
        }
        said.for_each(|say| say(line));
        line::end(line, self.style);
        self.out.write(line);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Telemetry {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.hears(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.hears(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        if self.tracer.is_some() {
            return Some(LevelFilter::TRACE);
        }
        // The span of a request is at `info`.
        Layer::<S>::max_level_hint(&self.filter).map(|hint| hint.max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if attributes.metadata().target() == SPAN {
            if let Some(tracer) = &self.tracer {
                tracer.open(attributes, &span);
            }
            return;
        }
        // Enough for everything that a request's span says.
        let mut said = String::with_capacity(320);
        attributes.record(&mut Fields { into: &mut said, style: self.style });
        span.extensions_mut().insert(Said(said));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if span.metadata().target() == SPAN {
            spans::amend(&span, values);
        } else if let Some(Said(said)) = span.extensions_mut().get_mut() {
            values.record(&mut Fields { into: said, style: self.style });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let said = context.event_scope(event).into_iter().flatten().map(|span| {
            move |line: &mut String| {
                if let Some(Said(said)) = span.extensions().get() {
                    line.push_str(said);
                }
            }
        });
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => self.write(&mut line, event, said),
            // What is being written logs something itself.
            Err(_) => self.write(&mut String::new(), event, said),
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let (Some(tracer), Some(span)) = (&self.tracer, context.span(&id)) {
            tracer.close(&span);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::{out::Buffer, *};

    #[test]
    fn a_panic_is_one_line_with_its_place_and_without_its_words() {
        let buffer = Arc::new(Buffer::default());
        let telemetry = Telemetry {
            filter: "info".parse().unwrap(),
            style: Style::Json,
            out: Out::Buffered(Arc::clone(&buffer)),
            tracer: None,
            ambient: Ambient::system(),
        };
        let before = panic::take_hook();
        log_panics();
        let log = tracing_subscriber::registry().with(telemetry);
        let outcome = tracing::subscriber::with_default(log, || panic::catch_unwind(|| panic!("kanarienvogel")));
        panic::set_hook(before);
        assert!(outcome.is_err());
        let text = buffer.text();
        let line: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
        assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("ERROR"), Some("panic")), "{text}");
        assert!(line["place"].as_str().is_some_and(|place| place.starts_with("src/telemetry.rs:")), "{text}");
        assert!(!text.contains("kanarienvogel"), "{text}");
    }
}
