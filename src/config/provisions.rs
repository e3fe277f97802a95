//! What a server is given beside its settings, and other commands have no need of: the certificate itself, and what
//! systemd hands over.
//!
//! `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES` and `NOTIFY_SOCKET` are systemd's names (sd_listen_fds(3), sd_notify(3)),
//! so they are no settings: an operator writes `FileDescriptorName=` into a socket unit instead.

use std::os::fd::RawFd;

use super::{Config, Fault, Faults, Given, parse::Reader};
use crate::{
    db::Timestamp,
    http::{Pair, TlsFault, TlsFiles},
};

/// The first file descriptor that systemd hands over.
const FIRST: RawFd = 3;
const NAMES: &str = "one socket `public` and one `internal`, as FileDescriptorName= in the socket units says; \
                     a socket alone is the public one whatever its name";

/// What a server is given.
#[derive(Clone, Debug, Default)]
pub struct Provisions {
    /// What `LATCHKEY_TLS_CERT` and `LATCHKEY_TLS_KEY` name; `None` is plain HTTP.
    pub tls: Option<Pair>,
    /// A listening socket in place of `LATCHKEY_LISTEN`.
    pub public: Option<RawFd>,
    /// A listening socket in place of `LATCHKEY_INTERNAL_LISTEN`.
    pub internal: Option<RawFd>,
    /// Where systemd wants to hear that the server serves.
    pub notify: Option<String>,
}

impl Provisions {
    /// What an operator should know about them at `now`.
    #[must_use]
    pub fn warnings(&self, config: &Config, now: Timestamp) -> Vec<&'static str> {
        let mut warnings: Vec<_> = self.tls.iter().flat_map(|pair| pair.warnings(&config.public_url, now)).collect();
        if self.tls.is_some() && !config.public_url.is_https() {
            warnings.push("LATCHKEY_TLS_CERT is set and LATCHKEY_PUBLIC_URL is plain http: its links lead nowhere");
        }
        warnings
    }
}

impl Config {
    /// Everything that a server needs: the settings, and what they or systemd name.
    ///
    /// # Errors
    /// Every fault of either at once.
    pub fn for_server(given: &Given) -> Result<(Self, Provisions), Faults> {
        let (config, provisions) = (Self::from_given(given), provisions(given, std::process::id()));
        match (config, provisions) {
            (Ok(config), Ok(provisions)) => Ok((config, provisions)),
            (config, provisions) => {
                let faults = config.err().into_iter().flat_map(|faults| faults.0);
                Err(Faults(faults.chain(provisions.err().unwrap_or_default()).collect()))
            }
        }
    }
}

impl Reader<'_> {
    /// Where certificate and key lie.
    #[expect(clippy::option_option, reason = "a fault and an absence are two things")]
    pub(super) fn tls(&mut self) -> Option<Option<TlsFiles>> {
        let certificate = self.optional("LATCHKEY_TLS_CERT", super::parse::path)?;
        match (certificate, self.optional("LATCHKEY_TLS_KEY", super::parse::path)?) {
            (Some(certificate), Some(key)) => Some(Some(TlsFiles { certificate, key })),
            (None, None) => Some(None),
            (Some(_), None) => {
                self.fault("LATCHKEY_TLS_KEY", "the key of LATCHKEY_TLS_CERT: set both, or neither for plain HTTP");
                None
            }
            (None, Some(_)) => {
                self.fault(
                    "LATCHKEY_TLS_CERT",
                    "the certificate of LATCHKEY_TLS_KEY: set both, or neither for plain HTTP",
                );
                None
            }
        }
    }
}

fn provisions(given: &Given, pid: u32) -> Result<Provisions, Vec<Fault>> {
    let mut faults = Vec::new();
    // Where one of the two is missing there is a fault already.
    let tls = Reader::new(given).tls().flatten().and_then(|files| match Pair::load(&files) {
        Ok(pair) => Some(pair),
        Err(found) => {
            faults.extend(found.into_iter().map(|fault| match fault {
                TlsFault::Certificate(expected) => named("LATCHKEY_TLS_CERT", expected),
                TlsFault::Key(expected) => named("LATCHKEY_TLS_KEY", expected),
            }));
            None
        }
    });
    let (public, internal) = sockets(given, pid).unwrap_or_else(|fault| {
        faults.push(fault);
        (None, None)
    });
    let notify = given.get("NOTIFY_SOCKET").map(str::to_owned);
    if faults.is_empty() { Ok(Provisions { tls, public, internal, notify }) } else { Err(faults) }
}

fn named(name: &str, expected: &str) -> Fault {
    Fault { name: name.to_owned(), expected: expected.to_owned() }
}

/// The public and the internal socket. What was meant for another process (a parent that passed its environment on) is none.
fn sockets(given: &Given, pid: u32) -> Result<(Option<RawFd>, Option<RawFd>), Fault> {
    let Some(count) = given.get("LISTEN_FDS").filter(|_| given.get("LISTEN_PID") == Some(&pid.to_string())) else {
        return Ok((None, None));
    };
    let count: usize = count.parse().map_err(|_| named("LISTEN_FDS", "a whole number, as systemd sets it"))?;
    let names: Vec<&str> = given.get("LISTEN_FDNAMES").unwrap_or_default().split(':').collect();
    let (mut public, mut internal) = (None, None);
    for (at, fd) in (0..count).zip(FIRST..) {
        let place = match names.get(at).copied() {
            Some("internal") => &mut internal,
            Some("public") => &mut public,
            _ if count == 1 => &mut public,
            _ => return Err(named("LISTEN_FDNAMES", NAMES)),
        };
        if place.replace(fd).is_some() {
            return Err(named("LISTEN_FDNAMES", NAMES));
        }
    }
    Ok((public, internal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_by_their_names() {
        let sockets = |pid: &str, count: &str, names: &str| {
            let given = [("LISTEN_PID", pid), ("LISTEN_FDS", count), ("LISTEN_FDNAMES", names)];
            sockets(&Given::from_pairs(given), 7).map_err(|fault| fault.name)
        };
        assert_eq!(sockets("7", "2", "public:internal"), Ok((Some(3), Some(4))));
        assert_eq!(sockets("7", "2", "internal:public"), Ok((Some(4), Some(3))));
        assert_eq!(sockets("7", "1", "latchkey.socket"), Ok((Some(3), None)));
        assert_eq!(sockets("7", "1", ""), Ok((Some(3), None)));
        assert_eq!(sockets("7", "1", "internal"), Ok((None, Some(3))));
        assert_eq!(sockets("7", "0", ""), Ok((None, None)));
        assert_eq!(sockets("8", "2", "public:internal"), Ok((None, None)), "another process's");
        assert_eq!(sockets("", "2", "public:internal"), Ok((None, None)));
        for names in ["", "public", "public:public", "public:other", "a:b"] {
            assert_eq!(sockets("7", "2", names), Err("LISTEN_FDNAMES".to_owned()), "{names}");
        }
        assert_eq!(sockets("7", "two", "public:internal"), Err("LISTEN_FDS".to_owned()));
    }
}
