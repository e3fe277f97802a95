//! Hashes that people bring along from elsewhere: accepted once, then made anew as Argon2id.
//!
//! - bcrypt as it comes (`$2a$`, `$2b$`, `$2y$`), cost at most 14. It looks at 72 bytes; so did the system it came from.
//! - scrypt as PHC: `$scrypt$ln=15,r=8,p=1$salt$hash`, `128·N·r·p` at most 256 MiB.
//! - PBKDF2 as PHC: `$pbkdf2-sha256$i=600000$salt$hash` or `pbkdf2-sha512`, at most 2,000,000 rounds.

use std::num::NonZeroU32;

use ::phc::PasswordHash;
use aws_lc_rs::pbkdf2;

use super::phc::Check;
use crate::secret::same;

const MOST_BCRYPT_COST: u32 = 14;
const MOST_SCRYPT_BYTES: u64 = 256 * 1024 * 1024;
const MOST_PBKDF2_ROUNDS: u32 = 2_000_000;

/// Checks a password against a hash of a foreign scheme.
pub(super) fn check(password: &[u8], text: &str) -> Check {
    let outcome = if text.starts_with("$2") {
        bcrypt_matches(password, text)
    } else {
        PasswordHash::new(text).ok().and_then(|hash| match hash.algorithm.as_str() {
            "scrypt" => scrypt_matches(password, &hash),
            "pbkdf2-sha256" => pbkdf2_matches(pbkdf2::PBKDF2_HMAC_SHA256, password, &hash),
            "pbkdf2-sha512" => pbkdf2_matches(pbkdf2::PBKDF2_HMAC_SHA512, password, &hash),
            _ => None,
        })
    };
    match outcome {
        Some(true) => Check::Match,
        Some(false) => Check::Mismatch(0),
        None => Check::Unusable,
    }
}

fn bcrypt_matches(password: &[u8], text: &str) -> Option<bool> {
    let parts: bcrypt::HashParts = text.parse().ok()?;
    (4..=MOST_BCRYPT_COST).contains(&parts.get_cost()).then(|| bcrypt::verify(password, text).ok())?
}

fn scrypt_matches(password: &[u8], hash: &PasswordHash) -> Option<bool> {
    let (ln, r, p) = (hash.params.get_decimal("ln")?, hash.params.get_decimal("r")?, hash.params.get_decimal("p")?);
    let bytes = 128u64.checked_mul(1u64.checked_shl(ln)?)?.checked_mul(u64::from(r))?.checked_mul(u64::from(p))?;
    if !(1..=MOST_SCRYPT_BYTES).contains(&bytes) {
        return None;
    }
    let params = scrypt::Params::new(u8::try_from(ln).ok()?, r, p).ok()?;
    let expected = hash.hash.as_ref()?;
    let mut tag = vec![0; expected.as_bytes().len()];
    scrypt::scrypt(password, AsRef::<[u8]>::as_ref(hash.salt.as_ref()?), &params, &mut tag).ok()?;
    Some(same(&tag, expected.as_bytes()))
}

fn pbkdf2_matches(algorithm: pbkdf2::Algorithm, password: &[u8], hash: &PasswordHash) -> Option<bool> {
    let rounds = hash.params.get_decimal("i").filter(|rounds| *rounds <= MOST_PBKDF2_ROUNDS)?;
    let salt = hash.salt.as_ref()?;
    let expected = hash.hash.as_ref()?;
    Some(
        pbkdf2::verify(algorithm, NonZeroU32::new(rounds)?, AsRef::<[u8]>::as_ref(salt), password, expected.as_bytes())
            .is_ok(),
    )
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

    use super::*;

    fn outcome(password: &str, text: &str) -> &'static str {
        match check(password.as_bytes(), text) {
            Check::Match => "match",
            Check::Mismatch(_) => "mismatch",
            Check::Unusable => "unusable",
        }
    }

    fn phc(head: &str, tag: &[u8]) -> String {
        format!("{head}${}${}", STANDARD_NO_PAD.encode([7; 16]), STANDARD_NO_PAD.encode(tag))
    }

    #[test]
    fn bcrypt_hashes_of_others_are_understood() {
        // The test vector of Openwall's crypt_blowfish.
        let text = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        assert_eq!(outcome("U*U", text), "match");
        assert_eq!(outcome("U*V", text), "mismatch");
        assert_eq!(outcome("U*U", &text.replace("$05$", "$15$")), "unusable");
        assert_eq!(outcome("U*U", "$2a$05$CCCC"), "unusable");
    }

    #[test]
    fn scrypt_hashes_are_understood_within_bounds() {
        let mut tag = [0; 32];
        scrypt::scrypt(b"correct horse", &[7; 16], &scrypt::Params::new(10, 8, 1).unwrap(), &mut tag).unwrap();
        let text = phc("$scrypt$ln=10,r=8,p=1", &tag);
        assert_eq!(outcome("correct horse", &text), "match");
        assert_eq!(outcome("wrong horse", &text), "mismatch");
        for bad in ["ln=40,r=8,p=1", "ln=64,r=8,p=1", "ln=10,r=8,p=100000", "ln=18,r=8,p=2", "r=8,p=1"] {
            assert_eq!(outcome("correct horse", &text.replace("ln=10,r=8,p=1", bad)), "unusable", "{bad}");
        }
    }

    #[test]
    fn pbkdf2_hashes_are_understood_within_bounds() {
        for (name, algorithm) in
            [("pbkdf2-sha256", pbkdf2::PBKDF2_HMAC_SHA256), ("pbkdf2-sha512", pbkdf2::PBKDF2_HMAC_SHA512)]
        {
            let mut tag = [0; 32];
            pbkdf2::derive(algorithm, NonZeroU32::new(1000).unwrap(), &[7; 16], b"correct horse", &mut tag);
            let text = phc(&format!("${name}$i=1000"), &tag);
            assert_eq!(outcome("correct horse", &text), "match", "{name}");
            assert_eq!(outcome("wrong horse", &text), "mismatch", "{name}");
            assert_eq!(outcome("correct horse", &text.replace("i=1000", "i=2000001")), "unusable", "{name}");
            assert_eq!(outcome("correct horse", &text.replace("i=1000", "i=0")), "unusable", "{name}");
        }
    }
}
