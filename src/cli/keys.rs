//! `latchkey keys`: the key ring and the server secret.

use std::io::IsTerminal;

use anyhow::Context;
use clap::Subcommand;

use crate::{
    ambient::Ambient,
    app::{self, open_database},
    config::Config,
    keys::{self, KeyFiles, KeyRing, KeyState},
};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List the key ring
    List,
    /// Make whatever is missing: the server secret, an active and a next key
    Generate,
}

pub(super) async fn run(config: &Config, command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::List => list(config).await,
        KeysCommand::Generate => generate(config).await,
    }
}

async fn list(config: &Config) -> anyhow::Result<()> {
    // Looking changes nothing: neither the schema nor the ring.
    let db = open_database(config).await?;
    let files = KeyFiles::new(&config.jwt_dir);
    let ring = KeyRing::read(&db, &files, &files.load()?, config.public_url.as_str())
        .await
        .context("cannot read the key ring; has the schema been made, by a start or by `latchkey migrate`?")?;
    let keys = ring.list();
    if std::io::stdout().is_terminal() {
        println!("{:<43}  {:<8}  {:<24}  PRIVATE KEY", "KID", "STATE", "PUBLISHED");
        for key in &keys {
            let held = if key.held { "here" } else { "not here" };
            println!("{:<43}  {:<8}  {:<24}  {held}", key.kid, key.state.as_str(), key.published_at);
        }
    } else {
        for key in &keys {
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
    db.close().await;
    Ok(())
}

async fn generate(config: &Config) -> anyhow::Result<()> {
    let (ambient, files) = (Ambient::system(), KeyFiles::new(&config.jwt_dir));
    let secrets = keys::server_secrets(config.secrets.as_deref(), &files, true, &ambient)?;
    let db = open_database(config).await?;
    app::migrate(config, &db).await?;
    // A folder that is foreign to this database puts no keys into its ring.
    keys::check_secrets(&db, &secrets, ambient.now()).await?;
    let ring = KeyRing::open(&db, &files, config.public_url.as_str(), true, &ambient).await?;
    ring.complete(&db, &files, &ambient).await?;
    let active = ring.list().into_iter().filter(|key| key.state == KeyState::Active || key.state == KeyState::Next);
    for key in active {
        println!("{:<6}  {}", key.state.as_str(), key.kid);
    }
    db.close().await;
    Ok(())
}
