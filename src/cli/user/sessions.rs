//! `latchkey user sessions` and `latchkey user revoke`.

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use serde_json::json;
use uuid::Uuid;

use super::{
    find, open,
    output::{columns, name, say},
    reach,
};
use crate::{
    accounts::operator::Via,
    ambient::Ambient,
    config::Config,
    db::Db,
    ephemeral::{Ephemeral, SessionRecord},
    sessions::{Ledger, device_words, operator},
};

fn ledger<'a>(config: &Config, db: &'a Db, ephemeral: &'a Ephemeral, ambient: &'a Ambient) -> Ledger<'a> {
    Ledger { db, ephemeral, ambient, longest: config.tokens.refresh_absolute_ttl }
}

pub(super) async fn list(config: &Config, who: &str) -> anyhow::Result<()> {
    let db = open(config).await?;
    let person = find(&db, who).await?;
    let (ephemeral, ambient) = (reach(config, &db).await, Ambient::system());
    let living = ledger(config, &db, &ephemeral, &ambient).living(person.id, person.epoch).await;
    let living = living.context("cannot read the sessions")?;
    if !io::stdout().is_terminal() {
        for (id, record) in &living {
            say(&json(*id, record))?;
        }
    } else if living.is_empty() {
        say("No session.")?;
    } else {
        let head = ["ID", "DEVICE", "ADDRESS", "SIGNED IN", "LAST USED", "EXPIRES"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(living.iter().map(|(id, record)| row(*id, record))).collect();
        columns(&rows)?;
    }
    db.close().await;
    Ok(())
}

/// As in `GET /me/sessions`, but for which one is asking.
fn json(id: Uuid, record: &SessionRecord) -> String {
    let session = json!({
        "id": id,
        "created_at": record.created_at,
        "last_used_at": record.made_at,
        "expires_at": record.expires_at(),
        "ip": record.address,
        "user_agent": device_words(record.device),
    });
    session.to_string()
}

fn row(id: Uuid, record: &SessionRecord) -> [String; 6] {
    [
        id.to_string(),
        device_words(record.device).unwrap_or_else(|| "-".to_owned()),
        record.address.to_string(),
        record.created_at.to_minute(),
        record.made_at.to_minute(),
        record.expires_at().to_minute(),
    ]
}

/// Ends this session, or all of them.
pub(super) async fn revoke(config: &Config, who: &str, session: Option<Uuid>) -> anyhow::Result<()> {
    let db = open(config).await?;
    let person = find(&db, who).await?;
    let (ephemeral, ambient) = (reach(config, &db).await, Ambient::system());
    let ledger = ledger(config, &db, &ephemeral, &ambient);
    let words = match session {
        Some(session) => {
            let revoked = operator::revoke(&ledger, Via::CommandLine, &person, session).await;
            if !revoked.context("cannot reach the sessions; --all needs the database alone")? {
                bail!(
                    "{} has no living session of this id; `latchkey user sessions {}` lists them",
                    name(&person),
                    person.id
                );
            }
            "The session has ended.".to_owned()
        }
        None => {
            operator::revoke_all(&ledger, Via::CommandLine, &person).await?;
            format!("Every session of {} has ended.", name(&person))
        }
    };
    if io::stdout().is_terminal() {
        say(&words)?;
    } else {
        say(&json!({"id": person.id, "session_id": session, "all": session.is_none()}).to_string())?;
    }
    db.close().await;
    Ok(())
}
