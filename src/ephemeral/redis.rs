//! Sessions in Redis: one hash a person, one field a session, so that list, cap and close-all are one command on one key
//! in one cluster slot. Other values are strings of their own.
//!
//! The connection is multiplexed and mends itself. A call that gets no answer within [`PATIENCE`] is an error, and the
//! connection it was sent on is replaced: a peer that went away without a word would otherwise swallow every later call
//! until the kernel gives the socket up.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use uuid::Uuid;

use super::{Attempts, Decision, EphemeralError, EphemeralResult, Key, Rotate, SessionRecord, Value};
use crate::{db::Timestamp, secret::SecretText};

/// How long one call may take, so that a request without Redis is answered within 500 ms.
pub const PATIENCE: Duration = Duration::from_millis(400);
/// How long a fresh connection may take before the next one is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

static OPEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/open.lua")));
static ROTATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/rotate.lua")));
static RESERVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/reserve.lua")));
static SWAP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/swap.lua")));
static CLOSE_OTHERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/close_others.lua")));

/// The ephemeral store in Redis.
#[derive(Clone)]
pub struct RedisStore {
    client: Client,
    prefix: Arc<str>,
    /// With the number of times it was replaced, so that of many calls that time out together one replaces it.
    connection: Arc<RwLock<(u64, ConnectionManager)>>,
    /// Whether a fresh connection is being set up.
    connecting: Arc<AtomicBool>,
    /// No session lives longer than this, whatever its record says.
    longest: Duration,
    round_trips: Arc<AtomicU64>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Prepares the store; the first call connects. No session lives longer than `longest`.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &SecretText, prefix: &str, longest: Duration) -> Result<Self, RedisError> {
        let client = Client::open(url.expose())?;
        let connection = connect(&client)?;
        Ok(Self {
            client,
            prefix: prefix.into(),
            connection: Arc::new(RwLock::new((0, connection))),
            connecting: Arc::default(),
            longest,
            round_trips: Arc::default(),
        })
    }

    fn key(&self, user: Uuid) -> String {
        format!("{}:{{{}}}:s", self.prefix, user)
    }

    async fn call<T: FromRedisValue>(
        &self,
        run: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> EphemeralResult<T> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        let (replaced, connection) = match self.connection.read() {
            Ok(held) => held.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        };
        match tokio::time::timeout(PATIENCE, run(connection)).await {
            Ok(Err(error)) => {
                // A master that was demoted answers, and would refuse every write for ever.
                if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) {
                    self.replace(replaced);
                }
                Err(EphemeralError::Redis(error))
            }
            Ok(Ok(answer)) => Ok(answer),
            Err(_) => {
                self.replace(replaced);
                Err(EphemeralError::Timeout)
            }
        }
    }

    /// Puts a fresh connection in the place of the one that was `seen`, unless somebody did, or one is being made.
    fn replace(&self, seen: u64) {
        let mut held = match self.connection.write() {
            Ok(held) => held,
            Err(poisoned) => poisoned.into_inner(),
        };
        if held.0 != seen || self.connecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(mut fresh) = connect(&self.client) else {
            self.connecting.store(false, Ordering::Release);
            return;
        };
        *held = (seen + 1, fresh.clone());
        // Setting up is work of its own: calls give up after PATIENCE, and with none of them left it would stand still.
        let connecting = Arc::clone(&self.connecting);
        tokio::spawn(async move {
            let ping = redis::cmd("PING");
            let _ = tokio::time::timeout(CONNECT_PATIENCE, ping.query_async::<()>(&mut fresh)).await;
            connecting.store(false, Ordering::Release);
        });
    }

    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> EphemeralResult<T> {
        self.call(async |mut connection| command.query_async(&mut connection).await).await
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
        let mut script = OPEN.key(self.key(user));
        script.arg(now.millis()).arg(session.as_bytes()).arg(record.pack()).arg(cap).arg(self.longest.as_secs());
        // Sent together on the one connection, so they share a round trip. They cannot share a script, since person and
        // name live in different slots of a cluster. A bucket that stays full costs a wait and no session.
        let clear = self.clear_command(attempts);
        self.call(async |mut connection| {
            let mut other = connection.clone();
            let open = async { script.invoke_async(&mut connection).await };
            let clear = async {
                if let Some(clear) = clear {
                    let _: Result<(), RedisError> = clear.query_async(&mut other).await;
                }
            };
            tokio::join!(open, clear).0
        })
        .await
    }

    pub(super) async fn reserve(
        &self,
        now: Timestamp,
        bucket: &Key<Attempts>,
        lock: Option<u32>,
    ) -> EphemeralResult<Result<(), Duration>> {
        let mut script = RESERVE.key(bucket.redis(&self.prefix));
        script.arg(now.millis()).arg(lock.unwrap_or(0));
        let wait: u64 = self.call(async |mut connection| script.invoke_async(&mut connection).await).await?;
        Ok(if wait == 0 { Ok(()) } else { Err(Duration::from_millis(wait)) })
    }

    pub(super) async fn clear(&self, buckets: &[Key<Attempts>]) -> EphemeralResult<()> {
        match self.clear_command(buckets) {
            Some(clear) => self.call(async |mut connection| clear.query_async(&mut connection).await).await,
            None => Ok(()),
        }
    }

    /// One command a bucket: they live in different slots.
    fn clear_command(&self, buckets: &[Key<Attempts>]) -> Option<redis::Pipeline> {
        let mut clear = redis::pipe();
        for bucket in buckets {
            clear.cmd("DEL").arg(bucket.redis(&self.prefix)).ignore();
        }
        (!buckets.is_empty()).then_some(clear)
    }

    pub(super) async fn rotate(
        &self,
        now: Timestamp,
        user: Uuid,
        session: Uuid,
        rotate: &Rotate,
    ) -> EphemeralResult<Decision> {
        let mut script = ROTATE.key(self.key(user));
        script
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
        let (name, rest) = self
            .call(async |mut connection| {
                let parts: Vec<redis::Value> = script.invoke_async(&mut connection).await?;
                let mut parts = parts.into_iter();
                let name: String = parts.next().map(redis::from_redis_value).transpose()?.unwrap_or_default();
                Ok((name, parts.next()))
            })
            .await?;
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
        let bytes: Option<Vec<u8>> =
            self.command(redis::cmd("HGET").arg(self.key(user)).arg(session.as_bytes())).await?;
        let Some(bytes) = bytes else { return Ok(None) };
        let record = SessionRecord::unpack(&bytes, self.longest).ok_or(EphemeralError::Layout)?;
        Ok(record.is_alive(now).then_some(record))
    }

    pub(super) async fn list(&self, now: Timestamp, user: Uuid) -> EphemeralResult<Vec<(Uuid, SessionRecord)>> {
        let fields: Vec<(Vec<u8>, Vec<u8>)> = self.command(redis::cmd("HGETALL").arg(self.key(user))).await?;
        let sessions = fields.iter().filter_map(|(id, bytes)| {
            Some((
                Uuid::from_slice(id).ok()?,
                SessionRecord::unpack(bytes, self.longest).filter(|record| record.is_alive(now))?,
            ))
        });
        Ok(sessions.collect())
    }

    pub(super) async fn close(&self, user: Uuid, session: Uuid) -> EphemeralResult<()> {
        self.command(redis::cmd("HDEL").arg(self.key(user)).arg(session.as_bytes())).await
    }

    pub(super) async fn close_others(
        &self,
        now: Timestamp,
        user: Uuid,
        keep: Option<(Uuid, i64)>,
    ) -> EphemeralResult<()> {
        let mut script = CLOSE_OTHERS.key(self.key(user));
        script.arg(now.millis());
        match keep {
            Some((session, epoch)) => script.arg(session.as_bytes()).arg(epoch),
            None => script.arg("").arg(0),
        };
        script.arg(self.longest.as_secs());
        self.call(async |mut connection| script.invoke_async(&mut connection).await).await
    }

    pub(super) async fn get<V: Value>(&self, key: &Key<V>) -> EphemeralResult<Option<Vec<u8>>> {
        self.command(redis::cmd("GET").arg(key.redis(&self.prefix))).await
    }

    pub(super) async fn swap<V: Value>(
        &self,
        now: Timestamp,
        key: &Key<V>,
        before: Option<&[u8]>,
        after: &[u8],
        expires_at: Timestamp,
    ) -> EphemeralResult<bool> {
        let mut script = SWAP.key(key.redis(&self.prefix));
        script.arg(now.millis()).arg(before.unwrap_or_default()).arg(after).arg(expires_at.millis());
        self.call(async |mut connection| script.invoke_async(&mut connection).await).await
    }

    pub(super) async fn clock(&self) -> EphemeralResult<Timestamp> {
        let (seconds, micros): (i64, i64) = self.command(&redis::cmd("TIME")).await?;
        Ok(Timestamp::from_millis(seconds * 1000 + micros / 1000))
    }

    pub(super) async fn ping(&self) -> EphemeralResult<()> {
        self.command(&redis::cmd("PING")).await
    }

    pub(super) fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }
}

fn connect(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_PATIENCE))
        // `call` has the time limit, and replaces the connection when it is over.
        .set_response_timeout(None)
        .set_number_of_retries(3)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(500));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}
