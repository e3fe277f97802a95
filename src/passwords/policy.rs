//! Which passwords are taken (NIST SP 800-63B-4 §3.1.1.2, OWASP ASVS 5.0 §6.2).
//!
//! Length and a blocklist, nothing else: no composition rules, no expiry. All reasons are told at once, before any hash.
//! `blocklist.txt` holds 11,611 of the commonest passwords of eight characters and more, commonest first: the entries of
//! that length in the password list of zxcvbn (MIT), which was made from leaked passwords. A password made of a person's
//! own words (address, names, the product's name) with up to three characters more is refused too: these are what
//! somebody who knows the person tries first.

use std::{collections::HashSet, sync::LazyLock};

use crate::{
    error::{ApiError, Code, FieldFault},
    names,
    secret::SecretText,
};

/// Most code points of a password.
const MOST_CHARACTERS: usize = 128;
/// Most bytes of a password, after normalization.
const MOST_BYTES: usize = 512;
/// A person's word shorter than this is in too many good passwords.
const LEAST_WORD: usize = 4;
/// Characters that may be put around a person's word without making it a password.
const TRIMMINGS: usize = 3;

static BLOCKLIST: LazyLock<HashSet<&'static str>> = LazyLock::new(|| include_str!("blocklist.txt").lines().collect());

/// What a password is judged against.
#[derive(Debug)]
pub struct Context<'a> {
    /// Least number of code points.
    pub min_length: usize,
    /// Never the password.
    pub product_name: &'a str,
    /// The person's address, canonical.
    pub email: Option<&'a str>,
    /// The person's username and display name.
    pub names: [Option<&'a str>; 2],
}

/// The password as it will be hashed, or every reason against it.
///
/// # Errors
/// One [`FieldFault`] a reason, about `field`.
pub fn check(field: &'static str, password: &SecretText, context: &Context) -> Result<SecretText, Vec<FieldFault>> {
    // Before normalization, which costs time that grows with the text.
    if password.expose().len() > 4 * MOST_BYTES {
        return Err(vec![FieldFault::new(field, "too_long", TOO_LONG)]);
    }
    let normal = SecretText::new(names::normalized_password(password.expose()));
    let text = normal.expose();
    let length = text.chars().count();
    let lower = text.to_lowercase();

    let mut reasons = Vec::new();
    let mut refuse = |code, detail| reasons.push(FieldFault::new(field, code, detail));
    if length < context.min_length {
        refuse("too_short", "Use a longer password; a sentence of a few words is easy to remember.");
    }
    if length > MOST_CHARACTERS || text.len() > MOST_BYTES {
        refuse("too_long", TOO_LONG);
    }
    if text.chars().any(names::is_forbidden) {
        refuse("forbidden_character", "Leave out line breaks, NUL and invisible direction marks.");
    }
    if BLOCKLIST.contains(lower.as_str()) {
        refuse("too_common", "This is one of the commonest passwords, which are tried first. Choose another one.");
    }
    if personal_words(context).any(|word| is_mostly(&lower, length, &word)) {
        refuse("personal", "This is made of your address, your name or the name of this service. Choose another one.");
    }
    if reasons.is_empty() { Ok(normal) } else { Err(reasons) }
}

const TOO_LONG: &str = "Use at most 128 characters and 512 bytes.";

/// The password as it is compared at a login, or `None` when it is one that nobody can have.
///
/// The least length is not asked here: who chose a password under an older rule may still sign in with it.
#[must_use]
pub fn presented(password: &SecretText) -> Option<SecretText> {
    if password.expose().len() > 4 * MOST_BYTES {
        return None;
    }
    let normal = SecretText::new(names::normalized_password(password.expose()));
    let fits = normal.expose().len() <= MOST_BYTES && !normal.expose().chars().any(names::is_forbidden);
    fits.then_some(normal)
}

/// As [`presented`], with the refusal for what nobody can have.
///
/// # Errors
/// 422 `invalid_body` about `field`.
pub fn presented_as(field: &'static str, password: &SecretText) -> Result<SecretText, ApiError> {
    presented(password).ok_or_else(|| {
        let detail = "No password is longer than 512 bytes or has line breaks, NUL or direction marks.";
        ApiError::fields(Code::InvalidBody, vec![FieldFault::new(field, "malformed", detail)])
    })
}

fn personal_words<'a>(context: &'a Context) -> impl Iterator<Item = String> + 'a {
    let local = context.email.and_then(|email| email.split_once('@')).map(|(local, _)| local);
    let names = context.names.into_iter().flatten();
    let parts = names.clone().flat_map(str::split_whitespace);
    [Some(context.product_name), context.email, local]
        .into_iter()
        .flatten()
        .chain(names)
        .chain(parts)
        .map(|word| names::normalized_password(word).to_lowercase())
        .filter(|word| word.chars().count() >= LEAST_WORD)
}

fn is_mostly(password: &str, length: usize, word: &str) -> bool {
    password.contains(word) && length <= word.chars().count() + TRIMMINGS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(password: &str) -> Vec<&'static str> {
        let context = Context {
            min_length: 8,
            product_name: "Latchkey",
            email: Some("alice.liddell@example.com"),
            names: [Some("wonder_alice"), Some("Alice Liddell")],
        };
        match check("password", &SecretText::new(password), &context) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(|fault| fault.code).collect(),
        }
    }

    #[test]
    fn good_passwords_of_any_kind_are_taken() {
        for password in
            ["correct horse battery", "päßwörter-🦀🦀", "12345 98765 4", "        x", "Liddell and her white rabbit"]
        {
            assert!(reasons(password).is_empty(), "{password}: {:?}", reasons(password));
        }
        assert!(reasons(&"語".repeat(128)).is_empty(), "128 code points in 384 bytes");
    }

    #[test]
    fn each_rule_refuses_with_its_reason() {
        assert_eq!(reasons("xq7-pl2"), ["too_short"]);
        assert_eq!(reasons(&"xq7-pl2 ".repeat(17)), ["too_long"]);
        assert_eq!(reasons(&"🦀".repeat(128)), [] as [&str; 0]);
        assert_eq!(reasons(&"🦀".repeat(129)), ["too_long"]);
        assert_eq!(reasons(&"x".repeat(1 << 20)), ["too_long"]);
        assert_eq!(reasons("PassWord1"), ["too_common"]);
        assert_eq!(reasons("xq7-pl2\0zz"), ["forbidden_character"]);
        assert_eq!(reasons("xq7-pl2\u{202e}zz"), ["forbidden_character"]);
        for personal in
            ["latchkey1", "Alice.Liddell", "wonder_alice!", "alice.liddell@example.com", "Alice Liddell", "1liddell1"]
        {
            assert_eq!(reasons(personal), ["personal"], "{personal}");
        }
        assert_eq!(reasons("alice"), ["too_short", "personal"], "all reasons at once");
    }

    #[test]
    fn spellings_of_one_password_are_one() {
        let (composed, decomposed) = (SecretText::new("p\u{e4}sswort-x"), SecretText::new("pa\u{308}sswort-x"));
        assert_eq!(presented(&composed), presented(&decomposed));
        assert_ne!(presented(&SecretText::new("Password-x")), presented(&SecretText::new("password-x")));
        assert_eq!(presented(&SecretText::new(" x ")).unwrap().expose(), " x ", "exactly as typed");
    }

    #[test]
    fn the_blocklist_is_long_enough() {
        assert!(BLOCKLIST.len() >= 3000);
        assert!(BLOCKLIST.iter().all(|entry| entry.chars().count() >= 8 && *entry == entry.to_lowercase()));
    }
}
