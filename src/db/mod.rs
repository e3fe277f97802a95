//! The database: one SQL text on SQLite and PostgreSQL.
//!
//! A store function takes a [`Conn`] and runs one body for either database with `on!`. A [`Tx`] is a `Conn` inside a
//! write transaction with the transaction's one instant. Two pools in an enum instead of sqlx's `Any`: `Any` knows
//! neither UUIDs nor byte arrays alike on both, and a trait would forward every query twice.
//!
//! 1. Every connection is taken for one piece of work with one deadline ([`PATIENCE`]) over all its statements, the wait
//!    for the connection included, so a slow or silent database is a 503 in time, whatever the statement count.
//! 2. A connection whose statement did not end (deadline, or the task was dropped) and a transaction that was not
//!    committed are thrown away: the database rolls back, nothing waits for an answer that may never come, and the
//!    pool's place is free at once. Roll-backs are faults here, since refusals commit. (SQLite ends the statement it is
//!    at before it lets go of its lock, which is why nothing long is ever asked of it.)
//! 3. SQLite has one writer at a time. One pool of one connection makes writers queue in order in this process instead
//!    of sleeping on `SQLITE_BUSY`; readers have a pool of their own (WAL).

mod asked;
mod changes;
mod connect;
mod error;
mod facts;
mod migrate;
mod patient;
mod pool;
mod schema;
mod sqlite_file;
mod types;

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use deadpool::managed::Object;
use tokio::time::{Instant, error::Elapsed, timeout_at};
use uuid::Uuid;

pub use asked::{Asked, PoolState};
pub use changes::Changes;
pub use connect::OpenError;
pub use error::StoreError;
pub use facts::Facts;
pub use migrate::Plan;
pub use schema::Schema;
pub use sqlite_file::{SqliteFault, SqliteFile};
pub use types::{APART, Timestamp};

use self::pool::{Pool, ToPostgres, ToSqlite};
use crate::{
    metrics::{EndCause, SqlOperation},
    telemetry::SPAN,
};

/// How long one piece of work may take, from asking for a connection to the end of its last statement.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// Runs one query for whichever database `$conn` leads to: `on!(conn, |c| sqlx::query(…).fetch_optional(c))`.
macro_rules! on {
    ($conn:expr, |$c:ident| $query:expr) => {{
        let conn: &mut $crate::db::Conn = $conn;
        let deadline = conn.start_statement();
        let result = match conn.link()? {
            $crate::db::Link::Sqlite($c) => {
                let $c = &mut **$c;
                ::tokio::time::timeout_at(deadline, $query).await
            }
            $crate::db::Link::Postgres($c) => {
                let $c = &mut **$c;
                ::tokio::time::timeout_at(deadline, $query).await
            }
        };
        conn.end_statement(result)
    }};
}
pub(crate) use on;

/// Rows that one transaction of a sweep removes (the `LIMIT` in its SQL), so that none comes near [`PATIENCE`] or holds
/// the one writer of SQLite.
pub const SWEEP_BATCH: u64 = 1000;

/// The outcome of database work; what a rule refuses is inside `T`, since a refusal commits.
pub type StoreResult<T> = Result<T, StoreError>;

/// The pools, and how much was asked of them.
#[derive(Clone, Debug)]
pub struct Db {
    pools: Pools,
    asked: Arc<Asked>,
    changes: Arc<Changes>,
}

#[derive(Clone, Debug)]
enum Pools {
    Sqlite { read: Pool<ToSqlite>, write: Pool<ToSqlite> },
    Postgres(Pool<ToPostgres>),
}

impl Db {
    /// A connection for reading.
    ///
    /// # Errors
    /// When none can be had in time.
    pub async fn read(&self) -> StoreResult<Conn> {
        self.conn(false, PATIENCE).await
    }

    /// A write transaction; `now` is the one instant of all it writes.
    ///
    /// # Errors
    /// When no connection can be had, or the transaction cannot begin, in time.
    pub async fn begin(&self, now: Timestamp) -> StoreResult<Tx> {
        let mut conn = self.conn(true, PATIENCE).await?;
        self.asked.transactions.fetch_add(1, Ordering::Relaxed);
        // A deferred SQLite transaction that reads first can fail when it comes to write; an immediate one cannot.
        let begin = match self.pools {
            Pools::Sqlite { .. } => "BEGIN IMMEDIATE",
            Pools::Postgres(_) => "BEGIN",
        };
        conn.control(begin).await?;
        conn.unfinished = true;
        Ok(Tx { conn, now, touched: Vec::new(), ended: Vec::new(), changes: Arc::clone(&self.changes) })
    }

    /// One piece of work is one span, whatever it asks: which statements those are stands in our sources.
    fn span(&self, write: bool) -> tracing::Span {
        let (system, work) =
            (if self.is_embedded() { "sqlite" } else { "postgresql" }, if write { "write" } else { "read" });
        tracing::trace_span!(target: SPAN, "database", otel.kind = "client", db.system.name = system, db.operation.name = work)
    }

    async fn conn(&self, write: bool, patience: Duration) -> StoreResult<Conn> {
        let span = self.span(write);
        let started = Instant::now();
        let deadline = started + patience;
        let acquire = async {
            Ok(match &self.pools {
                Pools::Sqlite { read, write: writer } => Link::Sqlite(if write { writer } else { read }.get().await?),
                Pools::Postgres(pool) => Link::Postgres(pool.get().await?),
            })
        };
        let link = timeout_at(deadline, acquire).await.map_err(|_| StoreError::Timeout);
        self.asked.waits.of(self.pool(write)).note(started.elapsed());
        let link = link.and_then(|link| link.map_err(StoreError::Sqlx)).map_err(|error| self.asked.note_failure(error));
        Ok(Conn {
            link: Some(link?),
            deadline,
            asking: (SqlOperation::Read, started),
            in_flight: false,
            unfinished: false,
            asked: Arc::clone(&self.asked),
            _span: span,
        })
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> StoreResult<()> {
        let mut conn = self.read().await?;
        let _: i64 = on!(&mut conn, |c| sqlx::query_scalar("SELECT CAST(1 AS BIGINT)").fetch_one(c))?;
        Ok(())
    }

    /// What time PostgreSQL has; `None` for the embedded database, which has no clock of its own.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn clock(&self) -> StoreResult<Option<Timestamp>> {
        if self.is_embedded() {
            return Ok(None);
        }
        let mut conn = self.read().await?;
        let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
        on!(&mut conn, |c| sqlx::query_scalar(sql).fetch_one(c)).map(Some)
    }

    /// How much was asked of the database since the start.
    #[must_use]
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Which people this process has changed.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether this is the embedded database.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self.pools, Pools::Sqlite { .. })
    }

    /// Drops connections that nobody needed for a while.
    pub fn forget_idle(&self) {
        if let Pools::Postgres(pool) = &self.pools {
            pool.forget_idle();
        }
    }

    /// Closes every connection, so that a stop leaves nothing half said; a silent database is not waited for.
    pub async fn close(&self) {
        let close = async {
            match &self.pools {
                Pools::Sqlite { read, write } => {
                    read.close().await;
                    write.close().await;
                }
                Pools::Postgres(pool) => pool.close().await,
            }
        };
        if tokio::time::timeout(2 * PATIENCE, close).await.is_err() {
            tracing::warn!("the database did not take its leave in time");
        }
    }
}

/// The connection behind a [`Conn`]. Public to the macro alone.
#[derive(Debug)]
pub enum Link {
    /// To the embedded file.
    Sqlite(Object<ToSqlite>),
    /// To PostgreSQL.
    Postgres(Object<ToPostgres>),
}

/// One connection for one piece of work.
#[derive(Debug)]
pub struct Conn {
    /// `None` only while being dropped.
    link: Option<Link>,
    deadline: Instant,
    /// What was asked last, and when.
    asking: (SqlOperation, Instant),
    /// A statement was sent and its end not seen.
    in_flight: bool,
    /// A transaction is open.
    unfinished: bool,
    asked: Arc<Asked>,
    _span: tracing::Span,
}

impl Conn {
    /// Whether this leads to the embedded database.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self.link, Some(Link::Sqlite(_)))
    }

    pub(crate) fn start_statement(&mut self) -> Instant {
        self.asked.statements.fetch_add(1, Ordering::Relaxed);
        self.asking = (if self.unfinished { SqlOperation::Write } else { SqlOperation::Read }, Instant::now());
        self.in_flight = true;
        self.deadline
    }

    pub(crate) fn link(&mut self) -> StoreResult<&mut Link> {
        self.link.as_mut().ok_or(StoreError::Sqlx(sqlx::Error::PoolClosed))
    }

    pub(crate) fn end_statement<T>(&mut self, result: Result<Result<T, sqlx::Error>, Elapsed>) -> StoreResult<T> {
        self.asked.operations.of(self.asking.0).note(self.asking.1.elapsed());
        let result = result.map_err(|_| self.asked.note_failure(StoreError::Timeout))?;
        // An error the database answered with leaves the connection in step; any other may not.
        self.in_flight = matches!(&result, Err(error) if !matches!(error, sqlx::Error::Database(_)));
        result.map_err(|error| self.asked.note_failure(StoreError::Sqlx(error)))
    }

    /// `BEGIN` and `COMMIT`: one round trip, not counted as statements.
    async fn control(&mut self, sql: &'static str) -> StoreResult<()> {
        let deadline = self.deadline;
        self.asking = (if self.unfinished { SqlOperation::Commit } else { SqlOperation::Begin }, Instant::now());
        self.in_flight = true;
        let result = match self.link()? {
            Link::Sqlite(c) => timeout_at(deadline, sqlx::raw_sql(sql).execute(&mut **c)).await.map(|r| r.map(drop)),
            Link::Postgres(c) => timeout_at(deadline, sqlx::raw_sql(sql).execute(&mut **c)).await.map(|r| r.map(drop)),
        };
        self.end_statement(result)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // What is not in step is taken out of its pool, and closed by being dropped.
        if self.in_flight || self.unfinished {
            match self.link.take() {
                Some(Link::Sqlite(connection)) => drop(Object::take(connection)),
                Some(Link::Postgres(connection)) => drop(Object::take(connection)),
                None => {}
            }
        }
    }
}

/// A write transaction. Dropped without [`Tx::commit`], it never happened.
#[derive(Debug)]
pub struct Tx {
    conn: Conn,
    now: Timestamp,
    touched: Vec<Uuid>,
    ended: Vec<EndCause>,
    changes: Arc<Changes>,
}

impl Tx {
    /// Says that this transaction writes what is true of this person: what was read before its end is old after it.
    pub fn touches(&mut self, person: Uuid) {
        self.touched.push(person);
    }

    /// Says that this transaction ends sessions; it is counted when that is durable.
    pub fn ends(&mut self, cause: EndCause) {
        self.ended.push(cause);
    }

    /// The one instant of everything this transaction writes.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Makes it last.
    ///
    /// # Errors
    /// When the database does not say that it is durable; it may be, or not.
    pub async fn commit(mut self) -> StoreResult<()> {
        self.conn.control("COMMIT").await?;
        self.conn.unfinished = false;
        self.ended.iter().for_each(|cause| self.conn.asked.ended.add(*cause));
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        // After the commit, and after one that failed, too: it may have happened.
        for person in &self.touched {
            self.changes.note(*person);
        }
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}
