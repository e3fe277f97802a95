//! Codes by mail: proving an address, registering in `required` mode, changing an address; and, for `passwords`, the
//! flows of a reset. NIST SP 800-63B-4 §3.1.2 calls them out-of-band; RFC 6749 has no word for them.
//!
//! A flow has an id, which goes to whoever started it, and a code, which goes to the mailbox alone. Guessing needs both.
//!
//! 1. **Start** ([`start`]). The request draws a flow id and leaves one row in the outbox, in its own transaction and
//!    whoever the address belongs to. It neither looks the address up nor touches the ephemeral store: known and unknown
//!    are alike because nothing differs, not because the difference is hidden.
//! 2. **Deliver** ([`courier`]). A worker finds out whose address it is, asks [`caps`], draws the code ([`flow`]) and mails
//!    it, or drops the row. Only from here on there is a flow in the store.
//! 3. **Claim** ([`flow::claim`]). The code is judged and the try counted in one write; a right code is used up.
//! 4. **Act**. One transaction, `WHERE epoch = <the flow's>`: whatever ended the person's sessions since the mail was
//!    built has killed the code too. A fault between 3 and 4 costs a new code and never makes two uses.
//!
//! `required` mode: `/register` leaves a pending registration beside the row. The worker mails a code to a free address
//! and "you have an account" to a taken one; the person is made at 4 from the flow's registration.
//!
//! Why a mail to an address that was not proved never carries the display name: whoever registers chooses both, and
//! could have us deliver any text to anybody. The same mail carries no link, so no puzzled click blesses a stranger's
//! account.

mod ask;
pub mod caps;
mod change_address;
mod confirm;
pub mod courier;
mod fault;
pub mod flow;
mod flow_id;
mod resend;
mod store;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub use ask::{AddressRequest, ask};
pub use flow::{Claimed, Purpose};
pub use flow_id::FlowId;

use crate::{
    accounts::Wanted,
    app::App,
    db::{Db, StoreResult, Timestamp, Tx},
    events::Origin,
    http::{Limit, Limits},
    mail::{Mail, MailKind},
    sessions::DeviceToken,
};

/// The routes of this slice.
pub fn routes(limits: &Limits) -> OpenApiRouter<App> {
    let codes = OpenApiRouter::new()
        .routes(routes!(confirm::verify_email))
        .routes(routes!(resend::resend))
        .routes(routes!(change_address::request_change))
        .routes(routes!(change_address::confirm_change));
    Limit::before(limits.codes.as_ref(), codes)
}

/// A flow as its starter sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Started {
    /// Goes back with the code.
    #[schema(example = "pmX1Rk3bC0yJ8n2uQ1s5mXo7vW4")]
    flow_id: String,
    /// Seconds that a code works from the moment its mail was accepted.
    #[schema(example = 600)]
    expires_in: u64,
}

/// What is answered to a request for a code: the same for everybody.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Accepted {
    #[schema(example = "accepted")]
    status: &'static str,
    #[serde(flatten)]
    started: Started,
}

impl Accepted {
    /// The one status there is.
    pub const STATUS: &'static str = "accepted";
}

impl From<Started> for Accepted {
    fn from(started: Started) -> Self {
        Self { status: Self::STATUS, started }
    }
}

/// A request for a mail with a code.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    kind: MailKind,
    recipient: &'a str,
    locale: Option<&'a str>,
    origin: &'a Origin,
    person: Option<Uuid>,
    facts: BTreeMap<&'static str, String>,
}

impl<'a> Request<'a> {
    /// From this client, to this canonical address, in this language unless the person has one.
    #[must_use]
    pub fn new(kind: MailKind, recipient: &'a str, locale: Option<&'a str>, origin: &'a Origin) -> Self {
        Self { kind, recipient, locale, origin, person: None, facts: BTreeMap::new() }
    }

    /// For this person.
    #[must_use]
    pub fn person(self, person: Uuid) -> Self {
        Self { person: Some(person), ..self }
    }

    /// From a device with this token, if any; the worker finds out whether it is of the person whom the mail goes to.
    #[must_use]
    pub fn from_device(self, token: Option<DeviceToken>) -> Self {
        match token {
            Some(token) => self.with("device_of", token.person).with("device_made_at", token.made_at.millis()),
            None => self,
        }
    }

    /// With one more fact for the worker.
    #[must_use]
    fn with(mut self, name: &'static str, fact: impl ToString) -> Self {
        self.facts.insert(name, fact.to_string());
        self
    }
}

/// Starts a flow: leaves the row of its mail.
///
/// # Errors
/// When the database does not answer.
pub async fn start(tx: &mut Tx, app: &App, request: Request<'_>) -> StoreResult<Started> {
    let flow = FlowId::draw(request.recipient, &app.secrets, &app.ambient);
    let request = request.with("flow", flow);
    let client = request.origin.address;
    let Request { kind, recipient, locale, person, facts: data, .. } = request.with("client", client);
    Mail { kind, person, recipient, locale, data }.post(tx, &app.ambient).await?;
    Ok(Started { flow_id: flow.to_string(), expires_in: flow::CODE_LIFETIME.as_secs() })
}

/// Starts the flow of a registration that waits for its code.
///
/// # Errors
/// When the database does not answer.
pub async fn start_registration(
    tx: &mut Tx,
    app: &App,
    origin: &Origin,
    wanted: &Wanted,
    hash: &str,
) -> StoreResult<Started> {
    let id = app.ambient.uuid();
    store::insert_pending(tx, id, wanted, hash).await?;
    let request = Request::new(MailKind::ConfirmRegistration, &wanted.email, wanted.locale.as_deref(), origin);
    start(tx, app, request.with("registration", id)).await
}

/// Removes a batch of registrations whose day is over, and tells how many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep(db: &Db, now: Timestamp) -> StoreResult<u64> {
    let mut tx = db.begin(now).await?;
    let swept = store::forget_pending(&mut tx).await?;
    tx.commit().await?;
    Ok(swept)
}
