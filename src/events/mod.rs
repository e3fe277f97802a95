//! What happened to people, sessions and keys, one row each, written in the transaction that did it.
//!
//! The row is the audit trail, and what webhooks and Kafka will read with cursors of their own. Refused logins are
//! counted in metrics and not stored: a stranger must not be able to fill the table.

mod store;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use uuid::Uuid;

use crate::{
    ambient::Ambient,
    db::{Db, StoreResult, Tx},
    metrics::EndCause,
};

macro_rules! kinds {
    ($($variant:ident = $word:literal, $meaning:literal;)+) => {
        /// What happened. The words are stable: others read them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $(#[doc = $meaning] $variant,)+ }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

kinds! {
    Registered = "registered", "A person was made; `data.via` says by whom if not by the person.";
    SignedIn = "signed_in", "A session was opened.";
    SignedOut = "signed_out", "A person ended a session, or all of them (`data.all`); in another session (`data.by`), or by signing in anew in its browser.";
    SessionEnded = "session_ended", "A session was ended by somebody else than its person; `data.cause` says why.";
    SessionHealed = "session_healed", "A refresh token was ahead of the store, which had lost writes.";
    ProfileChanged = "profile_changed", "A person changed the names others see; `data.fields` says which.";
    PasswordChanged = "password_changed", "A person chose a new password.";
    PasswordReset = "password_reset", "A person who forgot the password chose a new one with a code.";
    AddressVerified = "address_verified", "A person proved to own the address.";
    AddressChanged = "address_changed", "A person changed to another, proved address.";
    PersonDisabled = "person_disabled", "An operator keeps a person out; every session ended.";
    PersonEnabled = "person_enabled", "An operator lets a person in again.";
    PersonDeleted = "person_deleted", "A person ended the account.";
    KeyPublished = "key_published", "A signing key came into the ring.";
    KeyRotated = "key_rotated", "The signing key `data.to` took over from `data.from`.";
    KeyRetired = "key_retired", "A signing key verifies no more; `data.cause` says why.";
    DatabaseRestored = "database_restored", "The database came from a backup that knew what happened until `data.until`; every session ended.";
}

/// One event on its way into the table.
#[derive(Clone, Debug)]
pub struct Event {
    kind: Kind,
    person: Option<Uuid>,
    session: Option<Uuid>,
    client: Option<&'static str>,
    address: Option<IpAddr>,
    request_id: Option<String>,
    data: BTreeMap<&'static str, String>,
}

/// Where a request came from, as far as events tell of it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// The request's id.
    pub request_id: String,
}

impl Event {
    /// An event of this kind, about nobody yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, person: None, session: None, client: None, address: None, request_id: None, data: BTreeMap::new() }
    }

    /// About this person.
    #[must_use]
    pub fn person(self, id: Uuid) -> Self {
        Self { person: Some(id), ..self }
    }

    /// In this session, of the built-in client.
    #[must_use]
    pub fn session(self, id: Uuid) -> Self {
        Self { session: Some(id), client: Some(crate::BUILT_IN_CLIENT), ..self }
    }

    /// By this request.
    #[must_use]
    pub fn from(self, origin: &Origin) -> Self {
        Self { address: Some(origin.address), request_id: Some(origin.request_id.clone()), ..self }
    }

    /// With one more fact. Never a secret, never an address that is not the person's own.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.data.insert(name, value.into());
        self
    }

    /// Writes it in the transaction of the act.
    ///
    /// # Errors
    /// When the database does; then the act is not done either.
    pub async fn record(self, tx: &mut Tx, ambient: &Ambient) -> StoreResult<()> {
        if let Some(cause) = self.ends() {
            tx.ends(cause);
        }
        store::insert(tx, ambient.uuid(), &self).await
    }

    /// Why it ends sessions, if it is of a kind that does.
    fn ends(&self) -> Option<EndCause> {
        EndCause::parse(self.data.get("cause").map_or(self.kind.as_str(), String::as_str))
    }
}

/// Removes a batch of events older than `retention`, and tells how many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep(db: &Db, ambient: &Ambient, retention: Duration) -> StoreResult<u64> {
    let now = ambient.now();
    let mut tx = db.begin(now).await?;
    let swept = store::delete_before(&mut tx, now.before(retention)).await?;
    tx.commit().await?;
    Ok(swept)
}
