//! `latchkey backup` and `latchkey restore`; `crate::backup` says what they do and why.

use std::{
    io::{IsTerminal, stdout},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, bail};
use clap::{Args, error::ErrorKind};
use serde_json::json;

use crate::{
    ambient::Ambient,
    app::{self, open_database},
    backup::{self, Renewed, file},
    config::Config,
    db::Schema,
    keys::{self, KeyFiles, Renewal},
};

#[derive(Debug, Args)]
pub(super) struct BackupCommand {
    /// Where to; readable for its owner alone
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct RestoreCommand {
    /// What `latchkey backup` made
    #[arg(required_unless_present = "after_pg_restore")]
    file: Option<PathBuf>,
    /// PostgreSQL: the database of DATABASE_URL was restored by its own tools; let nothing that was revoked live again
    #[arg(long, conflicts_with = "file")]
    after_pg_restore: bool,
}

/// Ends the program with exit code 2: asked for what these settings have not.
fn bad_usage(text: &str) -> ! {
    clap::Error::raw(ErrorKind::ArgumentConflict, format!("{text}\n")).exit()
}

pub(super) async fn take(config: &Config, command: BackupCommand) -> anyhow::Result<()> {
    if config.database_url.is_some() {
        bad_usage(
            "the people are in PostgreSQL (DATABASE_URL), which has tools of its own: \
             `pg_dump --format=custom --file=FILE \"$DATABASE_URL\"`; deploy/backup.md says the rest",
        );
    }
    let live = config.data_dir.join("latchkey.db");
    if !live.exists() {
        bail!("there is no database in {}; is LATCHKEY_DATA_DIR that of the server?", config.data_dir.display());
    }
    let started = Instant::now();
    let taken = file::take(&live, &command.file, command.force, &Ambient::system()).await?;
    let took = u64::try_from(started.elapsed().as_millis())?;
    let path = command.file.display();
    if stdout().is_terminal() {
        println!("{path}: {} people, {} bytes, examined, in {took} ms.", taken.people, taken.bytes);
        println!("It holds password hashes and addresses, so keep it as you keep the database.");
        println!("Neither private keys nor the server secret are in it; a restore needs none of them.");
        if !config.passwords.peppers.is_empty() {
            println!("It does need LATCHKEY_PEPPER: keep that elsewhere, or nobody can sign in after a restore.");
        }
    } else {
        let line = json!({"file": path.to_string(), "bytes": taken.bytes, "people": taken.people, "took_ms": took});
        println!("{line}");
    }
    Ok(())
}

pub(super) async fn restore(config: &Config, command: RestoreCommand) -> anyhow::Result<()> {
    match (command.file, &config.database_url) {
        (Some(_), Some(_)) => bad_usage(
            "the people are in PostgreSQL (DATABASE_URL): restore with pg_restore into another database, then run \
             `latchkey restore --after-pg-restore` with its DATABASE_URL; deploy/backup.md says it step by step",
        ),
        (None, None) => bad_usage("--after-pg-restore is for PostgreSQL, and DATABASE_URL is not set"),
        (Some(source), None) => restore_file(config, source).await,
        (None, Some(_)) => renew(config).await,
    }
}

async fn restore_file(config: &Config, source: PathBuf) -> anyhow::Result<()> {
    let ambient = Ambient::system();
    if !source.is_file() {
        bail!("{} is no file that can be read", source.display());
    }
    let _lock = app::lock(config, std::fs::File::try_lock)?;
    let files = KeyFiles::new(&config.jwt_dir);
    let renewal = Renewal::prepare(&files, &ambient)?;
    let live = config.data_dir.join("latchkey.db");
    let restored = file::restore(&source, &live, &renewal, &files, config.secrets.as_deref(), &ambient).await?;
    if stdout().is_terminal() {
        println!("The database {} is that of the backup now.", live.display());
        match &restored.kept {
            Some(kept) => println!("The one that was there is kept as {}.", kept.display()),
            None => println!("There was none before: is that the LATCHKEY_DATA_DIR of your server?"),
        }
    }
    told(&restored.renewed, Some(&live), restored.kept.as_ref());
    Ok(())
}

/// The rule alone, for a database that PostgreSQL's tools restored.
async fn renew(config: &Config) -> anyhow::Result<()> {
    let ambient = Ambient::system();
    let db = open_database(config).await?;
    match db.schema().await.context("cannot read the database")? {
        Schema::None => bail!("there is no schema of Latchkey in this database; is DATABASE_URL the restored one?"),
        Schema::Newer | Schema::CutBack => bail!("this database is that of a newer Latchkey; take that one"),
        Schema::Older | Schema::Current => db.migrate().await?,
    }
    let files = KeyFiles::new(&config.jwt_dir);
    let renewal = Renewal::prepare(&files, &ambient)?;
    let secrets = keys::server_secrets(config.secrets.as_deref(), &files, true, &ambient)?;
    let renewed = backup::renew(&db, &renewal, &files, &secrets, &ambient).await?;
    db.close().await;
    told(&renewed, None, None);
    Ok(())
}

fn told(renewed: &Renewed, database: Option<&PathBuf>, kept: Option<&PathBuf>) {
    let Renewed { people, until, dropped_mails, active } = renewed;
    if stdout().is_terminal() {
        let until = until.map_or_else(|| "nothing".to_owned(), |until| format!("what happened until {until}"));
        println!("{people} people; the backup knows {until}.");
        println!("Every session, code and device token has ended, and no key from before signs or verifies.");
        if *dropped_mails > 0 {
            println!("{dropped_mails} mail(s) that waited were dropped: they may have gone out after the backup.");
        }
    } else {
        let line = json!({
            "people": people,
            "until": until,
            "dropped_mails": dropped_mails,
            "active": active,
            "database": database.map(|path| path.display().to_string()),
            "kept": kept.map(|kept| kept.display().to_string()),
        });
        println!("{line}");
    }
    eprintln!(
        "Passwords, addresses, and who is disabled or deleted are as they were at the backup: repeat what you did since \
         (`latchkey user disable`). Give every other node the new files of LATCHKEY_JWT_DIR and delete the older keys \
         there. Services that keep published keys learn of {active} within five minutes."
    );
}
