//! Opening the database, and bringing its schema up to date.

use std::{path::Path, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::Migrator,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::timeout;

use super::{
    Db, Pools, StoreResult, on,
    pool::{Pool, ToPostgres, ToSqlite},
};
use crate::secret::SecretText;

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

/// Readers of the embedded file; more would only wait for the same cores.
const SQLITE_READERS: u32 = 4;

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
        let write = Pool::of(ToSqlite(options.clone()), 1);
        // Readers open when they are needed: a start should not wait for them.
        let read = Pool::of(ToSqlite(options), SQLITE_READERS);
        drop(write.get().await.map_err(OpenError::Connect)?);
        Ok(Self {
            pools: Pools::Sqlite { read, write },
            asked: std::sync::Arc::default(),
            changes: std::sync::Arc::default(),
        })
    }

    /// Connects to PostgreSQL.
    ///
    /// # Errors
    /// When no first connection can be made in time.
    pub async fn open_postgres(url: &SecretText, connections: u32) -> Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(url.expose()).map_err(OpenError::Connect)?.disable_statement_logging();
        let pool = Pool::of(ToPostgres(options), connections);
        let first = timeout(super::PATIENCE, pool.get()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        drop(first.map_err(OpenError::Connect)?);
        Ok(Self { pools: Pools::Postgres(pool), asked: std::sync::Arc::default(), changes: std::sync::Arc::default() })
    }

    /// Brings the schema up to date. Of several nodes that start at once on PostgreSQL one does it while the others wait
    /// (sqlx takes an advisory lock); on SQLite the caller sees to that.
    ///
    /// # Errors
    /// When a migration fails, or the schema is of a newer program.
    pub async fn migrate(&self) -> Result<(), OpenError> {
        match &self.pools {
            Pools::Sqlite { write, .. } => {
                let mut connection = write.get().await.map_err(OpenError::Connect)?;
                SQLITE.run(&mut *connection).await.map_err(OpenError::Migrate)
            }
            Pools::Postgres(pool) => {
                // A connection of its own: a migration may take longer than any request is allowed to.
                let mut connection = PgConnection::connect_with(&pool.manager().0).await.map_err(OpenError::Connect)?;
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
