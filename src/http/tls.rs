//! TLS of our own: which certificate new connections are shown.
//!
//! 1. At the start certificate and key are read and judged with all other settings ([`Pair::load`]); what is wrong with
//!    them is a fault like any other.
//! 2. Every connection takes what is in force when its handshake begins, and keeps that.
//! 3. Every two seconds the files are read again ([`Certificates::look`]), and at SIGHUP at once. By content, since mounted
//!    secrets are links that are swapped and copies may keep their age. Two files are not written in one step, so a pair
//!    that is no pair is told of when it is still none at the next look.
//! 4. A new pair takes the whole configuration's place, with what earlier connections could be resumed from: who replaced a
//!    key because it leaked is rid of it. A pair that cannot be used changes nothing and is told of once.
//!
//! TLS 1.3 and 1.2 with the suites of aws-lc-rs; no early data, which could be sent twice by somebody else.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::digest::{self, SHA256};
use p256::pkcs8::der::{
    self, AnyRef, Decode, Reader, SliceReader, Tag,
    asn1::{GeneralizedTime, UtcTime},
};
use tokio_rustls::rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use crate::{config::PublicUrl, db::Timestamp, keys::read_private};

/// The name of HTTP/2 in a handshake (RFC 7301).
pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// How often the files are read.
pub const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// How long reading them may take: a folder may lie on a network that does not answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// A certificate that lives on for less should have been replaced: authorities and their clients do so a third before the
/// end, which is more than this even where certificates live for 45 days.
const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where certificate and key lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate with those between it and its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// What is wrong with one of the two files, without a byte of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// With the certificate.
    Certificate(&'static str),
    /// With the key.
    Key(&'static str),
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(expected) => write!(f, "certificate: {expected}"),
            Self::Key(expected) => write!(f, "key: {expected}"),
        }
    }
}

/// A certificate and the key that belongs to it, ready for use.
#[derive(Clone)]
pub struct Pair {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    /// From when to when it holds, in milliseconds since the epoch.
    holds: (i64, i64),
    contents: Contents,
}

/// SHA-256 of both files, each as it was or `None` when it could not be read.
type Contents = [Option<[u8; 32]>; 2];

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pair(until {})", Timestamp::from_millis(self.holds.1))
    }
}

impl Pair {
    /// Reads and judges both files.
    ///
    /// # Errors
    /// Everything that is wrong with either.
    pub fn load(files: &TlsFiles) -> Result<Self, Vec<TlsFault>> {
        Self::read(files).0
    }

    fn read(files: &TlsFiles) -> (Result<Self, Vec<TlsFault>>, Contents) {
        let chain = fs::read(&files.certificate).map_err(|_| "the path of a file that this user can read");
        let key = read_private(&files.key);
        let hash = |bytes: &[u8]| <[u8; 32]>::try_from(digest::digest(&SHA256, bytes).as_ref()).ok();
        let contents = [
            chain.as_ref().ok().and_then(|bytes| hash(bytes)),
            key.as_ref().ok().and_then(|text| hash(text.as_bytes())),
        ];
        let chain = chain.and_then(|pem| certificates(&pem)).map_err(TlsFault::Certificate);
        let key = key.and_then(|pem| private_key(&pem)).map_err(TlsFault::Key);
        let pair = match (chain, key) {
            (Ok((chain, holds)), Ok(key)) => Self::of(chain, key, holds, contents).map_err(|fault| vec![fault]),
            (chain, key) => Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        (pair, contents)
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        holds: (i64, i64),
        contents: Contents,
    ) -> Result<Self, TlsFault> {
        // Named, since a process in which two crates chose differently has no default.
        let provider = Arc::new(default_provider());
        let unusable = TlsFault::Key("a key of RSA (2048 bits or more), P-256, P-384, P-521 or Ed25519");
        let signer = provider.key_provider.load_private_key(key).map_err(|_| unusable)?;
        let leaf = chain.first().ok_or(TlsFault::Certificate(NO_CERTIFICATE))?.clone();
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|_| {
            TlsFault::Key(
                "the key of the certificate in LATCHKEY_TLS_CERT, whose own certificate stands there before all others",
            )
        })?;
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
        let mut config = config
            .map_err(|_| unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        Ok(Self { config: Arc::new(config), leaf, holds, contents })
    }

    /// What an operator should know about it at `now`.
    #[must_use]
    pub fn warnings(&self, public_url: &PublicUrl, now: Timestamp) -> Vec<&'static str> {
        let (from, until) = self.holds;
        let mut warnings = Vec::new();
        if until <= now.millis() {
            warnings.push("the certificate in LATCHKEY_TLS_CERT has expired: clients refuse it");
        } else if until <= now.after(SOON).millis() {
            warnings.push("the certificate in LATCHKEY_TLS_CERT expires within a week");
        }
        if now.millis() < from {
            warnings.push("the certificate in LATCHKEY_TLS_CERT does not hold yet: clients refuse it");
        }
        let is_named = ParsedCertificate::try_from(&self.leaf).is_ok_and(|leaf| {
            ServerName::try_from(public_url.host()).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
        });
        if !is_named {
            warnings.push("the certificate in LATCHKEY_TLS_CERT is not for the host of LATCHKEY_PUBLIC_URL");
        }
        warnings
    }
}

const NO_CERTIFICATE: &str = "a file with the server's certificate and those between it and its authority, in PEM";

/// The chain, and from when to when its first certificate holds.
fn certificates(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, (i64, i64)), &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|_| NO_CERTIFICATE)?;
    if chain.is_empty() || chain.iter().any(|certificate| ParsedCertificate::try_from(certificate).is_err()) {
        return Err(NO_CERTIFICATE);
    }
    let holds = validity(&chain[0]).map_err(|_| NO_CERTIFICATE)?;
    Ok((chain, holds))
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, &'static str> {
    if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err("an unencrypted key with mode 0600; `openssl pkcs8 -topk8 -nocrypt` makes one of it");
    }
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "a file with a private key in PEM")
}

/// From when to when a certificate holds (RFC 5280 §4.1).
fn validity(certificate: &[u8]) -> der::Result<(i64, i64)> {
    fn time<'a>(reader: &mut impl Reader<'a>) -> der::Result<i64> {
        let since_epoch = match Tag::peek(reader)? {
            Tag::UtcTime => UtcTime::decode(reader)?.to_unix_duration(),
            _ => GeneralizedTime::decode(reader)?.to_unix_duration(),
        };
        Ok(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
    let mut holds = (0, 0);
    SliceReader::new(certificate)?.sequence(|certificate| {
        certificate.sequence(|signed| {
            // Version (if it is not the first), serial number, algorithm, issuer.
            let before = if Tag::peek(signed)?.is_context_specific() { 4 } else { 3 };
            for _ in 0..before {
                AnyRef::decode(signed)?;
            }
            holds = signed.sequence(|validity| Ok::<_, der::Error>((time(validity)?, time(validity)?)))?;
            signed.drain(signed.remaining_len())
        })?;
        certificate.drain(certificate.remaining_len())
    })?;
    Ok(holds)
}

/// What new connections are shown, and where it comes from.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: TlsFiles,
    current: RwLock<Pair>,
    /// What was found the last time, if it could not be used, and whether that was told.
    refused: Mutex<Option<(Contents, bool)>>,
    /// Held while somebody reads them.
    looking: Arc<tokio::sync::Mutex<()>>,
}

/// What a look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// What is in force.
    Same,
    /// A new pair, which is in force now.
    New,
    /// Something that cannot be used, or no answer in time.
    Refused,
}

impl Certificates {
    /// These files, of which `pair` was read.
    #[must_use]
    pub fn new(files: TlsFiles, pair: Pair) -> Self {
        Self(Arc::new(Shared { files, current: RwLock::new(pair), refused: Mutex::default(), looking: Arc::default() }))
    }

    /// For a handshake that begins now.
    pub(super) fn for_handshake(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// The pair that is in force.
    #[must_use]
    pub fn pair(&self) -> Pair {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. `at_once` tells of a bad pair without waiting for the next look.
    pub async fn look(&self, at_once: bool) -> Look {
        let shared = Arc::clone(&self.0);
        let reading = async {
            // One at a time, or threads that wait for such a folder would pile up.
            let one_at_a_time = Arc::clone(&shared.looking).lock_owned().await;
            let files = shared.files.clone();
            tokio::task::spawn_blocking(move || {
                let found = Pair::read(&files);
                drop(one_at_a_time);
                found
            })
            .await
        };
        match tokio::time::timeout(LOOK_PATIENCE, reading).await {
            Ok(Ok((pair, contents))) => self.take(pair, contents, at_once),
            _ => self.take(Err(vec![TlsFault::Certificate("its folder does not answer")]), [None; 2], at_once),
        }
    }

    fn take(&self, found: Result<Pair, Vec<TlsFault>>, contents: Contents, at_once: bool) -> Look {
        let mut refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(pair) => {
                *refused = None;
                let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
                if pair.contents == current.contents {
                    return Look::Same;
                }
                tracing::info!(until = %Timestamp::from_millis(pair.holds.1), "new connections get a new certificate");
                *current = pair;
                Look::New
            }
            Err(faults) => {
                let (known, was_told) = refused.map_or((false, false), |(known, told)| (known == contents, told));
                let tells = at_once || (known && !was_told);
                if tells {
                    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                    tracing::warn!(
                        faults = faults.join("; "),
                        "LATCHKEY_TLS_CERT and LATCHKEY_TLS_KEY cannot be used as they are now; going on with the old ones"
                    );
                }
                *refused = Some((contents, tells || (known && was_told)));
                Look::Refused
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_how_long_it_holds() {
        let mut params = rcgen::CertificateParams::new(vec!["id.example.com".to_owned()]).unwrap();
        // One in each of the two forms of X.509, which change in 2050.
        params.not_before = rcgen::date_time_ymd(2026, 11, 22);
        params.not_after = rcgen::date_time_ymd(2051, 1, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(validity(certificate.der()).unwrap(), (1_795_305_600_000, 2_556_230_400_000));
        assert!(validity(b"no certificate").is_err());
    }
}
