//! The outbox: mails to be sent, written in the transaction of the act they tell of, so that an act is never without its
//! mail and a mail never without its act. Delivery (file and SMTP transports, templates, retries) is not here yet; rows
//! wait in state `pending`, and the migration says what their columns mean.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use axum::http::Uri;
use futures_util::TryFutureExt;
use sqlx::types::Json;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::{
    ambient::Ambient,
    db::{StoreResult, Tx, on},
    secret::SecretText,
};

/// How long the mail server may take to take a connection.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// Whether mail could leave: the server of `SMTP_URL` takes a connection, or the folder for mail files can be written.
///
/// # Errors
/// Why not.
pub async fn probe(smtp: Option<&SecretText>, data_dir: &Path) -> io::Result<()> {
    let Some(url) = smtp else {
        let usable = std::fs::metadata(data_dir).is_ok_and(|data| data.is_dir() && !data.permissions().readonly());
        return if usable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) };
    };
    let uri: Uri = url.expose().parse().map_err(io::Error::other)?;
    let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?.trim_matches(['[', ']']);
    let standard = if uri.scheme_str() == Some("smtps") { 465 } else { 25 };
    let connect = TcpStream::connect((host, uri.port_u16().unwrap_or(standard)));
    tokio::time::timeout(PROBE_PATIENCE, connect).await.map_err(|_| io::ErrorKind::TimedOut)?.map(drop)
}

/// What a mail tells. The words are stable: rows outlive the program that wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailKind {
    /// "A refresh token of yours was used twice; we ended that session."
    SessionStolen,
    /// "Your password was changed."
    PasswordChanged,
}

impl MailKind {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStolen => "session_stolen",
            Self::PasswordChanged => "password_changed",
        }
    }
}

/// A mail on its way into the outbox.
#[derive(Clone, Debug)]
pub struct Mail<'a> {
    /// What it tells.
    pub kind: MailKind,
    /// Whom.
    pub person: Uuid,
    /// The stored, canonical address.
    pub recipient: &'a str,
    /// The person's language, if known.
    pub locale: Option<&'a str>,
    /// What the template needs; never a code.
    pub data: BTreeMap<&'static str, String>,
}

impl Mail<'_> {
    /// Puts it into the outbox, in the transaction of the act.
    ///
    /// # Errors
    /// When the database does; then the act is not done either.
    pub async fn post(&self, tx: &mut Tx, ambient: &Ambient) -> StoreResult<()> {
        let (id, now) = (ambient.uuid(), tx.now());
        on!(tx, |c| {
            sqlx::query(
            "INSERT INTO outbox (id, kind, person_id, recipient, locale, data, state, attempts, created_at, next_attempt_at)
             VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, $7)"
        )
        .bind(id)
        .bind(self.kind.as_str())
        .bind(self.person)
        .bind(self.recipient)
        .bind(self.locale)
        .bind(Json(&self.data))
        .bind(now)
        .execute(c)
        .map_ok(drop)
        })
    }
}
