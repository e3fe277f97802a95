//! `latchkey doctor`: checks what a server needs, and says how to mend what is wrong.
//!
//! 1. All checks run at once, each with three seconds, and are told in the order of the list in [`examine`].
//! 2. Each makes findings: fine, a warning, or a failure that keeps a server from starting or serving. What was found is
//!    told in any case, what to do beside the last two.
//! 3. Looking changes nothing: no database, folder or key is made, no mail is sent, no secret is told. It works beside a
//!    running server, and with nothing running at all.
//!
//! A check of something more is a function that returns findings, and a line in that list.

mod address;
mod database;
mod finding;
mod keys;
mod machine;
mod mail;
mod network;
mod sessions;

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};

use self::finding::{Finding, Level};
use crate::{ambient::Ambient, app::open_database, config::Config, db::Db};

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct DoctorCommand {
    #[command(flatten)]
    address: address::AddressQuestion,
}

pub(super) async fn run(config: Config, command: DoctorCommand) -> anyhow::Result<()> {
    if command.address.was_asked() {
        return address::explain(&config, &command.address);
    }
    let case = Case { config, ambient: Ambient::system(), door: tokio::sync::OnceCell::new() };
    let (mut failures, mut warnings) = (0, 0);
    let mut checks = examine(&case);
    while let Some(findings) = checks.next().await {
        for finding in findings {
            finding.tell()?;
            failures += usize::from(finding.level == Level::Failure);
            warnings += usize::from(finding.level == Level::Warning);
        }
    }
    drop(checks);
    if let Some(Door::Open(db)) = case.door.get() {
        db.close().await;
    }
    if failures > 0 {
        bail!("{failures} failure(s), {warnings} warning(s)");
    }
    Ok(())
}

/// Who is examined.
struct Case {
    config: Config,
    ambient: Ambient,
    door: tokio::sync::OnceCell<Door>,
}

/// The way into the database, for all checks that want it.
enum Door {
    Open(Db),
    /// The file of the embedded database is not there yet.
    Missing,
    /// It cannot be opened, for this reason.
    Shut(String),
}

impl Case {
    async fn door(&self) -> &Door {
        self.door.get_or_init(|| self.open()).await
    }

    async fn open(&self) -> Door {
        if self.config.database_url.is_none() && !self.config.data_dir.join("latchkey.db").exists() {
            return Door::Missing;
        }
        match tokio::time::timeout(PATIENCE, open_database(&self.config)).await {
            Ok(Ok(db)) => Door::Open(db),
            Ok(Err(error)) => Door::Shut(reason(&error)),
            Err(_) => Door::Shut("it does not answer within three seconds".to_owned()),
        }
    }

    /// The database, if it is there and has the schema.
    async fn db(&self) -> Option<&Db> {
        match self.door().await {
            Door::Open(db) => db.is_migrated().await.is_ok_and(|is_migrated| is_migrated).then_some(db),
            Door::Missing | Door::Shut(_) => None,
        }
    }
}

/// An error with its causes.
fn reason(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn examine(case: &Case) -> FuturesOrdered<BoxFuture<'_, Vec<Finding>>> {
    let checks: [(&'static str, BoxFuture<'_, Vec<Finding>>); 8] = [
        ("settings", async { settings(&case.config) }.boxed()),
        ("network", async { network::check(&case.config) }.boxed()),
        ("machine", async { machine::check(&case.config) }.boxed()),
        ("database", database::check(case).boxed()),
        ("people", database::check_people(case).boxed()),
        ("sessions", sessions::check(case).boxed()),
        ("keys", keys::check(case).boxed()),
        ("mail", mail::check(case).boxed()),
    ];
    let bounded = checks.into_iter().map(|(name, check)| {
        async move {
            let late =
                |_| vec![Finding::failure(name, "no answer within three seconds", "see whether it is reachable")];
            tokio::time::timeout(PATIENCE, check).await.unwrap_or_else(late)
        }
        .boxed()
    });
    bounded.collect()
}

/// Faults would have ended the program before.
fn settings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("settings", "every setting can be read")];
    let warnings = config.warnings();
    findings.extend(warnings.into_iter().map(|warning| {
        Finding::warning(
            "settings",
            warning,
            "`latchkey config check` shows the settings, `.env.example` what they mean",
        )
    }));
    findings
}
