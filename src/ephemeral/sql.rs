//! Sessions and other ephemeral values in the database, for when there is no Redis. The bytes are those Redis would hold.

use std::{sync::Arc, time::Duration};

use futures_util::TryFutureExt;
use uuid::Uuid;

use super::{
    Attempts, Decision, EphemeralError, EphemeralResult, Key, Rotate, SessionRecord, Trips, Value, attempts::Refreshes,
    value,
};
use crate::db::{Conn, Db, StoreResult, Timestamp, Tx, on};

/// The ephemeral store in the database.
#[derive(Clone, Debug)]
pub struct SqlStore {
    db: Db,
    /// No session lives longer than this, whatever its record says.
    longest: Duration,
    trips: Arc<Trips>,
}

impl SqlStore {
    /// A store in the tables of `db`. No session lives longer than `longest`.
    #[must_use]
    pub fn new(db: Db, longest: Duration) -> Self {
        Self { db, longest, trips: Arc::default() }
    }

    pub(super) fn trips(&self) -> &Trips {
        &self.trips
    }

    pub(super) async fn open(
        &self,
        now: Timestamp,
        user: Uuid,
        session: Uuid,
        record: &SessionRecord,
        cap: usize,
        attempts: &[Key<Attempts>],
    ) -> EphemeralResult<()> {
        let mut tx = self.db.begin(now).await?;
        for bucket in attempts {
            forget(&mut tx, &bucket.sql()).await?;
        }
        one_at_a_time(&mut tx, half(user.as_bytes())).await?;
        // The person's rows are few, so what is over the cap is found here rather than in SQL that only one of the two
        // databases would take.
        let mut live: Vec<(Timestamp, Uuid)> = all(&mut tx, user)
            .await?
            .into_iter()
            .filter_map(|(id, bytes)| Some((id, SessionRecord::unpack(&bytes, self.longest)?)))
            .filter(|(id, record)| *id != session && record.is_alive(now))
            .map(|(id, record)| (record.made_at, id))
            .collect();
        live.sort_unstable();
        let over = (live.len() + 1).saturating_sub(cap);
        for (_, id) in &live[..over] {
            delete(&mut tx, user, *id).await?;
        }
        put(&mut tx, user, session, record).await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn rotate(
        &self,
        now: Timestamp,
        user: Uuid,
        session: Uuid,
        rotate: &Rotate,
    ) -> EphemeralResult<Decision> {
        // On PostgreSQL somebody else may move the record between our read and our write; then the write finds nothing
        // and we look again. One who lost once reads the winner's record and has nothing left to write.
        loop {
            let mut tx = self.db.begin(now).await?;
            if rotate.most_a_minute > 0 {
                // Two that count must not both count for the one that wins.
                one_at_a_time(&mut tx, half(session.as_bytes())).await?;
            }
            let Some(bytes) = one(&mut tx, user, session).await? else { return finish(tx, Decision::Unknown).await };
            let before = SessionRecord::unpack(&bytes, self.longest).ok_or(EphemeralError::Layout)?;
            let decision = before.rotate(now, rotate);
            if let Decision::Moved(_) | Decision::Healed(_) | Decision::Repeated(_) = &decision
                && let Err(wait) = count_refresh(&mut tx, user, session, rotate.most_a_minute).await?
            {
                return finish(tx, Decision::Limited(wait)).await;
            }
            if let Decision::Moved(after) | Decision::Healed(after) = &decision
                && !replace(&mut tx, user, session, &bytes, after).await?
            {
                tx.commit().await?;
                continue;
            }
            return finish(tx, decision).await;
        }
    }

    pub(super) async fn find(
        &self,
        now: Timestamp,
        user: Uuid,
        session: Uuid,
    ) -> EphemeralResult<Option<SessionRecord>> {
        let mut conn = self.db.read().await?;
        let Some(bytes) = one(&mut conn, user, session).await? else { return Ok(None) };
        let record = SessionRecord::unpack(&bytes, self.longest).ok_or(EphemeralError::Layout)?;
        Ok(record.is_alive(now).then_some(record))
    }

    pub(super) async fn list(&self, now: Timestamp, user: Uuid) -> EphemeralResult<Vec<(Uuid, SessionRecord)>> {
        let mut conn = self.db.read().await?;
        let sessions = all(&mut conn, user).await?.into_iter().filter_map(|(id, bytes)| {
            Some((id, SessionRecord::unpack(&bytes, self.longest).filter(|record| record.is_alive(now))?))
        });
        Ok(sessions.collect())
    }

    pub(super) async fn close(&self, user: Uuid, session: Uuid) -> EphemeralResult<()> {
        let mut tx = self.db.begin(Timestamp::from_millis(0)).await?;
        delete(&mut tx, user, session).await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn close_others(
        &self,
        now: Timestamp,
        user: Uuid,
        keep: Option<(Uuid, i64)>,
    ) -> EphemeralResult<()> {
        let mut tx = self.db.begin(now).await?;
        one_at_a_time(&mut tx, half(user.as_bytes())).await?;
        let kept = match keep {
            None => None,
            Some((session, epoch)) => one(&mut tx, user, session)
                .await?
                .and_then(|bytes| SessionRecord::unpack(&bytes, self.longest))
                .filter(|record| record.is_alive(now))
                // Of two acts the later one may come first.
                .map(|record| (session, SessionRecord { epoch: epoch.max(record.epoch), ..record })),
        };
        delete_all(&mut tx, user).await?;
        if let Some((session, record)) = kept {
            put(&mut tx, user, session, &record).await?;
        }
        Ok(tx.commit().await?)
    }

    pub(super) async fn get<V: Value>(&self, key: &Key<V>) -> EphemeralResult<Option<Vec<u8>>> {
        let mut conn = self.db.read().await?;
        Ok(on!(&mut conn, |c| sqlx::query_scalar("SELECT value FROM ephemeral WHERE key = $1")
            .bind(key.sql())
            .fetch_optional(c))?)
    }

    pub(super) async fn swap<V: Value>(
        &self,
        now: Timestamp,
        key: &Key<V>,
        before: Option<&[u8]>,
        after: &[u8],
        expires_at: Timestamp,
    ) -> EphemeralResult<bool> {
        let mut tx = self.db.begin(now).await?;
        let changed = match before {
            Some(before) => on!(&mut tx, |c| sqlx::query(
                "UPDATE ephemeral SET value = $3, expires_at = $4 WHERE key = $1 AND value = $2 AND expires_at > $5"
            )
            .bind(key.sql())
            .bind(before)
            .bind(after)
            .bind(expires_at)
            .bind(now)
            .execute(c)
            .map_ok(|done| done.rows_affected()))?,
            None => on!(&mut tx, |c| sqlx::query(
                "INSERT INTO ephemeral (key, value, expires_at) VALUES ($1, $2, $3)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
                 WHERE ephemeral.expires_at <= $4"
            )
            .bind(key.sql())
            .bind(after)
            .bind(expires_at)
            .bind(now)
            .execute(c)
            .map_ok(|done| done.rows_affected()))?,
        };
        tx.commit().await?;
        Ok(changed == 1)
    }

    pub(super) async fn reserve(
        &self,
        now: Timestamp,
        bucket: &Key<Attempts>,
        lock: Option<u32>,
    ) -> EphemeralResult<Result<(), Duration>> {
        let mut tx = self.db.begin(now).await?;
        let key = bucket.sql();
        one_at_a_time(&mut tx, half(key.as_bytes())).await?;
        let outcome = match Attempts::reserve(value(&mut tx, &key, now).await?, now, lock) {
            Ok(after) => {
                keep(&mut tx, &key, &after).await?;
                Ok(())
            }
            Err(wait) => Err(wait),
        };
        tx.commit().await?;
        Ok(outcome)
    }

    pub(super) async fn clear(&self, buckets: &[Key<Attempts>]) -> EphemeralResult<()> {
        let mut tx = self.db.begin(Timestamp::from_millis(0)).await?;
        for bucket in buckets {
            forget(&mut tx, &bucket.sql()).await?;
        }
        Ok(tx.commit().await?)
    }

    pub(super) async fn ping(&self) -> EphemeralResult<()> {
        Ok(self.db.ping().await?)
    }

    pub(super) async fn sweep(&self, now: Timestamp) -> EphemeralResult<u64> {
        let mut tx = self.db.begin(now).await?;
        let swept = on!(&mut tx, |c| sqlx::query(
            "DELETE FROM sessions WHERE (user_id, session_id) IN
                 (SELECT user_id, session_id FROM sessions WHERE expires_at <= $1 LIMIT 1000)"
        )
        .bind(now)
        .execute(c)
        .map_ok(|done| done.rows_affected()))?;
        let values = on!(&mut tx, |c| sqlx::query(
            "DELETE FROM ephemeral WHERE expires_at <= $1
                 AND key IN (SELECT key FROM ephemeral WHERE expires_at <= $1 LIMIT 1000)"
        )
        .bind(now)
        .execute(c)
        .map_ok(|done| done.rows_affected()))?;
        tx.commit().await?;
        // The larger count decides whether there is more to sweep.
        Ok(swept.max(values))
    }
}

async fn finish(tx: Tx, decision: Decision) -> EphemeralResult<Decision> {
    tx.commit().await?;
    Ok(decision)
}

/// Lets one transaction at a time count and rearrange what belongs together. SQLite has one writer anyhow; PostgreSQL
/// would let two logins count to the same number.
async fn one_at_a_time(tx: &mut Tx, key: i64) -> StoreResult<()> {
    if tx.is_embedded() {
        return Ok(());
    }
    on!(tx, |c| sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).execute(c).map_ok(drop))
}

/// The last half of a random id (or of what is as good as one) as the key of a lock.
fn half(bytes: &[u8]) -> i64 {
    bytes.last_chunk().map_or(0, |half| i64::from_be_bytes(*half))
}

/// Counts one refresh of a session, or tells the wait.
async fn count_refresh(tx: &mut Tx, user: Uuid, session: Uuid, most: u32) -> EphemeralResult<Result<(), Duration>> {
    if most == 0 {
        return Ok(Ok(()));
    }
    let key = Key::<Refreshes>::new(user.as_bytes(), session.as_bytes()).sql();
    let now = tx.now();
    match Refreshes::count(value(tx, &key, now).await?, now, most) {
        Ok(after) => {
            keep(tx, &key, &after).await?;
            Ok(Ok(()))
        }
        Err(wait) => Ok(Err(wait)),
    }
}

/// The living value under this key.
async fn value<V: Value>(conn: &mut Conn, key: &str, now: Timestamp) -> EphemeralResult<Option<V>> {
    let bytes: Option<Vec<u8>> =
        on!(conn, |c| sqlx::query_scalar("SELECT value FROM ephemeral WHERE key = $1").bind(key).fetch_optional(c))?;
    let Some(bytes) = bytes else { return Ok(None) };
    value::open(&bytes, now).ok_or(EphemeralError::Layout)
}

/// Puts this value under this key, whatever was there.
async fn keep<V: Value>(conn: &mut Conn, key: &str, value: &V) -> StoreResult<()> {
    on!(conn, |c| sqlx::query(
        "INSERT INTO ephemeral (key, value, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at"
    )
    .bind(key)
    .bind(value::seal(value))
    .bind(value.expires_at())
    .execute(c)
    .map_ok(drop))
}

async fn forget(conn: &mut Conn, key: &str) -> StoreResult<()> {
    on!(conn, |c| sqlx::query("DELETE FROM ephemeral WHERE key = $1").bind(key).execute(c).map_ok(drop))
}

async fn one(conn: &mut Conn, user: Uuid, session: Uuid) -> StoreResult<Option<Vec<u8>>> {
    on!(conn, |c| sqlx::query_scalar("SELECT record FROM sessions WHERE user_id = $1 AND session_id = $2")
        .bind(user)
        .bind(session)
        .fetch_optional(c))
}

async fn all(conn: &mut Conn, user: Uuid) -> StoreResult<Vec<(Uuid, Vec<u8>)>> {
    on!(conn, |c| sqlx::query_as("SELECT session_id, record FROM sessions WHERE user_id = $1").bind(user).fetch_all(c))
}

async fn put(conn: &mut Conn, user: Uuid, session: Uuid, record: &SessionRecord) -> StoreResult<()> {
    on!(conn, |c| sqlx::query(
        "INSERT INTO sessions (user_id, session_id, record, expires_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (user_id, session_id) DO UPDATE SET record = excluded.record, expires_at = excluded.expires_at"
    )
    .bind(user)
    .bind(session)
    .bind(record.pack())
    .bind(record.expires_at())
    .execute(c)
    .map_ok(drop))
}

/// Writes `after` where `before` still stands.
async fn replace(
    conn: &mut Conn,
    user: Uuid,
    session: Uuid,
    before: &[u8],
    after: &SessionRecord,
) -> StoreResult<bool> {
    on!(conn, |c| sqlx::query(
        "UPDATE sessions SET record = $4, expires_at = $5 WHERE user_id = $1 AND session_id = $2 AND record = $3"
    )
    .bind(user)
    .bind(session)
    .bind(before)
    .bind(after.pack())
    .bind(after.expires_at())
    .execute(c)
    .map_ok(|done| done.rows_affected() == 1))
}

async fn delete(conn: &mut Conn, user: Uuid, session: Uuid) -> StoreResult<()> {
    on!(conn, |c| sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND session_id = $2")
        .bind(user)
        .bind(session)
        .execute(c)
        .map_ok(drop))
}

async fn delete_all(conn: &mut Conn, user: Uuid) -> StoreResult<()> {
    on!(conn, |c| sqlx::query("DELETE FROM sessions WHERE user_id = $1").bind(user).execute(c).map_ok(drop))
}
