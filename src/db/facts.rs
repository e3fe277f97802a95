//! What a database says of itself, for `latchkey doctor`.

use super::{Db, StoreResult, on};

/// Settings of the database that decide whether what it acknowledged lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Facts {
    /// SQLite; the modes are those of a connection of ours.
    Sqlite {
        /// As `3.50.4`.
        version: String,
        /// `wal`, by our settings.
        journal_mode: String,
        /// 2 is `FULL`.
        synchronous: i64,
        /// 1 is on.
        foreign_keys: i64,
        /// Milliseconds that a writer waits for another process.
        busy_timeout: i64,
    },
    /// PostgreSQL.
    Postgres {
        /// As `15.4 (Debian …)`.
        version: String,
        /// As `150004`.
        number: i64,
        /// `on`, or a power cut may ruin the database.
        fsync: String,
        /// `on`, or a power cut may tear pages.
        full_page_writes: String,
        /// `off` loses what was acknowledged last.
        synchronous_commit: String,
        /// Whether it is a standby that takes no writes.
        is_standby: bool,
        /// Connections that it takes.
        max_connections: i64,
    },
}

impl Db {
    /// What the database says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn facts(&self) -> StoreResult<Facts> {
        // Every one of these words is the dialect's own.
        if self.is_embedded() {
            let sql = "SELECT sqlite_version(), (SELECT journal_mode FROM pragma_journal_mode),
                              (SELECT synchronous FROM pragma_synchronous),
                              (SELECT foreign_keys FROM pragma_foreign_keys), (SELECT timeout FROM pragma_busy_timeout)";
            let mut conn = self.read().await?;
            let (version, journal_mode, synchronous, foreign_keys, busy_timeout) =
                on!(&mut conn, |c| sqlx::query_as(sql).fetch_one(c))?;
            return Ok(Facts::Sqlite { version, journal_mode, synchronous, foreign_keys, busy_timeout });
        }
        let sql = "SELECT current_setting('server_version'), CAST(current_setting('server_version_num') AS BIGINT),
                          current_setting('fsync'), current_setting('full_page_writes'),
                          current_setting('synchronous_commit'), pg_is_in_recovery(),
                          CAST(current_setting('max_connections') AS BIGINT)";
        let mut conn = self.read().await?;
        let (version, number, fsync, full_page_writes, synchronous_commit, is_standby, max_connections) =
            on!(&mut conn, |c| sqlx::query_as(sql).fetch_one(c))?;
        Ok(Facts::Postgres {
            version,
            number,
            fsync,
            full_page_writes,
            synchronous_commit,
            is_standby,
            max_connections,
        })
    }
}
