//! The pools: connections that were opened once and are lent for one piece of work after the other.
//!
//! 1. Who asks gets the connection that came back last, so that few are kept warm, and opens one when none is idle.
//! 2. A connection to PostgreSQL that rested for more than [`REST`] is asked for a sign of life first; one that lived for
//!    [`LIFETIME`] is replaced, so that nodes move on to whom a name leads to today.
//! 3. What comes back is there for the next one at once; what is not in step does not come back ([`super::Conn`]).
//!
//! sqlx has a pool of its own. It asks every connection that comes back for a sign of life, in a task for each: a round
//! trip more for every read.

use std::time::Duration;

use deadpool::managed::{self, Manager, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use sqlx::{
    Connection, Executor, PgConnection, SqliteConnection, postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};
use tokio::time::timeout;

/// After which rest a connection has to show that it is alive.
const REST: Duration = Duration::from_secs(1);
/// How long that may take.
const PING_PATIENCE: Duration = Duration::from_millis(300);
/// How old a connection to PostgreSQL becomes.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// How long one that nobody needs is kept. The one lent last is lent again first, so only those of a storm go.
const IDLE: Duration = Duration::from_secs(60);
/// Between two looks at connections that are still in use when everything closes.
const CLOSE_PAUSE: Duration = Duration::from_millis(10);

/// How to connect to PostgreSQL.
#[derive(Debug)]
pub struct ToPostgres(pub(super) PgConnectOptions);

/// How to open the embedded file.
#[derive(Debug)]
pub struct ToSqlite(pub(super) SqliteConnectOptions);

impl Manager for ToPostgres {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.0).await?;
        // We hang up after PATIENCE; the server must not go on with what nobody waits for, or it piles up there.
        // Said after connecting rather than in the start-up packet, which poolers such as PgBouncer refuse.
        // And plans are kept as long as a connection: one that was made while a table was empty reads all of it until the
        // next ANALYZE, which can be a minute and many thousand rows later. Every statement here has an index, or a table
        // of a few rows; and since those look endlessly dear then, PostgreSQL would compile them to machine code, which
        // takes it fifty times as long as to read them.
        connection
            .execute(
                "SET statement_timeout = 2000; SET idle_in_transaction_session_timeout = 10000;
                 SET enable_seqscan = off; SET jit = off",
            )
            .await?;
        Ok(connection)
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > LIFETIME {
            return Err(RecycleError::message("it is old"));
        }
        if metrics.last_used() > REST {
            let ping = timeout(PING_PATIENCE, connection.ping()).await;
            ping.map_err(|_| RecycleError::message("it does not answer"))??;
        }
        Ok(())
    }
}

impl Manager for ToSqlite {
    type Type = SqliteConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<SqliteConnection, sqlx::Error> {
        SqliteConnection::connect_with(&self.0).await
    }

    async fn recycle(&self, _: &mut SqliteConnection, _: &Metrics) -> RecycleResult<sqlx::Error> {
        Ok(())
    }
}

/// Who opens connections.
pub(super) trait Opens: Manager<Error = sqlx::Error, Type: Connection> {}

impl<M: Manager<Error = sqlx::Error, Type: Connection>> Opens for M {}

/// A pool of at most so many connections.
pub(super) struct Pool<M: Manager>(managed::Pool<M>);

impl<M: Manager> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Manager> std::fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pool").field(&self.0.status()).finish()
    }
}

impl<M: Opens> Pool<M> {
    /// Opens nothing yet.
    pub fn of(manager: M, most: u32) -> Self {
        let pool = managed::Pool::builder(manager).max_size(most as usize).queue_mode(QueueMode::Lifo).build();
        // It fails for time limits without a runtime alone, and there are none.
        Self(pool.unwrap_or_else(|_| unreachable!("a pool without time limits")))
    }

    /// A connection; how long that may take is the caller's affair.
    pub async fn get(&self) -> Result<Object<M>, sqlx::Error> {
        self.0.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            _ => sqlx::Error::PoolClosed,
        })
    }

    /// How connections are made.
    pub fn manager(&self) -> &M {
        self.0.manager()
    }

    /// Connections that nobody uses, those in use, and as many as there may be.
    pub fn state(&self) -> (u64, u64, u64) {
        let status = self.0.status();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        (number(status.available), number(status.size - status.available), number(status.max_size))
    }

    /// Drops what nobody needed for a while.
    pub fn forget_idle(&self) {
        self.0.retain(|_, metrics| metrics.last_used() < IDLE);
    }

    /// Waits for what is in use, and takes leave of every connection.
    pub async fn close(&self) {
        loop {
            for connection in self.0.retain(|_, _| false).removed {
                let _ = connection.close().await;
            }
            if self.0.status().size == 0 {
                break self.0.close();
            }
            tokio::time::sleep(CLOSE_PAUSE).await;
        }
    }
}
