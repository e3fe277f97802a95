//! What was measured, as one table for people and one JSON file for programs.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use crate::support::{self, median};

/// One run of one thing.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub per_second: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// CPU seconds of the server, and what they come to for one request in microseconds.
    pub cpu: f64,
    pub cpu_each: f64,
    /// MB at the end.
    pub resident: f64,
    pub load: f64,
}

/// Everything of one stack.
pub struct Report {
    stack: &'static str,
    /// In the order of their first run.
    order: Vec<String>,
    runs: BTreeMap<String, Vec<Run>>,
    claims: Vec<Claim>,
    facts: Vec<(String, String)>,
}

/// A figure beside its target.
struct Claim {
    what: String,
    value: f64,
    unit: &'static str,
    /// `true`: the target is the most it may be.
    target: Option<(bool, f64)>,
}

impl Report {
    pub fn new(stack: &'static str) -> Self {
        Self { stack, order: Vec::new(), runs: BTreeMap::new(), claims: Vec::new(), facts: Vec::new() }
    }

    pub fn add(&mut self, what: &str, run: Run) {
        if !self.runs.contains_key(what) {
            self.order.push(what.to_owned());
        }
        self.runs.entry(what.to_owned()).or_default().push(run);
    }

    /// The median of a figure over all runs.
    pub fn middle(&self, what: &str, figure: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.get(what).into_iter().flatten().map(figure).collect())
    }

    pub fn rate(&self, what: &str) -> f64 {
        self.middle(what, |run| run.per_second)
    }

    /// The rate of one thing over that of its floor.
    pub fn claim_ratio(&mut self, ours: &str, floor: &str, least: Option<f64>) {
        let value = self.rate(ours) / self.rate(floor);
        let target = least.map(|least| (false, least));
        self.claims.push(Claim { what: format!("{ours} / {floor}"), value, unit: "", target });
    }

    pub fn claim_most(&mut self, what: impl Into<String>, value: f64, unit: &'static str, most: Option<f64>) {
        self.claims.push(Claim { what: what.into(), value, unit, target: most.map(|most| (true, most)) });
    }

    pub fn note(&mut self, what: &str, text: String) {
        self.facts.push((what.to_owned(), text));
    }

    pub fn print(&self) {
        println!("\n{}: medians of the rounds; {}", self.stack, support::machine());
        if support::is_trial() {
            println!("Only tried, with tiny counts: no figure here means anything.");
        }
        println!(
            "{:<44} {:>9} {:>10} {:>10} {:>10} {:>8} {:>9} {:>7}",
            "", "a second", "p50 µs", "p99 µs", "p99.9 µs", "CPU s", "CPU µs/r", "MB"
        );
        for what in &self.order {
            let middle = |figure: fn(&Run) -> f64| self.middle(what, figure);
            let line = format!(
                "{what:<44} {:>9.0} {:>10.0} {:>10.0} {:>10.0} {:>8.2} {:>9.1} {:>7.1}",
                middle(|run| run.per_second),
                middle(|run| run.p50),
                middle(|run| run.p99),
                middle(|run| run.p999),
                middle(|run| run.cpu),
                middle(|run| run.cpu_each),
                middle(|run| run.resident),
            );
            println!("{}", line.replace("NaN", "  -"));
        }
        println!();
        for Claim { what, value, unit, target } in &self.claims {
            let judged = match target {
                Some((true, most)) if value <= most => format!("target: {most}{unit} or less; met"),
                Some((true, most)) => format!("target: {most}{unit} or less; NOT MET"),
                Some((false, least)) if value >= least => format!("target: {least}{unit} or more; met"),
                Some((false, least)) => format!("target: {least}{unit} or more; NOT MET"),
                None => String::new(),
            };
            println!("{what:<72} {value:>9.3}{unit:<4} {judged}");
        }
        for (what, text) in &self.facts {
            println!("{what:<72} {text}");
        }
    }

    fn json(&self) -> Value {
        let runs = self.order.iter().map(|what| {
            let runs = self.runs[what].iter().map(|run| {
                json!({ "per_second": run.per_second, "p50_us": run.p50, "p99_us": run.p99, "p999_us": run.p999,
                    "cpu_s": run.cpu, "cpu_us_per_request": run.cpu_each, "resident_mb": run.resident,
                    "load_average": run.load })
            });
            json!({ "what": what, "rounds": runs.collect::<Vec<_>>() })
        });
        let claims = self.claims.iter().map(|claim| {
            let (most, least) = match claim.target {
                Some((true, most)) => (Some(most), None),
                Some((false, least)) => (None, Some(least)),
                None => (None, None),
            };
            json!({ "what": claim.what, "value": claim.value, "unit": claim.unit.trim(), "most": most, "least": least })
        });
        json!({ "stack": self.stack, "runs": runs.collect::<Vec<_>>(), "claims": claims.collect::<Vec<_>>(),
            "facts": self.facts })
    }
}

/// Writes it all under `target/`.
pub fn write(name: &str, reports: &[Report]) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    fs::create_dir_all(&dir).expect("a folder");
    let stacks: Vec<_> = reports.iter().map(Report::json).collect();
    let all = json!({ "machine": support::machine(), "stacks": stacks });
    let path = dir.join(name);
    fs::write(&path, serde_json::to_vec_pretty(&all).expect("JSON")).expect("a file");
    println!("\nas JSON: {}", path.display());
}
