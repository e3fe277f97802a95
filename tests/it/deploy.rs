//! What lies in `deploy/`, held against the metrics that a server really has: a renamed metric must not leave a panel empty
//! or an alert silent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::PathBuf,
};

use serde_json::Value;

use crate::{
    on_stacks, once,
    support::{Scrape, Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    let mut tests = once![the_dashboard_is_whole, every_alert_says_how_bad_it_is_and_what_to_do];
    tests.extend(on_stacks![&[StackKind::Embedded];
        the_list_of_metrics_is_complete,
        dashboard_and_alerts_ask_for_what_is_there,
    ]);
    tests
}

fn file(path: &str) -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path);
    let text = fs::read_to_string(&path).unwrap_or_default();
    (path, text)
}

fn dashboard() -> Value {
    serde_json::from_str(&file("grafana/latchkey.json").1).unwrap()
}

/// The page of a server that was asked for something.
async fn page(stack: &Stack) -> Scrape {
    let app = stack.app().await;
    app.person("alice").await.me().await.is(200);
    app.scrape().await;
    app.scrape().await
}

/// The labels of each family, with the values they have.
fn labels(scrape: &Scrape) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut labels: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for sample in &scrape.samples {
        let family = labels.entry(scrape.family_of(&sample.name)).or_default();
        for (label, value) in &sample.labels {
            let values = family.entry(label.clone()).or_default();
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
    }
    labels
}

/// Labels whose values depend on the router, the build or the settings.
const NOT_LISTED: [&str; 8] = ["route", "method", "status", "version", "revision", "rustc", "store", "pool"];

async fn the_list_of_metrics_is_complete(stack: Stack) {
    const MARK: &str = "<!-- metrics -->\n";
    let scrape = page(&stack).await;
    let labels = labels(&scrape);
    let mut table = String::from("\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for (name, family) in &scrape.families {
        let labels =
            labels.get(name).into_iter().flatten().filter(|(label, _)| *label != "le").map(|(label, values)| {
                if NOT_LISTED.contains(&label.as_str()) {
                    format!("`{label}`")
                } else {
                    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                    format!("`{label}`: {}", values.join(", "))
                }
            });
        let labels = labels.collect::<Vec<_>>().join("; ");
        writeln!(table, "| `{name}` | {} | {labels} | {} |", family.kind, family.help).unwrap();
    }
    let (path, text) = file("prometheus/README.md");
    let (head, listed) = text.split_once(MARK).expect("the mark");
    #[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
    if std::env::var("LATCHKEY_TEST_UPDATE").is_ok() {
        fs::write(path, format!("{head}{MARK}{table}")).unwrap();
        return;
    }
    assert!(listed == table, "the list of metrics changed; LATCHKEY_TEST_UPDATE=1 writes it anew:\n{table}");
}

/// A label, an operator and a value.
type Matcher = (String, String, String);

/// Every metric that a text names, with what its series are chosen by.
fn asked(text: &str) -> Vec<(String, Vec<Matcher>)> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let word: String = rest[start..].chars().take_while(|c| is_word(*c)).collect();
        rest = &rest[start + word.len()..];
        if !word.starts_with("latchkey_") && !word.starts_with("process_") {
            continue;
        }
        let selector = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inner, _)| inner);
        let matchers = selector.split(',').filter(|matcher| !matcher.is_empty()).map(|matcher| {
            let label: String = matcher.trim().chars().take_while(|c| is_word(*c)).collect();
            let (operator, value) =
                matcher.trim()[label.len()..].split_once('"').unwrap_or_else(|| panic!("{matcher}"));
            (label, operator.to_owned(), value.trim_end_matches('"').to_owned())
        });
        found.push((word, matchers.collect()));
    }
    found
}

async fn dashboard_and_alerts_ask_for_what_is_there(stack: Stack) {
    let scrape = page(&stack).await;
    let labels = labels(&scrape);
    // What to do next names metrics as well, and need not say of which part.
    let mut texts = Vec::new();
    for alert in file("prometheus/alerts.yml").1.split("- alert: ").skip(1) {
        let (name, expr) = (alert.lines().next().unwrap(), alert.split("expr:").nth(1).unwrap());
        let end = [" for:", " labels:"].iter().filter_map(|end| expr.find(end)).min().unwrap();
        texts.push((name.to_owned(), expr[..end].to_owned()));
        for (metric, _) in asked(&expr[end..]) {
            assert!(scrape.families.contains_key(&metric), "{name}: there is no {metric}");
        }
    }
    for panel in dashboard()["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            texts.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    assert!(texts.len() > 30, "the panels are found: {}", texts.len());
    let mut named = BTreeSet::new();
    for (place, text) in &texts {
        for (metric, matchers) in asked(text) {
            let family = scrape.family_of(&metric);
            assert!(scrape.families.contains_key(&family), "{place}: there is no {metric}");
            if family != metric {
                assert!(["_bucket", "_count", "_sum"].iter().any(|end| metric.ends_with(end)), "{place}: {metric}");
            } else {
                assert_ne!(scrape.families[&family].kind, "histogram", "{place}: {metric} has parts");
            }
            for (label, operator, value) in matchers {
                if label == "instance" || label == "job" {
                    continue;
                }
                let values = labels.get(&family).and_then(|labels| labels.get(&label));
                let values = values.unwrap_or_else(|| panic!("{place}: {metric} has no label {label}"));
                let wanted = value.split('|').filter(|_| !NOT_LISTED.contains(&label.as_str()));
                for word in wanted {
                    assert!(values.iter().any(|one| one == word), "{place}: {metric}{{{label}{operator}\"{word}\"}}");
                }
            }
            named.insert(family);
        }
    }
    // A metric that nobody looks at is not worth its scrape.
    let unseen: Vec<_> = scrape.families.keys().filter(|name| !named.contains(*name)).collect();
    assert!(unseen.is_empty(), "neither on the dashboard nor in an alert: {unseen:?}");
}

fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    assert_eq!((&dashboard["uid"], &dashboard["title"]), (&"latchkey".into(), &"Latchkey".into()));
    let variables: BTreeSet<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "instance"].into());
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{title}: its id is another one's");
        let place = |name: &str| panel["gridPos"][name].as_i64().unwrap_or_else(|| panic!("{title}"));
        assert!(place("x") + place("w") <= 24, "{title} is too wide");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} lies on another one");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title} says what it is");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let letters: BTreeSet<&str> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert!(!targets.is_empty() && letters.len() == targets.len(), "{title}");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            assert!(expr.contains("instance=~\"$instance\""), "{title}: {expr}");
            assert_eq!(expr.matches('(').count(), expr.matches(')').count(), "{title}: {expr}");
        }
    }
}

fn every_alert_says_how_bad_it_is_and_what_to_do() {
    let (_, rules) = file("prometheus/alerts.yml");
    let (_, tests) = file("prometheus/alerts.test.yml");
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 15, "{}", alerts.len());
    let mut names = BTreeSet::new();
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        assert!(names.insert(name), "{name} stands twice");
        assert!(["page", "ticket"].iter().any(|word| alert.contains(&format!("severity: {word}\n"))), "{name}");
        for part in ["expr:", "summary:", "description:"] {
            assert_eq!(alert.matches(part).count(), 1, "{name}: {part}");
        }
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} has no test");
    }
}
