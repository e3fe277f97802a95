//! What an operator may do to people: make, find, list, disable and enable them.
//!
//! Disabling: 1. one transaction sets the status, moves the epoch and writes the event, so every session, flow of a code
//! and pending factor of the person is dead on every node from its commit on. 2. The session records, dead already, are
//! tidied away. Enabling sets the status back and nothing else: what ended stays ended.
//!
//! Whether somebody is an operator is not asked here. At the command line it is who can read the settings and thereby
//! open the database; rules for strangers (closed registration, listed domains, limits) do not bind such a person, rules
//! for names and passwords do.

mod store;

use uuid::Uuid;

use super::{Person, Taken, Wanted};
use crate::{
    ambient::Ambient,
    db::{Conn, Db, StoreResult},
    ephemeral::{Ephemeral, EphemeralError},
    events::{Event, Kind},
    names,
};

/// How the operator came, as events tell of it.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    /// By a command.
    CommandLine,
}

impl Via {
    /// The word in `data.via` of events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CommandLine => "cli",
        }
    }
}

/// Somebody as an operator names them.
///
/// What has the form of an id is one and nothing else. A username may look like that, so falling back to it would let
/// people be taken for the one whose id they have as their name; who has such a name is found by address or list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// By id.
    Id(Uuid),
    /// By address, canonical.
    Email(String),
    /// By the key of a username.
    Username(String),
}

impl Who {
    /// Reads an id, an address or a username; `None` for what nobody can be called.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // The hyphenated form alone: without hyphens it is a likelier username.
        if text.len() == 36
            && let Ok(id) = Uuid::try_parse(text)
        {
            return Some(Self::Id(id));
        }
        if text.contains('@') {
            return names::canonical_email(text).map(Self::Email);
        }
        names::username_key(text).map(Self::Username)
    }
}

/// The person, active or not, unless deleted.
///
/// # Errors
/// When the database does not answer.
pub async fn find(conn: &mut Conn, who: &Who) -> StoreResult<Option<Person>> {
    match who {
        Who::Id(id) => store::by_id(conn, *id).await,
        Who::Email(email) => store::by_email(conn, email).await,
        Who::Username(key) => store::by_username(conn, key).await,
    }
}

/// A piece of the list of people: by id, the greatest first, which for ids of ours is the newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// Only those whose address or username begins so, in upper or lower case.
    pub search: Option<String>,
    /// Only those below this id, which ended the piece before.
    pub after: Option<Uuid>,
    /// Most people in it.
    pub most: u16,
}

/// People who are not deleted.
///
/// # Errors
/// When the database does not answer.
pub async fn list(db: &Db, page: &Page) -> StoreResult<Vec<Person>> {
    // RFC 9562 §5.10 reserves the greatest id, so it is nobody's.
    let after = page.after.unwrap_or(Uuid::max());
    let mut conn = db.read().await?;
    let Some(text) = page.search.as_deref().filter(|text| !text.is_empty()) else {
        return store::below(&mut conn, after, page.most.into()).await;
    };
    // Nobody's key has one, and PostgreSQL takes none in a text.
    if text.contains('\0') {
        return Ok(Vec::new());
    }
    let first = names::canonical_email(text).unwrap_or_else(|| text.to_lowercase());
    // Keys are printable ASCII, so DEL comes behind whatever can follow.
    let end = format!("{first}\u{7f}");
    store::below_between(&mut conn, after, (&first, &end), page.most.into()).await
}

/// How many people have a password hash that is not Argon2: their failed logins take another time than others'.
///
/// # Errors
/// When the database does not answer.
pub async fn foreign_hashes(db: &Db) -> StoreResult<i64> {
    store::foreign_hashes(&mut db.read().await?).await
}

/// Makes a person, with the event. Without a hash nobody can sign in as that person before a reset of the password.
///
/// # Errors
/// When the database does not answer.
pub async fn create(
    db: &Db,
    ambient: &Ambient,
    via: Via,
    wanted: &Wanted,
    hash: Option<&str>,
    is_verified: bool,
) -> StoreResult<Result<Person, Taken>> {
    let mut tx = db.begin(ambient.now()).await?;
    let made = wanted.insert(&mut tx, ambient.uuid(), hash, is_verified).await?;
    if let Ok(person) = &made {
        let event = Event::new(Kind::Registered).person(person.id).with("via", via.as_str());
        // Nobody proved it: the operator says so.
        let event = if is_verified { event.with("verified", "true") } else { event };
        event.record(&mut tx, ambient).await?;
    }
    tx.commit().await?;
    Ok(made)
}

/// What came of an act on a person's status.
#[derive(Debug)]
pub enum Outcome {
    /// Done. What kept the records of ended sessions from being tidied, if anything did: they are dead all the same.
    Done(Option<EphemeralError>),
    /// It was so already, and nothing was written.
    Already,
    /// Nobody has this id.
    Unknown,
}

/// Keeps a person out and ends everything of theirs that lives.
///
/// # Errors
/// When the database does not say that it is done.
pub async fn disable(
    db: &Db,
    ephemeral: &Ephemeral,
    ambient: &Ambient,
    via: Via,
    person: Uuid,
) -> StoreResult<Outcome> {
    let now = ambient.now();
    let mut tx = db.begin(now).await?;
    if !store::disable(&mut tx, person).await? {
        let known = store::by_id(&mut tx, person).await?;
        tx.commit().await?;
        return Ok(if known.is_some() { Outcome::Already } else { Outcome::Unknown });
    }
    Event::new(Kind::PersonDisabled).person(person).with("via", via.as_str()).record(&mut tx, ambient).await?;
    tx.commit().await?;
    Ok(Outcome::Done(ephemeral.close_others(now, person, None).await.err()))
}

/// Lets a person in again; sessions that ended stay ended.
///
/// # Errors
/// When the database does not say that it is done.
pub async fn enable(db: &Db, ambient: &Ambient, via: Via, person: Uuid) -> StoreResult<Outcome> {
    let mut tx = db.begin(ambient.now()).await?;
    if !store::enable(&mut tx, person).await? {
        let known = store::by_id(&mut tx, person).await?;
        tx.commit().await?;
        return Ok(if known.is_some() { Outcome::Already } else { Outcome::Unknown });
    }
    Event::new(Kind::PersonEnabled).person(person).with("via", via.as_str()).record(&mut tx, ambient).await?;
    tx.commit().await?;
    Ok(Outcome::Done(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_id_and_never_a_username() {
        let id = "01a203c5-3645-70ad-a9d1-0a46da625171";
        assert_eq!(Who::parse(id), id.parse().ok().map(Who::Id));
        assert_eq!(Who::parse(&id.to_uppercase()), Who::parse(id));
        let bare = id.replace('-', "");
        assert_eq!(Who::parse(&bare), Some(Who::Username(bare.clone())));
    }

    #[test]
    fn names_are_read_as_at_a_login() {
        assert_eq!(Who::parse("Alice@EXAMPLE.com"), Some(Who::Email("alice@example.com".into())));
        assert_eq!(Who::parse("ALICE"), Some(Who::Username("alice".into())));
        for text in ["", "al ice", "@", "a@b@c", "\u{1b}[2J"] {
            assert_eq!(Who::parse(text), None, "{text:?}");
        }
    }
}
