//! Why the database did not do the work, and whether it may do it later.

/// The database could not do the work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not answer within [`super::PATIENCE`].
    #[error("the database did not answer in time")]
    Timeout,
    /// It answered with an error, or the connection broke.
    #[error("the database failed")]
    Sqlx(#[source] sqlx::Error),
}

impl StoreError {
    /// Whether a unique index refused the row.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Sqlx(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// Whether trying again later may help; otherwise it is a fault in our own SQL or schema.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Sqlx(sqlx::Error::Database(error)) => {
                match error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                    // Connection, read-only master, authorization, catalog, serialization, resources, state, operator, system:
                    // classes of PostgreSQL appendix A.
                    Some(error) => ["08", "25", "28", "3D", "40", "53", "55", "57", "58"]
                        .iter()
                        .any(|class| error.code().starts_with(class)),
                    // BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN: SQLite's primary result codes.
                    None => error
                        .code()
                        .and_then(|code| code.parse::<i32>().ok())
                        .is_some_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 11 | 13 | 14)),
                }
            }
            Self::Sqlx(sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_)) => {
                false
            }
            Self::Sqlx(_) => true,
        }
    }
}

impl From<StoreError> for crate::error::ApiError {
    fn from(error: StoreError) -> Self {
        let code = if error.is_passing() { crate::error::Code::Unavailable } else { crate::error::Code::Internal };
        Self::new(code).caused_by(error)
    }
}
