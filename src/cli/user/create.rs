//! `latchkey user create`.

use std::{
    io::{self, IsTerminal},
    num::NonZeroUsize,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, error::ErrorKind};

use super::{
    open,
    output::{self, name, say},
    password::{self, Source},
};
use crate::{
    accounts::{
        Asked, Taken, Wanted,
        operator::{self, Via},
    },
    ambient::Ambient,
    config::Config,
    error::ApiError,
    hashing::{Hasher, Policy},
    passwords::policy,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateCommand {
    /// Where mail for the person goes, and what they sign in with
    #[arg(long, value_name = "ADDRESS")]
    email: String,
    /// What they may sign in with besides
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// What others are shown
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// The language of mails, such as en or de-AT
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// Take the address for proved: you know that it is the person's
    #[arg(long)]
    verified: bool,
    /// Read the password from standard input, one line
    #[arg(long)]
    password_stdin: bool,
    /// Set none: the person does, with "forgot password"
    #[arg(long, conflicts_with = "password_stdin")]
    no_password: bool,
}

impl CreateCommand {
    fn asked(&self) -> Asked<'_> {
        Asked {
            email: &self.email,
            username: self.username.as_deref(),
            display_name: self.display_name.as_deref(),
            locale: self.locale.as_deref(),
        }
    }

    /// Where the password comes from; ends the program when that was not said and nobody can be asked.
    fn source(&self) -> Option<Source> {
        match (self.no_password, self.password_stdin, io::stdin().is_terminal()) {
            (true, ..) => None,
            (false, true, _) => Some(Source::StandardInput),
            (false, false, true) => Some(Source::Terminal),
            (false, false, false) => {
                let usage = "there is no terminal to ask for the password: say --password-stdin and give it as one line \
                             on standard input, or --no-password\n";
                clap::Error::raw(ErrorKind::MissingRequiredArgument, usage).exit()
            }
        }
    }
}

pub(super) async fn run(config: &Config, command: CreateCommand) -> anyhow::Result<()> {
    let source = command.source();
    let db = open(config).await?;
    let typed = match source {
        Some(source) => Some(password::read(source).await?),
        None => None,
    };
    let judged = Wanted::check(config, &command.asked(), |context| {
        typed.as_ref().map(|typed| policy::check("password", typed, context)).transpose()
    });
    let (wanted, password) = judged.map_err(|refused| anyhow!("nobody was made:{}", faults(&refused)))?;
    let ambient = Ambient::system();
    let hash = match password {
        Some(password) => {
            let one = NonZeroUsize::MIN;
            let hasher = Hasher::start(Policy::new(&config.passwords), one, one.get(), ambient.clone());
            Some(hasher.hash(password).await.context("cannot hash the password; is there memory for it?")?)
        }
        None => None,
    };
    let made = operator::create(&db, &ambient, Via::CommandLine, &wanted, hash.as_deref(), command.verified).await?;
    let person = match made {
        Ok(person) => person,
        Err(Taken::Email) => bail!("nobody was made: somebody has the address {} already", wanted.email),
        Err(Taken::Username) => bail!("nobody was made: somebody has this username already; choose another one"),
    };
    if io::stdout().is_terminal() {
        say(&format!("{} was made, with the id {}", name(&person), person.id))?;
    } else {
        say(&output::json(&person)?)?;
    }
    db.close().await;
    Ok(())
}

/// Every fault on a line of its own, by the name of its option.
fn faults(refused: &ApiError) -> String {
    let lines = refused.fields.iter().map(|fault| {
        let option = match fault.field {
            "password" => "the password".to_owned(),
            field => format!("--{}", field.replace('_', "-")),
        };
        format!("\n  {option}: {}", fault.detail)
    });
    lines.collect()
}
