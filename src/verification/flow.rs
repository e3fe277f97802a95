//! A flow of a code: what is kept of it, and how a code is drawn and judged. Pure but for the store's two verbs.
//!
//! ```text
//!            the mail is built                 the mail is accepted
//! (nothing) ───────────────────▶ live, 11 min ──────────────────────▶ live, 10 min from then
//!                                  │  a wrong code: one try more         │
//!                                  ├──── five tries ────▶ spent          │
//!                                  └──── the right code ─▶ used ◀────────┘
//!                                                           │ what it was for is done
//!                                                           └─▶ done, for 15 min (a reset vouches for its device)
//! ```
//!
//! Only `live` answers to its code; in every other state, and when there is no such flow, the answer is the same. A flow
//! is made by the worker and not by the request: until a mail is built there is no code, so there is nothing to keep.
//! A request that gets no mail gets a flow as well, about nobody and with a code that nobody is told: a try on it costs
//! what any try costs, so nobody can tell by the clock whether there was a mail.

use std::time::Duration;

use uuid::Uuid;

use super::FlowId;
use crate::{
    app::App,
    db::Timestamp,
    ephemeral::{EphemeralResult, Key, Value},
    metrics::{CodeOutcome, CodePurpose},
    secret::{SecretText, ServerSecrets, same},
};

/// How long a code works from the moment its mail was accepted.
pub const CODE_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// What it works longer while nobody knows yet when the mail was accepted.
const DELIVERY: Duration = Duration::from_secs(60);
/// How long a completed reset vouches for the device that did it.
const VOUCHING: Duration = Duration::from_secs(15 * 60);
/// Codes that may be tried in one flow.
const MOST_TRIES: u8 = 5;
/// Digits of a code.
const DIGITS: usize = 8;

/// What a code is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An address that a person has.
    Verify,
    /// A registration of the `required` mode.
    Register,
    /// A new password for who forgot the old one.
    Reset,
    /// A new address.
    Change,
}

impl Purpose {
    const ALL: [Self; 4] = [Self::Verify, Self::Register, Self::Reset, Self::Change];

    /// As it stands in records; never zero.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Verify => 1,
            Self::Register => 2,
            Self::Reset => 3,
            Self::Change => 4,
        }
    }

    fn counted(self) -> CodePurpose {
        match self {
            Self::Verify => CodePurpose::Verify,
            Self::Register => CodePurpose::Register,
            Self::Reset => CodePurpose::Reset,
            Self::Change => CodePurpose::Change,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.number() == number)
    }
}

/// Whom a flow is about, as it was true when its code was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What the code is good for.
    pub purpose: Purpose,
    /// The person, or the pending registration.
    pub id: Uuid,
    /// The person's epoch; zero for a registration.
    pub epoch: i64,
    /// The mailbox that gets the code.
    pub address: String,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its code can be tried.
    Live = 0,
    /// Its code was right.
    Used = 1,
    /// What it was for is done.
    Done = 2,
}

impl State {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Live, Self::Used, Self::Done].into_iter().find(|state| *state as u8 == number)
    }
}

/// What is kept of a flow. The code itself is not: `mac` judges one, and `seed` lets whoever holds the server secret make
/// the same mail again when nobody knows whether the first one arrived, on whatever node that happens.
#[derive(Clone, PartialEq, Eq)]
pub struct Flow {
    /// Whom it is about.
    pub subject: Subject,
    seed: [u8; 16],
    mac: [u8; 32],
    tries: u8,
    state: State,
    until: Timestamp,
}

impl Value for Flow {
    const KIND: &'static str = "f";

    fn expires_at(&self) -> Timestamp {
        self.until
    }

    fn pack(&self) -> Vec<u8> {
        let mut bytes = vec![1, self.subject.purpose.number(), self.tries, self.state as u8];
        bytes.extend(self.seed);
        bytes.extend(self.mac);
        bytes.extend(self.subject.id.as_bytes());
        bytes.extend(self.subject.epoch.to_be_bytes());
        bytes.extend(self.subject.address.as_bytes());
        bytes
    }

    fn unpack(bytes: &[u8], until: Timestamp) -> Option<Self> {
        let (&[version, purpose, tries, state], rest) = bytes.split_first_chunk()?;
        let (seed, rest) = rest.split_first_chunk()?;
        let (mac, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (epoch, address) = rest.split_first_chunk()?;
        let subject = Subject {
            purpose: Purpose::from_number(purpose)?,
            id: Uuid::from_bytes(*id),
            epoch: i64::from_be_bytes(*epoch),
            address: String::from_utf8(address.to_vec()).ok()?,
        };
        (version == 1).then_some(Self {
            subject,
            seed: *seed,
            mac: *mac,
            tries,
            state: State::from_number(state)?,
            until,
        })
    }
}

fn key(id: &FlowId) -> Key<Flow> {
    Key::new(id.tag(), &id.nonce())
}

/// What a MAC is made over: nothing can be moved from one purpose, subject, address, flow or code to another.
fn message(flow: &FlowId, subject: &Subject, code: &str) -> Vec<u8> {
    let mut bytes = vec![subject.purpose.number()];
    bytes.extend(subject.id.as_bytes());
    bytes.extend(u16::try_from(subject.address.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(subject.address.as_bytes());
    bytes.extend(flow.bytes());
    bytes.extend(code.as_bytes());
    bytes
}

/// Eight digits out of 32 uniform bytes. (2⁶⁴ is no multiple of 10⁸: some codes are likelier by one part in 10¹¹.)
fn digits(draw: &[u8; 32]) -> SecretText {
    let mut number = [0; 8];
    number.copy_from_slice(&draw[..8]);
    SecretText::new(format!("{:08}", u64::from_be_bytes(number) % 100_000_000))
}

/// The digits of a typed code; spaces and hyphens do not count. `None` when it cannot be one.
fn typed(text: &str) -> Option<SecretText> {
    let code: String =
        text.chars().filter(|c| !matches!(c, ' ' | '-' | '\u{a0}' | '\u{202f}')).take(DIGITS + 1).collect();
    (code.len() == DIGITS && code.bytes().all(|b| b.is_ascii_digit())).then(|| SecretText::new(code))
}

/// Gives a flow its code, or finds the one it has; `None` when it needs none any more.
///
/// # Errors
/// When the store cannot answer.
pub async fn arm(app: &App, id: &FlowId, subject: &Subject) -> EphemeralResult<Option<SecretText>> {
    let (now, key) = (app.ambient.now(), key(id));
    let until = now.after(CODE_LIFETIME).after(DELIVERY);
    loop {
        let before = app.ephemeral.get(now, &key).await?;
        let (flow, code) = match &before {
            Some(flow) if flow.state != State::Live || flow.subject != *subject => return Ok(None),
            Some(flow) => match recall(id, flow, &app.secrets) {
                Some(code) => (Flow { until, ..flow.clone() }, code),
                None => return Ok(None),
            },
            None => draw(id, subject, until, app),
        };
        if app.ephemeral.swap(now, &key, before.as_ref(), &flow).await? {
            return Ok(Some(code));
        }
    }
}

fn draw(id: &FlowId, subject: &Subject, until: Timestamp, app: &App) -> (Flow, SecretText) {
    let seed = app.ambient.bytes();
    let code = digits(&app.secrets.code_draws(&seed).next().unwrap_or_default());
    let mac = app.secrets.code_macs(&message(id, subject, code.expose())).next().unwrap_or_default();
    (Flow { subject: subject.clone(), seed, mac, tries: 0, state: State::Live, until }, code)
}

/// The code that was drawn for this flow, by whichever secret made it.
fn recall(id: &FlowId, flow: &Flow, secrets: &ServerSecrets) -> Option<SecretText> {
    let codes: Vec<SecretText> = secrets.code_draws(&flow.seed).map(|draw| digits(&draw)).collect();
    codes.into_iter().find(|code| flow.is_code(id, code, secrets))
}

impl Flow {
    fn is_code(&self, id: &FlowId, code: &SecretText, secrets: &ServerSecrets) -> bool {
        // All of them, found or not: which secret made it is nobody's business.
        let message = message(id, &self.subject, code.expose());
        secrets.code_macs(&message).fold(false, |found, mac| found | same(&mac, &self.mac))
    }
}

/// Counts the code's lifetime from now, since its mail was just accepted.
///
/// # Errors
/// When the store cannot answer; then the code works up to a minute longer.
pub async fn mail_accepted(app: &App, id: &FlowId) -> EphemeralResult<()> {
    let (now, key) = (app.ambient.now(), key(id));
    loop {
        let Some(before) = app.ephemeral.get(now, &key).await?.filter(|flow| flow.state == State::Live) else {
            return Ok(());
        };
        let after = Flow { until: now.after(CODE_LIFETIME), ..before.clone() };
        if app.ephemeral.swap(now, &key, Some(&before), &after).await? {
            return Ok(());
        }
    }
}

/// A flow whose code was right; it is used up.
pub struct Claimed {
    /// Whom it is about.
    pub subject: Subject,
    id: FlowId,
}

/// Judges a typed code and counts the try, in one write: of many at once no more are judged than there are tries.
/// `None` is every refusal: wrong, expired, used, spent, another purpose, no such flow.
///
/// # Errors
/// When the store cannot answer; the try may be counted then.
pub async fn claim(app: &App, purposes: &[Purpose], flow: &str, code: &str) -> EphemeralResult<Option<Claimed>> {
    let judged = judge(app, purposes, flow, code).await;
    let (purpose, outcome) = match &judged {
        Ok(Judged(purpose, outcome, _)) => (*purpose, *outcome),
        Err(_) => (None, CodeOutcome::Failed),
    };
    // What is no flow is counted for what the operation is mainly there for.
    if let Some(purpose) = purpose.or(purposes.first().copied()) {
        app.metrics.codes.add(purpose.counted(), outcome);
    }
    judged.map(|Judged(_, _, claimed)| claimed)
}

/// What was found of a flow, and of a code in it.
struct Judged(Option<Purpose>, CodeOutcome, Option<Claimed>);

async fn judge(app: &App, purposes: &[Purpose], flow: &str, code: &str) -> EphemeralResult<Judged> {
    let unknown = Judged(None, CodeOutcome::Unknown, None);
    let (Some(id), Some(code)) = (FlowId::parse(flow), typed(code)) else { return Ok(unknown) };
    let (now, key) = (app.ambient.now(), key(&id));
    loop {
        let Some(before) = app.ephemeral.get(now, &key).await? else { return Ok(unknown) };
        let purpose = before.subject.purpose;
        if before.state != State::Live || before.tries >= MOST_TRIES {
            return Ok(Judged(Some(purpose), CodeOutcome::Spent, None));
        }
        let is_right = before.is_code(&id, &code, &app.secrets) && purposes.contains(&purpose);
        let state = if is_right { State::Used } else { State::Live };
        let after = Flow { tries: before.tries + 1, state, ..before.clone() };
        if app.ephemeral.swap(now, &key, Some(&before), &after).await? {
            let outcome = if is_right { CodeOutcome::Right } else { CodeOutcome::Wrong };
            return Ok(Judged(Some(purpose), outcome, is_right.then_some(Claimed { subject: after.subject, id })));
        }
    }
}

/// Gives a flow back that was claimed for something that was then refused for another reason than its code.
///
/// # Errors
/// When the store cannot answer; then the code is used up.
pub async fn give_back(app: &App, claimed: &Claimed) -> EphemeralResult<()> {
    let (now, key) = (app.ambient.now(), key(&claimed.id));
    loop {
        let Some(before) = app.ephemeral.get(now, &key).await?.filter(|flow| flow.state == State::Used) else {
            return Ok(());
        };
        let after = Flow { state: State::Live, tries: before.tries.saturating_sub(1), ..before.clone() };
        if app.ephemeral.swap(now, &key, Some(&before), &after).await? {
            return Ok(());
        }
    }
}

/// Notes that what a flow was for is done. For a while its id then counts as a device token of the person: who just
/// reset a password must not wait because a stranger guesses at it.
///
/// # Errors
/// When the store cannot answer; then it does not.
pub async fn done(app: &App, claimed: &Claimed) -> EphemeralResult<()> {
    let (now, key) = (app.ambient.now(), key(&claimed.id));
    loop {
        let Some(before) = app.ephemeral.get(now, &key).await? else { return Ok(()) };
        let after = Flow { state: State::Done, until: now.after(VOUCHING), ..before.clone() };
        if app.ephemeral.swap(now, &key, Some(&before), &after).await? {
            return Ok(());
        }
    }
}

/// The person who reset the password with this flow a moment ago.
///
/// # Errors
/// When the store cannot answer.
pub async fn vouches_for(app: &App, id: &FlowId) -> EphemeralResult<Option<Uuid>> {
    let flow = app.ephemeral.get(app.ambient.now(), &key(id)).await?;
    let is_reset = |flow: &Flow| flow.state == State::Done && flow.subject.purpose == Purpose::Reset;
    Ok(flow.filter(is_reset).map(|flow| flow.subject.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject { purpose: Purpose::Reset, id: Uuid::from_u128(7), epoch: 3, address: "a@b.example".into() }
    }

    #[test]
    fn a_flow_survives_the_packing() {
        let until = Timestamp::from_millis(1_795_344_960_000);
        let flow = Flow { subject: subject(), seed: [1; 16], mac: [2; 32], tries: 4, state: State::Done, until };
        assert!(Flow::unpack(&flow.pack(), until) == Some(flow));
        assert!(Flow::unpack(&[2; 100], until).is_none());
    }

    #[test]
    fn only_eight_digits_are_a_code() {
        for text in ["12345678", "1234 5678", "1234-5678", " 12 34 56 78 ", "1234\u{a0}5678"] {
            assert_eq!(typed(text).map(|code| code.expose().to_owned()).as_deref(), Some("12345678"), "{text}");
        }
        for text in ["", "1234567", "123456789", "1234567a", "１２３４５６７８", "1234_5678", "12345678\n"] {
            assert!(typed(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_mac_is_bound_to_everything() {
        let (a, b) = (FlowId::from_bytes([1; 20]), FlowId::from_bytes([2; 20]));
        let base = message(&a, &subject(), "12345678");
        for other in [
            message(&b, &subject(), "12345678"),
            message(&a, &Subject { purpose: Purpose::Verify, ..subject() }, "12345678"),
            message(&a, &Subject { id: Uuid::from_u128(8), ..subject() }, "12345678"),
            message(&a, &Subject { address: "a@c.example".into(), ..subject() }, "12345678"),
            message(&a, &subject(), "12345679"),
        ] {
            assert_ne!(base, other);
        }
    }
}
