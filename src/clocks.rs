//! Comparing clocks at start: this node's, the database's, Redis's.
//!
//! Instants are made by nodes and judged by nodes, the stores never look at their own clock; but nodes that disagree
//! judge each other's sessions and tokens wrongly. Two nodes cannot ask each other, so each compares itself with the
//! stores they share. Over a second is worth a warning, over thirty a node does not start.

use std::time::Duration;

use crate::{
    ambient::Ambient,
    db::{Db, StoreError, Timestamp},
    ephemeral::{Ephemeral, EphemeralError},
};

/// From here on an operator should know.
const NOTABLE: Duration = Duration::from_secs(1);
/// From here on tokens and sessions are judged wrongly.
const HARMFUL: Duration = Duration::from_secs(30);

/// How far a store's clock is from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// Near enough.
    None,
    /// Worth a warning; the difference in whole milliseconds.
    Notable(u64),
    /// Too far.
    Harmful(u64),
}

/// A clock could not be compared, or is too far off.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// Too far off.
    #[error("the clocks of this machine and of {0} are {1} ms apart: set them by NTP, then start again")]
    Apart(&'static str, u64),
    /// The database did not say.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis did not say.
    #[error("Redis does not answer; is it running, and are address, user and password right?")]
    Ephemeral(#[from] EphemeralError),
}

/// Judges what a store said between two looks at our own clock.
#[must_use]
pub fn judge(before: Timestamp, theirs: Timestamp, after: Timestamp) -> Skew {
    // They looked at some moment between ours; only what the journey cannot explain is a difference.
    let apart = (before.millis() - theirs.millis()).max(theirs.millis() - after.millis()).max(0).unsigned_abs();
    match Duration::from_millis(apart) {
        skew if skew > HARMFUL => Skew::Harmful(apart),
        skew if skew > NOTABLE => Skew::Notable(apart),
        _ => Skew::None,
    }
}

/// Compares the clocks; warns, or refuses.
///
/// # Errors
/// [`ClockError`].
pub async fn compare(ambient: &Ambient, db: &Db, ephemeral: &Ephemeral) -> Result<(), ClockError> {
    compare_with_database(ambient, db).await?;
    let before = ambient.now();
    if let Some(theirs) = ephemeral.clock().await? {
        note("Redis", judge(before, theirs, ambient.now()))?;
    }
    Ok(())
}

/// Compares our clock with that of the database; warns, or refuses.
///
/// # Errors
/// [`ClockError`].
pub async fn compare_with_database(ambient: &Ambient, db: &Db) -> Result<(), ClockError> {
    let before = ambient.now();
    if let Some(theirs) = db.clock().await? {
        note("the database", judge(before, theirs, ambient.now()))?;
    }
    Ok(())
}

fn note(whose: &'static str, skew: Skew) -> Result<(), ClockError> {
    match skew {
        Skew::None => Ok(()),
        Skew::Notable(millis) => {
            tracing::warn!(millis, "the clocks of this machine and of {whose} differ; set them by NTP");
            Ok(())
        }
        Skew::Harmful(millis) => Err(ClockError::Apart(whose, millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_journey_cannot_explain_is_a_difference() {
        let at = Timestamp::from_millis;
        for (before, theirs, after, skew) in [
            (10_000, 10_000, 10_000, Skew::None),
            (10_000, 40_000, 50_000, Skew::None),
            (10_000, 9_000, 10_000, Skew::None),
            (10_000, 8_999, 10_000, Skew::Notable(1001)),
            (10_000, 11_002, 10_001, Skew::Notable(1001)),
            (100_000, 70_000, 100_000, Skew::Notable(30_000)),
            (100_000, 69_999, 100_000, Skew::Harmful(30_001)),
            (100_000, 190_000, 100_000, Skew::Harmful(90_000)),
        ] {
            assert_eq!(judge(at(before), at(theirs), at(after)), skew, "{before} {theirs} {after}");
        }
    }
}
