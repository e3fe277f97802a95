//! The database: reachable, new enough, migrated, of our time, and keeping what it acknowledged; and who is in it.

use std::time::Instant;

use super::{Case, Door, Finding, reason};
use crate::{
    accounts::operator,
    clocks::{self, Skew},
    db::{Db, Facts, Schema},
};

const NAME: &str = "database";
/// `server_version_num` of the oldest PostgreSQL that we run on.
const OLDEST: i64 = 13_00_00;

pub(super) async fn check(case: &Case) -> Vec<Finding> {
    let db = match case.door().await {
        Door::Open(db) => db,
        Door::Missing => {
            let found = format!("there is no database in {} yet", case.config.data_dir.display());
            let mend = "the first start makes one; is LATCHKEY_DATA_DIR that of the server, or DATABASE_URL missing?";
            return vec![Finding::warning(NAME, found, mend)];
        }
        Door::Shut(reason) if case.config.database_url.is_some() => {
            let mend =
                "see whether PostgreSQL runs, and whether host, user, password and database in DATABASE_URL are right";
            return vec![Finding::failure(NAME, reason, mend)];
        }
        Door::Shut(reason) => {
            let mend = "see whether this user may read and write LATCHKEY_DATA_DIR; `latchkey restore FILE` puts a backup there";
            return vec![Finding::failure(NAME, reason, mend)];
        }
    };
    let started = Instant::now();
    if let Err(error) = db.ping().await {
        return vec![Finding::failure(NAME, reason(&error), "see the log of the database")];
    }
    let latency = started.elapsed().as_secs_f64() * 1000.0;
    let mut findings = match db.facts().await {
        Ok(facts) => judge(case, &facts, latency),
        Err(error) => vec![Finding::failure(NAME, reason(&error), "see the log of the database")],
    };
    findings.push(schema(db).await);
    findings.extend(clock(case, db).await);
    findings
}

fn judge(case: &Case, facts: &Facts, latency: f64) -> Vec<Finding> {
    let mut findings = Vec::new();
    match facts {
        Facts::Sqlite { version, journal_mode, synchronous, foreign_keys, .. } => {
            findings.push(Finding::ok(NAME, format!("SQLite {version} answers in {latency:.1} ms")));
            if (journal_mode.as_str(), *synchronous, *foreign_keys) != ("wal", 2, 1) {
                let found =
                    format!("journal_mode={journal_mode} synchronous={synchronous} foreign_keys={foreign_keys}");
                let mend = "WAL with synchronous=FULL is asked for; a file system without shared memory gives it to nobody: \
                            move LATCHKEY_DATA_DIR to a local disk";
                findings.push(Finding::failure(NAME, found, mend));
            }
        }
        Facts::Postgres { version, number, is_standby, max_connections, .. } => {
            findings.push(Finding::ok(NAME, format!("PostgreSQL {version} answers in {latency:.1} ms")));
            if *number < OLDEST {
                findings.push(Finding::failure(NAME, "PostgreSQL is older than 13", "take 13 or later"));
            }
            if *is_standby {
                let mend = "let DATABASE_URL name the primary, or say target_session_attrs=read-write in it";
                findings.push(Finding::failure(NAME, "this is a standby, which takes no writes", mend));
            }
            if i64::from(case.config.db_pool) >= *max_connections {
                let found = format!("LATCHKEY_DB_POOL is {}, and {max_connections} are allowed", case.config.db_pool);
                let mend = "lower LATCHKEY_DB_POOL or raise max_connections: every node takes as many as that";
                findings.push(Finding::warning(NAME, found, mend));
            }
            findings.extend(durability(facts));
        }
    }
    findings
}

/// What a power cut could take.
fn durability(facts: &Facts) -> Vec<Finding> {
    let Facts::Postgres { fsync, full_page_writes, synchronous_commit, .. } = facts else { return Vec::new() };
    let mut findings = Vec::new();
    for (name, value) in [("fsync", fsync), ("full_page_writes", full_page_writes)] {
        if value == "off" {
            let mend = format!("set {name} = on in postgresql.conf");
            let found = format!("{name} is off: a power cut may ruin the database");
            findings.push(Finding::warning(NAME, found, mend));
        }
    }
    if synchronous_commit == "off" {
        let found =
            "synchronous_commit is off: a crash may forget a sign-out or a new password that somebody was told of";
        let mend = "set synchronous_commit = on for this database: ALTER DATABASE … SET synchronous_commit = on";
        findings.push(Finding::warning(NAME, found, mend));
    }
    findings
}

async fn schema(db: &Db) -> Finding {
    match db.schema().await {
        Ok(Schema::Current) => Finding::ok(NAME, "the schema is that of this program"),
        Ok(Schema::None) => {
            Finding::warning(NAME, "there is no schema yet", "the next start makes it, or `latchkey migrate`")
        }
        Ok(Schema::Older) => Finding::warning(
            NAME,
            "the schema is that of an older program",
            "the next start brings it up to date, or `latchkey migrate`; take a backup before",
        ),
        Ok(Schema::Newer) => Finding::warning(
            NAME,
            "the schema is that of a newer program, which this one serves on",
            "go on with the upgrade: put the newer program on this node as well",
        ),
        Ok(Schema::CutBack) => Finding::failure(
            NAME,
            "a newer program took away what this one needs",
            "take that version of Latchkey, or restore a backup that this one made",
        ),
        Err(error) => Finding::failure(NAME, reason(&error), "see the log of the database"),
    }
}

async fn clock(case: &Case, db: &Db) -> Option<Finding> {
    let before = case.ambient.now();
    let theirs = db.clock().await.ok()??;
    Some(judge_clock(NAME, "the database", clocks::judge(before, theirs, case.ambient.now())))
}

/// How far a clock is from ours.
pub(super) fn judge_clock(check: &'static str, whose: &str, skew: Skew) -> Finding {
    let mend = "set both clocks by NTP (chrony, systemd-timesyncd)";
    match skew {
        Skew::None => Finding::ok(check, format!("the clock of {whose} goes with that of this machine")),
        Skew::Notable(millis) => {
            let found = format!("the clocks of this machine and of {whose} are {millis} ms apart");
            Finding::warning(check, found, mend)
        }
        Skew::Harmful(millis) => {
            let found = format!("the clocks of this machine and of {whose} are {millis} ms apart: no server starts");
            Finding::failure(check, found, mend)
        }
    }
}

/// Hashes that came by an import.
pub(super) async fn check_people(case: &Case) -> Vec<Finding> {
    let Some(db) = case.db().await else { return Vec::new() };
    let finding = match operator::foreign_hashes(db).await {
        Ok(0) => Finding::ok("people", "every password hash is Argon2"),
        Ok(count) => Finding::warning(
            "people",
            format!("{count} people have a password hash of another kind: the time of a failed login tells them apart"),
            "each is made anew at the person's next login; ask those who never come to reset the password",
        ),
        Err(error) => Finding::warning("people", reason(&error), "ask again when the database has less to do"),
    };
    vec![finding]
}
