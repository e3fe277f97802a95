//! Opening the database.

use std::{path::Path, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::timeout;

use super::{
    Db, Pools,
    pool::{Pool, ToPostgres, ToSqlite},
};
use crate::secret::SecretText;

/// Readers of the embedded file; more would only wait for the same cores.
const SQLITE_READERS: u32 = 4;

/// Opening or migrating the database failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be reached, or refuses us.
    #[error("cannot open the database; is it running, and are address, user and password right?")]
    Connect(#[source] sqlx::Error),
    /// A migration failed, or those it has had are not ours.
    #[error("cannot bring the database schema up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The file that is locked for a migration of the embedded database cannot be used.
    #[error("cannot lock {path}: is its folder writable by this user?")]
    Lock {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others were in the way for too long.
    #[error("cannot bring the database schema up to date: migration {version} waited {seconds} s, since {by}")]
    Held {
        /// The migration.
        version: i64,
        /// How long it waited.
        seconds: u64,
        /// For what.
        by: String,
    },
    /// Its schema lacks what this program needs: a later release took it away.
    #[error(
        "the database schema is for Latchkey {0} and later, and this is {this}; start such a one, or restore a backup of before",
        this = env!("CARGO_PKG_VERSION")
    )]
    CutBack(String),
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
}
