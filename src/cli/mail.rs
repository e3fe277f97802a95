//! `latchkey mail`: what lies in the outbox, and trying it again.

use std::io::IsTerminal;

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use uuid::Uuid;

use crate::{
    ambient::Ambient,
    app::open_database,
    config::Config,
    mail::outbox::{self, Listed},
};

#[derive(Debug, Subcommand)]
pub(super) enum MailCommand {
    /// List what lies in the outbox, the newest first; without --state everything that is not done
    List {
        /// Only what is in this state
        #[arg(long, value_enum)]
        state: Option<State>,
    },
    /// Try again what was given up or waits; a running server does it within seconds
    Retry {
        /// One mail, by its id in `mail list`
        #[arg(required_unless_present = "all")]
        id: Option<Uuid>,
        /// Everything that was given up or waits
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum State {
    /// Waits, or is on its way
    Pending,
    /// Was handed over
    Sent,
    /// There was nothing to send: nobody has the address, or a cap said no
    Dropped,
    /// Was given up
    Dead,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Dropped => "dropped",
            Self::Dead => "dead",
        }
    }
}

pub(super) async fn run(config: &Config, command: MailCommand) -> anyhow::Result<()> {
    let db = open_database(config).await?;
    match command {
        MailCommand::List { state: Some(state) } => print(&outbox::list(&db, Some(state.as_str())).await?),
        MailCommand::List { state: None } => {
            let mut mails = outbox::list(&db, Some("dead")).await?;
            mails.extend(outbox::list(&db, Some("pending")).await?);
            print(&mails);
        }
        MailCommand::Retry { id, all: _ } => {
            let retried = outbox::retry(&db, Ambient::system().now(), id).await?;
            if retried == 0 && id.is_some() {
                bail!("no mail of this id was given up or waits; `latchkey mail list` shows which do");
            }
            println!("{retried} mail(s) will be tried again.");
        }
    }
    db.close().await;
    Ok(())
}

fn print(mails: &[Listed]) {
    if !std::io::stdout().is_terminal() {
        for mail in mails {
            let line = serde_json::json!({
                "id": mail.id,
                "kind": mail.kind,
                "recipient": mail.recipient,
                "state": mail.state,
                "attempts": mail.attempts,
                "created_at": mail.created_at,
                "next_attempt_at": mail.next_attempt_at,
                "last_error": mail.last_error,
            });
            println!("{line}");
        }
        return;
    }
    if mails.is_empty() {
        println!("Nothing.");
        return;
    }
    println!("{:<36}  {:<7}  {:<24}  {:<24}  {:>8}  RECIPIENT", "ID", "STATE", "KIND", "CREATED", "ATTEMPTS");
    for mail in mails {
        let Listed { id, kind, recipient, state, attempts, created_at, last_error, .. } = mail;
        println!("{id}  {state:<7}  {kind:<24}  {created_at:<24}  {attempts:>8}  {recipient}");
        if let Some(error) = last_error {
            println!("{:<36}  {error}", "");
        }
    }
}
