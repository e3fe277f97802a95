//! The packed record of a session, and the rule of refresh.
//!
//! ```text
//! offset  0  version   1   = 1
//!         1  amr       1   bits: 1 pwd
//!         2  epoch     4   of the person, when the session was opened or spared
//!         6  created   6   ms since the Unix epoch; auth_time is this instant in seconds
//!        12  made      6   ms; when the current generation was made: login or last refresh
//!        18  idle      4   s after `made`
//!        22  absolute  4   s after `created`
//!        26  gen       4   the current generation of grant 0
//!        30  nonce     16  first half of SHA-256 of the nonce in the refresh token
//!        46  device    2   browser, system
//!        48  address   4 or 16
//! ```
//!
//! All numbers big-endian. At most 64 bytes ([`RECORD_LIMIT`]), because that is where Redis (`hash-max-listpack-value`)
//! turns a compact hash into one of a hundred bytes more an entry. The expiry is not a field of its own: it is the
//! lesser of `made + idle` and `created + absolute`. Today a session has exactly one grant, number 0, of the built-in
//! client `latchkey` with scope `account`, so neither is stored; a record with more grants will have another version.

use std::{net::IpAddr, time::Duration};

use crate::{db::Timestamp, secret::same};

/// The longest a record may be.
pub const RECORD_LIMIT: usize = 64;
/// Bytes kept of the nonce's digest.
pub const NONCE_HASH: usize = 16;

const VERSION: u8 = 1;
const FIXED: usize = 48;
/// A generation so far ahead is a store that lost writes; further ahead is nonsense.
const MOST_LOST_GENERATIONS: u32 = 1000;

/// One session, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// The person's epoch that the session belongs to.
    pub epoch: i64,
    /// When the person signed in.
    pub created_at: Timestamp,
    /// When the current generation was made.
    pub made_at: Timestamp,
    /// Dead so long after `made_at`, unless refreshed.
    pub idle: Duration,
    /// Dead so long after `created_at`, whatever happens.
    pub absolute: Duration,
    /// The current generation of the grant.
    pub generation: u32,
    /// First half of SHA-256 of the nonce.
    pub nonce_hash: [u8; NONCE_HASH],
    /// What the person signed in from.
    pub device: Device,
    /// Where from.
    pub address: IpAddr,
}

/// A kind of browser and a kind of system, as two codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Code of the browser or program.
    pub browser: u8,
    /// Code of the operating system.
    pub system: u8,
}

/// What a refresh token claims, and what SQL and the settings say.
#[derive(Clone, Debug)]
pub struct Rotate {
    /// The generation in the token.
    pub generation: u32,
    /// First half of SHA-256 of the nonce in the token.
    pub nonce_hash: [u8; NONCE_HASH],
    /// The person's epoch now, or `None` when SQL refused: no such person, disabled, or the session was ended.
    pub epoch: Option<i64>,
    /// The idle lifetime that a moved session gets.
    pub idle: Duration,
    /// How long the generation before the current one is still answered.
    pub grace: Duration,
    /// Refreshes of the session within a minute; zero is no limit.
    pub most_a_minute: u32,
}

/// What a refresh token gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was the current one: the session moved on.
    Moved(SessionRecord),
    /// It was the one before, a moment ago: the current one again, nothing moved.
    Repeated(SessionRecord),
    /// It is ahead of the store, which lost writes: the session moved past it.
    Healed(SessionRecord),
    /// No living session takes it.
    Unknown,
    /// It was used before: theft.
    Reused(SessionRecord),
    /// The session was refreshed too often; nothing moved. The wait.
    Limited(Duration),
}

impl SessionRecord {
    /// When it dies, unless refreshed before.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.made_at.after(self.idle).min(self.created_at.after(self.absolute))
    }

    /// Whether it lives at `now`.
    #[must_use]
    pub fn is_alive(&self, now: Timestamp) -> bool {
        now < self.expires_at()
    }

    /// The rule of refresh. `lua/rotate.lua` says the same.
    #[must_use]
    pub fn rotate(mut self, now: Timestamp, rotate: &Rotate) -> Decision {
        if !self.is_alive(now) || rotate.epoch != Some(self.epoch) || !same(&rotate.nonce_hash, &self.nonce_hash) {
            return Decision::Unknown;
        }
        let (presented, current) = (rotate.generation, self.generation);
        if presented == current || (presented > current && presented - current <= MOST_LOST_GENERATIONS) {
            let Some(next) = presented.checked_add(1) else { return Decision::Unknown };
            self.generation = next;
            self.made_at = now;
            self.idle = rotate.idle;
            if presented == current { Decision::Moved(self) } else { Decision::Healed(self) }
        } else if presented.checked_add(1) == Some(current) && now < self.made_at.after(rotate.grace) {
            Decision::Repeated(self)
        } else {
            Decision::Reused(self)
        }
    }

    /// The packed form.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_LIMIT);
        bytes.extend([VERSION, 1]);
        bytes.extend(u32::try_from(self.epoch).unwrap_or(u32::MAX).to_be_bytes());
        for instant in [self.created_at, self.made_at] {
            bytes.extend(&instant.millis().max(0).to_be_bytes()[2..]);
        }
        for lifetime in [self.idle, self.absolute] {
            bytes.extend(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
        }
        bytes.extend(self.generation.to_be_bytes());
        bytes.extend(self.nonce_hash);
        bytes.extend([self.device.browser, self.device.system]);
        match self.address.to_canonical() {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
        bytes
    }

    /// Reads the packed form; `None` for anything that [`SessionRecord::pack`] does not make.
    ///
    /// The absolute lifetime is cut to `longest`, today's setting: what SQL remembers of an ended session is kept as
    /// long as today's setting lets a session live, so no record may claim more.
    #[must_use]
    pub fn unpack(bytes: &[u8], longest: Duration) -> Option<Self> {
        let (fixed, address) = bytes.split_at_checked(FIXED)?;
        if fixed[0] != VERSION {
            return None;
        }
        let number =
            |at: usize, length: usize| fixed[at..at + length].iter().fold(0i64, |n, byte| n << 8 | i64::from(*byte));
        let seconds = |at: usize| u64::try_from(number(at, 4)).map(Duration::from_secs).ok();
        Some(Self {
            epoch: number(2, 4),
            created_at: Timestamp::from_millis(number(6, 6)),
            made_at: Timestamp::from_millis(number(12, 6)),
            idle: seconds(18)?,
            absolute: seconds(22)?.min(longest),
            generation: u32::try_from(number(26, 4)).ok()?,
            nonce_hash: fixed[30..46].try_into().ok()?,
            device: Device { browser: fixed[46], system: fixed[47] },
            address: match address.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 86400);

    fn record() -> SessionRecord {
        SessionRecord {
            epoch: 3,
            created_at: Timestamp::from_millis(1_795_344_960_123),
            made_at: Timestamp::from_millis(1_795_344_990_456),
            idle: Duration::from_secs(7 * 86400),
            absolute: Duration::from_secs(30 * 86400),
            generation: 5,
            nonce_hash: [9; NONCE_HASH],
            device: Device { browser: 1, system: 2 },
            address: "2001:db8::1".parse().unwrap(),
        }
    }

    #[test]
    fn records_come_back_as_they_went_and_stay_compact() {
        let record = record();
        let packed = record.pack();
        assert_eq!(packed.len(), RECORD_LIMIT);
        assert_eq!(SessionRecord::unpack(&packed, YEAR), Some(record.clone()));
        let mapped = SessionRecord { address: "::ffff:10.1.2.3".parse().unwrap(), ..record };
        assert_eq!(mapped.pack().len(), 52);
        assert_eq!(SessionRecord::unpack(&mapped.pack(), YEAR).unwrap().address, "10.1.2.3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_lifetime_is_cut_to_todays_setting() {
        let day = Duration::from_secs(86400);
        let cut = SessionRecord::unpack(&record().pack(), day).unwrap();
        assert_eq!(cut.expires_at(), record().created_at.after(day));
    }

    #[test]
    fn what_is_no_record_is_not_read_as_one() {
        let packed = record().pack();
        let mut newer = packed.clone();
        newer[0] = 2;
        for bytes in [&[][..], &packed[..47], &packed[..50], &newer] {
            assert_eq!(SessionRecord::unpack(bytes, YEAR), None);
        }
    }
}
