//! The plan of the house (`design.md` §1), kept by reading the sources as text: SQL only in stores, no axum in models,
//! no kernel module that knows a slice, no slice in another's store, files of a readable length, no `unwrap`, one door
//! each to time, randomness and the environment. And the table of problems, of which every row must be sayable.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use latchkey::error::Code;

use crate::support::Test;

/// Modules that know no slice.
const KERNEL: &[&str] = &[
    "allocator",
    "ambient",
    "backup",
    "clocks",
    "config",
    "db",
    "ephemeral",
    "error",
    "events",
    "generations",
    "hashing",
    "http",
    "keys",
    "mail",
    "metrics",
    "names",
    "secret",
    "telemetry",
];
const SLICES: &[&str] = &["accounts", "passwords", "sessions", "verification"];
/// What puts the two together.
const TOP: &[&str] = &["app", "cli", "lib", "main"];

/// Everything that may lie at the top of the repository.
const ENTRIES: &[&str] = &[
    ".ci",
    ".dockerignore",
    ".env",
    ".env.example",
    ".git",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "benches",
    "clippy.toml",
    "data",
    "deny.toml",
    "deploy",
    "docker-compose.yml",
    "jwt",
    "migrations",
    "rustfmt.toml",
    "scripts",
    "src",
    "target",
    "tests",
];

/// Where the program may end itself, each with its reason.
const MAY_PANIC: &[(&str, &str)] = &[
    // Without randomness there is no safe way to go on.
    ("ambient.rs", "expect(\"the operating system gives randomness\")"),
    // The length is a constant of ours, far below what HKDF can give.
    ("secret.rs", "expect(\"HKDF gives up to 8160 bytes\")"),
];

pub fn tests() -> Vec<Test> {
    crate::once!(
        every_module_has_its_place_in_the_plan,
        sql_stands_in_stores_only,
        whoever_writes_a_person_says_so,
        models_know_nothing_of_http,
        kernel_modules_import_no_slice,
        slices_name_no_store_but_their_own,
        no_file_is_too_long_to_read,
        nothing_else_lies_at_the_top,
        nothing_is_unwrapped_outside_tests,
        time_randomness_and_environment_have_one_door_each,
        every_problem_has_its_own_word_and_says_what_to_do,
        the_reader_of_sources_sees_what_it_should,
    )
}

/// One source file.
struct Source {
    /// Below `src/`, with slashes.
    path: String,
    /// All of it.
    text: String,
    /// Without comments that take a line, and without what is compiled for unit tests only.
    code: String,
}

impl Source {
    /// `accounts` for `accounts/store.rs`, `config` for `config.rs`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of `src/`.
fn sources() -> Vec<Source> {
    let sources: Vec<_> = files_with("rs")
        .into_iter()
        .map(|(path, text)| {
            let code = code_of(&text);
            Source { path, text, code }
        })
        .collect();
    assert!(sources.len() > 30, "the walk finds the sources: {}", sources.len());
    sources
}

/// What of each source file ends up in the program, by its path below `src/`.
pub fn code() -> Vec<(String, String)> {
    sources().into_iter().map(|source| (source.path, source.code)).collect()
}

fn files_with(extension: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let base = root().join("src");
    let mut found = Vec::new();
    walk(&base, &mut found);
    found.sort();
    found
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(&base).unwrap().to_str().unwrap().replace('\\', "/"), text)
        })
        .collect()
}

/// The lines that end up in the program. An item under `#[cfg(test)]` goes with all its braces.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push_str(line);
            code.push('\n');
            continue;
        }
        // rustfmt puts the end of an item where its beginning was indented.
        let indent = line.len() - line.trim_start().len();
        for line in lines.by_ref() {
            let ends = line.trim_end().ends_with(';') || line.trim() == "}";
            if line.len() - line.trim_start().len() == indent && ends {
                break;
            }
        }
    }
    code
}

/// The first names behind every `crate::`, those of `crate::{…}` included.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            paths.insert(identifier(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    paths.insert(identifier(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    paths
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The modules whose `store` is named, as in `accounts::store`.
fn stores_named(code: &str) -> BTreeSet<String> {
    let mut owners = BTreeSet::new();
    for (at, found) in code.match_indices("::store") {
        if code[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let before: String = code[..at]
            .chars()
            .rev()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        owners.insert(before);
    }
    owners
}

/// Fails with every violation at once.
#[track_caller]
fn assert_none(violations: &[String], rule: &str) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

fn every_module_has_its_place_in_the_plan() {
    let modules: BTreeSet<String> = sources().iter().map(|source| source.module().to_owned()).collect();
    let planned: BTreeSet<String> =
        [KERNEL, SLICES, TOP].into_iter().flatten().map(|module| (*module).to_owned()).collect();
    assert_eq!(modules, planned, "a new module is a slice or kernel: say which at the top of this file");
    for name in ["utils", "util", "helpers", "helper", "common", "service", "services", "manager"] {
        let vague: Vec<_> = sources()
            .iter()
            .filter(|source| source.path.split('/').any(|part| part == name || part == format!("{name}.rs")))
            .map(|source| source.path.clone())
            .collect();
        assert_none(&vague, "a name that says nothing");
    }
}

fn sql_stands_in_stores_only() {
    let (mut violations, mut stores) = (Vec::new(), 0);
    for source in sources() {
        let may = source.name() == "store.rs" || ["db", "ephemeral", "mail"].contains(&source.module());
        for (number, line) in source.code.lines().enumerate() {
            let is_sql = ["sqlx::query", "raw_sql", "QueryBuilder", "query_as(", "query_as::", "query_scalar("]
                .iter()
                .any(|word| line.contains(word));
            if is_sql && !may {
                violations.push(format!("{} (code line {}): {}", source.path, number + 1, line.trim()));
            }
            stores += usize::from(is_sql && source.name() == "store.rs");
        }
    }
    assert!(stores > 5, "stores do have SQL");
    assert_none(&violations, "SQL outside a store");
}

/// What `/me` keeps of a person is old after a change, and only the store functions know that there was one.
fn whoever_writes_a_person_says_so() {
    let (mut writers, mut violations) = (0, Vec::new());
    for source in sources().iter().filter(|source| ["accounts", "sessions"].contains(&source.module())) {
        for function in source.text.split("\npub(super) async fn ").skip(1) {
            let function = function.split("\n}\n").next().unwrap_or_default();
            let name = function.split('(').next().unwrap_or_default();
            if function.contains("UPDATE users ") || function.contains("INSERT INTO ended_sessions") {
                writers += 1;
                if !function.contains(".touches(") {
                    violations.push(format!("{}: {name}", source.path));
                }
            }
        }
    }
    assert!(writers > 8, "stores do write people: {writers}");
    assert_none(&violations, "a person is written without Tx::touches");
}

fn models_know_nothing_of_http() {
    let sources = sources();
    let models: Vec<_> = sources.iter().filter(|source| source.name() == "model.rs").collect();
    assert!(!models.is_empty());
    let violations: Vec<_> = models
        .iter()
        .filter(|source| ["axum", "hyper", "tower", "crate::http"].iter().any(|word| source.code.contains(word)))
        .map(|source| source.path.clone())
        .collect();
    assert_none(&violations, "a model that knows of HTTP");
}

fn kernel_modules_import_no_slice() {
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| KERNEL.contains(&source.module())) {
        for name in crate_paths(&source.code) {
            // Handlers and extractors of the kernel take the state.
            let is_state = name == "app" && source.module() == "http";
            if SLICES.contains(&name.as_str()) || (TOP.contains(&name.as_str()) && !is_state) {
                violations.push(format!("{} names crate::{name}", source.path));
            }
        }
        for slice in SLICES {
            if source.code.contains(&format!("super::{slice}")) {
                violations.push(format!("{} names super::{slice}", source.path));
            }
        }
    }
    assert_none(&violations, "the kernel knows no slice");
}

fn slices_name_no_store_but_their_own() {
    let modules: BTreeSet<&str> = [KERNEL, SLICES].into_iter().flatten().copied().collect();
    let mut violations = Vec::new();
    for source in sources() {
        for owner in stores_named(&source.code) {
            if owner != source.module() && modules.contains(owner.as_str()) {
                violations.push(format!("{} names {owner}::store", source.path));
            }
        }
        // What is private cannot be named in any other way either.
        for line in source.code.lines().filter(|line| line.trim_end().ends_with("mod store;")) {
            if line.trim() != "mod store;" {
                violations.push(format!("{} opens its store: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(&violations, "a store is its slice's own");
}

fn no_file_is_too_long_to_read() {
    let scripts = files_with("lua");
    assert!(!scripts.is_empty());
    let rust = sources().into_iter().map(|source| (source.path, source.text));
    let violations: Vec<_> = rust
        .chain(scripts)
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 400)
        .map(|(path, lines)| format!("{path} has {lines} lines"))
        .collect();
    assert_none(&violations, "a file past 400 lines asks for a missing noun");
}

fn nothing_else_lies_at_the_top() {
    let mut violations = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_document = name.starts_with("LICENSE") || Path::new(&name).extension().is_some_and(|end| end == "md");
        if !is_document && !ENTRIES.contains(&name.as_str()) {
            violations.push(name);
        }
    }
    assert_none(&violations, "not in the plan");
}

fn nothing_is_unwrapped_outside_tests() {
    let mut violations = Vec::new();
    let mut found = BTreeMap::new();
    for source in sources() {
        for line in source.code.lines() {
            let panics =
                [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("].iter().any(|word| line.contains(word));
            match MAY_PANIC.iter().find(|(path, text)| *path == source.path && line.contains(text)) {
                Some((path, _)) => *found.entry(*path).or_insert(0) += 1,
                None if panics => violations.push(format!("{}: {}", source.path, line.trim())),
                None => {}
            }
        }
    }
    assert_none(&violations, "say what happens instead, or add it to MAY_PANIC with a reason");
    let expected: BTreeMap<_, _> = MAY_PANIC.iter().map(|(path, _)| (*path, 1)).collect();
    assert_eq!(found, expected, "MAY_PANIC names what is there, once each");
}

fn time_randomness_and_environment_have_one_door_each() {
    // The words, and the files that are their door.
    let doors: &[(&[&str], &[&str])] = &[
        (&["SystemTime::now", "Timestamp::now", "Zoned::now", "Utc::now"], &["ambient.rs"]),
        (&["Uuid::now_v7", "Uuid::new_v4", "rand::fill", "OsRng", "getrandom"], &["ambient.rs"]),
        // The last one is the build script, whom Cargo tells by the environment where to write.
        (
            &["env::var", "env::set_var", "env::remove_var", "dotenvy::"],
            &["config.rs", "cli.rs", "main.rs", "http/docs/pack.rs"],
        ),
    ];
    let (mut violations, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources() {
        for (number, (words, files)) in doors.iter().enumerate() {
            for line in source.code.lines().filter(|line| words.iter().any(|word| line.contains(word))) {
                if files.contains(&source.path.as_str()) {
                    used.insert(number);
                } else {
                    violations.push(format!("{}: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert_none(&violations, "a side door");
    assert_eq!(used.len(), doors.len(), "each door is where this test thinks it is");
}

fn every_problem_has_its_own_word_and_says_what_to_do() {
    let mut seen = BTreeSet::new();
    for code in Code::ALL {
        let (status, word) = (code.status(), code.as_str());
        assert!(seen.insert((status, word)), "{status} {word} stands twice");
        assert!((400..600).contains(&status), "{word} is no problem: {status}");
        assert!(!word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
        assert!(!code.title().trim().is_empty(), "{word} has no title");
        assert!(!code.title().ends_with('.'), "the title of {word} is no sentence");
        assert!(!code.detail().trim().is_empty(), "{word} has no detail");
        assert!(code.detail().ends_with('.'), "the detail of {word} is a sentence: {}", code.detail());
    }
    assert!(seen.len() > 20);
}

/// What stands on this reading must not be fooled by how a line happens to be wrapped.
fn the_reader_of_sources_sees_what_it_should() {
    let text = r"
use crate::{
    accounts::{self, Caller},
    app::App, db,
};
// crate::comment
use crate::keys;
#[cfg(test)]
mod tests {
    use crate::sessions;
    fn f() {
    }
}
fn after() { crate::mail::post() }
#[cfg(test)]
use crate::passwords;
let x = accounts::store::insert(super::store::y, sessions::stored);
";
    let code = code_of(text);
    let paths: Vec<_> = crate_paths(&code).into_iter().collect();
    assert_eq!(paths, ["accounts", "app", "db", "keys", "mail"]);
    assert_eq!(stores_named(&code).into_iter().collect::<Vec<_>>(), ["accounts", "super"]);
}
