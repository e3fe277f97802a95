//! The worker behind the outbox: from a row to a mail on its way.
//!
//! A request that anybody may send (`/password/forgot`, `/email/verify/resend`, `/register` in `required` mode) only leaves
//! a row, whoever the address belongs to. Here, where nobody watches the clock, it is found out:
//! 1. what the row means by now: whose address it is, whether there is still something to tell;
//! 2. for what a stranger can cause, whether the caps let it through ([`caps`]);
//! 3. for a code, its flow ([`flow::arm`]); a request that gets no code gets a flow about nobody;
//! 4. the mail is built in the language of its reader and handed over;
//! 5. the flow's ten minutes begin; the row ends.
//!
//! Every step can be done again by another worker: a mail that was counted is not counted twice, a flow that has a code
//! keeps it, the `Message-ID` is the row's.

use std::{collections::HashSet, sync::PoisonError, time::Duration};

use tokio::task::JoinSet;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    FlowId,
    caps::{self, Cause},
    fault::Fault,
    flow::{self, Purpose, Subject},
    store,
};
use crate::{
    accounts::{self, Addressee},
    app::App,
    db::{StoreError, Timestamp},
    ephemeral::EphemeralError,
    mail::{
        Failure, MailKind, Outgoing,
        outbox::{self, Outcome, Row},
        template::Facts,
    },
    metrics::MailOutcome,
    telemetry::SPAN,
};

/// How often a worker looks. A mail leaves within five seconds of its commit.
const PERIOD: Duration = Duration::from_secs(1);
/// Rows that one worker has in its hands.
const AT_ONCE: usize = 16;
/// Until a node that knows the kind of a row takes it.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(60);

/// Delivers until the server stops; what is in hand then is brought to its end.
///
/// A place that gets free is filled at once: one slow mail server must not hold up the mails to others.
pub async fn run(app: App) {
    let worker = app.ambient.uuid();
    let mut in_hand = JoinSet::new();
    let mut is_away = false;
    while !app.is_stopping() {
        let claimed = claim(&app, worker, AT_ONCE - in_hand.len().min(AT_ONCE)).await;
        match &claimed {
            Ok(_) => is_away = false,
            // Once, and not every second for as long as the database is away.
            Err(error) if !is_away => {
                tracing::warn!(%error, "cannot look into the outbox; mails wait");
                is_away = true;
            }
            Err(_) => {}
        }
        let rows = claimed.unwrap_or_default();
        let is_idle = rows.is_empty();
        for row in rows {
            let app = app.clone();
            in_hand.spawn(async move { deliver(&app, worker, &row).await });
        }
        if is_idle {
            tokio::select! {
                Some(_) = in_hand.join_next() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
        while in_hand.try_join_next().is_some() {}
    }
    while in_hand.join_next().await.is_some() {}
}

/// Claims what is due, as far as there is room for it, and brings each row to an outcome; tells how many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn round(app: &App, worker: Uuid) -> Result<usize, StoreError> {
    let rows = claim(app, worker, AT_ONCE).await?;
    let count = rows.len();
    let mut in_hand = JoinSet::new();
    for row in rows {
        let app = app.clone();
        in_hand.spawn(async move { deliver(&app, worker, &row).await });
    }
    while in_hand.join_next().await.is_some() {}
    Ok(count)
}

async fn claim(app: &App, worker: Uuid, room: usize) -> Result<Vec<Row>, StoreError> {
    let now = app.ambient.now();
    if room == 0 || !outbox::is_due(&app.db, now).await? {
        return Ok(Vec::new());
    }
    outbox::claim(&app.db, now, worker, i64::try_from(room).unwrap_or(1)).await
}

async fn deliver(app: &App, worker: Uuid, row: &Row) {
    let went_before = unwritten(app, |rows| rows.contains(&row.id));
    let outcome = if went_before {
        Outcome::Sent
    } else {
        // Who asked for a mail is not told when it leaves, so that it is a trace of its own.
        let span = tracing::trace_span!(target: SPAN, "mail", otel.root = true, latchkey.mail.kind = row.kind.as_str());
        attempt(app, row).instrument(span).await.unwrap_or_else(|fault| Outcome::Refused(fault.to_string()))
    };
    let (id, kind, now) = (row.id, row.kind.as_str(), app.ambient.now());
    let counted = match &outcome {
        Outcome::Sent => {
            tracing::info!(mail = %id, kind, attempts = row.attempts, "mail sent");
            MailOutcome::Sent
        }
        Outcome::Dropped(reason) => {
            tracing::info!(mail = %id, kind, reason, "no mail to send");
            MailOutcome::Dropped
        }
        Outcome::Postponed(_) => MailOutcome::Postponed,
        Outcome::Refused(error) | Outcome::RefusedForGood(error) if row.is_over(now) => {
            tracing::error!(mail = %id, kind, error, "mail given up after a day; `latchkey mail retry` tries again");
            MailOutcome::Dead
        }
        Outcome::Unknown(error) if row.is_over(now) || row.unacknowledged > 0 => {
            tracing::error!(mail = %id, kind, error, "mail given up, it may have arrived twice; see `latchkey mail list`");
            MailOutcome::Dead
        }
        Outcome::Refused(error) | Outcome::RefusedForGood(error) | Outcome::Unknown(error) => {
            tracing::warn!(mail = %id, kind, error, attempts = row.attempts, "mail not delivered; it is tried again");
            if matches!(outcome, Outcome::Unknown(_)) { MailOutcome::Unknown } else { MailOutcome::Refused }
        }
    };
    if !went_before {
        app.metrics.mails.add(row.kind(), counted);
    }
    // A row whose end cannot be written comes up again. For a mail that went this would make a second one, so it is
    // worth some patience, and is remembered beyond.
    if outcome == Outcome::Sent {
        unwritten(app, |rows| rows.insert(id));
    }
    for wait in [0, 1, 3, 9] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        match outbox::conclude(&app.db, app.ambient.now(), worker, row, &outcome).await {
            Ok(()) => {
                unwritten(app, |rows| rows.remove(&id));
                return;
            }
            Err(error) => tracing::warn!(mail = %id, %error, "cannot write down what became of a mail"),
        }
    }
}

fn unwritten(app: &App, change: impl FnOnce(&mut HashSet<Uuid>) -> bool) -> bool {
    change(&mut app.post.unwritten.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What a row means by now.
enum Meaning {
    /// Nothing, for this reason.
    Nothing(&'static str),
    /// A mail without a code, which a stranger can cause.
    Caused(MailKind),
    /// A mail with a code.
    Code(Subject),
    /// A notice of a completed act.
    Notice,
}

async fn attempt(app: &App, row: &Row) -> Result<Outcome, Fault> {
    let now = app.ambient.now();
    let Some(kind) = row.kind() else {
        // A newer node wrote it, and one of them will take it.
        return if row.is_over(now) {
            Err(Fault::UnknownKind)
        } else {
            Ok(Outcome::Postponed(now.after(LEFT_TO_OTHERS)))
        };
    };
    let mut conn = app.db.read().await?;
    let owner = accounts::addressee(&mut conn, &row.recipient).await?;
    // Whom the row names: of a notice to an old address, and of a change to another one, not who has the address.
    let named = match row.person_id {
        Some(id) if owner.as_ref().is_none_or(|owner| owner.id != id) => accounts::addressee_of(&mut conn, id).await?,
        Some(_) => owner.clone(),
        None => None,
    };
    if kind.is_notice() {
        match outbox::rival(&mut conn, now, row).await? {
            Some(Ok(())) => return Ok(Outcome::Dropped("a later notice of this kind replaces it")),
            Some(Err(instant)) => return Ok(Outcome::Postponed(instant)),
            None => {}
        }
    }
    let is_pending = match fact_id(row, "registration") {
        Some(id) => store::is_pending(&mut conn, id, now).await?,
        None => false,
    };
    drop(conn);
    let meaning = meaning(kind, row, owner.as_ref(), named.as_ref(), is_pending);
    let reader = match meaning {
        Meaning::Notice | Meaning::Code(_) if row.person_id.is_some() => named,
        _ => owner,
    };
    send(app, row, kind, meaning, reader).await
}

/// What a row means, now that its people are known.
fn meaning(
    kind: MailKind,
    row: &Row,
    owner: Option<&Addressee>,
    named: Option<&Addressee>,
    is_pending: bool,
) -> Meaning {
    let code = |purpose, id, epoch| Meaning::Code(Subject { purpose, id, epoch, address: row.recipient.clone() });
    match (kind, owner) {
        (kind, _) if kind.is_notice() => named.map_or(Meaning::Nothing("the person is gone"), |_| Meaning::Notice),
        (MailKind::ConfirmRegistration, Some(_)) => Meaning::Caused(MailKind::AccountExists),
        (MailKind::ConfirmRegistration, None) => match fact_id(row, "registration").filter(|_| is_pending) {
            Some(id) => code(Purpose::Register, id, 0),
            None => Meaning::Nothing("the registration is over"),
        },
        (MailKind::ChangeAddress, Some(_)) => Meaning::Caused(MailKind::AddressInUse),
        (MailKind::ChangeAddress, None) => {
            let epoch = row.fact("epoch").and_then(|epoch| epoch.parse().ok());
            match named.filter(|person| person.is_active && Some(person.epoch) == epoch) {
                Some(person) => code(Purpose::Change, person.id, person.epoch),
                None => Meaning::Nothing("the person changed since"),
            }
        }
        (_, None) => Meaning::Nothing("nobody has this address"),
        (_, Some(owner)) if !owner.is_active => Meaning::Nothing("the person is disabled"),
        (MailKind::VerifyAddress, Some(owner)) if owner.email_verified => Meaning::Nothing("verified already"),
        (MailKind::VerifyAddress, Some(owner)) => code(Purpose::Verify, owner.id, owner.epoch),
        (MailKind::ResetPassword, Some(owner)) => code(Purpose::Reset, owner.id, owner.epoch),
        (_, Some(_)) => Meaning::Nothing("incomplete"),
    }
}

fn fact_id(row: &Row, name: &str) -> Option<Uuid> {
    row.fact(name)?.parse().ok()
}

async fn send(
    app: &App,
    row: &Row,
    kind: MailKind,
    meaning: Meaning,
    reader: Option<Addressee>,
) -> Result<Outcome, Fault> {
    let mut facts = facts(row, kind, reader.as_ref());
    let flow = row.fact("flow").and_then(FlowId::parse);
    let (kind, flow) = match (meaning, flow) {
        (Meaning::Notice, _) => {
            if !admit_notice(app, row, reader.as_ref()).await? {
                return Ok(Outcome::Dropped("over a cap"));
            }
            (kind, None)
        }
        (Meaning::Nothing(reason), flow) => {
            if let Some(flow) = flow {
                answer_for_nobody(app, row, kind, &flow).await?;
            }
            return Ok(Outcome::Dropped(reason));
        }
        (Meaning::Caused(_) | Meaning::Code(_), None) => return Ok(Outcome::Dropped("incomplete")),
        (Meaning::Caused(told), Some(flow)) => {
            if !answer_for_nobody(app, row, kind, &flow).await? {
                return Ok(Outcome::Dropped("the code was used already"));
            }
            if !admit(app, row, reader.as_ref(), Cause::Taken, flow.nonce()).await? {
                return Ok(Outcome::Dropped("over a cap"));
            }
            (told, None)
        }
        (Meaning::Code(subject), Some(flow)) => {
            if row.is_over(app.ambient.now()) {
                return Err(Fault::TooLate);
            }
            if !admit(app, row, reader.as_ref(), Cause::Code(subject.purpose), flow.nonce()).await? {
                answer_for_nobody(app, row, kind, &flow).await?;
                return Ok(Outcome::Dropped("over a cap"));
            }
            let Some(code) = flow::arm(app, &flow, &subject).await? else {
                return Ok(Outcome::Dropped("the code was used already"));
            };
            let code = code.expose();
            facts.insert("code", format!("{} {}", &code[..4], &code[4..]));
            if subject.purpose == Purpose::Reset {
                facts.insert("link", format!("{}/reset#flow={flow}&code={code}", app.config.public_url.as_str()));
            }
            (kind, Some(flow))
        }
    };
    let language =
        app.post.language(reader.as_ref().and_then(|reader| reader.locale.as_deref()), row.locale.as_deref());
    let letter = app.post.templates.render(kind.as_str(), language, &facts)?;
    let mail = Outgoing::new(row.id, kind, app.ambient.now(), &app.post.from, &row.recipient, letter);
    let handing = tracing::trace_span!(target: SPAN, "hand over", otel.kind = "client", otel.failed = false);
    let handed_over = match mail {
        Ok(mail) => app.post.transport.deliver(mail).await,
        Err(failure) => Err(failure),
    };
    handing.record("otel.failed", handed_over.is_err());
    drop(handing);
    Ok(match handed_over {
        Ok(()) => {
            if let Some(flow) = flow
                && let Err(error) = flow::mail_accepted(app, &flow).await
            {
                tracing::debug!(%error, "a code works a minute longer than it should");
            }
            Outcome::Sent
        }
        Err(Failure::Refused(error)) => Outcome::Refused(error),
        Err(Failure::RefusedForGood(error)) => Outcome::RefusedForGood(error),
        Err(Failure::Unknown(error)) => Outcome::Unknown(error),
    })
}

/// A flow about nobody, for a request that gets no code: whoever tries one on it learns nothing, not even by the clock.
/// `false` when the flow is about somebody, from an earlier try to deliver.
async fn answer_for_nobody(app: &App, row: &Row, kind: MailKind, flow: &FlowId) -> Result<bool, EphemeralError> {
    let purpose = match kind {
        MailKind::ConfirmRegistration => Purpose::Register,
        MailKind::ResetPassword => Purpose::Reset,
        MailKind::ChangeAddress => Purpose::Change,
        _ => Purpose::Verify,
    };
    let nobody = Subject { purpose, id: row.id, epoch: 0, address: row.recipient.clone() };
    let is_nobodys = flow::arm(app, flow, &nobody).await?.is_some();
    if is_nobodys {
        flow::mail_accepted(app, flow).await?;
    }
    Ok(is_nobodys)
}

async fn admit(
    app: &App,
    row: &Row,
    reader: Option<&Addressee>,
    cause: Cause,
    nonce: [u8; 16],
) -> Result<bool, EphemeralError> {
    let Some(client) = row.fact("client").and_then(|client| client.parse().ok()) else { return Ok(false) };
    let network = caps::network(client, &app.secrets);
    let made_at = row.fact("device_made_at").and_then(|millis| millis.parse().ok()).map(Timestamp::from_millis);
    let known_device = reader.is_some_and(|reader| {
        fact_id(row, "device_of") == Some(reader.id) && made_at.is_some_and(|made_at| made_at >= reader.devices_since)
    });
    caps::admit(app, &row.recipient, &caps::Request { nonce, cause, network, known_device }).await
}

/// A notice to a proved mailbox is never held back. To an address that was only claimed it may be a stranger's doing.
async fn admit_notice(app: &App, row: &Row, reader: Option<&Addressee>) -> Result<bool, EphemeralError> {
    if is_proved(row, reader) {
        return Ok(true);
    }
    let nonce = row.id.into_bytes();
    let request = caps::Request { nonce, cause: Cause::Notice, network: [0; 8], known_device: false };
    caps::admit(app, &row.recipient, &request).await
}

/// Whether the mailbox is proved to be the reader's, or was when it was the reader's.
fn is_proved(row: &Row, reader: Option<&Addressee>) -> bool {
    let is_now = |reader: &Addressee| reader.email_verified && reader.email.as_deref() == Some(row.recipient.as_str());
    reader.is_some_and(is_now) || row.fact("proved") == Some("true")
}

fn facts(row: &Row, kind: MailKind, reader: Option<&Addressee>) -> Facts {
    let mut facts = Facts::new();
    // What a stranger chose is told to nobody: neither a name nor an address of the stranger's own.
    if is_proved(row, reader) && kind != MailKind::ChangeAddress {
        facts.extend(reader.and_then(|reader| reader.display_name.clone()).map(|name| ("name", name)));
        facts.extend(row.fact("new_email").map(|fact| ("new_email", fact.to_owned())));
    }
    facts.extend(row.fact("address").or(row.fact("client")).map(|fact| ("address", fact.to_owned())));
    facts.extend(row.fact("device").map(|fact| ("device", fact.to_owned())));
    facts.insert("minutes", (flow::CODE_LIFETIME.as_secs() / 60).to_string());
    facts.insert("at", row.created_at.to_minute());
    facts
}
