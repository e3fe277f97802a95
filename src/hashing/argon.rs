//! Argon2 (RFC 9106) by the policy of the settings, and at any cost that a stored hash asks for within the bounds.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::{Busy, memory::HashMemory};
use crate::config::{PasswordSettings, Pepper};

/// Bytes of a tag that we make.
pub(super) const TAG: usize = 32;

/// What an Argon2 hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
}

impl Cost {
    /// 7 MiB ≤ m ≤ 256 MiB, t ≤ 10, p ≤ 8: outside, a stored hash is a failed login and not a stall.
    pub fn is_bounded(self) -> bool {
        (7 * 1024..=256 * 1024).contains(&self.memory_kib)
            && (1..=10).contains(&self.iterations)
            && (1..=8).contains(&self.parallelism)
    }

    /// Work in KiB written, which is what the time follows.
    pub fn work(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.iterations)
    }
}

/// How new hashes are made.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) cost: Cost,
    /// The first is used, all verify.
    pub(super) peppers: Vec<Pepper>,
}

impl Policy {
    /// The policy of the settings.
    #[must_use]
    pub fn new(settings: &PasswordSettings) -> Self {
        Self {
            cost: Cost {
                memory_kib: settings.memory_kib,
                iterations: settings.iterations,
                parallelism: settings.parallelism,
            },
            peppers: settings.peppers.clone(),
        }
    }

    /// Argon2 blocks (KiB) that one hash of this policy needs.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.cost.memory_kib as usize
    }

    /// The pepper of new hashes.
    pub(super) fn pepper(&self) -> Option<&Pepper> {
        self.peppers.first()
    }

    /// A new PHC string: `$argon2id$v=19$m=…,t=…,p=…[,keyid=…]$salt$tag`; [`Busy`] when the OS has no memory for it.
    pub(super) fn hash(&self, password: &[u8], salt: &[u8; 16], memory: &mut HashMemory) -> Result<String, Busy> {
        let mut tag = [0; TAG];
        let pepper = self.pepper();
        let secret = pepper.map(|pepper| pepper.key.expose());
        if !tag_into(&mut tag, Algorithm::Argon2id, Version::V0x13, self.cost, secret, password, salt, memory)? {
            return Err(Busy);
        }
        let Cost { memory_kib, iterations, parallelism } = self.cost;
        let key_id = pepper.map(|pepper| format!(",keyid={}", STANDARD_NO_PAD.encode(&pepper.id))).unwrap_or_default();
        Ok(format!(
            "$argon2id$v=19$m={memory_kib},t={iterations},p={parallelism}{key_id}${}${}",
            STANDARD_NO_PAD.encode(salt),
            STANDARD_NO_PAD.encode(tag)
        ))
    }

    /// Spends what is missing from `spent` to one hash of this policy, so that a refusal takes the time of any other.
    pub(super) fn burn_rest(&self, spent: u64, password: &[u8], salt: &[u8; 16], memory: &mut HashMemory) {
        let missing = self.cost.work().saturating_sub(spent);
        let iterations = self.cost.iterations;
        let least = 8 * self.cost.parallelism;
        let Ok(memory_kib) = u32::try_from(missing / u64::from(iterations)) else { return };
        if memory_kib < least {
            return;
        }
        let mut tag = [0; TAG];
        let cost = Cost { memory_kib, ..self.cost };
        let spent = tag_into(&mut tag, Algorithm::Argon2id, Version::V0x13, cost, None, password, salt, memory);
        let _ = std::hint::black_box((spent, tag));
    }
}

/// Computes a tag of `tag.len()` bytes. `false` when the parameters are none; [`Busy`] when the OS has no memory.
#[expect(clippy::too_many_arguments, reason = "the inputs of RFC 9106 §3.1, each once")]
pub(super) fn tag_into(
    tag: &mut [u8],
    algorithm: Algorithm,
    version: Version,
    cost: Cost,
    secret: Option<&[u8]>,
    password: &[u8],
    salt: &[u8],
    memory: &mut HashMemory,
) -> Result<bool, Busy> {
    let Ok(params) = Params::new(cost.memory_kib, cost.iterations, cost.parallelism, Some(tag.len())) else {
        return Ok(false);
    };
    let Some(blocks) = memory.blocks(params.block_count()) else {
        tracing::error!("no memory for a password hash");
        return Err(Busy);
    };
    let argon = match secret {
        Some(secret) => Argon2::new_with_secret(secret, algorithm, version, params),
        None => Ok(Argon2::new(algorithm, version, params)),
    };
    let done = argon.is_ok_and(|argon| argon.hash_password_into_with_memory(password, salt, tag, blocks).is_ok());
    if done {
        memory.spend(cost.work());
    }
    Ok(done)
}
