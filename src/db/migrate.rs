//! Bringing the schema up to date.
//!
//! 1. A look. Who finds every migration done takes no lock and changes nothing, whatever others hold. A schema that is
//!    newer than this program is fine, since a release runs on the schema of the next one; but one that was cut back
//!    since (`needs_<release>` in a migration's name) is only for that release and later ones.
//! 2. One migration at a time, each in one transaction that begins with an advisory lock and ends with the migration's
//!    row. The lock is the transaction's, not the session's: it is gone when the process is, and it holds behind a
//!    pooler that lends its connections by the transaction. (SQLite has none; a locked file stands for it.)
//! 3. Nobody queues for that lock: a statement that waits has a snapshot, and `CREATE INDEX CONCURRENTLY` waits for
//!    snapshots. Who does not get it looks again a moment later, and says in the log what it waits for.
//! 4. A statement that gets no lock on its table within half a second gives up, since all requests queue behind it. The
//!    migration is rolled back and begins anew a second later.
//! 5. Waiting ends after [`Plan::patience`] without any progress, with a fault that names what it was for.

use std::{fs, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, Postgres, SqliteConnection, Transaction,
    migrate::{Migrate, MigrateError, Migration, Migrator},
    postgres::{PgConnectOptions, PgDatabaseError},
};
use tokio::time::Instant;

use super::{
    Db, OpenError, Pools,
    pool::{Pool, ToSqlite},
};

pub(super) static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
pub(super) static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

/// sqlx's own table.
const TABLE: &str = "_sqlx_migrations";
/// The advisory lock between nodes of one database, the same in every release.
const LOCK: i64 = i64::from_be_bytes(*b"latchkey");
/// How long a start waits for others: longer than any migration should take.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How soon a node that waits for another one looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long requests that queued behind a migration have to themselves before it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long a wait is nothing to speak of.
const SILENT: Duration = Duration::from_secs(1);
/// How often it is spoken of from then on.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every migration, in order.
    pub migrations: Vec<Migration>,
    /// How long to wait while nothing moves.
    pub patience: Duration,
}

/// A migration that the database has had.
#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    description: String,
    checksum: Vec<u8>,
}

impl Plan {
    /// The first migration that is missing.
    fn next(&self, applied: &[Applied]) -> Result<Option<&Migration>, OpenError> {
        let newest = self.migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
        for row in applied {
            match self.migrations.iter().find(|migration| migration.version == row.version) {
                Some(migration) if *migration.checksum == *row.checksum => {}
                Some(_) => return Err(MigrateError::VersionMismatch(row.version).into()),
                None if row.version < newest => return Err(MigrateError::VersionMissing(row.version).into()),
                None => serves_beside(&row.description)?,
            }
        }
        let next = self.migrations.iter().find(|migration| applied.iter().all(|row| row.version != migration.version));
        match (next, applied.last()) {
            (Some(next), Some(last)) if next.version < last.version => {
                Err(MigrateError::VersionTooOld(next.version, last.version).into())
            }
            _ => Ok(next),
        }
    }
}

/// Whether this program is new enough for a migration of a later release, which says so in its name.
pub(super) fn serves_beside(description: &str) -> Result<(), OpenError> {
    let needs = description.strip_prefix("needs ").and_then(|rest| rest.split(' ').next());
    match needs {
        Some(needs) if release(needs) > release(env!("CARGO_PKG_VERSION")) => Err(OpenError::CutBack(needs.to_owned())),
        _ => Ok(()),
    }
}

/// The numbers of a release, without what marks a candidate.
fn release(text: &str) -> Vec<u64> {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    numbers.split('.').map(|number| number.parse().unwrap_or(0)).collect()
}

impl Db {
    /// The migrations of this program for this database.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let migrator = if self.is_embedded() { &SQLITE } else { &POSTGRES };
        Plan { migrations: migrator.iter().cloned().collect(), patience: PATIENCE }
    }

    /// Brings the schema up to date. Of several processes that start at once one does it while the others wait.
    ///
    /// # Errors
    /// When a migration fails, the schema is not one of ours, or others hold things up.
    pub async fn migrate(&self) -> Result<(), OpenError> {
        self.migrate_by(&self.plan()).await
    }

    /// As [`Db::migrate`], by a plan of the caller's.
    ///
    /// # Errors
    /// As [`Db::migrate`].
    pub async fn migrate_by(&self, plan: &Plan) -> Result<(), OpenError> {
        match &self.pools {
            Pools::Sqlite { write, .. } => migrate_sqlite(write, plan).await,
            Pools::Postgres(pool) => migrate_postgres(&pool.manager().0, plan).await,
        }
    }
}

async fn migrate_sqlite(write: &Pool<ToSqlite>, plan: &Plan) -> Result<(), OpenError> {
    let path = write.manager().0.get_filename().with_file_name("migrate.lock");
    let failed = |source| OpenError::Lock { path: path.display().to_string(), source };
    let mut connection = write.get().await.map_err(OpenError::Connect)?;
    let mut waiting = Waiting::default();
    while let Some(missing) = plan.next(&applied_sqlite(&mut connection).await?)? {
        let lock = fs::File::create(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {
                // What was missing may have been done meanwhile.
                if let Some(next) = plan.next(&applied_sqlite(&mut connection).await?)? {
                    connection.ensure_migrations_table(TABLE).await?;
                    connection.apply(TABLE, next).await?;
                    tracing::info!(migration = next.version, "{}", next.description);
                }
            }
            Err(fs::TryLockError::WouldBlock) => {
                waiting.goes_on(missing.version, "another process is at it", plan.patience)?;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    Ok(())
}

async fn applied_sqlite(connection: &mut SqliteConnection) -> Result<Vec<Applied>, OpenError> {
    let is_there: bool = sqlx::query_scalar("SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut *connection)
        .await
        .map_err(OpenError::Connect)?;
    if !is_there {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as("SELECT version, description, checksum FROM _sqlx_migrations ORDER BY version");
    Ok(rows.fetch_all(connection).await.map_err(MigrateError::Execute)?)
}

/// How one round ended.
enum Round {
    /// Nothing is missing.
    Done,
    /// This node applied one.
    Applied,
    /// This one is missing, and something is in its way.
    Held { version: i64, by: String, pause: Duration },
}

async fn migrate_postgres(options: &PgConnectOptions, plan: &Plan) -> Result<(), OpenError> {
    // A connection of its own: a migration may take longer than any request is allowed to.
    let mut connection = PgConnection::connect_with(options).await.map_err(OpenError::Connect)?;
    let mut waiting = Waiting::default();
    loop {
        match round(&mut connection, options, plan).await? {
            Round::Done => return connection.close().await.map_err(OpenError::Connect),
            Round::Applied => {}
            Round::Held { version, by, pause } => {
                waiting.goes_on(version, &by, plan.patience)?;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// One look, and one migration if one is missing.
async fn round(connection: &mut PgConnection, options: &PgConnectOptions, plan: &Plan) -> Result<Round, OpenError> {
    let Some(next) = plan.next(&applied(connection).await?)? else { return Ok(Round::Done) };
    let version = next.version;
    let mut tx = connection.begin().await.map_err(OpenError::Connect)?;
    match advance(&mut tx, options, plan).await {
        Ok(None) => {
            tx.commit().await.map_err(MigrateError::Execute)?;
            Ok(Round::Applied)
        }
        Ok(Some(by)) => {
            tx.rollback().await.map_err(MigrateError::Execute)?;
            Ok(Round::Held { version, by, pause: LOOK_AGAIN })
        }
        Err(error) => {
            // At once, and not when the connection is used again: until then it would hold its locks.
            let _ = tx.rollback().await;
            let by = table_in_use(&error).ok_or(error)?;
            Ok(Round::Held { version, by, pause: TRY_AGAIN })
        }
    }
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<Applied>, OpenError> {
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(OpenError::Connect)?;
    if !is_there {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as("SELECT version, description, checksum FROM _sqlx_migrations ORDER BY version");
    Ok(rows.fetch_all(connection).await.map_err(MigrateError::Execute)?)
}

/// Takes the lock, looks again, and applies what is missing now; or tells who has the lock.
async fn advance(
    tx: &mut Transaction<'_, Postgres>,
    options: &PgConnectOptions,
    plan: &Plan,
) -> Result<Option<String>, OpenError> {
    // A node that hangs between two statements is hung up on, and its locks are free.
    tx.execute(
        "SET LOCAL lock_timeout = 500; SET LOCAL statement_timeout = 0;
         SET LOCAL idle_in_transaction_session_timeout = 10000",
    )
    .await
    .map_err(MigrateError::Execute)?;
    let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut **tx)
        .await
        .map_err(MigrateError::Execute)?;
    if !is_ours {
        return Ok(Some(holder(tx).await?));
    }
    tx.ensure_migrations_table(TABLE).await?;
    let Some(next) = plan.next(&applied(tx).await?)? else { return Ok(None) };
    if next.no_tx {
        apply_piecemeal(tx, options, next, plan.patience).await?;
        tx.skip(TABLE, next).await?;
    } else {
        tx.apply(TABLE, next).await?;
    }
    tracing::info!(migration = next.version, "{}", next.description);
    Ok(None)
}

/// Who has the lock, in words.
async fn holder(connection: &mut PgConnection) -> Result<String, OpenError> {
    let process: Option<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_locks
         WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND (classid::bigint << 32 | objid::bigint) = $1
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .bind(LOCK)
    .fetch_optional(connection)
    .await
    .map_err(MigrateError::Execute)?;
    let process = process.map_or_else(|| "that is just done".to_owned(), |process| process.to_string());
    Ok(format!("another node is at it, by the PostgreSQL process {process}"))
}

/// Statement by statement, on a connection beside the one that has the lock, as what cannot run in a transaction has to.
async fn apply_piecemeal(
    tx: &mut PgConnection,
    options: &PgConnectOptions,
    migration: &Migration,
    patience: Duration,
) -> Result<(), OpenError> {
    let mut connection = PgConnection::connect_with(options).await.map_err(OpenError::Connect)?;
    let work = async {
        // What runs here waits for others without being in their way.
        sqlx::query("SELECT set_config('statement_timeout', '0', FALSE), set_config('lock_timeout', $1, FALSE)")
            .bind(patience.as_millis().to_string())
            .execute(&mut connection)
            .await?;
        for statement in migration.sql.as_str().split(";\n").filter(|statement| !statement.trim().is_empty()) {
            connection.execute(AssertSqlSafe(statement.to_owned())).await?;
        }
        connection.close().await
    };
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                return Ok(done.map_err(|error| MigrateError::ExecuteMigration(error, migration.version))?);
            }
            // A sign of life, or the lock would be taken for a hanging node's.
            () = tokio::time::sleep(Duration::from_secs(1)) => tx.ping().await.map_err(MigrateError::Execute)?,
        }
    }
}

/// In words, if all that failed was getting hold of a table.
fn table_in_use(error: &OpenError) -> Option<String> {
    let OpenError::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return None;
    };
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    // lock_not_available, deadlock_detected.
    let is_lock = ["55P03", "40P01"].contains(&error.code());
    is_lock.then(|| format!("a table that it changes is in use by others ({})", error.message()))
}

/// The wait for one migration.
#[derive(Default)]
struct Waiting {
    version: i64,
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Waiting {
    fn goes_on(&mut self, version: i64, by: &str, patience: Duration) -> Result<(), OpenError> {
        let now = Instant::now();
        if version != self.version {
            *self = Self { version, since: None, said: None };
        }
        let waited = now - *self.since.get_or_insert(now);
        if waited >= patience {
            return Err(OpenError::Held { version, seconds: waited.as_secs(), by: by.to_owned() });
        }
        if waited >= SILENT && self.said.is_none_or(|said| now - said >= SAY_AGAIN) {
            self.said = Some(now);
            tracing::warn!(migration = version, "waiting to bring the database schema up to date: {by}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_older_by_its_numbers() {
        for (older, newer) in [("0.1.0", "0.1.1"), ("0.9.0", "0.10.0"), ("0.10.3", "1.0.0"), ("1.0.0-rc.1", "1.0.1")] {
            assert!(release(older) < release(newer), "{older} {newer}");
        }
        assert_eq!(release("1.0.0-rc.1"), release("1.0.0"));
    }
}
