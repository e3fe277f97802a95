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
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    io::{IsTerminal, stderr, stdout},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
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
    let telemetry = Telemetry { filter, style, out, tracer, ambient: Ambient::system(), said: Said::default() };
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
    said: Said,
}

/// What each open span says of itself, as it stands in a line.
///
/// Not among the extensions of tracing-subscriber's spans: it keeps their tables for later spans, one for each request
/// that was ever under way at the same time, scattered over the memory of that storm, and each keeps a page alive.
#[derive(Default)]
struct Said([Mutex<HashMap<u64, String, BuildHasherDefault<OfId>>>; 16]);

impl Said {
    fn of(&self, id: &Id) -> MutexGuard<'_, HashMap<u64, String, BuildHasherDefault<OfId>>> {
        let shard = OfId::spread(id.into_u64()) >> 60;
        self.0[usize::try_from(shard).unwrap_or(0)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ids count upwards by thread: multiplied with the golden ratio, neighbours lie far from each other.
#[derive(Default)]
struct OfId(u64);

impl OfId {
    fn spread(id: u64) -> u64 {
        id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher for OfId {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 << 8 | u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // The shard took the upper bits.
        self.0 = Self::spread(id).rotate_left(8);
    }
}

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
        if attributes.metadata().target() == SPAN {
            if let (Some(tracer), Some(span)) = (&self.tracer, context.span(id)) {
                tracer.open(attributes, &span);
            }
            return;
        }
        // Enough for everything that a request's span says.
        let mut said = String::with_capacity(320);
        attributes.record(&mut Fields { into: &mut said, style: self.style });
        self.said.of(id).insert(id.into_u64(), said);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(said) = self.said.of(id).get_mut(&id.into_u64()) {
            values.record(&mut Fields { into: said, style: self.style });
        } else if let Some(span) = context.span(id) {
            spans::amend(&span, values);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let said = context.event_scope(event).into_iter().flatten().map(|span| {
            move |line: &mut String| {
                let id = span.id();
                if let Some(said) = self.said.of(&id).get(&id.into_u64()) {
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
        let said = self.said.of(&id).remove(&id.into_u64());
        if let (Some(tracer), None, Some(span)) = (&self.tracer, said, context.span(&id)) {
            tracer.close(&span);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::{out::Buffer, *};

    /// The layer, and what it writes.
    fn telemetry() -> (Arc<Buffer>, Telemetry) {
        let buffer = Arc::new(Buffer::default());
        let telemetry = Telemetry {
            filter: "info".parse().unwrap(),
            style: Style::Json,
            out: Out::Buffered(Arc::clone(&buffer)),
            tracer: None,
            ambient: Ambient::system(),
            said: Said::default(),
        };
        (buffer, telemetry)
    }

    #[test]
    fn a_panic_is_one_line_with_its_place_and_without_its_words() {
        let (buffer, telemetry) = telemetry();
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

    #[test]
    fn what_a_span_says_is_on_its_lines_and_forgotten_with_it() {
        let (buffer, telemetry) = telemetry();
        let log = tracing::Dispatch::new(tracing_subscriber::registry().with(telemetry));
        let kept = || {
            let telemetry: &Telemetry = log.downcast_ref().expect("our layer");
            telemetry.said.0.iter().map(|shard| shard.lock().unwrap().len()).sum::<usize>()
        };
        tracing::dispatcher::with_default(&log, || {
            let spans: Vec<_> =
                (0..100).map(|number| tracing::info_span!(REQUEST, number, person = tracing::field::Empty)).collect();
            spans[7].record("person", "alice");
            spans[7].in_scope(|| tracing::info!("here"));
            assert_eq!(kept(), 100);
        });
        assert_eq!(kept(), 0);
        let line: serde_json::Value = serde_json::from_str(&buffer.text()).expect("one line of JSON");
        assert_eq!((line["number"].as_u64(), line["person"].as_str()), (Some(7), Some("alice")), "{line}");
    }
}
