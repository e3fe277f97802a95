//! Small values that die by themselves, and the two verbs on them: `get` and `swap`.
//!
//! A change is decided in Rust and put with `swap`, which writes only while what was read still stands; who loses reads
//! again. So a rule is written once for Redis and SQL, at the price of a second round trip, which flows of codes can
//! pay: they are rare beside refreshes, whose rule has a script of its own. What many must count at once in one trip
//! (attempts of passwords) is no matter for this pair.
//!
//! A key names its slot (for a Redis Cluster), its kind and its id; the kind comes from the type, so a key can only fetch
//! what was put under it as that type. The stored bytes begin with the expiry: from then on the value does not exist for
//! any verb, and the TTL of Redis is only the broom.

use std::marker::PhantomData;

use crate::db::Timestamp;

/// Something that can be kept until it expires.
pub trait Value: Sized {
    /// The word in its keys.
    const KIND: &'static str;

    /// From when on it does not exist.
    fn expires_at(&self) -> Timestamp;

    /// Its bytes; equal values have equal bytes.
    fn pack(&self) -> Vec<u8>;

    /// The value of these bytes, or `None` when they are of an unknown layout.
    fn unpack(bytes: &[u8], expires_at: Timestamp) -> Option<Self>;
}

/// Where a `V` is kept.
#[derive(Debug)]
pub struct Key<V> {
    slot: String,
    id: String,
    kind: PhantomData<fn() -> V>,
}

impl<V: Value> Key<V> {
    /// The value of this id; those of one slot live on one node of a cluster.
    #[must_use]
    pub fn new(slot: &[u8], id: &[u8]) -> Self {
        Self { slot: hex(slot), id: hex(id), kind: PhantomData }
    }

    pub(super) fn redis(&self, prefix: &str) -> String {
        format!("{prefix}:{{{}}}:{}:{}", self.slot, V::KIND, self.id)
    }

    pub(super) fn sql(&self) -> String {
        format!("{}:{}:{}", self.slot, V::KIND, self.id)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of the expiry before a value.
const EXPIRY: usize = 6;

/// Expiry and value as they are stored.
pub(super) fn seal<V: Value>(value: &V) -> Vec<u8> {
    let mut bytes = value.expires_at().millis().to_be_bytes()[8 - EXPIRY..].to_vec();
    bytes.extend(value.pack());
    bytes
}

/// The stored value: `None` for a layout that nobody here knows, `Some(None)` when it is dead.
#[expect(clippy::option_option, reason = "unknown and dead are two things")]
pub(super) fn open<V: Value>(bytes: &[u8], now: Timestamp) -> Option<Option<V>> {
    let (expiry, rest) = bytes.split_at_checked(EXPIRY)?;
    let mut millis = [0; 8];
    millis[8 - EXPIRY..].copy_from_slice(expiry);
    let expires_at = Timestamp::from_millis(i64::from_be_bytes(millis));
    if expires_at <= now {
        return Some(None);
    }
    V::unpack(rest, expires_at).map(Some)
}
