//! A person's sessions as both stores have them together, and their ends.
//!
//! The ephemeral store has the records; SQL has the last word: a record whose end is remembered there, or whose epoch is
//! not the person's, is dead, even where the store still shows it (it may have lost the deletion). So a list is the
//! living records without those, and an end is first written to SQL, with its event, and only then removed.
//!
//! It is made of parts and not of the whole `App`, since the command line has no more than parts.

use std::{collections::HashSet, time::Duration};

use uuid::Uuid;

use super::store;
use crate::{
    accounts,
    ambient::Ambient,
    app::App,
    db::{Db, Timestamp},
    ephemeral::{Ephemeral, EphemeralResult, SessionRecord},
    events::Event,
};

/// How much longer than a session could live its end is remembered: nodes' clocks and settings may differ.
const END_MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

/// What it takes to see and end sessions.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'a> {
    /// Where ends and epochs are.
    pub db: &'a Db,
    /// Where the records are.
    pub ephemeral: &'a Ephemeral,
    /// Time and randomness.
    pub ambient: &'a Ambient,
    /// The absolute lifetime of a session.
    pub longest: Duration,
}

impl<'a> Ledger<'a> {
    /// With the parts of a server.
    #[must_use]
    pub fn of(app: &'a App) -> Self {
        let longest = app.config.tokens.refresh_absolute_ttl;
        Self { db: &app.db, ephemeral: &app.ephemeral, ambient: &app.ambient, longest }
    }

    /// Until when the end of a session that may have been opened just now must be remembered.
    pub(super) fn end_until(&self, now: Timestamp) -> Timestamp {
        now.after(self.longest).after(END_MARGIN)
    }

    /// The living sessions of a person whose epoch is `epoch`, the last used first.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn living(&self, person: Uuid, epoch: i64) -> EphemeralResult<Vec<(Uuid, SessionRecord)>> {
        let mut living = self.ephemeral.list(self.ambient.now(), person).await?;
        living.retain(|(_, record)| record.epoch == epoch);
        let ids: Vec<Uuid> = living.iter().map(|(session, _)| *session).collect();
        let mut conn = self.db.read().await?;
        let ended: HashSet<Uuid> = store::ended(&mut conn, &ids).await?.into_iter().collect();
        drop(conn);
        living.retain(|(session, _)| !ended.contains(session));
        living.sort_unstable_by_key(|(session, record)| (std::cmp::Reverse(record.made_at), *session));
        Ok(living)
    }

    /// Ends one session for good: remembered in SQL with `event`, unless it was already, then removed.
    ///
    /// # Errors
    /// When a store does not say so; the end may be remembered then.
    pub async fn end(&self, person: Uuid, session: Uuid, event: Event) -> EphemeralResult<()> {
        let now = self.ambient.now();
        let mut tx = self.db.begin(now).await?;
        if store::end(&mut tx, session, person, self.end_until(now)).await? {
            event.record(&mut tx, self.ambient).await?;
        }
        tx.commit().await?;
        self.ephemeral.close(person, session).await
    }

    /// Ends every session of the person but `spared`: the epoch moves, with `event`, and the spared one moves along. Only
    /// while the epoch is `stands`, if that is given: who asks out of a session may not end what was opened after that
    /// session was over, nor make it live again. `false` when it stands no longer.
    ///
    /// The epoch ends them durably and wherever their records are, so with nobody to spare removing the records is
    /// tidiness: if that fails the answer is still yes, since who asked could not ask again with a session that ended.
    ///
    /// # Errors
    /// When a store does not say so; all may have ended then, the spared one included.
    pub async fn end_all(
        &self,
        person: Uuid,
        stands: Option<i64>,
        spared: Option<Uuid>,
        event: Event,
    ) -> EphemeralResult<bool> {
        let now = self.ambient.now();
        let mut tx = self.db.begin(now).await?;
        let Some(epoch) = accounts::next_epoch(&mut tx, person, stands).await? else {
            tx.commit().await?;
            return Ok(false);
        };
        event.record(&mut tx, self.ambient).await?;
        tx.commit().await?;
        match self.ephemeral.close_others(now, person, spared.map(|session| (session, epoch))).await {
            Err(error) if spared.is_none() => {
                tracing::warn!(%error, "the records of ended sessions stay until they expire");
                Ok(true)
            }
            outcome => outcome.map(|()| true),
        }
    }
}
