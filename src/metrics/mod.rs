//! What is counted, as Prometheus reads it on the internal listener (`http::metrics` has the page).
//!
//! 1. Every label has a closed set of values, an enum with a word for each ([`Words`]), or a route as it stands in our
//!    own router. So nothing that a client sends can become a label or add a series, and every cell is there from the
//!    start: to count is to add to an atomic, without a lock, an allocation or the hash of a text.
//! 2. What belongs to a part is kept in the part, which needs no way to here: [`crate::db::Asked`],
//!    [`crate::ephemeral::Trips`], [`crate::hashing::Load`]. What slices count is in [`Metrics`].
//! 3. A request is counted when its envelope is dropped ([`Requests`]), so one whose client hung up counts as well.
//! 4. A scrape reads the cells and writes the text ([`text`]); what must be asked for (the outbox, whether the stores
//!    answer) is asked for there, once in a few seconds and with a limit on time.
//!
//! Why no library: `prometheus-client` locks each histogram for each observation and looks a family's labels up in a map
//! behind another lock; `prometheus` and `metrics` do the same with more around it. What is left to do is the text format,
//! and that is one page.

mod cells;
pub mod process;
mod requests;
pub mod text;
mod words;

pub use cells::{BOUNDS, Counters, Histogram, Histograms, Table};
pub use requests::{Pending, Requests};
pub use words::{
    CodeOutcome, CodePurpose, Confirmation, EndCause, HashRefusal, Login, MailOutcome, Policy, Pool, Refresh,
    Registration, SqlFailure, SqlOperation, StoreFailure, StoreVerb, Words,
};

use crate::{db::Timestamp, mail::MailKind};

/// What slices and the envelope count.
#[derive(Debug)]
pub struct Metrics {
    /// When this was made: the start of the server.
    pub started_at: Timestamp,
    /// Requests by route, method and status.
    pub requests: Requests,
    /// Attempts to sign in.
    pub logins: Counters<Login>,
    /// Attempts to get new tokens.
    pub refreshes: Counters<Refresh>,
    /// Registrations.
    pub registrations: Counters<Registration>,
    /// Codes that were typed.
    pub codes: Table<CodePurpose, CodeOutcome>,
    /// Passwords that were asked for once more.
    pub confirmations: Counters<Confirmation>,
    /// Requests and mails over a limit.
    pub limits: Counters<Policy>,
    /// Mails that came to an outcome; of a kind that only a newer node knows: `None`.
    pub mails: Table<Option<MailKind>, MailOutcome>,
}

impl Metrics {
    /// All zero, for a router with these routes.
    #[must_use]
    pub fn new(routes: &'static [String], started_at: Timestamp) -> Self {
        Self {
            started_at,
            requests: Requests::of(routes),
            logins: Counters::default(),
            refreshes: Counters::default(),
            registrations: Counters::default(),
            codes: Table::default(),
            confirmations: Counters::default(),
            limits: Counters::default(),
            mails: Table::default(),
        }
    }
}
