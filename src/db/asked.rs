//! What was asked of the database, and how its pools are, for budgets and metrics.

use std::sync::atomic::AtomicU64;

use super::{Db, Pools, StoreError, pool};
use crate::metrics::{Counters, EndCause, Histograms, Pool, SqlFailure, SqlOperation};

/// How much was asked of the database, and what came of it.
#[derive(Debug, Default)]
pub struct Asked {
    /// Statements, without `BEGIN` and `COMMIT`.
    pub statements: AtomicU64,
    /// Write transactions begun.
    pub transactions: AtomicU64,
    /// How long answers took.
    pub operations: Histograms<SqlOperation>,
    /// How long connections were waited for.
    pub waits: Histograms<Pool>,
    /// What was not done.
    pub failures: Counters<SqlFailure>,
    /// Ends of sessions that were committed.
    pub ended: Counters<EndCause>,
}

impl Asked {
    /// Counts what was not done. Who comes second to a unique key is told so, which is no failure.
    pub(super) fn note_failure(&self, error: StoreError) -> StoreError {
        match &error {
            StoreError::Timeout => self.failures.add(SqlFailure::Timeout),
            error if error.is_conflict() => {}
            error if error.is_passing() => self.failures.add(SqlFailure::Unavailable),
            _ => self.failures.add(SqlFailure::Fault),
        }
        error
    }
}

/// How a pool of connections is at present.
#[derive(Clone, Copy, Debug)]
pub struct PoolState {
    /// Which one.
    pub pool: Pool,
    /// Connections that nobody uses.
    pub idle: u64,
    /// Connections in use.
    pub used: u64,
    /// As many as there may be.
    pub most: u64,
}

impl PoolState {
    fn of<M: pool::Opens>(pool: Pool, connections: &pool::Pool<M>) -> Self {
        let (idle, used, most) = connections.state();
        Self { pool, idle, used, most }
    }
}

impl Db {
    /// How its pools are at present.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolState> {
        match &self.pools {
            Pools::Sqlite { read, write } => vec![PoolState::of(Pool::Read, read), PoolState::of(Pool::Write, write)],
            Pools::Postgres(pool) => vec![PoolState::of(Pool::Shared, pool)],
        }
    }

    pub(super) fn pool(&self, write: bool) -> Pool {
        match &self.pools {
            Pools::Sqlite { .. } if write => Pool::Write,
            Pools::Sqlite { .. } => Pool::Read,
            Pools::Postgres(_) => Pool::Shared,
        }
    }
}
