//! The paragraphs of a mail, on their way from the language file to the two layouts.

use minijinja::{Error, Value, context};

use super::{Facts, invalid};

/// Columns of the text part: room for two levels of quoting within the 78 of RFC 5322 §2.1.1.
pub(super) const COLUMNS: usize = 72;

/// A paragraph as the layouts see it: its `sort` and its `words`, of which a list has several.
pub(super) fn parts(text: &str, facts: &Facts) -> Result<Vec<Value>, Error> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    paragraphs
        .map(|lines| {
            let items: Option<Vec<_>> = lines.iter().map(|line| line.strip_prefix("- ").map(Value::from)).collect();
            if let Some(items) = items {
                return Ok(context! { sort => "list", words => items });
            }
            let words = lines.join(" ");
            if words == "[code]" {
                let code = facts.get("code").filter(|code| !code.is_empty());
                let code = code.ok_or_else(|| invalid("[code] where there is no code"))?;
                return Ok(context! { sort => "code", words => code });
            }
            if let Some(words) = words.strip_prefix("[link:").and_then(|rest| rest.strip_suffix(']')) {
                let url = facts.get("link").filter(|url| url.starts_with("https://") || url.starts_with("http://"));
                let url = url.ok_or_else(|| invalid("[link] where there may be no link; ask {% if link %}"))?;
                return Ok(context! { sort => "link", words => words.trim(), url });
            }
            Ok(context! { sort => "words", words })
        })
        .collect()
}

/// Breaks a paragraph between words; `indent` stands before every line but the first.
pub(super) fn wrap(text: &str, indent: Option<&str>) -> String {
    let indent = indent.unwrap_or_default();
    let (mut wrapped, mut column) = (String::new(), indent.chars().count());
    for word in text.split_ascii_whitespace() {
        let width = word.chars().count();
        if !wrapped.is_empty() && column + 1 + width > COLUMNS {
            wrapped.push('\n');
            wrapped.push_str(indent);
            column = indent.chars().count();
        } else if !wrapped.is_empty() {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += width;
    }
    wrapped
}

/// A URL for an attribute. The escaping of the engine also turns every `/` into a reference, at which the programs that
/// check links on their way stumble.
pub(super) fn href(url: &str) -> Value {
    let escaped = url.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;");
    Value::from_safe_string(escaped.replace('<', "&lt;").replace('>', "&gt;"))
}
