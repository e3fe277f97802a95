//! Notices of completed acts, to the person they were done to.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::store;
use crate::{
    ambient::Ambient,
    db::{StoreResult, Tx},
    events::Origin,
    mail::{Mail, MailKind},
};

/// Leaves the row of a notice, in the transaction of the act; nothing for a person without an address.
///
/// `to` is the address that was the person's before, when the act changed it.
///
/// # Errors
/// When the database does not answer.
pub async fn post_notice(
    tx: &mut Tx,
    ambient: &Ambient,
    kind: MailKind,
    person: Uuid,
    origin: &Origin,
    to: Option<&str>,
    facts: &[(&'static str, &str)],
) -> StoreResult<()> {
    let Some(addressee) = store::addressee_by_id(tx, person).await? else { return Ok(()) };
    let Some(recipient) = to.or(addressee.email.as_deref()) else { return Ok(()) };
    let mut data = BTreeMap::from([("address", origin.address.to_string())]);
    data.extend(facts.iter().map(|(name, fact)| (*name, (*fact).to_owned())));
    let mail = Mail { kind, person: Some(person), recipient, locale: addressee.locale.as_deref(), data };
    mail.post(tx, ambient).await
}
