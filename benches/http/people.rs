//! People and sessions that the bench knows by number.

use std::{net::Ipv4Addr, time::Duration};

use latchkey::{
    db::Timestamp,
    ephemeral::{Device, SessionRecord},
    sessions::RefreshToken,
};
use uuid::Uuid;

pub const PASSWORD: &str = "correct horse battery";
/// The nonce of every session.
pub const NONCE: [u8; 16] = [3; 16];

/// A UUIDv7 as people who come one after the other would have them: ordered by time, random behind it.
fn id(kind: u64, n: u64) -> Uuid {
    // SplitMix64: as good as random, and the same every time.
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let mut random = [0; 10];
    random[..8].copy_from_slice(&mix(4 * n + kind).to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(1_790_000_000_000 + n / 8, &random).into_uuid()
}

pub fn person(n: u64) -> Uuid {
    id(1, n)
}

pub fn session(n: u64) -> Uuid {
    id(2, n)
}

pub fn address(n: u64) -> String {
    format!("p{n}@bench.example")
}

/// The key of a person's sessions in Redis.
pub fn key(prefix: &str, n: u64) -> String {
    format!("{prefix}:{{{}}}:s", person(n))
}

/// The first refresh token of the session `n`.
pub fn token(n: u64, nonce: [u8; 16]) -> RefreshToken {
    RefreshToken { person: person(n), session: session(n), grant: 0, generation: 0, nonce }
}

/// A session that was opened now.
pub fn record(now: Timestamp) -> SessionRecord {
    SessionRecord {
        epoch: 0,
        created_at: now,
        made_at: now,
        idle: Duration::from_secs(7 * 86400),
        absolute: Duration::from_secs(30 * 86400),
        generation: 0,
        nonce_hash: token(0, NONCE).nonce_hash(),
        device: Device::default(),
        address: Ipv4Addr::LOCALHOST.into(),
    }
}
