//! A mail server: its address as `SMTP_URL` says it, and a delivery over SMTP (RFC 5321) with lettre's connection.
//!
//! 1. An idle connection that still answers, or a new one: greeting, EHLO, STARTTLS (RFC 3207), AUTH. 2. MAIL, RCPT, DATA.
//! 3. The text.
//!
//! Before the text a fault means *refused*. From its first byte on only an answer of the server tells; without one the
//! outcome is *unknown*. lettre's own transport tells no stages apart, which is why the commands are given one by one.
//!
//! STARTTLS is required, so that nobody on the way can take it out of the server's offer, unless the server is on this
//! machine or the URL says `?tls=none`.

use std::{
    fmt, io,
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
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;

use super::Failure;
use crate::secret::SecretText;

/// How long one delivery may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
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
        let uri: Uri = text.parse().ok()?;
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
        let hello = if crate::names::canonical_domain(name).is_some() {
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
        let work = tokio::time::timeout(PATIENCE, self.try_deliver(envelope, text, &handed_over)).await;
        let (error, was_answered) = match work {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(fault)) => (fault.to_string(), fault.is_answer),
            Err(_) => ("the mail server did not answer within 10 s".to_owned(), false),
        };
        if handed_over.load(Ordering::Relaxed) && !was_answered {
            Err(Failure::Unknown(error))
        } else {
            Err(Failure::Refused(error))
        }
    }

    async fn try_deliver(&self, envelope: &Envelope, text: &[u8], handed_over: &AtomicBool) -> Result<(), Fault> {
        let mut connection = self.connection().await?;
        connection.command(Mail::new(envelope.from().cloned(), Vec::new())).await?;
        for recipient in envelope.to() {
            connection.command(Rcpt::new(recipient.clone(), Vec::new())).await?;
        }
        connection.command(Data).await?;
        handed_over.store(true, Ordering::Relaxed);
        connection.message(text).await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push((connection, Instant::now()));
        }
        Ok(())
    }

    async fn connection(&self) -> Result<AsyncSmtpConnection, Fault> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some((_, since)) if since.elapsed() > IDLE => {}
                Some((mut connection, _)) => {
                    if connection.test_connected().await {
                        return Ok(connection);
                    }
                }
                None => return self.connect().await,
            }
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Fault> {
        let server = &self.server;
        let implicit = self.tls.clone().filter(|_| server.security == Security::Implicit);
        let place = (server.host.as_str(), server.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(place, Some(PATIENCE), &self.hello, implicit, None).await?;
        if let (Security::StartTls, Some(tls)) = (server.security, &self.tls) {
            if !connection.can_starttls() {
                return Err(Fault::ours(
                    "the mail server offers no STARTTLS; if that is right, say ?tls=none in SMTP_URL",
                ));
            }
            connection.starttls(tls.clone(), &self.hello).await?;
        }
        if let Some((user, password)) = &server.credentials {
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        Ok(connection)
    }
}

/// Why a step did not go well.
struct Fault {
    text: String,
    /// The server said so.
    is_answer: bool,
}

impl Fault {
    fn ours(text: &str) -> Self {
        Self { text: text.to_owned(), is_answer: false }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<lettre::transport::smtp::Error> for Fault {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        // The server's words go into a table and onto terminals.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        Self { text, is_answer: error.is_transient() || error.is_permanent() }
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
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
