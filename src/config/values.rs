//! What the settings are, by subject.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use lettre::message::Mailbox;

use crate::{http::Quota, secret::SecretBytes};

/// Audience and lifetimes of tokens and sessions.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// `aud` of access tokens; holds the public URL unless set otherwise.
    pub audience: Vec<String>,
    /// Lifetime of an access token.
    pub access_ttl: Duration,
    /// A session that is not refreshed for so long is dead.
    pub refresh_idle_ttl: Duration,
    /// A session is dead so long after its login, whatever happens.
    pub refresh_absolute_ttl: Duration,
    /// How long the token before the current one is still answered; zero is strict.
    pub refresh_grace: Duration,
    /// Sessions a person may have; the least recently used goes.
    pub max_sessions: usize,
}

/// Who may register.
#[derive(Clone, Debug)]
pub struct Registration {
    /// `open` or `closed`.
    pub open: bool,
    /// Only addresses of these domains (A-labels, lower case); empty is every domain.
    pub domains: Vec<String>,
}

/// Password rules and hashing.
#[derive(Clone, Debug)]
pub struct PasswordSettings {
    /// Least number of code points.
    pub min_length: usize,
    /// Argon2id memory in KiB.
    pub memory_kib: u32,
    /// Argon2id passes.
    pub iterations: u32,
    /// Argon2id lanes.
    pub parallelism: u32,
    /// The first is used, all verify.
    pub peppers: Vec<Pepper>,
    /// Threads that hash.
    pub hash_threads: NonZeroUsize,
    /// Hashes that may wait.
    pub hash_queue: usize,
}

impl PasswordSettings {
    /// Whether hashes are weaker than they should be.
    #[must_use]
    pub fn is_below_floor(&self) -> bool {
        // OWASP Password Storage Cheat Sheet: these pairs are of equal strength, and the floor.
        const FLOOR: [(u32, u32); 5] = [(47104, 1), (19456, 2), (12288, 3), (9216, 4), (7168, 5)];
        !FLOOR.iter().any(|&(m, t)| self.memory_kib >= m && self.iterations >= t)
    }
}

/// An Argon2 secret with the id that is stored beside each hash made with it.
#[derive(Clone, Debug)]
pub struct Pepper {
    /// 1 to 8 bytes of ASCII, stored as `keyid`.
    pub id: String,
    /// The secret itself.
    pub key: SecretBytes,
}

/// How often a client may ask. `None` is `off`.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    /// `/register`, by client network.
    pub register: Option<Quota>,
    /// `/login`, by client network.
    pub login: Option<Quota>,
    /// `/refresh`, by client network.
    pub refresh: Option<Quota>,
    /// `/logout`, by client network.
    pub logout: Option<Quota>,
    /// Whatever asks for a code or takes one, by client network.
    pub codes: Option<Quota>,
    /// Whether attempts of passwords by account and refreshes by session are counted.
    pub account: bool,
    /// Connections of one address.
    pub connections: Option<usize>,
}

/// What mails look like.
#[derive(Clone, Debug)]
pub struct MailSettings {
    /// Their sender.
    pub from: Mailbox,
    /// Where people find help: an address or a URL.
    pub support: Option<String>,
    /// A folder whose templates replace the compiled-in ones.
    pub templates: Option<PathBuf>,
    /// The language for who asked for none.
    pub locale: String,
}

/// Whether an address must be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailVerification {
    /// Nobody is asked to; who wants to may.
    Off,
    /// Who registers gets a code, and may sign in without.
    Optional,
    /// There is no account before the address is proved.
    Required,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON in a pipe.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}
