//! The folder of keys against the ring in the database: does this node sign, and with what; is the secret the right one.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{Case, Finding, reason};
use crate::{
    app,
    config::Config,
    db::Db,
    keys::{self, KeyFiles, KeyRing, KeyState, PrivateKey, RingKey},
    secret::ServerSecrets,
};

const NAME: &str = "keys";

pub(super) async fn check(case: &Case) -> Vec<Finding> {
    let config = &case.config;
    let files = KeyFiles::new(&config.jwt_dir);
    let mut findings = folder(config);
    let (held, faults) = files.look();
    findings
        .extend(faults.iter().map(|fault| Finding::failure(NAME, fault.path.display().to_string(), fault.expected)));
    let secrets = match files.secrets() {
        Ok(in_folder) => config.secrets.clone().or(in_folder),
        Err(faults) => {
            let each = faults.0.iter();
            findings.extend(each.map(|fault| Finding::failure(NAME, fault.path.display().to_string(), fault.expected)));
            config.secrets.clone()
        }
    };
    let secrets = secrets.map(|secrets| ServerSecrets::new(&secrets));
    match case.db().await {
        Some(db) => {
            findings.extend(secret(config, db, secrets.as_ref()).await);
            match KeyRing::read(db, &files, &held, config.public_url.as_str()).await {
                Ok(ring) => findings.extend(judge(config, &ring.list(), &held)),
                Err(error) => findings.push(Finding::failure(NAME, reason(&error), "see the log of the database")),
            }
        }
        None if held.is_empty() && secrets.is_none() => findings.extend(missing(config, "no key and no server secret")),
        None => {
            let found =
                format!("{} private key(s) are here; the ring is in the database and could not be read", held.len());
            findings.push(Finding::warning(NAME, found, "see `database` above"));
        }
    }
    findings
}

/// Who may look into the folder.
fn folder(config: &Config) -> Vec<Finding> {
    let Ok(metadata) = fs::metadata(&config.jwt_dir) else { return Vec::new() };
    let path = config.jwt_dir.display();
    if metadata.permissions().mode() & 0o007 == 0 {
        return Vec::new();
    }
    vec![Finding::warning(NAME, format!("others may look into {path}"), format!("chmod o= {path}"))]
}

/// Nothing is there: for development that is as it should be.
fn missing(config: &Config, what: &str) -> Option<Finding> {
    if app::may_make_keys(config) {
        return Some(Finding::ok(NAME, format!("{what} yet; the first start makes what is missing")));
    }
    Some(Finding::failure(
        NAME,
        format!("{what}, and with this public URL none is made by itself"),
        "latchkey keys generate",
    ))
}

async fn secret(config: &Config, db: &Db, secrets: Option<&ServerSecrets>) -> Option<Finding> {
    let Some(secrets) = secrets else { return missing(config, "no server secret") };
    match keys::knows_secrets(db, secrets).await {
        Ok(true) => Some(Finding::ok(NAME, "the server secret is that of the database")),
        Ok(false) => Some(Finding::failure(
            NAME,
            "none of the server secrets is one that the database was used with: no server starts",
            "take LATCHKEY_SECRET, or the file `secret`, from another node",
        )),
        Err(error) => Some(Finding::failure(NAME, reason(&error), "see the log of the database")),
    }
}

fn judge(config: &Config, ring: &[RingKey], held: &[PrivateKey]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of = |state| ring.iter().filter(move |key| key.state == state);
    match of(KeyState::Active).next() {
        Some(active) if active.held => {
            findings.push(Finding::ok(NAME, format!("the active key {} is here", active.kid)));
        }
        Some(active) => {
            let found = format!("the active key {} is not here", active.kid);
            let mend = format!("copy {}.pem from another node into LATCHKEY_JWT_DIR", active.kid);
            // Else it cannot sign at all.
            let signs = of(KeyState::Next).any(|key| key.held);
            let level = if signs { Finding::warning } else { Finding::failure };
            findings.push(level(NAME, found, mend));
        }
        None if held.is_empty() => findings.extend(missing(config, "no signing key")),
        None => {}
    }
    if !ring.is_empty() && !of(KeyState::Next).any(|key| key.held) {
        let mend =
            "`latchkey keys generate`, or copy its file from another node: without it `keys rotate` has no successor";
        findings.push(Finding::warning(NAME, "no next key is here", mend));
    }
    let is_known = |key: &&PrivateKey| ring.iter().all(|known| known.kid != key.kid);
    for key in held.iter().filter(is_known) {
        let found = format!("the key {} lies in the folder and is in no ring", key.kid);
        let mend = "the next start takes it in; delete it if that is not meant";
        findings.push(Finding::warning(NAME, found, mend));
    }
    findings
}
