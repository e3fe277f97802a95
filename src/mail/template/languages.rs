//! Which languages there are, and which of them suits somebody.

/// The languages that have a file.
#[derive(Debug)]
pub(super) struct Languages {
    pub(super) all: Vec<String>,
    pub(super) fallback: String,
}

/// The language that a file is for, if it is a language file at all.
pub(super) fn of_file(file: &str) -> Option<&str> {
    let language = file.strip_suffix(".jinja")?;
    let fits = crate::names::locale(language).is_some() && !language.bytes().any(|byte| byte.is_ascii_uppercase());
    fits.then_some(language)
}

impl Languages {
    pub(super) fn new(fallback: &str) -> Self {
        Self { all: Vec::new(), fallback: fallback.to_ascii_lowercase() }
    }

    /// The language for a tag such as `de-AT` (RFC 4647 §3.4 lookup), if there is one.
    pub(super) fn lookup(&self, tag: &str) -> Option<&str> {
        // No tag that we keep is longer (`names::locale`), and a header can be long.
        let mut tag = tag.get(..tag.len().min(35))?;
        loop {
            if let Some(language) = self.all.iter().find(|language| language.eq_ignore_ascii_case(tag)) {
                return Some(language);
            }
            tag = tag.rsplit_once('-')?.0;
            // A single letter only announces what followed it.
            tag = tag.rsplit_once('-').filter(|(_, last)| last.len() == 1).map_or(tag, |(rest, _)| rest);
        }
    }

    /// The best language for an `Accept-Language` value (RFC 9110 §12.5.4), of which the first ten ranges count.
    pub(super) fn negotiate(&self, accept_language: &str) -> Option<&str> {
        let mut ranges: Vec<_> = accept_language.split(',').take(10).filter_map(weighted).collect();
        ranges.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let (wanted, refused) = ranges.split_at(ranges.partition_point(|(_, weight)| *weight > 0.0));
        let among =
            |ranges: &[(&str, f32)], language: &str| ranges.iter().any(|(r, _)| r.eq_ignore_ascii_case(language));
        wanted.iter().find_map(|(range, _)| {
            if *range == "*" {
                let mut all = std::iter::once(&self.fallback).chain(&self.all).map(String::as_str);
                all.find(|language| !among(&ranges, language))
            } else {
                self.lookup(range).filter(|language| !among(refused, language))
            }
        })
    }
}

/// A range of `Accept-Language` with its weight.
fn weighted(range: &str) -> Option<(&str, f32)> {
    let (tag, weight) = range.split_once(';').unwrap_or((range, "q=1"));
    let weight = weight.trim().strip_prefix(['q', 'Q'])?.strip_prefix('=')?.parse().ok()?;
    (!tag.trim().is_empty() && (0.0..=1.0).contains(&weight)).then_some((tag.trim(), weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_language_is_found() {
        let languages = Languages { all: vec!["de".into(), "en".into()], fallback: "en".into() };
        for (wanted, best) in [
            ("de-AT,de;q=0.9,en;q=0.8", Some("de")),
            ("en;q=0.2, DE-ch-1996 ; Q=0.7", Some("de")),
            ("fr, *;q=0.5", Some("en")),
            ("en;q=0.1, *;q=0.5", Some("de")),
            ("en;q=0, de", Some("de")),
            ("en;q=0, *", Some("de")),
            ("de;q=0, de-AT", None),
            ("*;q=0", None),
            ("fr", None),
            ("de;q=NaN, en;q=2, de;q=-1, de;x, ;q=1", None),
            (" ,;,ä-ä-ä,-,--,q=1,*;", None),
            ("a,b,c,d,e,f,g,h,i,j,de", None),
        ] {
            assert_eq!(languages.negotiate(wanted), best, "{wanted}");
        }
        assert_eq!(languages.negotiate(&"ä-".repeat(100_000)), None);
        for (tag, language) in [("de-x-private", Some("de")), ("DE", Some("de")), ("deu", None), ("", None)] {
            assert_eq!(languages.lookup(tag), language, "{tag}");
        }
    }
}
