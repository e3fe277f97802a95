//! `latchkey keys`: the key ring and the server secret.
//!
//! What changed goes to stdout, as a table on a terminal and as one JSON object a key in a pipe; what there is to say
//! about it goes to stderr.

use std::{
    io::{IsTerminal, stderr, stdout},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::{
    ambient::Ambient,
    app::open_database,
    clocks,
    config::Config,
    db::Db,
    keys::{self, KeyFiles, KeyRing, KeyState, PrivateKey, Retirement, RingKey, Rotation},
};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List the key ring
    List,
    /// Make whatever is missing: the server secret, an active and a next key
    Generate,
    /// Let the next key sign, and publish a new next one; what the present one signed stays good
    ///
    /// Running servers notice within seconds. The key that steps down verifies until its last token is dead. Other
    /// services keep the published keys for up to five minutes, so a key that is younger may be unknown to them: there
    /// is a warning then, and --wait.
    Rotate {
        /// Wait first until every verifier can know the key that will sign
        #[arg(long)]
        wait: bool,
    },
    /// Refuse what a key signed, on every server within seconds: for a key that leaked
    ///
    /// The key that signs at present cannot be retired: rotate first, then retire it. People whose tokens die refresh
    /// them; nobody is signed out.
    Retire {
        /// The key, by its KID in `keys list`
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
}

pub(super) async fn run(config: &Config, command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::List => list(config).await,
        KeysCommand::Generate => generate(config).await,
        KeysCommand::Rotate { wait } => rotate(config, wait).await,
        KeysCommand::Retire { kid } => retire(config, &kid).await,
    }
}

/// Looking changes nothing: neither the schema nor the ring.
async fn read(config: &Config, db: &Db, files: &KeyFiles, held: &[PrivateKey]) -> anyhow::Result<KeyRing> {
    KeyRing::read(db, files, held, config.public_url.as_str())
        .await
        .context("cannot read the key ring; has the schema been made, by a start or by `latchkey migrate`?")
}

async fn list(config: &Config) -> anyhow::Result<()> {
    let db = open_database(config).await?;
    let files = KeyFiles::new(&config.jwt_dir);
    let ring = read(config, &db, &files, &files.load()?).await?;
    print(&ring.list());
    db.close().await;
    Ok(())
}

fn print(keys: &[RingKey]) {
    if stdout().is_terminal() {
        println!("{:<43}  {:<8}  {:<24}  PRIVATE KEY", "KID", "STATE", "PUBLISHED");
        for key in keys {
            let held = if key.held { "here" } else { "not here" };
            println!("{:<43}  {:<8}  {:<24}  {held}", key.kid, key.state.as_str(), key.published_at);
        }
        return;
    }
    for key in keys {
        let line = serde_json::json!({
            "kid": key.kid,
            "state": key.state.as_str(),
            "published_at": key.published_at,
            "active_at": key.active_at,
            "verify_until": key.verify_until,
            "held": key.held,
        });
        println!("{line}");
    }
}

async fn generate(config: &Config) -> anyhow::Result<()> {
    let (ambient, files) = (Ambient::system(), KeyFiles::new(&config.jwt_dir));
    let db = open_database(config).await?;
    db.migrate().await?;
    // A folder that is foreign to this database puts no keys into its ring.
    keys::open_secrets(&db, config.secrets.as_deref(), &files, true, &ambient).await?;
    let ring = KeyRing::open(&db, &files, config.public_url.as_str(), true, &ambient).await?;
    ring.complete(&db, &files, &ambient).await?;
    let active = ring.list().into_iter().filter(|key| key.state == KeyState::Active || key.state == KeyState::Next);
    for key in active {
        println!("{:<6}  {}", key.state.as_str(), key.kid);
    }
    db.close().await;
    Ok(())
}

async fn rotate(config: &Config, wait: bool) -> anyhow::Result<()> {
    let (ambient, files) = (Ambient::system(), KeyFiles::new(&config.jwt_dir));
    let db = open_database(config).await?;
    // What is written here says until when others take the old key's tokens.
    clocks::compare_with_database(&ambient, &db).await?;
    let ring = read(config, &db, &files, &files.load()?).await?;
    let before = ring.list();
    let rotation = Rotation::of(&before)?;
    let (left, kid) = (rotation.wait(ambient.now()), rotation.successor());
    if wait {
        wait_for(left, kid).await;
    } else if !left.is_zero() {
        eprintln!(
            "warning: {kid} was published a short while ago; for up to {} s more other services may not know it and \
             refuse its tokens (`keys rotate --wait` waits that long)",
            seconds(left)
        );
    }
    rotation.run(&db, &files, config.tokens.access_ttl, &ambient).await?;
    let ring = read(config, &db, &files, &files.look().0).await.context("the keys were rotated, nevertheless")?;
    let was = |key: &RingKey| before.iter().any(|old| old.kid == key.kid && old.state == key.state);
    print(&ring.list().into_iter().filter(|key| !was(key)).collect::<Vec<_>>());
    eprintln!("Running servers sign with {kid} within 10 s. Bring the new files to nodes with a folder of their own.");
    db.close().await;
    Ok(())
}

/// Whole seconds, the begun one included.
fn seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// Waits, telling how long it will take: every second on a terminal, once elsewhere.
async fn wait_for(left: Duration, kid: &str) {
    if left.is_zero() {
        return;
    }
    if !stderr().is_terminal() {
        eprintln!("Waiting {} s until every verifier can know {kid}.", seconds(left));
        tokio::time::sleep(left).await;
        return;
    }
    let end = tokio::time::Instant::now() + left;
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        eprint!("\rWaiting {:>3} s until every verifier can know {kid}. ", seconds(left));
        if left.is_zero() {
            break;
        }
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
    eprintln!();
}

async fn retire(config: &Config, kid: &str) -> anyhow::Result<()> {
    let (ambient, files) = (Ambient::system(), KeyFiles::new(&config.jwt_dir));
    let db = open_database(config).await?;
    match keys::retire(&db, kid, &ambient).await? {
        Retirement::Unknown => bail!("there is no key {kid}; `latchkey keys list` shows which there are"),
        Retirement::Signs => {
            bail!("{kid} signs at present: rotate first (`latchkey keys rotate`), then retire it")
        }
        Retirement::WasRetired => eprintln!("{kid} was retired before; nothing changed."),
        Retirement::Retired => eprintln!("Every server refuses the tokens of {kid} within 10 s."),
    }
    // A stray file in the folder must not stand in the way of an act that may be urgent.
    let ring = read(config, &db, &files, &files.look().0).await.context("the key is retired, nevertheless")?;
    let keys = ring.list();
    let retired: Vec<_> = keys.iter().filter(|key| key.kid == kid).cloned().collect();
    print(&retired);
    if retired.iter().any(|key| key.held) {
        eprintln!("Its private key in {} can be deleted, here and on every node.", config.jwt_dir.display());
    }
    if keys.iter().all(|key| key.state != KeyState::Next) {
        eprintln!("The ring has no next key now: run `latchkey keys generate`.");
    }
    db.close().await;
    Ok(())
}
