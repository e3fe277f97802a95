//! What a server is given beside its settings, and other commands have no need of: the certificate itself.

use super::{Config, Fault, Faults, Given, parse::Reader};
use crate::{
    db::Timestamp,
    http::{Pair, TlsFault, TlsFiles},
};

/// What a server is given.
#[derive(Clone, Debug, Default)]
pub struct Provisions {
    /// What `LATCHKEY_TLS_CERT` and `LATCHKEY_TLS_KEY` name; `None` is plain HTTP.
    pub tls: Option<Pair>,
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
    /// Everything that a server needs: the settings, and what they name.
    ///
    /// # Errors
    /// Every fault of either at once.
    pub fn for_server(given: &Given) -> Result<(Self, Provisions), Faults> {
        let (config, provisions) = (Self::from_given(given), provisions(given));
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

fn provisions(given: &Given) -> Result<Provisions, Vec<Fault>> {
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
    if faults.is_empty() { Ok(Provisions { tls }) } else { Err(faults) }
}

fn named(name: &str, expected: &str) -> Fault {
    Fault { name: name.to_owned(), expected: expected.to_owned() }
}
