//! Showing people: to somebody at a terminal, or to a program as JSON.
//!
//! Names are checked when they are made, but those of imported people may be anything, and a terminal obeys what it is
//! shown. So nothing of a person is written but through [`plain`] or [`json`].

use std::io::{self, Write};

use crate::{
    accounts::{Person, Status, User},
    db::Timestamp,
    names::is_unsafe,
};

/// Writes one line to standard output.
///
/// `println!` would panic when whoever reads has seen enough.
pub(in crate::cli) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// The text with everything a terminal could obey written out: `\u{1b}`.
pub(in crate::cli) fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, c| {
        if is_unsafe(c) {
            plain.extend(c.escape_unicode())
        } else {
            plain.push(c)
        }
        plain
    })
}

/// The person as the API shows one. JSON escapes few control characters by itself; the rest is escaped here, which
/// changes nothing for who parses it.
pub(super) fn json(person: &Person) -> serde_json::Result<String> {
    let json = serde_json::to_string(&User::from(person.clone()))?;
    Ok(json.chars().fold(String::with_capacity(json.len()), |mut safe, c| {
        // They are all of the basic plane, and inside strings.
        if is_unsafe(c) {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            safe.push(c)
        }
        safe
    }))
}

/// What to call somebody in a sentence.
pub(super) fn name(person: &Person) -> String {
    let name = person.email.as_deref().or(person.username.as_deref());
    name.map_or_else(|| person.id.to_string(), plain)
}

/// Writes people as a table, with a head if it is the first piece.
pub(super) fn table(people: &[Person], is_first: bool) -> io::Result<()> {
    if people.is_empty() && is_first {
        return say("Nobody.");
    }
    let head = ["ID", "EMAIL", "USERNAME", "STATUS", "CREATED", "LAST LOGIN"].map(str::to_owned);
    let rows: Vec<[String; 6]> = is_first.then_some(head).into_iter().chain(people.iter().map(row)).collect();
    columns(&rows)
}

/// Writes rows with every column as wide as its widest cell.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn row(person: &Person) -> [String; 6] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mark = if person.email_verified { " ✓" } else { "" };
    let status = match person.status {
        Status::Active => "active",
        Status::Disabled => "disabled",
    };
    [
        person.id.to_string(),
        or_dash(person.email.as_deref().map(|email| plain(email) + mark)),
        or_dash(person.username.as_deref().map(plain)),
        status.to_owned(),
        person.created_at.to_minute(),
        or_dash(person.last_login_at.map(Timestamp::to_minute)),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// An escape sequence, one of eight bits, a line break, a change of direction, DEL.
    const HOSTILE: &str = "a\u{1b}[2Jb\u{9b}2Jc\r\nd\u{202e}e\u{7f}f";

    fn hostile() -> Person {
        let at = Timestamp::from_millis(1_795_344_960_123);
        Person {
            id: uuid::Uuid::nil(),
            email: Some(format!("{HOSTILE}@example.com")),
            email_verified: true,
            username: Some(HOSTILE.into()),
            display_name: Some(HOSTILE.into()),
            roles: sqlx::types::Json(vec![HOSTILE.into()]),
            status: Status::Active,
            epoch: 0,
            created_at: at,
            updated_at: at,
            last_login_at: None,
        }
    }

    #[test]
    fn nothing_of_a_person_is_obeyed_by_a_terminal() {
        let person = hostile();
        for text in row(&person).into_iter().chain([json(&person).unwrap(), name(&person)]) {
            assert!(!text.chars().any(is_unsafe), "{text:?}");
        }
        assert!(name(&person).starts_with("a\\u{1b}[2Jb\\u{9b}2Jc\\u{d}\\u{a}d"), "{}", name(&person));
    }

    #[test]
    fn json_tells_a_program_the_name_as_it_is() {
        let person = hostile();
        let parsed: Value = serde_json::from_str(&json(&person).unwrap()).unwrap();
        assert_eq!(parsed, serde_json::to_value(User::from(person)).unwrap());
        assert_eq!(parsed["username"], HOSTILE);
    }
}
