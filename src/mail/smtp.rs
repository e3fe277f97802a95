//! A mail server: its address as `SMTP_URL` says it, and a delivery over SMTP (RFC 5321) with lettre's connection.
//!
//! 1. An idle connection that still answers, or a new one: greeting, EHLO, STARTTLS (RFC 3207), AUTH. 2. MAIL, RCPT, DATA.
//! 3. The text.
//!
//! Until the text has ended a fault means *refused*. From then on only an answer of the server tells; without one the
//! outcome is *unknown*. lettre's own transport tells no stages apart, which is why the commands are given one by one.
//!
//! STARTTLS is required, so that nobody on the way can take it out of the server's offer, unless the server is on this
//! machine or the URL says `?tls=none`.

mod lines;

use std::{
    fmt, io, iter,
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::Uri;
use lettre::{
    address::Envelope,
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail, Rcpt, Rset},
        extension::ClientId,
        response::{Response, Severity},
    },
};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;

use self::lines::Lines;
use super::Failure;
use crate::{names, secret::SecretText};

/// How long a delivery may take, connecting included, until the server has the whole text.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the server may then look at it: giving up here makes a duplicate.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// How long an idle connection may take for a sign of life.
const PROBE: Duration = Duration::from_secs(2);
/// How long a connection may lie idle; servers hang up after some minutes.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections that are kept.
const MOST_IDLE: usize = 4;

/// How the way to the server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte (`smtps://`).
    Implicit,
    /// STARTTLS or nothing.
    StartTls,
    /// Not at all: the server is on this machine, or `?tls=none` was said.
    Plain,
}

/// What `SMTP_URL` says.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port; 465 for `smtps`, else 25, unless said otherwise.
    pub port: u16,
    /// How the way is protected.
    pub security: Security,
    /// User and password.
    pub credentials: Option<(String, SecretText)>,
}

impl SmtpServer {
    /// Reads `smtp://[user:password@]host[:port][?tls=none]` or `smtps://…`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // A `#` in a password must be written %23; `Uri` would cut the rest off as a fragment, host and all.
        let uri: Uri = text.parse().ok().filter(|_| !text.contains('#'))?;
        let host = uri.host().map(|host| host.trim_matches(['[', ']']).to_owned()).filter(|host| !host.is_empty())?;
        let is_local =
            host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let (security, standard) = match (uri.scheme_str()?, uri.query()) {
            ("smtps", None) => (Security::Implicit, 465),
            ("smtp", None) if !is_local => (Security::StartTls, 25),
            ("smtp", None | Some("tls=none")) => (Security::Plain, 25),
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        let port_text = authority.rsplit_once('@').map_or(authority, |(_, host)| host).rsplit_once(':');
        let has_port = port_text.is_some_and(|(_, port)| !port.ends_with(']'));
        let port = match (has_port, uri.port_u16()) {
            (true, port) => port.filter(|port| *port != 0)?,
            (false, _) => standard,
        };
        let credentials = match authority.rsplit_once('@') {
            None => None,
            Some((user, _)) => {
                let (user, password) = user.split_once(':')?;
                let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
                Some((decoded(user).filter(|user| !user.is_empty())?, SecretText::new(decoded(password)?)))
            }
        };
        matches!(uri.path(), "" | "/").then_some(Self { host, port, security, credentials })
    }
}

/// Deliveries to one server.
pub(super) struct Smtp {
    server: SmtpServer,
    hello: ClientId,
    tls: Option<TlsParameters>,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Smtp {
    /// Prepares deliveries; `name` is what this machine calls itself.
    ///
    /// # Errors
    /// When the machine's root certificates cannot be used.
    pub(super) fn new(server: SmtpServer, name: &str) -> io::Result<Self> {
        let tls = match server.security {
            Security::Plain => None,
            Security::Implicit | Security::StartTls => {
                Some(TlsParameters::new_rustls(server.host.clone()).map_err(io::Error::other)?)
            }
        };
        let hello = if names::canonical_domain(name).is_some() {
            ClientId::Domain(name.to_owned())
        } else {
            ClientId::default()
        };
        Ok(Self { server, hello, tls, idle: Mutex::default() })
    }

    pub(super) fn place(&self) -> (&str, u16) {
        (&self.server.host, self.server.port)
    }

    pub(super) async fn deliver(&self, envelope: &Envelope, text: &[u8]) -> Result<(), Failure> {
        // Whether the server may have the whole text.
        let handed_over = AtomicBool::new(false);
        let mut delivery = pin!(self.try_deliver(envelope, text, &handed_over));
        let outcome = match tokio::time::timeout(PATIENCE, &mut delivery).await {
            Err(_) if handed_over.load(Ordering::Relaxed) => tokio::time::timeout(LAST_PATIENCE, delivery).await,
            outcome => outcome,
        };
        let was_handed_over = handed_over.load(Ordering::Relaxed);
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(match fault.answer {
                Some(Answer::Never) => Failure::RefusedForGood(fault.text),
                Some(Answer::NotNow) => Failure::Refused(fault.text),
                None if was_handed_over => Failure::Unknown(fault.text),
                None => Failure::Refused(fault.text),
            }),
            Err(_) if was_handed_over => {
                Err(Failure::Unknown("the mail server has the mail and did not say so in time".to_owned()))
            }
            Err(_) => Err(Failure::Refused("the mail server did not answer in time".to_owned())),
        }
    }

    /// Connects, encrypts and logs in as for a delivery, on a connection of its own.
    pub(super) async fn examine(&self) -> Result<String, String> {
        let mut connection = self.connect().await.map_err(|fault| fault.text)?;
        let _ = connection.quit().await;
        let way = match self.server.security {
            Security::Implicit => "over TLS",
            Security::StartTls => "over TLS by STARTTLS",
            Security::Plain => "without TLS",
        };
        let login = if self.server.credentials.is_some() { ", and takes user and password" } else { "" };
        Ok(format!("{}:{} greets {way}{login}", self.server.host, self.server.port))
    }

    async fn try_deliver(&self, envelope: &Envelope, text: &[u8], handed_over: &AtomicBool) -> Result<(), Fault> {
        // A refused login is nothing about the mail, and will be mended.
        let not_now = |fault: Fault| Fault { answer: fault.answer.map(|_| Answer::NotNow), ..fault };
        let mut connection = self.connection().await.map_err(not_now)?;
        let delivered = hand_over(&mut connection, envelope, text, handed_over).await;
        // After an answer, good or bad, both sides are in step; a refusal leaves a mail half begun.
        let in_step = match &delivered {
            Ok(()) => true,
            Err(fault) if fault.answer.is_some() => {
                matches!(tokio::time::timeout(PROBE, connection.command(Rset)).await, Ok(Ok(_)))
            }
            Err(_) => false,
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if in_step && idle.len() < MOST_IDLE {
            idle.push((connection, Instant::now()));
        }
        delivered
    }

    async fn connection(&self) -> Result<AsyncSmtpConnection, Fault> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some((_, since)) if since.elapsed() > IDLE => {}
                Some((mut connection, _)) => {
                    if tokio::time::timeout(PROBE, connection.test_connected()).await.unwrap_or(false) {
                        return Ok(connection);
                    }
                }
                None => return self.connect().await,
            }
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Fault> {
        let server = &self.server;
        let place = (server.host.as_str(), server.port);
        let mut connection = if let (Security::StartTls, Some(tls)) = (server.security, &self.tls) {
            let stream = TcpStream::connect(place).await?;
            let stream = Box::new(Lines::new(stream));
            let mut connection = AsyncSmtpConnection::connect_with_transport(stream, &self.hello).await?;
            if !connection.can_starttls() {
                return Err(Fault::ours(
                    "the mail server offers no STARTTLS; if that is right, say ?tls=none in SMTP_URL",
                ));
            }
            connection.starttls(tls.clone(), &self.hello).await?;
            connection
        } else {
            let (patience, tls) = (Some(PATIENCE), self.tls.clone());
            AsyncSmtpConnection::connect_tokio1(place, patience, &self.hello, tls, None).await?
        };
        if let Some((user, password)) = &server.credentials {
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        Ok(connection)
    }
}

/// MAIL, RCPT, DATA and the text. Each answer must be the one that belongs to its command: a connection that is out of
/// step would otherwise take the answer of one for the answer of another.
async fn hand_over(
    connection: &mut AsyncSmtpConnection,
    envelope: &Envelope,
    text: &[u8],
    handed_over: &AtomicBool,
) -> Result<(), Fault> {
    completed(&connection.command(Mail::new(envelope.from().cloned(), Vec::new())).await?)?;
    for recipient in envelope.to() {
        completed(&connection.command(Rcpt::new(recipient.clone(), Vec::new())).await?)?;
    }
    if !connection.command(Data).await?.has_code(354) {
        return Err(Fault::ours("the mail server gave another answer to DATA than 354"));
    }
    // The dot that ends the text is sent when the iterator has ended: before that the server cannot take the mail.
    let text = iter::once(text).chain(iter::from_fn(|| {
        handed_over.store(true, Ordering::Relaxed);
        None
    }));
    let answer = connection.message_iter(text).await.map_err(|error| {
        // Only the number: a filter's words may quote what it did not like, and there is a code in the text.
        let number = error.status().map(|code| format!("the mail server answered the text with {code}"));
        let fault = Fault::from(error);
        Fault { text: number.unwrap_or(fault.text), ..fault }
    })?;
    completed(&answer)
}

fn completed(answer: &Response) -> Result<(), Fault> {
    match answer.code().severity {
        Severity::PositiveCompletion => Ok(()),
        _ => Err(Fault::ours("the mail server gave an answer that belongs to another command")),
    }
}

/// What the server said against a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// 4xx.
    NotNow,
    /// 5xx.
    Never,
}

/// Why a step did not go well.
struct Fault {
    text: String,
    answer: Option<Answer>,
}

impl Fault {
    fn ours(text: &str) -> Self {
        Self { text: text.to_owned(), answer: None }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::ours(&format!("Connection error: {error}"))
    }
}

impl From<lettre::transport::smtp::Error> for Fault {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        let answer = match (error.is_transient(), error.is_permanent()) {
            (true, _) => Some(Answer::NotNow),
            (_, true) => Some(Answer::Never),
            _ => None,
        };
        // The server's words go into a table and onto terminals.
        let text = error.to_string().chars().map(|c| if names::is_unsafe(c) { ' ' } else { c }).take(300).collect();
        Self { text, answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let read = |text: &str| {
            SmtpServer::parse(text).map(|server| {
                let credentials = server.credentials.map(|(user, password)| format!("{user}/{}", password.expose()));
                (server.host, server.port, server.security, credentials)
            })
        };
        let server = |host: &str, port, security| Some((host.to_owned(), port, security, None));
        assert_eq!(read("smtp://mail.example"), server("mail.example", 25, Security::StartTls));
        assert_eq!(read("smtp://mail.example:587/"), server("mail.example", 587, Security::StartTls));
        assert_eq!(read("smtp://mailhog:1025?tls=none"), server("mailhog", 1025, Security::Plain));
        assert_eq!(read("smtp://localhost:1025"), server("localhost", 1025, Security::Plain));
        assert_eq!(read("smtp://127.0.0.1:1025"), server("127.0.0.1", 1025, Security::Plain));
        assert_eq!(read("smtp://[::1]:1025"), server("::1", 1025, Security::Plain));
        assert_eq!(read("smtp://[2001:db8::1]"), server("2001:db8::1", 25, Security::StartTls));
        assert_eq!(read("smtps://mail.example"), server("mail.example", 465, Security::Implicit));
        assert_eq!(
            read("smtps://us%40er:p%3Ass%2F@mail.example:2465").unwrap(),
            ("mail.example".into(), 2465, Security::Implicit, Some("us@er/p:ss/".into()))
        );
        for text in [
            "",
            "smtp://",
            "http://mail.example",
            "smtp://mail.example/x",
            "smtp://mail.example?tls=off",
            "smtps://mail.example?tls=none",
            "smtp://mail.example:0",
            "smtp://mail.example:99999",
            "smtp://user@mail.example",
            "smtp://:p@mail.example",
            "smtp://mail:587#secret@mail.example",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
