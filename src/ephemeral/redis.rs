//! Sessions in Redis: one hash a person, one field a session, so that list, cap and close-all are one command on one key
//! in one cluster slot. Other values are strings of their own.
//!
//! 1. A verb makes a question: a command or a script, with its keys.
//! 2. The link takes it where the keys are: to the one server, to whom the Sentinels call master, or to the master of
//!    the slot. All connections mend themselves, in tasks of their own ([`mod@line`], [`sentinel`], [`cluster`]).
//! 3. After [`PATIENCE`] it is an error, whatever the reason; nothing is asked twice, as a lost answer may have been yes.

mod cluster;
mod facts;
mod line;
mod poll;
mod question;
mod sentinel;
mod url;

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use facts::{RedisFacts, ServerFacts, TopologyFacts};
use redis::{FromRedisValue, from_redis_value};
use tokio::time::Instant;
pub use url::RedisUrl;
use uuid::Uuid;

use self::{
    cluster::Cluster,
    line::{Line, Target},
    question::{Lua, Question},
    url::Topology,
};
use super::{Attempts, Decision, EphemeralError, EphemeralResult, Key, Rotate, SessionRecord, Trips, Value};
use crate::{db::Timestamp, telemetry::SPAN};

/// How long one call may take, so that a request without Redis is answered within 500 ms.
pub const PATIENCE: Duration = Duration::from_millis(400);
/// How long the first call of all may take, at start: it has to find the way.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);

static OPEN: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/open.lua")));
static ROTATE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/rotate.lua")));
static RESERVE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/reserve.lua")));
static SWAP: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/swap.lua")));
static CLOSE_OTHERS: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lua/close_others.lua")));

/// The ephemeral store in Redis.
#[derive(Clone)]
pub struct RedisStore {
    link: Link,
    prefix: Arc<str>,
    /// No session lives longer than this, whatever its record says.
    longest: Duration,
    round_trips: Arc<AtomicU64>,
    trips: Arc<Trips>,
}

/// The way to whoever has a key.
#[derive(Clone)]
enum Link {
    /// To one server, or to one after the other.
    Line(Arc<Line>),
    /// To many, each with keys of its own.
    Cluster(Arc<Cluster>),
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Link {
    fn to(url: &RedisUrl) -> Self {
        let manner = url.manner.clone();
        match &url.topology {
            Topology::Single(host) => Self::Line(Line::to(Target::Host(host.clone(), manner))),
            Topology::Sentinel(watchers) => Self::Line(Line::to(Target::Watched(watchers.clone(), manner))),
            Topology::Cluster(seeds) => Self::Cluster(Cluster::of(seeds.clone(), manner)),
        }
    }

    async fn ask(&self, question: &Question, deadline: Instant) -> EphemeralResult<redis::Value> {
        let _span = tracing::trace_span!(target: SPAN, "redis", otel.kind = "client", db.system.name = "redis");
        match (self, question.slot()) {
            (Self::Line(line), _) => line.ask(question, false, deadline).await,
            (Self::Cluster(cluster), Some(slot)) => cluster.ask(slot, question, deadline).await,
            (Self::Cluster(cluster), None) => cluster.ask_any(question, deadline).await,
        }
    }

    async fn ask_all(&self, question: &Question, deadline: Instant) -> EphemeralResult<()> {
        match self {
            Self::Line(line) => line.ask(question, false, deadline).await.map(drop),
            Self::Cluster(cluster) => cluster.ask_all(question, deadline).await,
        }
    }
}

impl RedisStore {
    /// Prepares the store and begins to connect, which needs a Tokio runtime. No session lives longer than `longest`.
    #[must_use]
    pub fn new(url: &RedisUrl, prefix: &str, longest: Duration) -> Self {
        Self { link: Link::to(url), prefix: prefix.into(), longest, round_trips: Arc::default(), trips: Arc::default() }
    }

    fn key(&self, user: Uuid) -> String {
        format!("{}:{{{}}}:s", self.prefix, user)
    }

    async fn ask<T: FromRedisValue>(&self, question: Question) -> EphemeralResult<T> {
        self.ask_for(PATIENCE, question).await
    }

    async fn ask_for<T: FromRedisValue>(&self, patience: Duration, question: Question) -> EphemeralResult<T> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        let answer = self.link.ask(&question, Instant::now() + patience).await?;
        understood(answer)
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
        let open = OPEN
            .on(self.key(user))
            .arg(now.millis())
            .arg(session.as_bytes())
            .arg(record.pack())
            .arg(cap)
            .arg(self.longest.as_secs());
        // Sent together, so they share a round trip. They cannot share a script, since person and name live in different
        // slots of a cluster. A bucket that stays full costs a wait and no session.
        let (opened, _) = tokio::join!(self.ask(open), self.forget(attempts));
        opened
    }

    pub(super) async fn reserve(
        &self,
        now: Timestamp,
        bucket: &Key<Attempts>,
        lock: Option<u32>,
    ) -> EphemeralResult<Result<(), Duration>> {
        let reserve = RESERVE.on(bucket.redis(&self.prefix)).arg(now.millis()).arg(lock.unwrap_or(0));
        let wait: u64 = self.ask(reserve).await?;
        Ok(if wait == 0 { Ok(()) } else { Err(Duration::from_millis(wait)) })
    }

    pub(super) async fn clear(&self, buckets: &[Key<Attempts>]) -> EphemeralResult<()> {
        if !buckets.is_empty() {
            self.round_trips.fetch_add(1, Ordering::Relaxed);
        }
        self.forget(buckets).await
    }

    /// One command a bucket, all at once: they live in different slots.
    async fn forget(&self, buckets: &[Key<Attempts>]) -> EphemeralResult<()> {
        let deadline = Instant::now() + PATIENCE;
        let forget = buckets.iter().map(|bucket| async move {
            self.link.ask(&Question::command("DEL", bucket.redis(&self.prefix)), deadline).await.map(drop)
        });
        futures_util::future::join_all(forget).await.into_iter().collect()
    }

    pub(super) async fn rotate(
        &self,
        now: Timestamp,
        user: Uuid,
        session: Uuid,
        rotate: &Rotate,
    ) -> EphemeralResult<Decision> {
        let question = ROTATE
            .on(self.key(user))
            .key(format!("{}:{{{user}}}:r:{}", self.prefix, session.simple()))
            .arg(now.millis())
            .arg(session.as_bytes())
            .arg(rotate.generation)
            .arg(&rotate.nonce_hash)
            .arg(rotate.epoch.map(|epoch| epoch.to_string()).unwrap_or_default())
            .arg(rotate.idle.as_secs())
            .arg(u64::try_from(rotate.grace.as_millis()).unwrap_or(u64::MAX))
            .arg(self.longest.as_secs())
            .arg(rotate.most_a_minute);
        let mut parts = self.ask::<Vec<redis::Value>>(question).await?.into_iter();
        let name: String = parts.next().map(understood).transpose()?.unwrap_or_default();
        let rest = parts.next();
        let record = match rest {
            Some(redis::Value::Int(wait)) if name == "limited" => {
                return Ok(Decision::Limited(Duration::from_millis(wait.unsigned_abs())));
            }
            Some(redis::Value::BulkString(bytes)) => SessionRecord::unpack(&bytes, self.longest),
            _ => None,
        };
        match (name.as_str(), record) {
            ("moved", Some(record)) => Ok(Decision::Moved(record)),
            ("healed", Some(record)) => Ok(Decision::Healed(record)),
            ("repeated", Some(record)) => Ok(Decision::Repeated(record)),
            ("reused", Some(record)) => Ok(Decision::Reused(record)),
            ("unknown", _) => Ok(Decision::Unknown),
            _ => Err(EphemeralError::Layout),
        }
    }

    pub(super) async fn find(
        &self,
        now: Timestamp,
        user: Uuid,
        session: Uuid,
    ) -> EphemeralResult<Option<SessionRecord>> {
        let get = Question::command("HGET", self.key(user)).arg(session.as_bytes());
        let bytes: Option<Vec<u8>> = self.ask(get).await?;
        let Some(bytes) = bytes else { return Ok(None) };
        let record = SessionRecord::unpack(&bytes, self.longest).ok_or(EphemeralError::Layout)?;
        Ok(record.is_alive(now).then_some(record))
    }

    pub(super) async fn list(&self, now: Timestamp, user: Uuid) -> EphemeralResult<Vec<(Uuid, SessionRecord)>> {
        let fields: Vec<(Vec<u8>, Vec<u8>)> = self.ask(Question::command("HGETALL", self.key(user))).await?;
        let sessions = fields.iter().filter_map(|(id, bytes)| {
            Some((
                Uuid::from_slice(id).ok()?,
                SessionRecord::unpack(bytes, self.longest).filter(|record| record.is_alive(now))?,
            ))
        });
        Ok(sessions.collect())
    }

    pub(super) async fn close(&self, user: Uuid, session: Uuid) -> EphemeralResult<()> {
        self.ask(Question::command("HDEL", self.key(user)).arg(session.as_bytes())).await
    }

    pub(super) async fn close_others(
        &self,
        now: Timestamp,
        user: Uuid,
        keep: Option<(Uuid, i64)>,
    ) -> EphemeralResult<()> {
        let close = CLOSE_OTHERS.on(self.key(user)).arg(now.millis());
        let close = match keep {
            Some((session, epoch)) => close.arg(session.as_bytes()).arg(epoch),
            None => close.arg("").arg(0),
        };
        self.ask(close.arg(self.longest.as_secs())).await
    }

    pub(super) async fn get<V: Value>(&self, key: &Key<V>) -> EphemeralResult<Option<Vec<u8>>> {
        self.ask(Question::command("GET", key.redis(&self.prefix))).await
    }

    pub(super) async fn swap<V: Value>(
        &self,
        now: Timestamp,
        key: &Key<V>,
        before: Option<&[u8]>,
        after: &[u8],
        expires_at: Timestamp,
    ) -> EphemeralResult<bool> {
        let swap = SWAP.on(key.redis(&self.prefix)).arg(now.millis());
        self.ask(swap.arg(before.unwrap_or_default()).arg(after).arg(expires_at.millis())).await
    }

    pub(super) async fn clock(&self) -> EphemeralResult<Timestamp> {
        let (seconds, micros): (i64, i64) = self.ask_for(FIRST_PATIENCE, Question::of_any("TIME")).await?;
        Ok(Timestamp::from_millis(seconds * 1000 + micros / 1000))
    }

    pub(super) async fn ping(&self) -> EphemeralResult<()> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.link.ask_all(&Question::of_any("PING"), Instant::now() + PATIENCE).await
    }

    pub(super) fn trips(&self) -> &Trips {
        &self.trips
    }

    pub(super) fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }
}

fn understood<T: FromRedisValue>(answer: redis::Value) -> EphemeralResult<T> {
    from_redis_value(answer).map_err(|error| EphemeralError::Redis(error.into()))
}
