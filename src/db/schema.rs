//! How the schema of a database, or of a file, stands to that of this program. Looking changes nothing.

use std::cmp::Ordering;

use sqlx::migrate::Migrator;

use super::{
    Db, StoreResult,
    migrate::{POSTGRES, SQLITE, serves_beside},
    on,
};

/// How a schema stands to that of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// There is none.
    None,
    /// It lacks migrations of this program.
    Older,
    /// It is the same.
    Current,
    /// It has migrations that this program does not know; it serves all the same.
    Newer,
    /// One of those took something away that this program needs.
    CutBack,
}

impl Schema {
    fn of(applied: Option<i64>, plan: &Migrator) -> Self {
        let Some(applied) = applied else { return Self::None };
        match Some(applied).cmp(&plan.iter().map(|migration| migration.version).max()) {
            Ordering::Less => Self::Older,
            Ordering::Equal => Self::Current,
            Ordering::Greater => Self::Newer,
        }
    }

    /// What these migrations, by version and checksum, make of a file; `None` when it is not one of ours.
    pub(super) fn of_file(applied: &[(i64, Vec<u8>)]) -> Option<Self> {
        let ours = |(version, checksum): &(i64, Vec<u8>)| {
            let same = SQLITE.iter().find(|migration| migration.version == *version);
            same.is_none_or(|migration| *migration.checksum == **checksum)
        };
        let last = applied.iter().map(|(version, _)| *version).max();
        // The first one tells whose it is; what this program does not know at all is a newer one's.
        let is_ours = SQLITE.iter().next().is_some_and(|first| applied.iter().any(|(v, _)| *v == first.version));
        (is_ours && applied.iter().all(ours)).then(|| Self::of(last, &SQLITE))
    }
}

impl Db {
    /// Whether the schema has every migration of this program. Looking changes nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_migrated(&self) -> StoreResult<bool> {
        Ok(matches!(self.schema().await?, Schema::Current | Schema::Newer))
    }

    /// How the schema stands to that of this program. Looking changes nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schema(&self) -> StoreResult<Schema> {
        let mut conn = self.read().await?;
        let applied: StoreResult<Vec<(i64, String)>> =
            on!(&mut conn, |c| sqlx::query_as("SELECT version, description FROM _sqlx_migrations WHERE success")
                .fetch_all(c));
        let ours = if self.is_embedded() { &SQLITE } else { &POSTGRES };
        match applied {
            Ok(applied) => {
                let known = |version: i64| ours.iter().any(|migration| migration.version == version);
                let cuts = |(version, name): &(i64, String)| !known(*version) && serves_beside(name).is_err();
                if applied.iter().any(cuts) {
                    return Ok(Schema::CutBack);
                }
                Ok(Schema::of(applied.iter().map(|(version, _)| *version).max(), ours))
            }
            // There is no such table.
            Err(error) if !error.is_passing() => Ok(Schema::None),
            Err(error) => Err(error),
        }
    }
}
