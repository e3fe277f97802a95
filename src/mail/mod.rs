//! Mail: what is told to people, how it gets onto its way and how it leaves.
//!
//! 1. An act writes a row into the outbox in its own transaction ([`Mail::post`]), so that an act is never without its mail
//!    and a mail never without its act. A row holds facts, never a code.
//! 2. A worker of any node claims it ([`outbox`]); the slice `verification` says what has become of it by then, draws
//!    the code if there is one, and builds the mail from the templates ([`template`]).
//! 3. A [`Transport`] hands it over: to the server of `SMTP_URL`, or as a file into the data folder.
//! 4. The row ends as `sent` or `dropped`, waits for the next try, or is `dead` after a day.
//!
//! Handing over can fail in two ways, and the difference decides: *refused* may be tried again as often as it takes;
//! *unknown* (the server had the whole text and its answer was lost) is tried once more and not again, under the same
//! `Message-ID`, so that nobody gets more than one duplicate.

pub mod depth;
pub mod outbox;
mod smtp;
pub mod template;
mod transport;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Mutex,
};

use lettre::message::Mailbox;
use uuid::Uuid;

pub use smtp::{Security, SmtpServer};
pub use transport::{Failure, Outgoing, Transport};

use self::template::{House, TemplateFaults, Templates};
use crate::{
    ambient::Ambient,
    config::Config,
    db::{StoreResult, Tx},
};

macro_rules! kinds {
    ($($variant:ident = $word:literal, $meaning:literal;)+) => {
        /// What a mail tells. The words are stable: rows outlive the program that wrote them, and templates are named so.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum MailKind { $(#[doc = $meaning] $variant,)+ }

        impl MailKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// The words of all kinds.
            pub const WORDS: &[&'static str] = &[$($word,)+];
            /// Every kind, and at the end none: one that only a newer node knows.
            pub const ALL_AND_NONE: &[Option<Self>] = &[$(Some(Self::$variant),)+ None];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

kinds! {
    VerifyAddress = "verify_address", "A code that proves an address.";
    ConfirmRegistration = "confirm_registration", "A code that makes a registration of the `required` mode a person.";
    AccountExists = "account_exists", "\"Somebody tried to register with your address.\"";
    ResetPassword = "reset_password", "A code and a link to choose a new password.";
    ChangeAddress = "change_address", "A code that proves an address somebody wants to change to.";
    AddressInUse = "address_in_use", "\"Somebody wanted to change to your address, which has an account.\"";
    AddressChangeRequested = "address_change_requested", "\"Somebody wants to change your account's address\", to the old one.";
    AddressChanged = "address_changed", "\"Your account's address was changed\", to the old one.";
    PasswordChanged = "password_changed", "\"Your password was changed.\"";
    PasswordReset = "password_reset", "\"Your password was reset.\"";
    SessionStolen = "session_stolen", "\"A refresh token of yours was used twice; we ended that session.\"";
    NewDevice = "new_device", "\"A sign-in from a device not seen before.\"";
}

impl MailKind {
    /// The kind of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    /// Whether it tells of something that was done, to the person it was done to: outside the caps on what strangers can
    /// cause, and one of a kind replaces the one before.
    #[must_use]
    pub const fn is_notice(self) -> bool {
        match self {
            Self::AddressChangeRequested
            | Self::AddressChanged
            | Self::PasswordChanged
            | Self::PasswordReset
            | Self::SessionStolen
            | Self::NewDevice => true,
            Self::VerifyAddress
            | Self::ConfirmRegistration
            | Self::AccountExists
            | Self::ResetPassword
            | Self::ChangeAddress
            | Self::AddressInUse => false,
        }
    }
}

/// A mail on its way into the outbox.
#[derive(Clone, Debug)]
pub struct Mail<'a> {
    /// What it tells.
    pub kind: MailKind,
    /// Whom; `None` when only the worker will know.
    pub person: Option<Uuid>,
    /// A canonical address.
    pub recipient: &'a str,
    /// The language that was asked for, if known.
    pub locale: Option<&'a str>,
    /// What the worker and the template need; never a code.
    pub data: BTreeMap<&'static str, String>,
}

impl Mail<'_> {
    /// Puts it into the outbox, in the transaction of the act.
    ///
    /// # Errors
    /// When the database does; then the act is not done either.
    pub async fn post(&self, tx: &mut Tx, ambient: &Ambient) -> StoreResult<()> {
        outbox::insert(tx, ambient.uuid(), self).await
    }
}

/// What it takes to build a mail and to hand it over.
#[derive(Debug)]
pub struct Post {
    /// Where mails go.
    pub transport: Transport,
    /// What they look like.
    pub templates: Templates,
    /// Their sender.
    pub from: Mailbox,
    /// Rows whose mail went and whose end is not written down yet.
    pub unwritten: Mutex<HashSet<Uuid>>,
}

/// Why there can be no mails.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// Templates that cannot be used, all of them.
    #[error("the mail templates cannot be used; LATCHKEY_TEMPLATES and LATCHKEY_LOCALE say which ones:\n{0}")]
    Templates(TemplateFaults),
    /// No root certificates to know the mail server by.
    #[error("the machine's root certificates cannot be used for SMTP_URL")]
    Certificates(#[source] io::Error),
}

impl Post {
    /// Prepares mails as the settings say.
    ///
    /// # Errors
    /// See [`PostError`].
    pub fn open(config: &Config) -> Result<Self, PostError> {
        let house = House {
            product: config.product_name.clone(),
            support: config.mail.support.clone(),
            url: config.public_url.as_str().to_owned(),
        };
        let settings = &config.mail;
        let templates = Templates::load(settings.templates.as_deref(), house, MailKind::WORDS, &settings.locale)
            .map_err(PostError::Templates)?;
        let transport = match &config.smtp {
            Some(server) => {
                Transport::smtp(server.clone(), config.public_url.host()).map_err(PostError::Certificates)?
            }
            None => Transport::files(&config.data_dir),
        };
        Ok(Self { transport, templates, from: settings.from.clone(), unwritten: Mutex::default() })
    }

    /// The language of a mail: the person's own, else the one that was asked for, else the house's.
    #[must_use]
    pub fn language(&self, own: Option<&str>, asked: Option<&str>) -> &str {
        let known = |tag: Option<&str>| tag.and_then(|tag| self.templates.language_of(tag));
        known(own).or_else(|| known(asked)).unwrap_or_else(|| self.templates.fallback())
    }
}
