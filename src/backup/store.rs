//! All SQL of the rule for a restored database.

use futures_util::TryFutureExt;

use crate::db::{StoreResult, Timestamp, Tx, on};

/// The last instant that the database knows of.
pub(super) async fn newest_event(tx: &mut Tx) -> StoreResult<Option<Timestamp>> {
    on!(tx, |c| sqlx::query_scalar("SELECT MAX(at) FROM events").fetch_one(c))
}

/// Moves every epoch to `epoch`, or by one where it is there already, and voids every device token. Tells how many
/// people there are.
pub(super) async fn end_everything(tx: &mut Tx, epoch: i64) -> StoreResult<u64> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "UPDATE users SET epoch = CASE WHEN epoch < $1 THEN $1 ELSE epoch + 1 END, devices_since = $2"
    )
    .bind(epoch)
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected()))
}

/// Removes sessions, codes, counters and registrations that wait for a code.
pub(super) async fn empty_ephemeral(tx: &mut Tx) -> StoreResult<()> {
    on!(tx, |c| sqlx::query("DELETE FROM sessions").execute(c).map_ok(drop))?;
    on!(tx, |c| sqlx::query("DELETE FROM ephemeral").execute(c).map_ok(drop))?;
    on!(tx, |c| sqlx::query("DELETE FROM pending_registrations").execute(c).map_ok(drop))
}

/// Drops every mail that waits, and tells how many there were.
pub(super) async fn drop_mails(tx: &mut Tx) -> StoreResult<u64> {
    let now = tx.now();
    on!(tx, |c| sqlx::query(
        "UPDATE outbox SET state = 'dropped', claimed_by = NULL, finished_at = $1, data = '{}',
             last_error = 'the database was restored from a backup; it may have been sent before'
         WHERE state = 'pending'"
    )
    .bind(now)
    .execute(c)
    .map_ok(|done| done.rows_affected()))
}
