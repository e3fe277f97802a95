//! How many mails strangers can cause at one address (`security.md` §4), and so how many codes can be guessed there.
//!
//! The last day's mails of an address are one small value in the slot of its flows. A mail is counted before it is
//! built; making it again after a fault moves its place in the count to that moment, since its code works from then on:
//! otherwise all that piled up while the mail server was away could be guessed at in one hour. An hour and a day of mails
//! are counted longer by the life of a code, so that no hour has more than 25 guesses and no day more than 50, wherever
//! they begin.
//!
//! Notices of completed acts are not counted here, so that no stranger can silence one. But who registers with somebody
//! else's address causes notices there as well: while the address is not proved, they have a count of their own.

use std::{net::IpAddr, time::Duration};

use super::flow::{CODE_LIFETIME, Purpose};
use crate::{
    app::App,
    db::Timestamp,
    ephemeral::{EphemeralResult, Key, Value},
    metrics::Policy,
    secret::ServerSecrets,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const MOST_AN_HOUR: usize = 5;
const MOST_A_DAY: usize = 10;
/// Of those of a day, one client network gets at most so many.
const MOST_A_DAY_AND_NETWORK: usize = 5;
/// Of those of a day, so many are kept for requests with a device token of the person.
const KEPT_A_DAY: usize = 2;
/// How long a code may work after its mail was counted.
const LIVE: Duration = CODE_LIFETIME.saturating_add(MINUTE);
/// Flows of one purpose that may have a code at the same time.
const MOST_LIVE: usize = 3;

/// What a mail is for that a stranger can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It carries a code.
    Code(Purpose),
    /// It says that somebody tried the address while it has an account.
    Taken,
    /// It tells of an act that was done to a person who has not proved the address.
    Notice,
}

impl Cause {
    fn number(self) -> u8 {
        match self {
            Self::Code(purpose) => purpose.number(),
            Self::Taken => 0,
            Self::Notice => u8::MAX,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Taken),
            u8::MAX => Some(Self::Notice),
            _ => Purpose::from_number(number).map(Self::Code),
        }
    }
}

/// One request for a mail.
#[derive(Clone, Debug)]
pub struct Request {
    /// What tells it from others: the random part of its flow.
    pub nonce: [u8; 16],
    /// What it is for.
    pub cause: Cause,
    /// The network of the client ([`network`]).
    pub network: [u8; 8],
    /// Whether a device token of the person came along.
    pub known_device: bool,
}

/// The name of the client network that an address belongs to: /24 or /48, as one client can have so many.
#[must_use]
pub fn network(address: IpAddr, secrets: &ServerSecrets) -> [u8; 8] {
    match address.to_canonical() {
        IpAddr::V4(address) => secrets.throttle(&address.octets()[..3]),
        IpAddr::V6(address) => secrets.throttle(&address.octets()[..6]),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    at: Timestamp,
    cause: Cause,
    known_device: bool,
    network: [u8; 8],
    nonce: [u8; 16],
}

/// The mails of the last day, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct MailLog(Vec<Sent>);

impl Value for MailLog {
    const KIND: &'static str = "m";

    fn expires_at(&self) -> Timestamp {
        self.0.iter().map(|sent| sent.at.after(DAY + LIVE)).max().unwrap_or(Timestamp::from_millis(0))
    }

    fn pack(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        for sent in &self.0 {
            bytes.extend(sent.at.millis().to_be_bytes());
            bytes.extend([sent.cause.number(), u8::from(sent.known_device)]);
            bytes.extend(sent.network);
            bytes.extend(sent.nonce);
        }
        bytes
    }

    fn unpack(bytes: &[u8], _: Timestamp) -> Option<Self> {
        let (&[1], rest) = bytes.split_first_chunk()? else { return None };
        let (sent, []) = rest.as_chunks::<34>() else { return None };
        let sent = sent.iter().map(|bytes| {
            let (at, rest) = bytes.split_first_chunk()?;
            let (&[cause, known_device], rest) = rest.split_first_chunk()?;
            let (network, nonce) = rest.split_first_chunk()?;
            Some(Sent {
                at: Timestamp::from_millis(i64::from_be_bytes(*at)),
                cause: Cause::from_number(cause)?,
                known_device: known_device != 0,
                network: *network,
                nonce: nonce.try_into().ok()?,
            })
        });
        sent.collect::<Option<_>>().map(Self)
    }
}

impl MailLog {
    /// The log with this request in it; `None` when a cap says no.
    fn admit(&self, now: Timestamp, request: &Request) -> Option<Self> {
        let counts = move |sent: &&Sent| !sent.at.is_stray(now, Duration::ZERO);
        let within = |period: Duration| self.0.iter().filter(counts).filter(move |sent| sent.at.after(period) > now);
        let same_cause = |sent: &&Sent| sent.cause == request.cause;
        let is_admitted = (request.cause == Cause::Notice || within(MINUTE).filter(same_cause).count() == 0)
            && within(HOUR + LIVE).count() < MOST_AN_HOUR
            && within(DAY + LIVE).count() < MOST_A_DAY
            && match request.cause {
                Cause::Notice => true,
                Cause::Code(_) => within(LIVE).filter(same_cause).count() < MOST_LIVE,
                Cause::Taken => within(DAY).filter(same_cause).count() == 0,
            }
            && (request.known_device
                || request.cause == Cause::Notice
                || (within(DAY + LIVE).filter(|sent| !sent.known_device).count() < MOST_A_DAY - KEPT_A_DAY
                    && within(DAY).filter(|sent| sent.network == request.network).count() < MOST_A_DAY_AND_NETWORK));
        is_admitted.then(|| {
            let mut after: Vec<Sent> = within(DAY + LIVE).cloned().collect();
            after.push(Sent {
                at: now,
                cause: request.cause,
                known_device: request.known_device,
                network: request.network,
                nonce: request.nonce,
            });
            Self(after)
        })
    }

    /// The log with this mail made again now; `None` when there was none, or its code may be dead: then it gets another
    /// one, with new tries, and is judged as a new mail.
    fn again(&self, now: Timestamp, nonce: &[u8; 16]) -> Option<Self> {
        let mut after = self.clone();
        let has_its_code = |sent: &Sent| match sent.cause {
            Cause::Code(_) => sent.at.after(CODE_LIFETIME) > now,
            Cause::Taken | Cause::Notice => true,
        };
        after.0.iter_mut().find(|sent| sent.nonce == *nonce && has_its_code(sent))?.at = now;
        Some(after)
    }
}

/// Counts a mail to this address, or says no. A mail that was counted before may be made again.
///
/// # Errors
/// When the store cannot answer; the mail may be counted then, and is not counted twice.
pub async fn admit(app: &App, address: &str, request: &Request) -> EphemeralResult<bool> {
    let (now, tag) = (app.ambient.now(), app.secrets.flow_tag(address));
    // A count for what strangers ask for and one for notices: neither can spend the other.
    let mut id = app.secrets.throttle::<16>(address.as_bytes()).to_vec();
    id.extend((request.cause == Cause::Notice).then_some(1));
    let key: Key<MailLog> = Key::new(&tag, &id);
    loop {
        let before = app.ephemeral.get(now, &key).await?;
        let log = before.clone().unwrap_or_default();
        let Some(after) = log.again(now, &request.nonce).or_else(|| log.admit(now, request)) else {
            app.metrics.limits.add(Policy::Mails);
            return Ok(false);
        };
        if app.ephemeral.swap(now, &key, before.as_ref(), &after).await? {
            return Ok(true);
        }
    }
}
