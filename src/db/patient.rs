//! Work of an operator that may take long, with the servers stopped: one transaction over every person.

use std::time::Duration;

use super::{Db, Pools, StoreResult, Timestamp, Tx};

impl Db {
    /// As [`Db::begin`], with so much time for the whole of it instead of [`super::PATIENCE`]. Nobody's request may wait
    /// for this.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_patiently(&self, now: Timestamp, patience: Duration) -> StoreResult<Tx> {
        let mut conn = self.conn(true, patience).await?;
        let begin = match self.pools {
            Pools::Sqlite { .. } => "BEGIN IMMEDIATE",
            // The connection's own limits are those of requests.
            Pools::Postgres(_) => {
                "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
            }
        };
        conn.control(begin).await?;
        conn.unfinished = true;
        Ok(Tx { conn, now, touched: Vec::new(), ended: Vec::new(), changes: std::sync::Arc::clone(&self.changes) })
    }
}
