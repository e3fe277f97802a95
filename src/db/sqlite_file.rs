//! A file of SQLite as operators handle it: copied while a server writes into it, examined, and made one file again.
//!
//! In WAL mode a database is up to three files: what was written last stands in `-wal`. SQLite finds that file by its name
//! alone and applies it to whatever database lies beside it. So before one file takes the place of another, both are
//! *settled*: what is in `-wal` goes into the database, and `-wal` and `-shm` go away.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};

use super::Schema;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum SqliteFault {
    /// It is none of ours.
    #[error("it is no database of Latchkey")]
    Foreign,
    /// SQLite finds it damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// Another process has it open.
    #[error("another process uses the database; let it end, then try again")]
    InUse,
    /// SQLite could not do the work.
    #[error("SQLite failed")]
    Sqlx(#[source] sqlx::Error),
}

impl From<sqlx::Error> for SqliteFault {
    fn from(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<i32>().ok()),
            _ => None,
        };
        // SQLite's primary result codes.
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => Self::InUse,
            Some(11) => Self::Damaged(error.to_string()),
            Some(26) => Self::Foreign,
            _ => Self::Sqlx(error),
        }
    }
}

/// An open file.
#[derive(Debug)]
pub struct SqliteFile(SqliteConnection);

impl SqliteFile {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// [`SqliteFault`].
    pub async fn open(path: &Path) -> Result<Self, SqliteFault> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        Ok(Self(options.connect().await?))
    }

    /// Writes what the database is at one moment into the empty file `target`. Writers are not held up. The caller sees to
    /// it that `target` gets onto the disk.
    ///
    /// # Errors
    /// [`SqliteFault`].
    pub async fn copy_into(&mut self, target: &Path) -> Result<(), SqliteFault> {
        let target = target.to_str().ok_or_else(|| sqlx::Error::Configuration("the path is no UTF-8 text".into()))?;
        sqlx::query("VACUUM INTO $1").bind(target).execute(&mut self.0).await?;
        Ok(())
    }

    /// Which schema it has.
    ///
    /// # Errors
    /// [`SqliteFault::Foreign`] and the others.
    pub async fn schema(&mut self) -> Result<Schema, SqliteFault> {
        let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'")
            .fetch_one(&mut self.0)
            .await?;
        if tables == 0 {
            return Err(SqliteFault::Foreign);
        }
        let applied: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
                .fetch_all(&mut self.0)
                .await?;
        Schema::of_file(&applied).ok_or(SqliteFault::Foreign)
    }

    /// Reads all of it, tables against indexes.
    ///
    /// # Errors
    /// [`SqliteFault::Damaged`] and the others.
    pub async fn examine(&mut self) -> Result<(), SqliteFault> {
        let words: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_all(&mut self.0).await?;
        match words.as_slice() {
            [ok] if ok == "ok" => Ok(()),
            words => Err(SqliteFault::Damaged(words.join("; "))),
        }
    }

    /// How many people are in it, those included whose data is about to go.
    ///
    /// # Errors
    /// [`SqliteFault`].
    pub async fn people(&mut self) -> Result<i64, SqliteFault> {
        Ok(sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(&mut self.0).await?)
    }

    /// Makes it one file: nothing is in `-wal` any more, and there is none. For that nobody else may have it open.
    ///
    /// # Errors
    /// [`SqliteFault::InUse`] and the others; then it is as it was.
    pub async fn settle(mut self) -> Result<(), SqliteFault> {
        let (busy, _, _): (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut self.0).await?;
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode = DELETE").fetch_one(&mut self.0).await?;
        if busy != 0 || mode != "delete" {
            return Err(SqliteFault::InUse);
        }
        Ok(self.0.close().await?)
    }

    /// Closes it.
    ///
    /// # Errors
    /// [`SqliteFault`].
    pub async fn close(self) -> Result<(), SqliteFault> {
        Ok(self.0.close().await?)
    }

    /// The files that belong to the database `path` as long as it is in use, or after a crash.
    #[must_use]
    pub fn companions(path: &Path) -> [PathBuf; 3] {
        ["-wal", "-shm", "-journal"].map(|end| {
            let mut name = OsString::from(path);
            name.push(end);
            PathBuf::from(name)
        })
    }
}
