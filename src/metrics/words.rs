//! The values that labels can have.

use crate::mail::MailKind;

/// A closed set of label values.
pub trait Words: Copy + Send + Sync + 'static {
    /// All of them, each at its [`Words::place`].
    const ALL: &'static [Self];

    /// The value as it is written.
    fn word(self) -> &'static str;

    /// Where its cell is.
    fn place(self) -> usize;
}

macro_rules! words {
    ($($(#[$about:meta])* $name:ident { $($variant:ident = $word:literal, $meaning:literal;)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $(#[doc = $meaning] $variant,)+ }

        impl Words for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    )+};
}

words! {
    /// What came of an attempt to sign in.
    Login {
        Success = "success", "A session was opened.";
        WrongCredentials = "wrong_credentials", "Unknown, wrong, disabled or password-less.";
        TooManyAttempts = "too_many_attempts", "Refused before any hash, for the failures before.";
        NotVerified = "not_verified", "Right, but the address must be proved first.";
        Busy = "busy", "No hashing capacity.";
        Failed = "failed", "A store did not do its part.";
    }
    /// What came of an attempt to get new tokens.
    Refresh {
        Success = "success", "The chain moved on.";
        Repeated = "repeated", "The same token again within the window.";
        Healed = "healed", "The store had lost a write, and was moved on.";
        Invalid = "invalid", "Malformed, expired, ended, or not one of ours.";
        Reused = "reused", "Used before: the session was ended.";
        TooOften = "too_often", "Over the limit of one session.";
        Failed = "failed", "A store did not do its part.";
    }
    /// What came of a registration whose fields were good.
    Registration {
        Created = "created", "A person was made.";
        Pending = "pending", "It waits for its code.";
        Completed = "completed", "One that waited became a person.";
        Closed = "closed", "Not open, or not for this domain.";
        EmailTaken = "email_taken", "Somebody has the address.";
        UsernameTaken = "username_taken", "Somebody has the username.";
        Busy = "busy", "No hashing capacity.";
        Failed = "failed", "A store did not do its part.";
    }
    /// What a typed code was for: as its flow says, or as the operation does when there is no flow.
    CodePurpose {
        Verify = "verify", "A person's address.";
        Register = "register", "A registration that waits.";
        Reset = "reset", "A new password.";
        Change = "change", "A new address.";
    }
    /// What came of a typed code.
    CodeOutcome {
        Right = "right", "It was right, and is used up.";
        Wrong = "wrong", "It was judged, and is another one.";
        Spent = "spent", "Its flow takes no more tries.";
        Unknown = "unknown", "There is no such flow any more, or it cannot be a code.";
        Failed = "failed", "The store did not do its part.";
    }
    /// What came of a password that was asked for once more of somebody signed in.
    Confirmation {
        Right = "right", "It was right.";
        Wrong = "wrong", "It was wrong, or there is none.";
        TooManyAttempts = "too_many_attempts", "Refused before any hash, for the failures before.";
        Busy = "busy", "No hashing capacity.";
        Failed = "failed", "A store did not do its part.";
    }
    /// Why sessions were ended, in the words of events: `data.cause`, or the kind where there is none.
    EndCause {
        SignedOut = "signed_out", "Its person did.";
        Replaced = "replaced", "Its browser signed in anew.";
        RefreshTokenReused = "refresh_token_reused", "A refresh token of it was used twice.";
        Operator = "operator", "An operator did.";
        PasswordChanged = "password_changed", "All others of a person who chose a new password.";
        PasswordReset = "password_reset", "All of a person who forgot the password.";
        AddressChanged = "address_changed", "All others of a person with a new address.";
        PersonDisabled = "person_disabled", "All of a person who was shut out.";
        PersonDeleted = "person_deleted", "All of a person who left.";
    }
    /// A limit.
    Policy {
        Register = "register", "Of a client network at `/register`.";
        Login = "login", "Of a client network at `/login`.";
        Refresh = "refresh", "Of a client network at `/refresh`.";
        Logout = "logout", "Of a client network at `/logout`.";
        Codes = "codes", "Of a client network at whatever asks for a code or takes one.";
        Attempts = "attempts", "Of failed passwords for one name, device or session.";
        Session = "session", "Of refreshes of one session.";
        Mails = "mails", "Of mails that strangers cause at one address.";
    }
    /// What became of a mail that a worker took up.
    MailOutcome {
        Sent = "sent", "It was handed over.";
        Dropped = "dropped", "There was nothing to send.";
        Refused = "refused", "It is tried again.";
        Unknown = "unknown", "Nobody knows whether it arrived; it is tried once more.";
        Postponed = "postponed", "It waits for another mail's sake.";
        Dead = "dead", "It was given up.";
    }
    /// Why there was no hash.
    HashRefusal {
        QueueFull = "queue_full", "No place to wait.";
        WaitedTooLong = "waited_too_long", "Not begun within two seconds.";
    }
    /// A pool of connections.
    Pool {
        Read = "read", "Readers of the embedded database.";
        Write = "write", "The one writer of the embedded database.";
        Shared = "shared", "To PostgreSQL.";
    }
    /// One question to the database.
    SqlOperation {
        Read = "read", "A statement outside a transaction.";
        Write = "write", "A statement in a write transaction.";
        Begin = "begin", "The beginning of one; on SQLite also the wait for other programs that write.";
        Commit = "commit", "Its end; durable from then on.";
    }
    /// Why the database did not do its work.
    SqlFailure {
        Timeout = "timeout", "No answer in time, the wait for a connection included.";
        Unavailable = "unavailable", "A broken connection, or an answer that says to come again.";
        Fault = "fault", "An error in our own SQL or schema.";
    }
    /// One question to the store of sessions.
    StoreVerb {
        Open = "open", "A session was opened.";
        Rotate = "rotate", "A refresh token was judged.";
        Find = "find", "One session was read.";
        List = "list", "All of a person were read.";
        Close = "close", "One was removed.";
        CloseOthers = "close_others", "All others were removed.";
        Get = "get", "A flow or a count was read.";
        Swap = "swap", "A flow or a count was written.";
        Reserve = "reserve", "An attempt was counted.";
        Clear = "clear", "Counts were emptied.";
        Ping = "ping", "A sign of life.";
    }
    /// Why the store of sessions did not do its work.
    StoreFailure {
        Timeout = "timeout", "No answer in time.";
        Redis = "redis", "Redis said no, or the connection broke.";
        Nobody = "nobody", "No master of the cluster has the key.";
        Database = "database", "The database behind it failed.";
        Layout = "layout", "A newer node wrote what was found.";
    }
}

impl EndCause {
    /// The cause that events call so; `None` when no session ends by it.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cause| cause.word() == word)
    }
}

/// A kind of mail, or one that only a newer node knows.
impl Words for Option<MailKind> {
    const ALL: &'static [Self] = MailKind::ALL_AND_NONE;

    fn word(self) -> &'static str {
        self.map_or("(other)", MailKind::as_str)
    }

    fn place(self) -> usize {
        self.map_or(MailKind::ALL.len(), |kind| kind as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in_order<W: Words>() {
        let mut seen = std::collections::BTreeSet::new();
        for (place, word) in W::ALL.iter().enumerate() {
            assert_eq!(word.place(), place, "{}", word.word());
            assert!(seen.insert(word.word()), "{} stands twice", word.word());
        }
    }

    #[test]
    fn every_word_has_a_cell_of_its_own() {
        is_in_order::<Option<MailKind>>();
        is_in_order::<EndCause>();
        is_in_order::<StoreVerb>();
        is_in_order::<Policy>();
    }
}
