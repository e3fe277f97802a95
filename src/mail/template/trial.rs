//! What can be wrong with templates: all of it is found when they are loaded, and told at once.

use std::{collections::BTreeMap, error::Error as _, fs, io, path::Path};

use minijinja::Error;

use super::{Facts, LAYOUT_HTML, LAYOUT_TEXT, Templates, languages};

/// Every fact there is, with a sample. Templates get all of them always, the unknown ones empty, so that a name they
/// use and we do not know can only be a slip.
pub(super) const FACTS: [(&str, &str); 8] = [
    ("address", "192.0.2.1"),
    ("at", "2026-11-22 10:56 UTC"),
    ("code", "1234 5678"),
    ("device", "Firefox on Linux"),
    ("link", "https://sample.invalid/reset?token=sample"),
    ("minutes", "10"),
    ("name", "Ada Sample"),
    ("new_email", "new@sample.invalid"),
];

/// The facts a kind cannot be told without. A template must bear that any other is absent.
fn essential(kind: &str) -> &'static [&'static str] {
    match kind {
        "verify_address" | "confirm_registration" | "change_address" | "reset_password" => &["code", "minutes"],
        _ => &[],
    }
}

/// Tries every kind, with every fact there can be and with the fewest there may be.
pub(super) fn faults_of(templates: &Templates, language: &str, kinds: &[&'static str]) -> Vec<String> {
    let file = format!("{language}.jinja");
    let usable = |name| templates.env.get_template(name).ok();
    let (Some(template), Some(_), Some(_)) = (usable(&file), usable(LAYOUT_HTML), usable(LAYOUT_TEXT)) else {
        return Vec::new();
    };
    let known = templates.context(&Facts::new());
    let mut unknown: Vec<_> = template.undeclared_variables(false).into_iter().collect();
    unknown
        .retain(|name| !known.contains_key(name.as_str()) && templates.env.globals().all(|(global, _)| global != name));
    unknown.sort();
    let line = |name: &str| template.source().lines().position(|line| line.contains(name)).map_or(0, |at| at + 1);
    let mut faults: Vec<_> =
        unknown.iter().map(|name| format!("{file}:{}: there is no fact `{name}`", line(name))).collect();

    for kind in kinds {
        let full = Facts::from(FACTS.map(|(name, sample)| (name, sample.to_owned())));
        let mut bare = full.clone();
        bare.retain(|name, _| essential(kind).contains(name));
        for facts in [full, bare] {
            match templates.render(kind, language, &facts) {
                Ok(letter) => faults.extend(
                    facts
                        .iter()
                        .filter(|(name, sample)| **name != "minutes" && letter.subject.contains(*sample))
                        .map(|(name, _)| format!("{file}: {kind}: `{name}` may not stand in the subject")),
                ),
                Err(error) => faults.push(fault(&format!("{file}: {kind}"), &error)),
            }
        }
    }
    faults
}

/// The template files of a folder; a file that is none is a fault.
pub(super) fn read_folder(folder: &Path, faults: &mut Vec<String>) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if name != LAYOUT_HTML && name != LAYOUT_TEXT && languages::of_file(&name).is_none() {
            faults.push(format!(
                "{name}: not a template; there are {LAYOUT_HTML}, {LAYOUT_TEXT} and (in lower case) <language>.jinja"
            ));
            continue;
        }
        match fs::read_to_string(entry.path()) {
            Ok(source) => drop(files.insert(name, source)),
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    Ok(files)
}

/// The innermost reason, with file and line where the engine knows them.
pub(super) fn fault(place: &str, error: &Error) -> String {
    let mut inner = error;
    while let Some(cause) = inner.source().and_then(|source| source.downcast_ref()) {
        inner = cause;
    }
    let what = inner.detail().map_or_else(|| inner.kind().to_string(), |detail| format!("{}: {detail}", inner.kind()));
    match (inner.name(), inner.line()) {
        (Some(name), Some(line)) => format!("{name}:{line}: {what}"),
        _ => format!("{place}: {what}"),
    }
}
