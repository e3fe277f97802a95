//! The worker behind the outbox: from a row to a mail on its way.
//!
//! A request that anybody may send (`/password/forgot`, `/email/verify/resend`, `/register` in `required` mode) only leaves
//! a row, whoever the address belongs to. Here, where nobody watches the clock, it is found out:
//! 1. what the row means by now: whose address it is, whether there is still something to tell;
//! 2. for what a stranger can cause, whether the caps let it through ([`caps`]);
//! 3. for a code, its flow ([`flow::arm`]);
//! 4. the mail is built in the language of its reader and handed over;
//! 5. the flow's ten minutes begin; the row ends.
//!
//! Every step can be done again by another worker: a row that was counted is not counted twice, a flow that has a code
//! keeps it, the `Message-ID` is the row's.

use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    caps::{self, Cause},
    flow::{self, FlowId, Purpose, Subject},
    store,
};
use crate::{
    accounts::{self, Addressee},
    app::App,
    db::StoreError,
    ephemeral::EphemeralError,
    mail::{
        Failure, MailKind, Outgoing,
        outbox::{self, Outcome, Row},
        template::Facts,
    },
};

/// How often a worker looks. A mail leaves within five seconds of its commit.
const PERIOD: Duration = Duration::from_secs(1);
/// Rows that one worker has in its hands. With ten seconds for each delivery all are done before the claim is over.
const AT_ONCE: i64 = 8;

/// Delivers until the server stops; what is in hand then is brought to its end.
pub async fn run(app: App) {
    let worker = app.ambient.uuid();
    let mut was_away = false;
    while !app.is_stopping() {
        match round(&app, worker).await {
            Ok(0) => tokio::time::sleep(PERIOD).await,
            Ok(_) => {}
            Err(error) => {
                // Once, and not every second for as long as the database is away.
                if !was_away {
                    tracing::warn!(%error, "cannot look into the outbox; mails wait");
                }
                tokio::time::sleep(PERIOD).await;
                was_away = true;
                continue;
            }
        }
        was_away = false;
    }
}

/// Claims what is due and brings each row to an outcome; tells how many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn round(app: &App, worker: Uuid) -> Result<usize, StoreError> {
    let now = app.ambient.now();
    if !outbox::is_due(&app.db, now).await? {
        return Ok(0);
    }
    let rows = outbox::claim(&app.db, now, worker, AT_ONCE).await?;
    let count = rows.len();
    let mut tasks = JoinSet::new();
    for row in rows {
        let app = app.clone();
        tasks.spawn(async move { deliver(&app, worker, &row).await });
    }
    while tasks.join_next().await.is_some() {}
    Ok(count)
}

async fn deliver(app: &App, worker: Uuid, row: &Row) {
    let outcome = attempt(app, row).await.unwrap_or_else(|fault| Outcome::Refused(fault.to_string()));
    let (id, kind, now) = (row.id, row.kind.as_str(), app.ambient.now());
    match &outcome {
        Outcome::Sent => tracing::info!(mail = %id, kind, attempts = row.attempts, "mail sent"),
        Outcome::Dropped(reason) => tracing::info!(mail = %id, kind, reason, "no mail to send"),
        Outcome::Postponed(_) => {}
        Outcome::Refused(error) if row.is_over(now) => {
            tracing::error!(mail = %id, kind, error, "mail given up after a day; `latchkey mail retry` tries again");
        }
        Outcome::Refused(error) | Outcome::Unknown(error) => {
            tracing::warn!(mail = %id, kind, error, attempts = row.attempts, "mail not delivered; it is tried again");
        }
    }
    // A row whose end cannot be written comes up again. For a mail that went this would make a second one, so it is
    // worth some patience.
    for wait in [0, 1, 3, 9] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        match outbox::conclude(&app.db, app.ambient.now(), worker, row, &outcome).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(mail = %id, %error, "cannot write down what became of a mail"),
        }
    }
}

/// What kept a row from its outcome; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    #[error("the ephemeral store did not answer")]
    Ephemeral(#[from] EphemeralError),
    #[error("the template failed: {0}")]
    Template(#[from] minijinja::Error),
    #[error("nobody waits for this code any more")]
    TooLate,
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
    let Some(kind) = row.kind() else {
        // A newer node wrote it, and one of them will take it.
        return Ok(Outcome::Postponed(app.ambient.now().after(PERIOD)));
    };
    let mut conn = app.db.read().await?;
    let owner = accounts::addressee(&mut conn, &row.recipient).await?;
    let meaning = match kind {
        MailKind::ConfirmRegistration => {
            let pending = match fact_id(row, "registration") {
                Some(id) => store::is_pending(&mut conn, id, app.ambient.now()).await?,
                None => false,
            };
            registration(row, owner.as_ref(), pending)
        }
        _ if kind.is_notice() => match outbox::rival(&mut conn, app.ambient.now(), row).await? {
            Some(Ok(())) => Meaning::Nothing("a later notice of this kind replaces it"),
            Some(Err(instant)) => return Ok(Outcome::Postponed(instant)),
            None => Meaning::Notice,
        },
        _ => meaning(kind, row, owner.as_ref()),
    };
    // Who reads it: usually who has the address, for a notice to an old address who had it, and whoever is to have it.
    let reader = match (row.person_id, &meaning) {
        (Some(id), Meaning::Notice | Meaning::Code(_)) if owner.as_ref().is_none_or(|owner| owner.id != id) => {
            accounts::addressee_of(&mut conn, id).await?
        }
        _ => owner,
    };
    drop(conn);
    send(app, row, kind, meaning, reader).await
}

/// What a request of a stranger means, now that the owner of the address is known.
fn meaning(kind: MailKind, row: &Row, owner: Option<&Addressee>) -> Meaning {
    let about = |purpose, owner: &Addressee| {
        let address = row.recipient.clone();
        Meaning::Code(Subject { purpose, id: owner.id, epoch: owner.epoch, address })
    };
    match (kind, owner) {
        (MailKind::VerifyAddress, Some(owner)) if !owner.is_active => Meaning::Nothing("the person is disabled"),
        (MailKind::VerifyAddress, Some(owner)) if owner.email_verified => Meaning::Nothing("verified already"),
        (MailKind::VerifyAddress, Some(owner)) => about(Purpose::Verify, owner),
        (MailKind::ResetPassword, Some(owner)) if !owner.is_active => Meaning::Nothing("the person is disabled"),
        (MailKind::ResetPassword, Some(owner)) => about(Purpose::Reset, owner),
        (MailKind::ChangeAddress, Some(_)) => Meaning::Caused(MailKind::AddressInUse),
        (MailKind::ChangeAddress, None) => {
            let epoch = row.fact("epoch").and_then(|epoch| epoch.parse().ok());
            match (row.person_id, epoch) {
                (Some(id), Some(epoch)) => {
                    Meaning::Code(Subject { purpose: Purpose::Change, id, epoch, address: row.recipient.clone() })
                }
                _ => Meaning::Nothing("incomplete"),
            }
        }
        (_, None) => Meaning::Nothing("nobody has this address"),
        (_, Some(_)) => Meaning::Nothing("incomplete"),
    }
}

fn registration(row: &Row, owner: Option<&Addressee>, is_pending: bool) -> Meaning {
    match (owner, fact_id(row, "registration")) {
        (Some(_), _) => Meaning::Caused(MailKind::AccountExists),
        (None, Some(id)) if is_pending => {
            Meaning::Code(Subject { purpose: Purpose::Register, id, epoch: 0, address: row.recipient.clone() })
        }
        (None, _) => Meaning::Nothing("the registration is over"),
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
    let mut facts = facts(row, reader.as_ref());
    let (kind, flow) = match meaning {
        Meaning::Nothing(reason) => return Ok(Outcome::Dropped(reason)),
        Meaning::Notice => {
            let Some(reader) = &reader else { return Ok(Outcome::Dropped("the person is gone")) };
            // Only the person's old address may be another one than today's.
            let is_theirs = reader.email.as_deref() == Some(&row.recipient);
            let is_old = matches!(kind, MailKind::AddressChanged | MailKind::AddressChangeRequested);
            if !is_theirs && !is_old {
                return Ok(Outcome::Dropped("the person has another address now"));
            }
            (kind, None)
        }
        Meaning::Caused(kind) => {
            let Some(request) = request(app, row, Cause::Taken) else { return Ok(Outcome::Dropped("incomplete")) };
            if !caps::admit(app, &row.recipient, &request).await? {
                return Ok(Outcome::Dropped("over a cap"));
            }
            (kind, None)
        }
        Meaning::Code(subject) => {
            if row.is_over(app.ambient.now()) {
                return Err(Fault::TooLate);
            }
            let Some(request) = request(app, row, Cause::Code(subject.purpose)) else {
                return Ok(Outcome::Dropped("incomplete"));
            };
            if !caps::admit(app, &row.recipient, &request).await? {
                return Ok(Outcome::Dropped("over a cap"));
            }
            let Some(code) = flow::arm(app, &request.flow, &subject).await? else {
                return Ok(Outcome::Dropped("the code was used already"));
            };
            let code = code.expose();
            facts.insert("code", format!("{} {}", &code[..4], &code[4..]));
            if subject.purpose == Purpose::Reset {
                let base = app.config.public_url.as_str();
                facts.insert("link", format!("{base}/reset#flow={}&code={code}", request.flow));
            }
            (kind, Some(request.flow))
        }
    };
    let language =
        app.post.language(reader.as_ref().and_then(|reader| reader.locale.as_deref()), row.locale.as_deref());
    let letter = app.post.templates.render(kind.as_str(), language, &facts)?;
    let mail = Outgoing::new(row.id, kind, app.ambient.now(), &app.post.from, &row.recipient, letter);
    let handed_over = match mail {
        Ok(mail) => app.post.transport.deliver(mail).await,
        Err(failure) => Err(failure),
    };
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
        Err(Failure::Unknown(error)) => Outcome::Unknown(error),
    })
}

/// What the row's request was, for the caps; `None` when the row lacks it.
fn request(app: &App, row: &Row, cause: Cause) -> Option<caps::Request> {
    Some(caps::Request {
        flow: FlowId::parse(row.fact("flow")?)?,
        cause,
        network: caps::network(row.fact("client")?.parse().ok()?, &app.secrets),
        known_device: row.fact("known_device") == Some("true"),
    })
}

fn facts(row: &Row, about: Option<&Addressee>) -> Facts {
    let mut facts = Facts::new();
    // Only into a mailbox that is proved to be the person's: what a stranger calls himself is told to nobody.
    let is_proved = |about: &&Addressee| about.email_verified && about.email.as_deref() == Some(&row.recipient);
    if let Some(name) = about.filter(is_proved).and_then(|about| about.display_name.clone()) {
        facts.insert("name", name);
    }
    for (name, fact) in [
        ("address", row.fact("address").or(row.fact("client"))),
        ("device", row.fact("device")),
        ("new_email", row.fact("new_email")),
    ] {
        facts.extend(fact.map(|fact| (name, fact.to_owned())));
    }
    facts.insert("minutes", (flow::CODE_LIFETIME.as_secs() / 60).to_string());
    facts.insert("at", row.created_at.to_minute());
    facts
}
