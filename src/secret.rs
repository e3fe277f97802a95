//! Things that must not be printed, and the server secret from which the small keys are derived.
//!
//! The server secret is one random value of 32 bytes or more. Nothing uses it as it is: each use has a key of its own,
//! HKDF-SHA-256 (RFC 5869) with the use's name as `info`, so that a key that leaks from one use opens no other.
//! Several secrets may be configured (`new,old`): the first makes, all verify, and the key id says which to ask first.

use std::fmt;

use aws_lc_rs::{constant_time, hkdf, hmac};
use zeroize::Zeroizing;

/// Text that prints as `[secret]` and is wiped when dropped: passwords, URLs with passwords in them.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes `text` in.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. The name is long on purpose: it should catch the eye in a review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Bytes that print as `[secret]` and are wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes `bytes` in.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Whether `a` and `b` are the same, in time that depends on their length alone.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// What a tagged text is good for; each has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Refresh tokens.
    Refresh,
    /// Device tokens.
    Device,
}

/// The configured server secrets with the keys derived from them.
#[derive(Clone)]
pub struct ServerSecrets {
    /// Never empty; the first one makes.
    rings: Vec<Derived>,
}

#[derive(Clone)]
struct Derived {
    key_id: u8,
    refresh: hmac::Key,
    device: hmac::Key,
    code: hmac::Key,
    code_draw: hmac::Key,
    flow_tag: hmac::Key,
    throttle: hmac::Key,
    check: [u8; 16],
}

impl fmt::Debug for ServerSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} secret(s)]", self.rings.len())
    }
}

impl ServerSecrets {
    /// Derives the keys of every use.
    ///
    /// # Panics
    /// When `secrets` is empty: settings refuse that long before.
    #[must_use]
    pub fn new(secrets: &[SecretBytes]) -> Self {
        assert!(!secrets.is_empty(), "settings give at least one secret");
        Self { rings: secrets.iter().map(Derived::from_secret).collect() }
    }

    /// Tags the message that is made for the first secret's key id with a full HMAC-SHA-256.
    #[must_use]
    pub fn tag(&self, usage: Usage, message: impl Fn(u8) -> Vec<u8>) -> (Vec<u8>, [u8; 32]) {
        let ring = &self.rings[0];
        let message = message(ring.key_id);
        let tag = sign(ring.key(usage), &message);
        (message, tag)
    }

    /// Whether some secret of this key id made the (truncated) `tag` over `message`.
    ///
    /// Two secrets may share a key id (one chance in 256), so all of that id are tried.
    #[must_use]
    pub fn verifies(&self, usage: Usage, key_id: u8, message: &[u8], tag: &[u8]) -> bool {
        self.rings.iter().filter(|ring| ring.key_id == key_id).any(|ring| {
            let expected = sign(ring.key(usage), message);
            expected.get(..tag.len()).is_some_and(|expected| same(expected, tag))
        })
    }

    /// What a code is stored as: its HMAC by every secret, the one that makes first.
    pub fn code_macs<'a>(&'a self, message: &'a [u8]) -> impl Iterator<Item = [u8; 32]> + 'a {
        self.rings.iter().map(|ring| sign(&ring.code, message))
    }

    /// 32 bytes that only a holder of the secret can make out of `seed`, by every secret, the one that makes first.
    pub fn code_draws<'a>(&'a self, seed: &'a [u8]) -> impl Iterator<Item = [u8; 32]> + 'a {
        self.rings.iter().map(|ring| sign(&ring.code_draw, seed))
    }

    /// The tag that puts everything about an address into one slot.
    #[must_use]
    pub fn flow_tag(&self, address: &str) -> [u8; 4] {
        first(&sign(&self.rings[0].flow_tag, address.as_bytes()))
    }

    /// As [`ServerSecrets::throttle`], by every secret, the one that makes first.
    pub fn throttles<'a, const N: usize>(&'a self, what: &'a [u8]) -> impl Iterator<Item = [u8; N]> + 'a {
        self.rings.iter().map(|ring| first(&sign(&ring.throttle, what)))
    }

    /// The name under which something is counted; nobody can tell what it was.
    #[must_use]
    pub fn throttle<const N: usize>(&self, what: &[u8]) -> [u8; N] {
        first(&sign(&self.rings[0].throttle, what))
    }

    /// One public check value a secret: it tells whether two nodes share a secret and nothing else about it.
    pub fn checks(&self) -> impl Iterator<Item = [u8; 16]> + '_ {
        self.rings.iter().map(|ring| ring.check)
    }
}

impl Derived {
    fn key(&self, usage: Usage) -> &hmac::Key {
        match usage {
            Usage::Refresh => &self.refresh,
            Usage::Device => &self.device,
        }
    }

    fn from_secret(secret: &SecretBytes) -> Self {
        // A fixed salt is what RFC 5869 §3.1 asks for when there is no per-use one: the secret is uniform already.
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"latchkey").extract(secret.expose());
        Self {
            key_id: expand::<1>(&root, b"key-id")[0],
            refresh: hmac::Key::new(hmac::HMAC_SHA256, &expand::<32>(&root, b"refresh")),
            device: hmac::Key::new(hmac::HMAC_SHA256, &expand::<32>(&root, b"device")),
            code: hmac::Key::new(hmac::HMAC_SHA256, &expand::<32>(&root, b"code")),
            code_draw: hmac::Key::new(hmac::HMAC_SHA256, &expand::<32>(&root, b"code-draw")),
            flow_tag: hmac::Key::new(hmac::HMAC_SHA256, &expand::<32>(&root, b"flow-tag")),
            throttle: hmac::Key::new(hmac::HMAC_SHA256, &expand::<32>(&root, b"throttle")),
            check: expand(&root, b"check"),
        }
    }
}

fn sign(key: &hmac::Key, message: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    tag.copy_from_slice(hmac::sign(key, message).as_ref());
    tag
}

/// The first `N` (at most 32) of these bytes.
fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    let mut cut = [0; N];
    cut.copy_from_slice(&bytes[..N]);
    cut
}

fn expand<const N: usize>(root: &hkdf::Prk, info: &[u8]) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut key = [0; N];
    let info = [info];
    root.expand(&info, Length(N)).and_then(|okm| okm.fill(&mut key)).expect("HKDF gives up to 8160 bytes");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_print_nothing() {
        let text = SecretText::new("hunter22-hunter22");
        let bytes = SecretBytes::new(b"hunter22-hunter22".to_vec());
        let secrets = ServerSecrets::new(&[SecretBytes::new(vec![7; 32])]);
        let printed = format!("{text:?} {bytes:?} {secrets:?}");
        assert_eq!(printed, "[secret] [secret] [1 secret(s)]");
    }

    #[test]
    fn each_use_has_a_key_of_its_own() {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"latchkey").extract(&[7; 32]);
        assert_ne!(expand::<32>(&root, b"refresh"), expand::<32>(&root, b"check"));
    }

    #[test]
    fn an_old_secret_still_verifies_and_a_foreign_one_does_not() {
        let (old, new) = (SecretBytes::new(vec![1; 32]), SecretBytes::new(vec![2; 32]));
        let before = ServerSecrets::new(std::slice::from_ref(&old));
        let (message, tag) = before.tag(Usage::Refresh, |id| vec![id, 42]);

        let during = ServerSecrets::new(&[new.clone(), old]);
        assert!(during.verifies(Usage::Refresh, message[0], &message, &tag[..16]));
        let after = ServerSecrets::new(&[new]);
        assert!(!after.verifies(Usage::Refresh, message[0], &message, &tag[..16]));
    }
}
