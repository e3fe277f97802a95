//! What an operator may do to sessions: end one, or all of a person's.
//!
//! The same way as a person's own ends, with an event that says who it was. Only a living session of that person can be
//! ended by its id: the memory of ends asks for no person, so a wrong pair would end a stranger's session.

use uuid::Uuid;

use super::Ledger;
use crate::{
    accounts::{Person, operator::Via},
    ephemeral::EphemeralResult,
    events::{Event, Kind},
};

fn ended(via: Via, person: &Person) -> Event {
    Event::new(Kind::SessionEnded).person(person.id).with("cause", "operator").with("via", via.as_str())
}

/// Ends one session; `false` when the person has no living one of this id.
///
/// # Errors
/// When a store does not say so; it may be over then.
pub async fn revoke(ledger: &Ledger<'_>, via: Via, person: &Person, session: Uuid) -> EphemeralResult<bool> {
    let living = ledger.living(person.id, person.epoch).await?;
    if !living.iter().any(|(id, _)| *id == session) {
        return Ok(false);
    }
    ledger.end(person.id, session, ended(via, person).session(session)).await?;
    Ok(true)
}

/// Ends every session, and every code that was mailed: the epoch moves. Needs the database alone.
///
/// # Errors
/// When the database does not say so.
pub async fn revoke_all(ledger: &Ledger<'_>, via: Via, person: &Person) -> EphemeralResult<()> {
    ledger.end_all(person.id, None, None, ended(via, person).with("all", "true")).await.map(drop)
}
