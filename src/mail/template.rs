//! Turns a kind of mail and its facts into a subject, a text part and an HTML part.
//!
//! A language is one file, `templates/<language>.jinja`, with a block for every kind: one file is all a translator has
//! to see, a kind that is missing shows at start, and blocks can share sentences by calling each other. A block is plain
//! text: the subject on the first line, then paragraphs. Both parts are made from these same paragraphs, so they cannot
//! tell different things: the language file is rendered without escaping, and its paragraphs then go as values into
//! `layout.txt`, which does not escape either, and into `layout.html`, which escapes everything.
//!
//! All is compiled in; a file of the same name in the operator's folder stands in for ours, and a new `<language>.jinja`
//! there is a new language. Everything is tried with sample facts when it is loaded, because a mail that turns out
//! broken on its way to somebody who lost their password comes too late.

mod languages;
mod parts;
mod trial;

use std::{collections::BTreeMap, fmt, path::Path};

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

use self::{
    languages::Languages,
    parts::{href, parts, wrap},
};
use crate::names::is_unsafe;

/// The files of the house; a language more is a line more.
const BUILT_IN: [(&str, &str); 4] = [
    (LAYOUT_HTML, include_str!("templates/layout.html")),
    (LAYOUT_TEXT, include_str!("templates/layout.txt")),
    ("en.jinja", include_str!("templates/en.jinja")),
    ("de.jinja", include_str!("templates/de.jinja")),
];
const LAYOUT_HTML: &str = "layout.html";
const LAYOUT_TEXT: &str = "layout.txt";

/// What a language file is put behind: rendering it as a whole then writes nothing, and its blocks can be called.
const BLOCKS_ONLY: &str = "{% extends 'nothing' %}";

/// What a mail tells of, by name.
pub type Facts = BTreeMap<&'static str, String>;

/// What templates may say about us.
#[derive(Clone, Debug)]
pub struct House {
    /// What the service is called.
    pub product: String,
    /// Where people get help: a mail address or a URL.
    pub support: Option<String>,
    /// The public URL. Our own texts leave it out: mails that ask for nothing but a code should hold no link at all.
    pub url: String,
}

/// A mail as it is read. Prints as `[letter]`: there may be a code in it.
#[derive(Clone)]
pub struct Letter {
    /// One line, with nothing personal and no code: it shows on a locked screen.
    pub subject: String,
    /// The `text/plain` part.
    pub text: String,
    /// The `text/html` part.
    pub html: String,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[letter]")
    }
}

/// Everything that is wrong with the templates, one fault a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct TemplateFaults(pub Vec<String>);

/// The compiled templates.
pub struct Templates {
    env: Environment<'static>,
    house: House,
    languages: Languages,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Templates").field(&self.languages).finish()
    }
}

impl Templates {
    /// The compiled-in files, each replaced by the file of the same name in `folder` if there is one, and tried with
    /// every one of `kinds`. Files whose names begin with a dot are passed over: Kubernetes puts its own beside ours.
    ///
    /// # Errors
    /// All that is wrong: files that cannot be read or are not templates' names, slips in the templates, kinds without
    /// a block, subjects that give something away, a `fallback` without a file.
    pub fn load(
        folder: Option<&Path>,
        house: House,
        kinds: &[&'static str],
        fallback: &str,
    ) -> Result<Self, TemplateFaults> {
        let mut faults = Vec::new();
        let mut files: BTreeMap<String, String> = BUILT_IN.map(|(name, source)| (name.into(), source.into())).into();
        if let Some(folder) = folder {
            match trial::read_folder(folder, &mut faults) {
                Ok(own) => files.extend(own),
                Err(error) => faults.push(format!("{}: {error}", folder.display())),
            }
        }
        let mut templates = Self { env: environment(), house, languages: Languages::new(fallback) };
        files.insert("nothing".into(), String::new());
        for (name, mut source) in files {
            if let Some(language) = languages::of_file(&name) {
                templates.languages.all.push(language.to_owned());
                source.insert_str(0, BLOCKS_ONLY);
            }
            let added = templates.env.add_template_owned(name.clone(), source);
            faults.extend(added.err().map(|error| trial::fault(&name, &error)));
        }
        if !templates.languages.all.contains(&templates.languages.fallback) {
            faults.push(format!("{fallback}.jinja: there is no such file, but this is the fallback language"));
        }
        for language in &templates.languages.all {
            for found in trial::faults_of(&templates, language, kinds) {
                // What is wrong with a layout shows with every mail.
                if !faults.contains(&found) {
                    faults.push(found);
                }
            }
        }
        if faults.is_empty() { Ok(templates) } else { Err(TemplateFaults(faults)) }
    }

    /// The language for a tag such as `de-AT` (RFC 4647 §3.4 lookup), if there is one.
    #[must_use]
    pub fn language_of(&self, tag: &str) -> Option<&str> {
        self.languages.lookup(tag)
    }

    /// The best language for an `Accept-Language` value (RFC 9110 §12.5.4), of which the first ten ranges count.
    #[must_use]
    pub fn negotiate(&self, accept_language: &str) -> Option<&str> {
        self.languages.negotiate(accept_language)
    }

    /// The language of those whose language is not known.
    #[must_use]
    pub fn fallback(&self) -> &str {
        &self.languages.fallback
    }

    /// Writes the letter, in the fallback language if there is no such `language`.
    ///
    /// # Errors
    /// When the template asks for a code or link that is not among the facts, or `kind` was not there at the loading.
    pub fn render(&self, kind: &'static str, language: &str, facts: &Facts) -> Result<Letter, Error> {
        let language = self.language_of(language).unwrap_or(self.fallback());
        let facts = self.context(facts);
        let mut blocks = self.env.get_template(&format!("{language}.jinja"))?.render_captured(facts.clone())?;
        let mut block = |name: &str| blocks.with_state_mut(|state| state.render_block(name));
        let (body, footer) = (block(kind)?, block("footer")?);
        let (subject, body) = body.trim().split_once('\n').ok_or_else(|| invalid("a subject without a mail"))?;
        let subject: String = subject.trim().chars().filter(|c| !is_unsafe(*c)).collect();

        let (parts, footer) = (parts(body, &facts)?, parts(&footer, &facts)?);
        let whole = context! { language, subject => &subject, parts, footer, ..Value::from(facts) };
        let text = self.env.get_template(LAYOUT_TEXT)?.render(whole.clone())?;
        let html = self.env.get_template(LAYOUT_HTML)?.render(whole)?;
        Ok(Letter { subject, text: text.trim().to_owned() + "\n", html })
    }

    /// Everything that templates know.
    fn context(&self, facts: &Facts) -> Facts {
        let mut all = Facts::from(trial::FACTS.map(|(name, _)| (name, String::new())));
        // A line break in a fact could pose as a paragraph of ours.
        all.extend(facts.iter().map(|(name, value)| (*name, value.replace(is_unsafe, " "))));
        all.entry("name").and_modify(|name| {
            if reads_as_link(name) {
                name.clear();
            }
        });
        // Mail programs turn a URL into a link, and no link but that for a new password is to stand in our mails.
        let support = self.house.support.as_deref().unwrap_or_default();
        let support = support.split_once("://").map_or(support, |(_, rest)| rest);
        all.extend([
            ("product", self.house.product.clone()),
            ("support", support.to_owned()),
            ("url", self.house.url.clone()),
        ]);
        all
    }
}

/// Whether mail programs would make a link of a name. Anybody can sign up with the address of another person and a name
/// such as `prize.example`; that person is then greeted without it.
fn reads_as_link(name: &str) -> bool {
    name.contains("://")
        || name.split(['.', '。', '．', '｡']).skip(1).any(|rest| rest.starts_with(char::is_alphanumeric))
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    // By name and not by ending: `xml.jinja` would be a language.
    env.set_auto_escape_callback(|name| if name == LAYOUT_HTML { AutoEscape::Html } else { AutoEscape::None });
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.add_filter("wrap", wrap);
    env.add_filter("href", href);
    env
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 12] = [
        "verify_address",
        "confirm_registration",
        "account_exists",
        "reset_password",
        "change_address",
        "address_in_use",
        "address_change_requested",
        "address_changed",
        "password_changed",
        "password_reset",
        "session_stolen",
        "new_device",
    ];
    const CODE_KINDS: [&str; 4] = ["verify_address", "confirm_registration", "reset_password", "change_address"];

    fn load(files: &[(&str, &str)]) -> Result<Templates, TemplateFaults> {
        let folder = tempfile::tempdir().unwrap();
        for (name, source) in files {
            std::fs::write(folder.path().join(name), source).unwrap();
        }
        let support = Some("https://help.latchkey.example".into());
        let house = House { product: "Latchkey".into(), support, url: "https://id.example".into() };
        Templates::load(Some(folder.path()), house, &KINDS, "en")
    }

    fn facts() -> Facts {
        trial::FACTS.map(|(name, sample)| (name, sample.to_owned())).into()
    }

    #[test]
    fn every_mail_says_what_it_should_and_no_more() {
        let templates = load(&[]).unwrap();
        for (kind, language) in KINDS.into_iter().flat_map(|kind| [(kind, "en"), (kind, "de-AT")]) {
            let Letter { subject, text, html } = templates.render(kind, language, &facts()).unwrap();
            assert!(!subject.is_empty() && !subject.contains(['[', '{', '1']), "{kind}: {subject}");
            for part in [&text, &html] {
                assert!(part.contains("Ada Sample") && part.contains("Latchkey"), "{kind}: {part}");
                assert_eq!(part.contains("1234 5678"), CODE_KINDS.contains(&kind), "{kind}: {part}");
                assert_eq!(part.contains("http"), kind == "reset_password", "{kind}: {part}");
                assert!(!part.contains("id.example") && !part.contains("[code]"), "{kind}: {part}");
            }
            assert!(
                text.lines().all(|line| line.chars().count() <= parts::COLUMNS || line.starts_with("https:")),
                "{text}"
            );
            assert!(["src=", "<script", "<img", "url("].iter().all(|outside| !html.contains(outside)), "{html}");
            assert_eq!(html.contains("<html lang=\"de\">"), language == "de-AT");
        }
    }

    #[test]
    fn what_people_call_themselves_is_only_text() {
        let render = |name: &str| {
            let facts = Facts::from([("name", name.to_owned())]);
            load(&[]).unwrap().render("password_changed", "en", &facts).unwrap()
        };
        let letter = render("<script>alert(1)</script> & \"x\"");
        assert!(letter.text.contains("Hello <script>alert(1)</script> & \"x\",\n"), "{}", letter.text);
        assert!(letter.html.contains("Hello &lt;script&gt;alert(1)&lt;&#x2f;script&gt; &amp; &quot;x&quot;,"));
        assert!(!letter.html.contains("<script"));
        assert!(render("a\n\n[code]\u{2028}b").text.starts_with("Hello a [code] b,\n"));
        assert!(render("prize.example").text.starts_with("Hello,\n"));
        assert_eq!(format!("{letter:?}"), "[letter]");
    }

    #[test]
    fn files_of_the_house_can_be_replaced() {
        let own = include_str!("templates/en.jinja").replace("Your password was changed", "New password");
        let templates = load(&[("en.jinja", &own), ("fr.jinja", &own), (".hidden", "")]).unwrap();
        let subject = |language| templates.render("password_changed", language, &facts()).unwrap().subject;
        assert_eq!(["en", "fr-CA", "it"].map(subject), ["New password"; 3]);
        assert_eq!(subject("de"), "Ihr Passwort wurde geändert");
    }

    #[test]
    fn slips_are_found_at_the_loading_all_at_once() {
        let slip = |from: &str, to: &str| include_str!("templates/de.jinja").replacen(from, to, 1);
        for (file, source, told) in [
            ("de.jinja", slip("{% if name %}", "{% if nmae %}"), "de.jinja:3: there is no fact `nmae`"),
            ("de.jinja", slip("{% if device %}", "{% if device }"), "de.jinja:11: syntax error"),
            (
                "de.jinja",
                slip("{% block new_device %}", "{% block newdevice %}"),
                "de.jinja: new_device: unknown block",
            ),
            ("de.jinja", slip("Sie haben bereits", "{{ name }}, Sie haben"), "`name` may not stand in the subject"),
            ("de.jinja", slip("{{ self.facts() }}", "[link: Hier]"), "[link] where there may be no link"),
            ("layout.html", "\n{{ titel }}".into(), "layout.html:2: undefined value"),
            ("Readme.md", String::new(), "Readme.md: not a template"),
        ] {
            let faults = load(&[(file, &source), ("xx.jinja", "")]).unwrap_err().to_string();
            assert!(faults.contains(told) && faults.contains("xx.jinja"), "{file}, {told}: {faults}");
        }
        let house = House { product: String::new(), support: None, url: String::new() };
        let faults = Templates::load(Some(Path::new("/nowhere")), house, &KINDS, "fr").unwrap_err().0;
        assert!(faults[0].starts_with("/nowhere: ") && faults[1].starts_with("fr.jinja: "), "{faults:?}");
    }
}
