//! How a line looks: one JSON object, or text for people.
//!
//! Everything that comes from outside of this file is escaped here, in both forms: what moves a terminal's cursor, ends a
//! line or turns its direction never leaves as it is. Text is written straight into the line's buffer, so that a line
//! costs no allocation beyond what its values make.

use std::fmt::{self, Write};

use tracing::{
    Level,
    field::{Field, Visit},
};

use crate::names::is_unsafe;

/// The two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Json,
    /// Whether in colour.
    Pretty(bool),
}

/// Begins a line: time and level.
pub(super) fn begin(line: &mut String, style: Style, millis: i64, level: Level) {
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    // Writing to a string does not fail.
    let _ = match style {
        Style::Json => write!(line, "{{\"timestamp\":\"{at:.3}\",\"level\":\"{}\"", level.as_str()),
        Style::Pretty(false) => write!(line, "{at:.3} {:>5}", level.as_str()),
        Style::Pretty(true) => {
            let colour = match level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                Level::DEBUG => 34,
                Level::TRACE => 35,
            };
            write!(line, "\u{1b}[2m{at:.3}\u{1b}[0m \u{1b}[{colour}m{:>5}\u{1b}[0m", level.as_str())
        }
    };
}

/// Which library says so.
pub(super) fn target(line: &mut String, style: Style, target: &str) {
    let _ = match style {
        Style::Json => write!(line, ",\"target\":\"{target}\""),
        Style::Pretty(_) => write!(line, " target={target}"),
    };
}

/// Ends it.
pub(super) fn end(line: &mut String, style: Style) {
    line.push_str(if style == Style::Json { "}\n" } else { "\n" });
}

/// Writes fields behind what stands in `into` already.
pub(super) struct Fields<'a> {
    pub into: &'a mut String,
    pub style: Style,
}

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        let _ = match self.style {
            Style::Json => write!(self.into, ",\"{}\":", field.name()),
            Style::Pretty(_) => write!(self.into, " {}=", field.name()),
        };
    }

    fn text(&mut self, field: &Field, text: &dyn fmt::Display) {
        let is_message = field.name() == "message";
        if self.style == Style::Json {
            self.name(field);
            self.into.push('"');
            let _ = write!(JsonText(self.into), "{text}");
            self.into.push('"');
        } else if is_message {
            self.into.push(' ');
            let _ = write!(PlainText { into: self.into, is_quoted: false }, "{text}");
        } else {
            self.name(field);
            let start = self.into.len();
            let _ = write!(PlainText { into: self.into, is_quoted: true }, "{text}");
            // Quotes only where a reader could not tell where the value ends.
            if self.into[start..].is_empty() || self.into[start..].contains([' ', '"', '=', '\\']) {
                self.into.insert(start, '"');
                self.into.push('"');
            }
        }
    }

    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        let _ = write!(self.into, "{value}");
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format_args!("{value:?}"));
    }
}

/// Escapes for the inside of a JSON string, and beyond what JSON asks for.
struct JsonText<'a>(&'a mut String);

impl Write for JsonText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
        if text.bytes().all(is_plain) {
            self.0.push_str(text);
            return Ok(());
        }
        for c in text.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                // All of them lie in the Basic Multilingual Plane: one unit of UTF-16.
                c if is_unsafe(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Escapes for people who read along.
struct PlainText<'a> {
    into: &'a mut String,
    is_quoted: bool,
}

impl Write for PlainText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' if self.is_quoted => self.into.extend(['\\', c]),
                c if is_unsafe(c) => self.into.extend(c.escape_default()),
                c => self.into.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\nb\r\t\u{1b}[2J\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\0\"}\\ä😀";

    #[test]
    fn nothing_unsafe_gets_into_a_json_line_and_all_of_it_comes_out_again() {
        let mut text = String::from("\"");
        write!(JsonText(&mut text), "{EVIL}").unwrap();
        text.push('"');
        assert!(!text.chars().any(is_unsafe), "{text:?}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), EVIL);
    }

    #[test]
    fn nothing_unsafe_gets_into_a_pretty_line() {
        for is_quoted in [false, true] {
            let mut text = String::new();
            write!(PlainText { into: &mut text, is_quoted }, "{EVIL}").unwrap();
            assert!(!text.chars().any(is_unsafe), "{text:?}");
            assert!(text.contains("\\u{202e}") && text.contains("ä😀"), "{text}");
        }
    }
}
