//! Types that cross into SQL.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// How far the clocks of nodes may be apart without anybody taking the other's instants for nonsense.
pub const APART: Duration = Duration::from_secs(5 * 60);

/// An instant: whole milliseconds since the Unix epoch, in SQL an integer, in JSON an RFC 3339 UTC string.
///
/// A newtype, since sqlx would write the time crates' own types to SQLite as text that no index can compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch (a JWT's NumericDate, RFC 7519 §2).
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The instant `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The instant `duration` earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Whether a clock that was set wrote this down, as something that is to be at most `ahead` from then on. Such an
    /// instant would hold things up for as long as that clock was wrong, so nobody waits for it.
    #[must_use]
    pub fn is_stray(self, now: Self, ahead: Duration) -> bool {
        self > now.after(ahead).after(APART)
    }

    /// As people read it, to the minute: `2026-11-22 10:56 UTC`.
    #[must_use]
    pub fn to_minute(self) -> String {
        let text = self.to_string();
        text.get(..16).map_or_else(|| text.clone(), |minute| format!("{} UTC", minute.replace('T', " ")))
    }

    /// Whole seconds from `earlier` to here, at least zero.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0) / 1000).unwrap_or(0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_rfc_3339_with_milliseconds() {
        let instant = Timestamp::from_millis(1_795_344_960_123);
        assert_eq!(serde_json::to_string(&instant).unwrap(), "\"2026-11-22T10:56:00.123Z\"");
        let whole = Timestamp::from_millis(1_795_344_960_000);
        assert_eq!(whole.to_string(), "2026-11-22T10:56:00.000Z");
    }
}
