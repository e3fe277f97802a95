//! `jwt/`: one PEM a private key, and the server secret. Nothing else belongs there.
//!
//! A key that an operator puts in may be PKCS#8 or SEC1, as `openssl` writes them, under any name; ours are PKCS#8 in
//! `<kid>.pem`. Names that start with a dot are passed over (mounted secrets have such links), and so is `README.md`.
//! Anything else that is no usable P-256 private key, and anything that *others* may read, is a fault by its name.

use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType, Jwk,
    KeyAlgorithm, PublicKeyUse, ThumbprintHash,
};
use p256::{
    SecretKey,
    elliptic_curve::sec1::ToSec1Point,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};
use zeroize::Zeroizing;

use crate::{ambient::Ambient, secret::SecretBytes};

const SECRET_FILE: &str = "secret";

/// What is wrong with one file, without a byte of what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong and what would be right.
    pub expected: &'static str,
}

/// Every fault of the folder at once.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileFaults(pub Vec<FileFault>);

impl fmt::Display for FileFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fault(s) in the folder of keys:", self.0.len())?;
        for fault in &self.0 {
            write!(f, "\n  {}: {}", fault.path.display(), fault.expected)?;
        }
        Ok(())
    }
}

/// A private signing key with the name it goes by.
pub struct PrivateKey {
    /// RFC 7638 thumbprint of the public half.
    pub kid: String,
    /// The public half.
    pub jwk: Jwk,
    secret: SecretKey,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.kid)
    }
}

impl PrivateKey {
    /// A new key.
    #[must_use]
    pub fn generate(ambient: &Ambient) -> Self {
        loop {
            // A draw outside the group order has a chance of 2^-32.
            let bytes = Zeroizing::new(ambient.bytes::<32>());
            if let Ok(secret) = SecretKey::from_slice(bytes.as_slice())
                && let Some(key) = Self::new(secret)
            {
                return key;
            }
        }
    }

    fn new(secret: SecretKey) -> Option<Self> {
        let point = secret.public_key().to_sec1_point(false);
        let coordinate = |half: Option<&p256::FieldBytes>| half.map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let mut jwk = Jwk {
            common: CommonParameters {
                public_key_use: Some(PublicKeyUse::Signature),
                key_algorithm: Some(KeyAlgorithm::ES256),
                ..CommonParameters::default()
            },
            algorithm: AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                key_type: EllipticCurveKeyType::EC,
                curve: EllipticCurve::P256,
                x: coordinate(point.x())?,
                y: coordinate(point.y())?,
            }),
        };
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        jwk.common.key_id = Some(kid.clone());
        Some(Self { kid, jwk, secret })
    }

    /// Reads PKCS#8 or SEC1 PEM; other blocks around the key (`EC PARAMETERS`) are passed over.
    fn from_pem(text: &str) -> Result<Self, &'static str> {
        let block = |label: &str| {
            let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
            let from = text.find(&begin)?;
            let to = from + text[from..].find(&end)? + end.len();
            Some(&text[from..to])
        };
        let secret = if let Some(pem) = block("PRIVATE KEY") {
            SecretKey::from_pkcs8_pem(pem).map_err(|_| "its PKCS#8 key is not on the curve P-256")?
        } else if let Some(pem) = block("EC PRIVATE KEY") {
            SecretKey::from_sec1_pem(pem).map_err(|_| "its SEC1 key is not on the curve P-256")?
        } else if text.contains("-----BEGIN PUBLIC KEY-----") {
            return Err("it holds a public key alone; the private key is needed");
        } else if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Err("the key is encrypted; store it unencrypted (`openssl pkcs8 -topk8 -nocrypt`) with mode 0600");
        } else {
            return Err("it is no private key in PEM; only P-256 keys and the file `secret` belong here");
        };
        Self::new(secret).ok_or("its key cannot be used")
    }

    /// Private scalar and uncompressed public point, for the signing library.
    pub(super) fn parts(&self) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
        let scalar = Zeroizing::new(self.secret.to_bytes().to_vec());
        (scalar, self.secret.public_key().to_sec1_point(false).as_bytes().to_vec())
    }
}

/// The folder of private keys and the server secret.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    dir: PathBuf,
}

impl KeyFiles {
    /// The folder `dir`; it need not be there yet.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Every private key in the folder, in the order of their file names.
    ///
    /// # Errors
    /// Every unusable file at once.
    pub fn load(&self) -> Result<Vec<PrivateKey>, FileFaults> {
        let (keys, faults) = self.look();
        if faults.is_empty() { Ok(keys) } else { Err(FileFaults(faults)) }
    }

    /// As [`KeyFiles::load`], for those who go on whatever lies there: the usable keys, and what is wrong with the rest.
    #[must_use]
    pub fn look(&self) -> (Vec<PrivateKey>, Vec<FileFault>) {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), Vec::new()),
            Err(_) => return (Vec::new(), vec![self.fault("", "a folder that this user can read")]),
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        let (mut keys, mut faults) = (Vec::new(), Vec::new());
        for name in names {
            let shown = name.to_string_lossy();
            if shown.starts_with('.') || shown == "README.md" || shown == SECRET_FILE {
                continue;
            }
            match read_private(&self.dir.join(&name)).and_then(|text| PrivateKey::from_pem(&text)) {
                Ok(key) => keys.push(key),
                Err(expected) => faults.push(self.fault(&shown, expected)),
            }
        }
        (keys, faults)
    }

    /// Writes `key` as `<kid>.pem`.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn save(&self, key: &PrivateKey, ambient: &Ambient) -> io::Result<()> {
        let pem = key.secret.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
        self.write_once(&format!("{}.pem", key.kid), pem.as_bytes(), ambient)
    }

    /// The server secrets in the folder, if there are any: base64, one or a comma list, as `LATCHKEY_SECRET` has it.
    ///
    /// # Errors
    /// When the file is there and is no such thing.
    pub fn secrets(&self) -> Result<Option<Vec<SecretBytes>>, FileFaults> {
        let path = self.dir.join(SECRET_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let expected = "base64 of 32 bytes or more, perhaps a comma list";
        let text = read_private(&path).map_err(|expected| FileFaults(vec![self.fault(SECRET_FILE, expected)]))?;
        let secrets: Option<Vec<SecretBytes>> = text
            .trim()
            .split(',')
            .map(|part| STANDARD.decode(part.trim()).ok().filter(|bytes| bytes.len() >= 32).map(SecretBytes::new))
            .collect();
        secrets.map(Some).ok_or_else(|| FileFaults(vec![self.fault(SECRET_FILE, expected)]))
    }

    /// Makes a server secret unless there is one.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn make_secret(&self, ambient: &Ambient) -> io::Result<()> {
        let secret = Zeroizing::new(STANDARD.encode(Zeroizing::new(ambient.bytes::<32>()).as_slice()));
        self.write_once(SECRET_FILE, secret.as_bytes(), ambient)
    }

    /// Writes a whole file or none, never over another: a crash leaves no half key, and of two nodes on one folder one
    /// wins. The draft has a name that no other process draws, containers that all are process 1 included.
    fn write_once(&self, name: &str, bytes: &[u8], ambient: &Ambient) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        // A folder from a checkout is open to all; where it is not ours to close, the files' own mode has to do.
        let _ = fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700));
        let (path, draft) = (self.dir.join(name), self.dir.join(format!(".{name}.{}", ambient.uuid())));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&draft, &path));
        fs::remove_file(&draft)?;
        match written {
            Ok(()) => fs::File::open(&self.dir)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn fault(&self, name: &str, expected: &'static str) -> FileFault {
        FileFault { path: self.dir.join(name), expected }
    }
}

/// The text of a file that others cannot read. Links are followed.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<String>, &'static str> {
    let metadata = fs::metadata(path).map_err(|_| "it cannot be read by this user")?;
    if !metadata.is_file() {
        return Err("it is no file");
    }
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err("others may read or write it; `chmod o= FILE` and, if it was exposed, make a new one");
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(|_| "it cannot be read by this user as text")
}
