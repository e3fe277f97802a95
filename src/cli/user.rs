//! `latchkey user`: what an operator does to people, in the server's database and beside the server.
//!
//! The rules are `accounts::operator`; here is what a terminal adds: asking for a password without showing it, and
//! showing names that somebody else chose without obeying them. No key and no server secret is needed, but the settings
//! of the server are: its database, Redis, and for new passwords the cost of hashing and the pepper.

mod create;
pub(super) mod output;
mod password;
mod sessions;

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use self::output::{name, plain, say, table};
use crate::{
    accounts::{
        Person, Status,
        operator::{self, Outcome, Page, Via, Who},
    },
    ambient::Ambient,
    app::{open_database, open_ephemeral},
    config::Config,
    db::Db,
    ephemeral::Ephemeral,
};

/// Most people that are read at once.
const PIECE: u16 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make an account
    ///
    /// The password is asked for, twice and without showing it, or comes on standard input, or is left to the person. It
    /// is never an argument: others on the machine see those. The rules for names and passwords are those of
    /// registering; whether registration is open, and for which domains, does not matter here.
    ///
    /// No mail is sent. Who has no password yet sets one with "forgot password"; who is to prove the address asks for a
    /// code (POST /email/verify/resend). Mind that the first reset of a password without --verified counts as the first
    /// proof of the address, and clears the username and the display name.
    ///
    /// Prints the id, in a pipe the whole person as JSON.
    Create(create::CreateCommand),
    /// List people, the newest first
    ///
    /// A ✓ marks addresses that were proved. In a pipe each person is one line of JSON with the fields of `GET /me`.
    /// Deleted people are not shown.
    List {
        /// Only those whose address or username begins so, in upper or lower case
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Go on behind this id, the last one of the list before
        #[arg(long, value_name = "ID")]
        after: Option<Uuid>,
    },
    /// Keep somebody out: every session ends at once, on every node, and nobody signs in as that person
    ///
    /// Codes by mail that were asked for before stop working too. What the person has is kept; `latchkey user enable`
    /// lets them in again. Other services that check access tokens by themselves see the last one expire within minutes.
    Disable {
        /// An address, a username or an id
        who: String,
    },
    /// Let somebody in again who was disabled
    ///
    /// Sessions that ended stay ended: the person signs in anew.
    Enable {
        /// An address, a username or an id
        who: String,
    },
    /// List what somebody is signed in with, the last used first
    ///
    /// In a pipe each session is one line of JSON with the fields of `GET /me/sessions`.
    Sessions {
        /// An address, a username or an id
        who: String,
    },
    /// End one session of somebody, or all of them, at once and on every node
    ///
    /// The person is not told, and may sign in again; to keep somebody out there is `latchkey user disable`.
    Revoke {
        /// An address, a username or an id
        who: String,
        /// The session, by its id in `user sessions`
        #[arg(required_unless_present = "all")]
        session: Option<Uuid>,
        /// Every session, and every code that was mailed; works without Redis too
        #[arg(long, conflicts_with = "session")]
        all: bool,
    },
}

pub(super) async fn run(config: &Config, command: UserCommand) -> anyhow::Result<()> {
    let outcome = match command {
        UserCommand::Create(command) => create::run(config, command).await,
        UserCommand::List { search, limit, after } => list(config, search, limit, after).await,
        UserCommand::Disable { who } => disable(config, &who).await,
        UserCommand::Enable { who } => enable(config, &who).await,
        UserCommand::Sessions { who } => sessions::list(config, &who).await,
        UserCommand::Revoke { who, session, all: _ } => sessions::revoke(config, &who, session).await,
    };
    match outcome {
        // Who reads along has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(())
        }
        outcome => outcome,
    }
}

/// The database, if it is there and has the schema of this program: a command for people makes neither.
async fn open(config: &Config) -> anyhow::Result<Db> {
    if config.database_url.is_none() && !config.data_dir.join("latchkey.db").exists() {
        bail!(
            "there is no database in {}; is LATCHKEY_DATA_DIR that of the server, or DATABASE_URL missing? \
             `latchkey migrate` makes a new one",
            config.data_dir.display()
        );
    }
    let db = open_database(config).await?;
    if !db.is_migrated().await.context("cannot read the database")? {
        bail!("the database has no schema yet, or that of an older program; run `latchkey migrate` first");
    }
    Ok(db)
}

/// The store of the sessions, reached. The question about the time alone may take as long as a distant Redis takes for a
/// first connection; whether it answers is seen by who asks next.
async fn reach(config: &Config, db: &Db) -> Ephemeral {
    let ephemeral = open_ephemeral(config, db);
    let _ = ephemeral.clock().await;
    ephemeral
}

/// The person, or what to do about a name that is nobody's.
async fn find(db: &Db, who: &str) -> anyhow::Result<Person> {
    let found = match Who::parse(who) {
        Some(who) => operator::find(&mut db.read().await?, &who).await?,
        None => None,
    };
    found.with_context(|| {
        format!(
            "nobody has the address, username or id \"{}\"; `latchkey user list --search TEXT` finds people by how an \
             address or a username begins",
            plain(who)
        )
    })
}

async fn list(config: &Config, search: Option<String>, limit: u64, after: Option<Uuid>) -> anyhow::Result<()> {
    let db = open(config).await?;
    let is_terminal = io::stdout().is_terminal();
    let (mut left, mut page) = (limit, Page { search, after, most: 0 });
    loop {
        page.most = u16::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let people = operator::list(&db, &page).await.context("cannot read the list")?;
        if is_terminal {
            table(&people, left == limit)?;
        } else {
            for person in &people {
                say(&output::json(person)?)?;
            }
        }
        left -= u64::try_from(people.len())?;
        let Some(last) = people.last() else { break };
        page.after = Some(last.id);
        if left == 0 {
            if is_terminal {
                eprintln!("There may be more: --after {}", last.id);
            }
            break;
        }
        if people.len() < usize::from(page.most) {
            break;
        }
    }
    db.close().await;
    Ok(())
}

async fn disable(config: &Config, who: &str) -> anyhow::Result<()> {
    let db = open(config).await?;
    let person = find(&db, who).await?;
    let ephemeral = reach(config, &db).await;
    let outcome = operator::disable(&db, &ephemeral, &Ambient::system(), Via::CommandLine, person.id).await?;
    if let Outcome::Done(Some(error)) = &outcome {
        eprintln!(
            "warning: the records of the ended sessions could not be removed ({error}). The sessions are dead all the \
             same; the records go when they expire."
        );
    }
    told(&person, Status::Disabled, &outcome)?;
    db.close().await;
    Ok(())
}

async fn enable(config: &Config, who: &str) -> anyhow::Result<()> {
    let db = open(config).await?;
    let person = find(&db, who).await?;
    let outcome = operator::enable(&db, &Ambient::system(), Via::CommandLine, person.id).await?;
    told(&person, Status::Active, &outcome)?;
    db.close().await;
    Ok(())
}

/// Says what came of a change of status.
fn told(person: &Person, status: Status, outcome: &Outcome) -> anyhow::Result<()> {
    let name = name(person);
    let (changed, words) = match (outcome, status) {
        (Outcome::Unknown, _) => bail!("{name} was deleted a moment ago"),
        (Outcome::Already, Status::Disabled) => (false, format!("{name} was disabled already.")),
        (Outcome::Already, Status::Active) => (false, format!("{name} was not disabled.")),
        (Outcome::Done(_), Status::Disabled) => (true, format!("{name} is disabled, and every session has ended.")),
        (Outcome::Done(_), Status::Active) => (true, format!("{name} may sign in again.")),
    };
    if io::stdout().is_terminal() {
        say(&words)?;
    } else {
        say(&json!({"id": person.id, "status": status, "changed": changed}).to_string())?;
    }
    Ok(())
}
