//! Opening the database, and bringing its schema up to date.

use std::{path::Path, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Db, Pools, StoreResult, on};
use crate::secret::SecretText;

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

/// Readers of the embedded file; more would only wait for the same cores.
const SQLITE_READERS: u32 = 4;

/// How long an idle connection may take to show that it is alive.
const PING_PATIENCE: Duration = Duration::from_millis(300);

/// Opening or migrating the database failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be reached, or refuses us.
    #[error("cannot open the database; is it running, and are address, user and password right?")]
    Connect(#[source] sqlx::Error),
    /// Its schema is newer than this program, or a migration failed.
    #[error("cannot bring the database schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

impl Db {
    /// Opens the SQLite file at `path`, making it if it is not there.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn open_sqlite(path: &Path) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged write survives a power cut, not only a crash: WAL alone would not promise that.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let write = pool(1).connect_with(options.clone()).await.map_err(OpenError::Connect)?;
        // Readers open when they are needed: a start should not wait for them.
        let read = pool(SQLITE_READERS).connect_lazy_with(options);
        Ok(Self {
            pools: Pools::Sqlite { read, write },
            asked: std::sync::Arc::default(),
            changes: std::sync::Arc::default(),
        })
    }

    /// Connects to PostgreSQL.
    ///
    /// # Errors
    /// When no first connection can be made.
    pub async fn open_postgres(url: &SecretText, connections: u32) -> Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(url.expose()).map_err(OpenError::Connect)?.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(super::PATIENCE)
            // A connection that was used a moment ago is very likely alive, and asking costs a round trip every time.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > Duration::from_secs(1) {
                        // An error makes the pool connect anew at once.
                        let ping = tokio::time::timeout(PING_PATIENCE, connection.ping()).await;
                        ping.map_err(|_| sqlx::Error::PoolTimedOut)??;
                    }
                    Ok(true)
                })
            })
            // We hang up after PATIENCE; the server must not go on with what nobody waits for, or it piles up there.
            // Said after connecting rather than in the start-up packet, which poolers such as PgBouncer refuse.
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection
                        .execute("SET statement_timeout = 2000; SET idle_in_transaction_session_timeout = 10000")
                        .await
                        .map(drop)
                })
            })
            .connect_with(options)
            .await
            .map_err(OpenError::Connect)?;
        Ok(Self { pools: Pools::Postgres(pool), asked: std::sync::Arc::default(), changes: std::sync::Arc::default() })
    }

    /// Brings the schema up to date. Of several nodes that start at once on PostgreSQL one does it while the others wait
    /// (sqlx takes an advisory lock); on SQLite the caller sees to that.
    ///
    /// # Errors
    /// When a migration fails, or the schema is of a newer program.
    pub async fn migrate(&self) -> Result<(), OpenError> {
        match &self.pools {
            Pools::Sqlite { write, .. } => SQLITE.run(write).await.map_err(OpenError::Migrate),
            Pools::Postgres(pool) => {
                // A connection of its own: a migration may take longer than any request is allowed to.
                let mut connection =
                    PgConnection::connect_with(&pool.connect_options()).await.map_err(OpenError::Connect)?;
                POSTGRES.run(&mut connection).await.map_err(OpenError::Migrate)?;
                connection.close().await.map_err(OpenError::Connect)
            }
        }
    }

    /// Whether the schema has every migration of this program. Looking changes nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_migrated(&self) -> StoreResult<bool> {
        let migrator = match &self.pools {
            Pools::Sqlite { .. } => &SQLITE,
            Pools::Postgres(_) => &POSTGRES,
        };
        let mut conn = self.read().await?;
        let applied: StoreResult<Option<i64>> =
            on!(&mut conn, |c| sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations WHERE success")
                .fetch_one(c));
        match applied {
            Ok(applied) => Ok(applied >= migrator.iter().map(|migration| migration.version).max()),
            // There is no such table.
            Err(error) if !error.is_passing() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
