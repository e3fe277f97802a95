//! What dies by itself: sessions today; codes, counters and challenges when they come.
//!
//! With `REDIS_URL` it lives in Redis, else in the same SQL database as everything else, so that the embedded default
//! survives a restart too. Both keep the same packed record ([`SessionRecord`]) and pass the same contract suite
//! (`tests/it/contract/sessions.rs`). Every verb is atomic, one round trip, and takes `now`: an expired entry does not
//! exist for any verb, whatever the store's own broom has or has not swept.
//!
//! Refresh (`security.md` §3; RFC 9700 §4.14.2 for why rotation) is decided by [`SessionRecord::rotate`] for SQL and by
//! `lua/rotate.lua` for Redis, line by line alike: the script cannot call Rust, and reading first and writing later
//! would be two round trips and a race.

mod attempts;
mod record;
mod redis;
mod sql;
mod value;

use std::time::{Duration, Instant};

use uuid::Uuid;

pub use attempts::Attempts;
pub use record::{Decision, Device, NONCE_HASH, RECORD_LIMIT, Rotate, SessionRecord};
pub use redis::{RedisFacts, RedisStore, RedisUrl, ServerFacts, TopologyFacts};
pub use sql::SqlStore;
pub use value::{Key, Value};

use crate::{
    db::{StoreError, Timestamp},
    error::{ApiError, Code},
    metrics::{Counters, Histograms, StoreFailure, StoreVerb},
};

/// The ephemeral store.
#[derive(Clone, Debug)]
pub enum Ephemeral {
    /// In Redis.
    Redis(Box<RedisStore>),
    /// In the database.
    Sql(SqlStore),
}

/// The store could not do the work.
#[derive(Debug, thiserror::Error)]
pub enum EphemeralError {
    /// Redis did not answer in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// Redis answered with an error, or the connection broke.
    #[error("Redis failed")]
    Redis(#[source] ::redis::RedisError),
    /// A Redis Cluster that has no master for a key.
    #[error("no master of the Redis Cluster has the key")]
    Nobody,
    /// The database behind the SQL store failed.
    #[error(transparent)]
    Sql(#[from] StoreError),
    /// A record of a layout this program does not know: a newer node wrote it.
    #[error("a session record is of an unknown layout")]
    Layout,
}

impl From<EphemeralError> for ApiError {
    fn from(error: EphemeralError) -> Self {
        match error {
            EphemeralError::Sql(error) => error.into(),
            other => Self::new(Code::Unavailable).caused_by(other),
        }
    }
}

/// The outcome of ephemeral work.
pub type EphemeralResult<T> = Result<T, EphemeralError>;

/// What was asked of the store since the start.
#[derive(Debug, Default)]
pub struct Trips {
    /// How long answers took.
    pub durations: Histograms<StoreVerb>,
    /// What was not done.
    pub failures: Counters<StoreFailure>,
}

impl Trips {
    fn note<T>(&self, verb: StoreVerb, started: Instant, outcome: &EphemeralResult<T>) {
        self.durations.of(verb).note(started.elapsed());
        let Err(error) = outcome else { return };
        self.failures.add(match error {
            EphemeralError::Timeout => StoreFailure::Timeout,
            EphemeralError::Redis(_) => StoreFailure::Redis,
            EphemeralError::Nobody => StoreFailure::Nobody,
            EphemeralError::Sql(_) => StoreFailure::Database,
            EphemeralError::Layout => StoreFailure::Layout,
        });
    }
}

macro_rules! forward {
    ($self:ident, $verb:ident, $store:ident => $call:expr) => {{
        let started = Instant::now();
        let outcome = match $self {
            Self::Redis($store) => $call.await,
            Self::Sql($store) => $call.await,
        };
        $self.trips().note(StoreVerb::$verb, started, &outcome);
        outcome
    }};
}

impl Ephemeral {
    /// Keeps a new session and empties the buckets of the attempts that led to it; with `cap` sessions there already the
    /// least recently used one goes.
    ///
    /// # Errors
    /// When the store cannot say that it is kept.
    pub async fn open(
        &self,
        now: Timestamp,
        user: Uuid,
        session: Uuid,
        record: &SessionRecord,
        cap: usize,
        attempts: &[Key<Attempts>],
    ) -> EphemeralResult<()> {
        forward!(self, Open, store => store.open(now, user, session, record, cap, attempts))
    }

    /// Decides what a refresh token of this session gets, and moves the generation if it is to be moved.
    ///
    /// # Errors
    /// When the store cannot answer; the generation may have moved then.
    pub async fn rotate(
        &self,
        now: Timestamp,
        user: Uuid,
        session: Uuid,
        rotate: &Rotate,
    ) -> EphemeralResult<Decision> {
        forward!(self, Rotate, store => store.rotate(now, user, session, rotate))
    }

    /// The session, if it is alive.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn find(&self, now: Timestamp, user: Uuid, session: Uuid) -> EphemeralResult<Option<SessionRecord>> {
        forward!(self, Find, store => store.find(now, user, session))
    }

    /// The person's living sessions, in no order.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn list(&self, now: Timestamp, user: Uuid) -> EphemeralResult<Vec<(Uuid, SessionRecord)>> {
        forward!(self, List, store => store.list(now, user))
    }

    /// Removes one session, living or not.
    ///
    /// # Errors
    /// When the store cannot say that it is gone.
    pub async fn close(&self, user: Uuid, session: Uuid) -> EphemeralResult<()> {
        forward!(self, Close, store => store.close(user, session))
    }

    /// Removes every session of the person but `keep`, which is stamped with the new epoch if it is alive.
    ///
    /// # Errors
    /// When the store cannot say that they are gone.
    pub async fn close_others(&self, now: Timestamp, user: Uuid, keep: Option<(Uuid, i64)>) -> EphemeralResult<()> {
        forward!(self, CloseOthers, store => store.close_others(now, user, keep))
    }

    /// The value under this key, if it is alive.
    ///
    /// # Errors
    /// When the store cannot answer, or a newer node wrote it.
    pub async fn get<V: Value>(&self, now: Timestamp, key: &Key<V>) -> EphemeralResult<Option<V>> {
        let stored = forward!(self, Get, store => store.get(key))?;
        let Some(bytes) = stored else { return Ok(None) };
        value::open(&bytes, now).ok_or(EphemeralError::Layout)
    }

    /// Puts `after` under this key, if `before` (or nothing) still stands there; tells whether it did.
    ///
    /// # Errors
    /// When the store cannot answer; it may be put then.
    pub async fn swap<V: Value>(
        &self,
        now: Timestamp,
        key: &Key<V>,
        before: Option<&V>,
        after: &V,
    ) -> EphemeralResult<bool> {
        let (before, after_bytes) = (before.map(value::seal), value::seal(after));
        forward!(self, Swap, store => store.swap(now, key, before.as_deref(), &after_bytes, after.expires_at()))
    }

    /// Counts a failure in advance in this bucket, or tells the wait before there may be another attempt. With a `lock`,
    /// that many failures make everybody wait for an hour at a time.
    ///
    /// # Errors
    /// When the store cannot answer; the failure may be counted then.
    pub async fn reserve(
        &self,
        now: Timestamp,
        bucket: &Key<Attempts>,
        lock: Option<u32>,
    ) -> EphemeralResult<Result<(), Duration>> {
        forward!(self, Reserve, store => store.reserve(now, bucket, lock))
    }

    /// Empties these buckets.
    ///
    /// # Errors
    /// When the store cannot say so.
    pub async fn clear(&self, buckets: &[Key<Attempts>]) -> EphemeralResult<()> {
        forward!(self, Clear, store => store.clear(buckets))
    }

    /// Takes the last attempt back, which was never judged.
    ///
    /// # Errors
    /// When the store cannot answer; the attempt counts then.
    pub async fn take_back(&self, now: Timestamp, bucket: &Key<Attempts>) -> EphemeralResult<()> {
        loop {
            let Some(before) = self.get(now, bucket).await? else { return Ok(()) };
            if self.swap(now, bucket, Some(&before), &before.without_last()).await? {
                return Ok(());
            }
        }
    }

    /// What time Redis has; `None` on SQL, whose clock is asked elsewhere.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn clock(&self) -> EphemeralResult<Option<Timestamp>> {
        match self {
            Self::Redis(store) => store.clock().await.map(Some),
            Self::Sql(_) => Ok(None),
        }
    }

    /// Asks the store for a sign of life.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> EphemeralResult<()> {
        forward!(self, Ping, store => store.ping())
    }

    /// Removes a batch of what is dead and was not swept in passing, and tells how much it was; Redis does that itself.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn sweep(&self, now: Timestamp) -> EphemeralResult<u64> {
        match self {
            Self::Redis(_) => Ok(0),
            Self::Sql(store) => store.sweep(now).await,
        }
    }

    /// Round trips to Redis since the start, for budgets and metrics; zero on SQL, where statements are counted.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        match self {
            Self::Redis(store) => store.round_trips(),
            Self::Sql(_) => 0,
        }
    }

    /// What was asked of it, and how long that took.
    #[must_use]
    pub fn trips(&self) -> &Trips {
        match self {
            Self::Redis(store) => store.trips(),
            Self::Sql(store) => store.trips(),
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Sql(_) => "sql",
        }
    }
}
