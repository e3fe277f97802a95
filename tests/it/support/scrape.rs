//! What `/metrics` says, read as Prometheus would, and refused for what Prometheus would refuse or warn of.

use std::collections::{BTreeMap, BTreeSet};

use super::{Client, TestApp};

/// A family of samples.
#[derive(Clone, Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
}

/// One sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// With the suffix of a histogram's part.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The whole page.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    pub text: String,
    pub families: BTreeMap<String, Family>,
    pub samples: Vec<Sample>,
}

impl TestApp {
    /// Scrapes the internal listener.
    pub async fn scrape(&self) -> Scrape {
        let page = Client::of(self.internal_router()).get("/metrics").await.is(200);
        assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        Scrape::read(&String::from_utf8(page.body).unwrap())
    }
}

impl Scrape {
    /// Reads the text format.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has an end");
        let mut scrape = Self { text: text.to_owned(), ..Self::default() };
        let (mut current, mut series) = (String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(is_name(name), "{line}");
                current = name.to_owned();
                let family = Family { help: help.to_owned(), ..Family::default() };
                assert!(scrape.families.insert(current.clone(), family).is_none(), "{name} is begun twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, current, "TYPE follows HELP: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                scrape.families.get_mut(name).unwrap().kind = kind.to_owned();
            } else {
                let sample = Sample::read(line);
                assert_eq!(scrape.family_of(&sample.name), current, "{line} stands with its family");
                assert!(series.insert((sample.name.clone(), sample.labels.clone())), "{line} stands twice");
                scrape.samples.push(sample);
            }
        }
        scrape.judge_histograms();
        scrape
    }

    /// The family of a sample of this name.
    pub fn family_of(&self, name: &str) -> String {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let is_histogram = |base: &&str| self.families.get(*base).is_some_and(|family| family.kind == "histogram");
        base.filter(is_histogram).unwrap_or(name).to_owned()
    }

    #[track_caller]
    fn judge_histograms(&self) {
        let mut buckets = BTreeMap::<_, Vec<(f64, f64)>>::new();
        for sample in self.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let mut labels = sample.labels.clone();
            let bound = labels.remove("le").unwrap().replace("+Inf", "inf").parse().unwrap();
            buckets.entry((self.family_of(&sample.name), labels)).or_default().push((bound, sample.value));
        }
        for ((name, labels), found) in &buckets {
            assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{name} {labels:?}");
            let (last, count) = *found.last().unwrap();
            assert!(last.is_infinite(), "{name} {labels:?}");
            let counted = self.samples.iter().find(|one| one.name == format!("{name}_count") && one.labels == *labels);
            assert_eq!(counted.map(|one| one.value), Some(count), "{name} {labels:?}");
        }
    }

    /// The value of a series as it is written, labels in the order of the page: `a_total{b="c"}`.
    #[track_caller]
    pub fn of(&self, series: &str) -> f64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{}", self.text)).parse().unwrap()
    }

    /// As [`Scrape::of`], with zero for what was never counted.
    pub fn count(&self, series: &str) -> f64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Every series without its value.
    pub fn series(&self) -> BTreeSet<String> {
        let lines = self.text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    }

    /// What counters grew by since `before`, as `series value`; what did not is left out.
    pub fn since(&self, before: &Self, family: &str) -> Vec<String> {
        let mut grown = Vec::new();
        for series in self.series().iter().filter(|series| series.split('{').next() == Some(family)) {
            let by = self.of(series) - before.count(series);
            if by != 0.0 {
                grown.push(format!("{} {by}", &series[family.len()..]));
            }
        }
        grown
    }
}

impl Sample {
    #[track_caller]
    fn read(line: &str) -> Self {
        let name: String = line.chars().take_while(|c| !matches!(c, '{' | ' ')).collect();
        assert!(is_name(&name), "{line}");
        let mut rest = &line[name.len()..];
        let mut labels = BTreeMap::new();
        while let Some(more) = rest.strip_prefix(['{', ',']) {
            let (label, more) = more.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, more) = quoted(more);
            assert!(!value.is_empty() && labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = more;
        }
        let value = if labels.is_empty() { rest } else { rest.strip_prefix('}').unwrap_or_else(|| panic!("{line}")) };
        let value: f64 =
            value.strip_prefix(' ').and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        Self { name, labels, value }
    }
}

/// A value up to its closing quote, and what follows.
#[track_caller]
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                _ => panic!("{text}"),
            },
            c => value.push(c),
        }
    }
    panic!("no end: {text}")
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
