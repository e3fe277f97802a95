//! The text format of Prometheus (0.0.4): a family's HELP and TYPE, then its samples.

use std::fmt::{Display, Write};

use super::{
    Counters, Histograms, Table, Words,
    cells::{BOUNDS, Histogram},
};

/// What the page is sent as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// The text so far.
#[derive(Debug, Default)]
pub struct Text(String);

/// A family that is being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Text {
    /// Begins a family. Each may be begun once.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name }
    }

    /// A counter for each word.
    pub fn counters<W: Words>(&mut self, name: &'static str, help: &'static str, label: &str, counters: &Counters<W>) {
        let mut family = self.family(name, Kind::Counter, help);
        for word in W::ALL {
            family.sample(&[(label, word.word())], counters.of(*word));
        }
    }

    /// A counter for each pair of words.
    pub fn table<A: Words, B: Words>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&str; 2],
        table: &Table<A, B>,
    ) {
        let mut family = self.family(name, Kind::Counter, help);
        for row in A::ALL {
            for column in B::ALL {
                let pair = [(labels[0], row.word()), (labels[1], column.word())];
                family.sample(&pair, table.of(*row, *column));
            }
        }
    }

    /// A histogram for each word.
    pub fn histograms<W: Words>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &str,
        histograms: &Histograms<W>,
    ) {
        let mut family = self.family(name, Kind::Histogram, help);
        for word in W::ALL {
            family.histogram(&[(label, word.word())], histograms.of(*word));
        }
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, value);
        self
    }

    /// All samples of a histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let (buckets, sum) = histogram.read();
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|bound| bound.as_secs_f64().to_string()).chain(["+Inf".to_owned()]);
        for (bound, bucket) in bounds.zip(buckets) {
            count += bucket;
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.line("_bucket", &labels, count);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, count);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (number, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if number == 0 { '{' } else { ',' }, escaped(value));
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// Words of ours need none of it; the version of a compiler might.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_family_reads_as_prometheus_wants_it() {
        let mut text = Text::default();
        text.family("a_total", Kind::Counter, "Help.").sample(&[], 1).sample(&[("b", "c\"\\\n")], 0.25);
        let histogram = Histogram::default();
        histogram.note(Duration::from_millis(1));
        histogram.note(Duration::from_secs(11));
        text.family("d_seconds", Kind::Histogram, "Help.").histogram(&[("e", "f")], &histogram);
        let text = text.finish();
        assert!(text.starts_with(
            "# HELP a_total Help.\n# TYPE a_total counter\na_total 1\na_total{b=\"c\\\"\\\\\\n\"} 0.25\n"
        ));
        for line in [
            "d_seconds_bucket{e=\"f\",le=\"0.00005\"} 0",
            "d_seconds_bucket{e=\"f\",le=\"0.0005\"} 0",
            "d_seconds_bucket{e=\"f\",le=\"0.001\"} 1",
            "d_seconds_bucket{e=\"f\",le=\"10\"} 1",
            "d_seconds_bucket{e=\"f\",le=\"+Inf\"} 2",
            "d_seconds_sum{e=\"f\"} 11.001",
            "d_seconds_count{e=\"f\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
