//! Canonical forms of what people type: e-mail addresses, usernames, display names, locales, passwords' text.
//!
//! One function a kind, and `canon(canon(x)) == canon(x)`: what it returns is the unique key, is stored, and for an
//! address is what mail goes to, so two spellings of one mailbox cannot become two people and mail cannot go to a form
//! that was not checked. Kernel, because settings, accounts and mail must all mean the same by "address".

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;

/// Names that would let a person pose as the house.
const RESERVED_USERNAMES: &[&str] = &[
    "admin",
    "administrator",
    "root",
    "system",
    "latchkey",
    "support",
    "security",
    "postmaster",
    "hostmaster",
    "webmaster",
    "abuse",
    "noreply",
    "no-reply",
    "help",
    "info",
    "me",
    "null",
    "undefined",
    "anonymous",
];

/// The canonical form of an e-mail address, or `None` if mail cannot be sent to it.
///
/// The local part is an RFC 5322 §3.2.3 dot-atom, lower-cased; the domain goes through IDNA (UTS 46) to lower-case
/// A-labels with STD3, hyphen and DNS length checks. No quotes, comments, IP literals; at most 254 bytes.
#[must_use]
pub fn canonical_email(text: &str) -> Option<String> {
    // Before any work on it: UTS 46 mapping can shrink a text, but no mailbox needs more than this to be typed.
    if text.len() > 1024 {
        return None;
    }
    let (local, domain) = text.split_once('@')?;
    if domain.contains('@') || local.len() > 64 || !is_dot_atom(local) {
        return None;
    }
    let address = format!("{}@{}", local.to_ascii_lowercase(), canonical_domain(domain)?);
    (address.len() <= 254).then_some(address)
}

/// The canonical form of a domain: lower-case A-labels.
#[must_use]
pub fn canonical_domain(text: &str) -> Option<String> {
    let ascii = Uts46::new().to_ascii(text.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify).ok()?;
    // A last label of digits makes it an IPv4 address to most programs (WHATWG URL §3.5 "ends in a number").
    let last = ascii.rsplit('.').next()?;
    (!last.bytes().all(|byte| byte.is_ascii_digit())).then(|| ascii.into_owned())
}

fn is_dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| {
        !atom.is_empty() && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    })
}

/// The unique key of a username, or `None` if it cannot be one. The username itself is kept as typed.
#[must_use]
pub fn username_key(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let fits = (3..=64).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
        && bytes.first()?.is_ascii_alphanumeric()
        && bytes.last()?.is_ascii_alphanumeric();
    let key = text.to_ascii_lowercase();
    (fits && !RESERVED_USERNAMES.contains(&key.as_str())).then_some(key)
}

/// A display name in NFC, or `None` if it is empty, over 128 code points, or has characters that could forge a line.
#[must_use]
pub fn display_name(text: &str) -> Option<String> {
    let name: String = text.nfc().collect();
    let fits = (1..=128).contains(&name.chars().count()) && !name.trim().is_empty() && !name.chars().any(is_unsafe);
    fits.then_some(name)
}

/// A language tag of the simple kind (`en`, `de-AT`, `zh-Hant-TW`; RFC 5646 without extensions), as typed.
#[must_use]
pub fn locale(text: &str) -> Option<String> {
    let mut subtags = text.split('-');
    let language = subtags.next()?;
    let fits = text.len() <= 35
        && (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_alphabetic())
        && subtags.all(|tag| (2..=8).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric()));
    fits.then(|| text.to_owned())
}

/// A password's text as it is hashed: NFC (NIST SP 800-63B-4 §3.1.1.2), otherwise exactly as typed.
#[must_use]
pub fn normalized_password(text: &str) -> String {
    text.nfc().collect()
}

/// Control characters of all kinds: never in a name.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control() || is_forbidden(c)
}

/// CR, LF, NUL, other line separators and bidirectional controls: nowhere, passwords included.
#[must_use]
pub fn is_forbidden(c: char) -> bool {
    matches!(c, '\0' | '\r' | '\n')
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_that_mail_cannot_go_to_are_refused() {
        for text in [
            "",
            "@",
            "a@",
            "@b",
            "a@b@c",
            "a b@c.de",
            "\"a\"@c.de",
            "a(x)@c.de",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@c.de.",
            ".a@c.de",
            "a.@c.de",
            "a..b@c.de",
            "a@-c.de",
            "a@c-.de",
            "a@c_d.de",
            "a\0@c.de",
            "a@c.de\n",
            "\u{202e}a@c.de",
            "ä@c.de",
            "a@xn--zz.de\u{0}",
            "a@ab--cd.de",
            "a\u{ff20}c.de",
            "a@c\u{ff20}d.de",
        ] {
            assert_eq!(canonical_email(text), None, "{text:?}");
        }
        let long = format!("{}@{}.de", "a".repeat(64), ["b".repeat(63), "c".repeat(63), "d".repeat(63)].join("."));
        assert_eq!(canonical_email(&long), None);
        assert_eq!(canonical_email(&format!("{}@c.de", "a".repeat(65))), None);
    }

    #[test]
    fn spellings_of_one_mailbox_have_one_form() {
        for text in
            ["alice@bücher.example", "ALICE@BÜCHER.EXAMPLE", "Alice@xn--bcher-kva.example", "alice@ｂücher。example"]
        {
            assert_eq!(canonical_email(text).as_deref(), Some("alice@xn--bcher-kva.example"), "{text}");
        }
    }

    #[test]
    fn usernames_keep_to_the_plain_alphabet() {
        assert_eq!(username_key("Al.ice_1-x").as_deref(), Some("al.ice_1-x"));
        for text in ["ab", ".abc", "abc-", "a b", "аlice", "alice\n", "Admin", "ROOT", &"a".repeat(65)] {
            assert_eq!(username_key(text), None, "{text:?}");
        }
    }

    #[test]
    fn display_names_cannot_forge_lines() {
        assert_eq!(display_name("A\u{308}da").as_deref(), Some("Äda"));
        for text in ["", "  ", "a\nb", "a\rb", "a\0b", "a\u{202e}b", "a\u{2028}b", "a\u{2066}b", &"a".repeat(129)] {
            assert_eq!(display_name(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn canonical_addresses_are_their_own_canon(text in "\\PC{0,24}@\\PC{0,24}") {
            if let Some(canon) = canonical_email(&text) {
                prop_assert_eq!(canonical_email(&canon), Some(canon.clone()));
                prop_assert!(canon.is_ascii() && canon == canon.to_ascii_lowercase());
            }
        }

        #[test]
        fn canonical_domains_are_their_own_canon(text in "[a-zß-öA-Z0-9.\u{200d}\u{3002}-]{1,30}") {
            if let Some(canon) = canonical_domain(&text) {
                prop_assert_eq!(canonical_domain(&canon), Some(canon.clone()));
            }
        }
    }
}
