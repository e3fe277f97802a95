//! Access tokens whose signature was found right, so that it is not checked again with every request.
//!
//! The key is the SHA-256 of the whole text: a signature has a second valid form (RFC 8725 leaves it to the caller), which
//! is another text and is checked for itself. What may change while a token lives is judged each time: its own times, and
//! the key's `verify_until`. The rest of what it claims was judged once, against settings that stand as long as the
//! process. A new ring comes with an empty memory (`ring.rs`), so a key that was retired takes its tokens with it.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use aws_lc_rs::digest;
use uuid::Uuid;

use super::{AccessClaims, TokenFault, token};
use crate::{db::Timestamp, generations::Generations};

/// Tokens that are remembered, of about a hundred bytes each.
const MOST: usize = 32 * 1024;

/// What an access token says that was found authentic and good for Latchkey's own endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// The person (`sub`).
    pub person: Uuid,
    /// The session (`sid`).
    pub session: Uuid,
    issued_at: i64,
    not_before: Option<i64>,
    expires_at: i64,
    key_until: Option<Timestamp>,
}

impl VerifiedToken {
    pub(super) fn new(claims: &AccessClaims, key_until: Option<Timestamp>) -> Self {
        Self {
            person: claims.sub,
            session: claims.sid,
            issued_at: claims.iat,
            not_before: claims.nbf,
            expires_at: claims.exp,
            key_until,
        }
    }

    /// Whether it may be used at `now`.
    pub(super) fn judge(&self, now: Timestamp) -> Result<(), TokenFault> {
        if self.key_until.is_some_and(|until| until <= now) {
            return Err(TokenFault::RetiredKey);
        }
        token::judge_times(self.expires_at, self.issued_at, self.not_before, now)
    }
}

/// The memory.
#[derive(Debug)]
pub(super) struct Verified(Generations<Fingerprint, VerifiedToken, BuildHasherDefault<FirstBytes>>);

impl Default for Verified {
    fn default() -> Self {
        Self(Generations::new(MOST))
    }
}

impl Verified {
    pub(super) fn get(&self, fingerprint: &Fingerprint) -> Option<VerifiedToken> {
        self.0.get(fingerprint)
    }

    pub(super) fn remember(&self, fingerprint: Fingerprint, token: VerifiedToken) {
        self.0.insert(fingerprint, token);
    }

    /// Forgets what was not used since the last time.
    pub(super) fn turn(&self) {
        self.0.turn();
    }
}

/// SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// A digest is as good a hash as any: only what we signed gets in, so nobody can choose where it lies.
#[derive(Clone, Copy, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    }
}
