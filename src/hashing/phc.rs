//! Stored hashes: reading them, checking a password against them, and when to make a new one.
//!
//! Every refusal costs one hash of the current policy: a missing hash is made up for, a cheaper Argon2 hash is followed by
//! the difference, and a dearer one is made anew at its owner's next login. bcrypt, scrypt and PBKDF2 hashes cannot be levelled.

use ::phc::PasswordHash;
use argon2::{Algorithm, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::{
    Busy,
    argon::{Cost, Policy, tag_into},
    legacy,
    memory::HashMemory,
};
use crate::secret::same;

/// The outcome of a password check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the password.
    Right {
        /// A new hash to store, when the old one is of an older policy, pepper or scheme.
        rehash: Option<String>,
    },
    /// It is not, or there is none.
    Wrong {
        /// The stored hash is unreadable or would cost more than is allowed.
        alarm: bool,
    },
}

/// What checking a stored hash came to.
pub(super) enum Check {
    Match,
    /// With the Argon2 work that it took.
    Mismatch(u64),
    /// Unreadable, or outside the bounds: no work was done.
    Unusable,
}

/// Checks `password` against `stored`; `salt` is fresh, for whatever has to be hashed anew.
pub(super) fn verify(
    policy: &Policy,
    password: &[u8],
    stored: Option<&str>,
    salt: &[u8; 16],
    memory: &mut HashMemory,
) -> Result<Verdict, Busy> {
    let check = match stored {
        None => Check::Mismatch(0),
        Some(text) if text.starts_with("$argon2") => argon2(policy, password, text, memory)?,
        Some(text) => legacy::check(password, text),
    };
    Ok(match check {
        Check::Match => {
            let current = stored.is_some_and(|text| is_current(policy, text));
            // Without memory for a new hash the old one serves on.
            Verdict::Right { rehash: if current { None } else { policy.hash(password, salt, memory).ok() } }
        }
        Check::Mismatch(spent) => {
            policy.burn_rest(spent, password, salt, memory);
            Verdict::Wrong { alarm: false }
        }
        Check::Unusable => {
            policy.burn_rest(0, password, salt, memory);
            Verdict::Wrong { alarm: true }
        }
    })
}

fn argon2(policy: &Policy, password: &[u8], text: &str, memory: &mut HashMemory) -> Result<Check, Busy> {
    let Some(stored) = Stored::parse(text) else { return Ok(Check::Unusable) };
    let secret = match &stored.key_id {
        None => None,
        Some(id) => match policy.peppers.iter().find(|pepper| pepper.id.as_bytes() == id) {
            Some(pepper) => Some(pepper.key.expose()),
            None => return Ok(Check::Unusable),
        },
    };
    let mut tag = vec![0; stored.tag.len()];
    let (algorithm, version, cost) = (stored.algorithm, stored.version, stored.cost);
    if !tag_into(&mut tag, algorithm, version, cost, secret, password, &stored.salt, memory)? {
        return Ok(Check::Unusable);
    }
    Ok(if same(&tag, &stored.tag) { Check::Match } else { Check::Mismatch(cost.work()) })
}

/// An Argon2 PHC string, taken apart, inside the bounds.
struct Stored {
    algorithm: Algorithm,
    version: Version,
    cost: Cost,
    key_id: Option<Vec<u8>>,
    salt: Vec<u8>,
    tag: Vec<u8>,
}

impl Stored {
    fn parse(text: &str) -> Option<Self> {
        let hash = PasswordHash::new(text).ok()?;
        let number = |name: &str| hash.params.get_decimal(name);
        let cost = Cost { memory_kib: number("m")?, iterations: number("t")?, parallelism: number("p")? };
        let key_id = match hash.params.get_str("keyid") {
            None => None,
            Some(id) => Some(STANDARD_NO_PAD.decode(id).ok()?),
        };
        let tag = hash.hash?.as_bytes().to_vec();
        if !cost.is_bounded() || tag.len() < 16 {
            return None;
        }
        Some(Self {
            algorithm: Algorithm::new(hash.algorithm.as_str()).ok()?,
            version: Version::try_from(hash.version.unwrap_or(0x10)).ok()?,
            cost,
            key_id,
            salt: AsRef::<[u8]>::as_ref(&hash.salt?).to_vec(),
            tag,
        })
    }
}

/// Whether a hash made today would look the same, but for salt and tag.
fn is_current(policy: &Policy, text: &str) -> bool {
    Stored::parse(text).is_some_and(|stored| {
        stored.algorithm == Algorithm::Argon2id
            && stored.version == Version::V0x13
            // Dearer ones are made anew as well: their refusals would take longer than those of other people for ever.
            && stored.cost == policy.cost
            && stored.key_id.as_deref() == policy.pepper().map(|pepper| pepper.id.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Pepper, secret::SecretBytes};

    const SALT: [u8; 16] = [7; 16];

    fn policy(memory_kib: u32, iterations: u32) -> Policy {
        Policy { cost: Cost { memory_kib, iterations, parallelism: 1 }, peppers: Vec::new() }
    }

    fn check(policy: &Policy, password: &str, stored: &str) -> Verdict {
        verify(policy, password.as_bytes(), Some(stored), &SALT, &mut HashMemory::default()).unwrap()
    }

    #[test]
    fn the_right_password_on_the_current_policy_needs_no_new_hash() {
        let policy = policy(7168, 1);
        let stored = policy.hash(b"correct horse", &SALT, &mut HashMemory::default()).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=7168,t=1,p=1$"), "{stored}");
        assert_eq!(check(&policy, "correct horse", &stored), Verdict::Right { rehash: None });
        assert_eq!(check(&policy, "correct horsf", &stored), Verdict::Wrong { alarm: false });
    }

    #[test]
    fn a_hash_of_another_cost_is_made_anew() {
        let (weak, strong) = (policy(7168, 1), policy(8192, 2));
        for (before, after) in [(&weak, &strong), (&strong, &weak)] {
            let old = before.hash(b"correct horse", &SALT, &mut HashMemory::default()).unwrap();
            let Verdict::Right { rehash: Some(new) } = check(after, "correct horse", &old) else { panic!("no rehash") };
            assert_eq!(check(after, "correct horse", &new), Verdict::Right { rehash: None });
        }
    }

    #[test]
    fn a_pepper_is_needed_named_and_rotated() {
        let pepper = |id: &str, byte| Pepper { id: id.into(), key: SecretBytes::new(vec![byte; 32]) };
        let with = |peppers| Policy { peppers, ..policy(7168, 1) };
        let (old, both) = (with(vec![pepper("a", 1)]), with(vec![pepper("b", 2), pepper("a", 1)]));
        let stored = old.hash(b"correct horse", &SALT, &mut HashMemory::default()).unwrap();
        assert_eq!(check(&old, "correct horse", &stored), Verdict::Right { rehash: None });
        let Verdict::Right { rehash: Some(new) } = check(&both, "correct horse", &stored) else { panic!("no rehash") };
        assert_eq!(check(&both, "correct horse", &new), Verdict::Right { rehash: None });
        // Without the pepper nobody can check it: that is an alarm for the operator.
        assert_eq!(check(&policy(7168, 1), "correct horse", &new), Verdict::Wrong { alarm: true });
        assert_eq!(check(&with(vec![pepper("a", 9)]), "correct horse", &stored), Verdict::Wrong { alarm: false });
    }

    #[test]
    fn parameters_outside_the_bounds_are_an_alarm_and_no_work() {
        let policy = policy(7168, 1);
        let good = policy.hash(b"correct horse", &SALT, &mut HashMemory::default()).unwrap();
        for bad in ["m=4294967295", "m=262145", "m=7167", "m=0"] {
            assert_eq!(
                check(&policy, "correct horse", &good.replace("m=7168", bad)),
                Verdict::Wrong { alarm: true },
                "{bad}"
            );
        }
        for bad in [
            good.replace("t=1", "t=11"),
            good.replace("p=1", "p=9"),
            good.replace("v=19", "v=20"),
            good[..40].to_owned(),
            "x".into(),
            String::new(),
        ] {
            assert_eq!(check(&policy, "correct horse", &bad), Verdict::Wrong { alarm: true }, "{bad}");
        }
    }

    #[test]
    fn argon2i_and_argon2d_are_taken_and_made_anew() {
        let policy = policy(7168, 1);
        for (name, algorithm) in [("argon2i", Algorithm::Argon2i), ("argon2d", Algorithm::Argon2d)] {
            let mut tag = [0; 32];
            assert!(
                tag_into(
                    &mut tag,
                    algorithm,
                    Version::V0x13,
                    policy.cost,
                    None,
                    b"correct horse",
                    &SALT,
                    &mut HashMemory::default()
                )
                .unwrap()
            );
            let stored =
                format!("${name}$v=19$m=7168,t=1,p=1${}${}", STANDARD_NO_PAD.encode(SALT), STANDARD_NO_PAD.encode(tag));
            assert!(matches!(check(&policy, "correct horse", &stored), Verdict::Right { rehash: Some(_) }), "{name}");
            assert_eq!(check(&policy, "wrong horse", &stored), Verdict::Wrong { alarm: false }, "{name}");
        }
    }

    #[test]
    fn every_refusal_does_the_work_of_one_current_hash() {
        let policy = policy(16384, 2);
        let hash = |cost: &Policy| cost.hash(b"correct horse", &SALT, &mut HashMemory::default()).unwrap();
        let weaker = Policy { cost: Cost { memory_kib: 8192, iterations: 1, parallelism: 1 }, peppers: Vec::new() };
        let (current, cheaper) = (hash(&policy), hash(&weaker));
        let foreign = bcrypt::hash("correct horse", 4).unwrap();
        let outside = current.replace("t=2", "t=11");
        for stored in [None, Some(current.as_str()), Some(&cheaper), Some(&foreign), Some("x"), Some(&outside)] {
            let mut memory = HashMemory::default();
            let verdict = verify(&policy, b"wrong horse", stored, &SALT, &mut memory).unwrap();
            assert!(matches!(verdict, Verdict::Wrong { .. }), "{stored:?}");
            assert_eq!(memory.spent(), policy.cost.work(), "{stored:?}");
        }
    }
}
