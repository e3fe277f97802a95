//! Handing a mail over: to the server of `SMTP_URL`, or as a file for somebody who tries Latchkey out.

use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use lettre::{
    Message,
    address::Address,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::{MailKind, SmtpServer, smtp::Smtp, template::Letter};
use crate::db::Timestamp;

/// How long the mail server may take to take a connection.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// Where mails go.
#[derive(Debug)]
pub enum Transport {
    /// To a mail server.
    #[expect(private_interfaces, reason = "there is nothing to see in it")]
    Smtp(Smtp),
    /// Into this folder, one `.eml` file each.
    Files(PathBuf),
}

/// A mail that was not handed over, or not surely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Surely not.
    Refused(String),
    /// Surely not, and the server says it never will.
    RefusedForGood(String),
    /// Nobody knows.
    Unknown(String),
}

/// A mail, built.
pub struct Outgoing {
    id: Uuid,
    kind: MailKind,
    at: Timestamp,
    message: Message,
}

impl fmt::Debug for Outgoing {
    /// Without the text: there may be a code in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Outgoing {
    /// Puts a mail together. The same `id` makes the same `Message-ID`.
    ///
    /// # Errors
    /// When the recipient is no address, which a stored one never is.
    pub fn new(
        id: Uuid,
        kind: MailKind,
        at: Timestamp,
        from: &Mailbox,
        recipient: &str,
        letter: Letter,
    ) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| Failure::Refused(format!("the mail cannot be built: {error}"));
        let recipient: Address = recipient.parse().map_err(|error| failed(&error))?;
        let date = UNIX_EPOCH + Duration::from_millis(u64::try_from(at.millis()).unwrap_or(0));
        // The boundary comes from the id: randomness has one door in this program, and lettre does not know it.
        let parts = MultiPart::alternative()
            .boundary(id.simple().to_string())
            .singlepart(SinglePart::plain(letter.text))
            .singlepart(SinglePart::html(letter.html));
        let message = Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, recipient))
            .subject(letter.subject)
            .date(date)
            .message_id(Some(format!("<{id}@{}>", from.email.domain())))
            // RFC 3834 §5: so that nobody's out-of-office reply comes back.
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
            .multipart(parts)
            .map_err(|error| failed(&error))?;
        Ok(Self { id, kind, at, message })
    }
}

impl Transport {
    /// To this server; `name` is what this machine calls itself.
    ///
    /// # Errors
    /// When the machine's root certificates cannot be used.
    pub fn smtp(server: SmtpServer, name: &str) -> io::Result<Self> {
        Smtp::new(server, name).map(Self::Smtp)
    }

    /// As files below the data folder.
    #[must_use]
    pub fn files(data_dir: &Path) -> Self {
        Self::Files(data_dir.join("mail"))
    }

    /// Hands a mail over.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn deliver(&self, mail: Outgoing) -> Result<(), Failure> {
        match self {
            Self::Smtp(smtp) => smtp.deliver(mail.message.envelope(), &mail.message.formatted()).await,
            Self::Files(folder) => {
                let folder = folder.clone();
                let write = tokio::task::spawn_blocking(move || write_file(&folder, &mail)).await;
                let path = write
                    .map_err(io::Error::other)
                    .flatten()
                    .map_err(|error| Failure::Refused(format!("the mail file cannot be written: {error}")))?;
                tracing::info!(path = %path.display(), "a mail was written; SMTP_URL would send it");
                Ok(())
            }
        }
    }

    /// Goes as far as a delivery goes before there is a mail, and tells how far that is.
    ///
    /// # Errors
    /// What stands in the way, in words.
    pub async fn examine(&self) -> Result<String, String> {
        match self {
            Self::Smtp(smtp) => smtp.examine().await,
            Self::Files(folder) => {
                let failed = |error| format!("mail files cannot be written to {}: {error}", folder.display());
                self.probe().await.map_err(failed)?;
                Ok(format!("mail is written to files in {}", folder.display()))
            }
        }
    }

    /// Whether mail could leave: the server takes a connection, or the folder for mail files can be written.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> io::Result<()> {
        match self {
            Self::Smtp(smtp) => {
                let connect = TcpStream::connect(smtp.place());
                tokio::time::timeout(PROBE_PATIENCE, connect).await.map_err(|_| io::ErrorKind::TimedOut)?.map(drop)
            }
            Self::Files(folder) => {
                let nearest = folder.ancestors().find_map(|path| fs::metadata(path).ok());
                let usable = nearest.is_some_and(|found| found.is_dir() && !found.permissions().readonly());
                if usable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
            }
        }
    }
}

/// Writes the mail whole or not at all, for nobody else on the machine to read: there are codes in it.
fn write_file(folder: &Path, mail: &Outgoing) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Ids begin with the time, so a listing has the newest last; the same mail made again replaces the first.
    let name = format!("{}-{}", mail.id, mail.kind.as_str());
    let (path, draft) = (folder.join(format!("{name}.eml")), folder.join(format!("{name}.draft")));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&mail.message.formatted())?;
    file.sync_all()?;
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(mail.at.millis()).unwrap_or(0));
    file.set_modified(at)?;
    fs::rename(&draft, &path)?;
    Ok(path)
}
