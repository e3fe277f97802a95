//! Mail: whether the server takes one, and what lies in the outbox.

use super::{Case, Finding, reason};
use crate::mail::{
    Post,
    depth::{self, Depth},
};

const NAME: &str = "mail";

pub(super) async fn check(case: &Case) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Post::open(&case.config) {
        Ok(post) => match post.transport.examine().await {
            Ok(found) => findings.push(Finding::ok(NAME, found)),
            Err(found) => {
                let mend = "see whether host, port, user, password and TLS in SMTP_URL are right; mails wait for a day \
                            meanwhile";
                findings.push(Finding::failure(NAME, found, mend));
            }
        },
        Err(error) => findings.push(Finding::failure(NAME, reason(&error), "no server starts before that is mended")),
    }
    if let Some(db) = case.db().await {
        match depth::depth(db).await {
            Ok(depth) => findings.extend(judge(case, depth)),
            Err(error) => findings.push(Finding::failure(NAME, reason(&error), "see the log of the database")),
        }
    }
    findings
}

fn judge(case: &Case, depth: Depth) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Depth { pending, oldest, dead, .. } = depth;
    if depth.is_late(case.ambient.now()) {
        let since = oldest.map(|oldest| oldest.to_minute()).unwrap_or_default();
        let found = format!("{pending} mail(s) wait, the oldest since {since}");
        findings.push(Finding::warning(NAME, found, "does a server run? `latchkey mail list` tells why each waits"));
    }
    if dead > 0 {
        let found = format!("{dead} mail(s) were given up");
        findings.push(Finding::warning(NAME, found, "`latchkey mail list --state dead`, then `latchkey mail retry`"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(NAME, format!("{pending} mail(s) wait, none for long")));
    }
    findings
}
