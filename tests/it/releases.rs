//! What a release relies on in its database, written down, so that the schema of the next one still has it: a rolling
//! upgrade runs servers of both at once.
//!
//! 1. `snapshots/releases/<version>.<database>.json` says it of one release: every SQL statement of its sources with the
//!    types that go in and come out, every column, every rule (keys, checks, triggers), every migration.
//!    `LATCHKEY_TEST_UPDATE=1` writes the file of the version in `Cargo.toml`, never another one; raising that version
//!    after a release is what freezes the file.
//! 2. The last frozen file is compared with the schema of today. What no statement of the release uses may go; all else
//!    has to be as it was; what is new must not be in the way of an old `INSERT`.
//! 3. That comparison is tried on changes that an old server would not survive.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};
use sqlx::{
    AssertSqlSafe, Column, Connection, Either, Executor, PgConnection, Postgres, SqlSafeStr, SqliteConnection,
    Statement, Type, TypeInfo, postgres::PgTypeInfo,
};
use uuid::Uuid;

use crate::{
    house,
    support::{Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::once!(every_statement_is_one_literal, what_a_tag_froze_stays_as_it_was);
    tests.extend(crate::on_stacks!(&[StackKind::Embedded, StackKind::Pg];
        this_release_is_written_down,
        the_last_release_finds_all_it_relies_on,
        a_change_that_an_old_server_would_not_survive_is_seen,
    ));
    tests
}

/// Complaints that are none, each by a part of its text and with a reason.
const FORGIVEN: [(&str, &str); 0] = [];

/// What a release relies on.
#[derive(Default, Serialize, Deserialize, PartialEq)]
struct Release {
    /// Digest by name.
    migrations: BTreeMap<String, String>,
    /// What the database says of `table.column`.
    columns: BTreeMap<String, String>,
    /// The columns that a rule (`table: rule`) is about.
    rules: BTreeMap<String, BTreeSet<String>>,
    /// What goes in and what comes out.
    statements: BTreeMap<String, String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots/releases")
}

/// The name of a database in a file's name, which is that of its folder of migrations.
fn database(stack: &Stack) -> &'static str {
    if stack.kind == StackKind::Embedded { "sqlite" } else { "postgres" }
}

fn read(version: &str, database: &str) -> Option<Release> {
    let text = std::fs::read_to_string(folder().join(format!("{version}.{database}.json"))).ok()?;
    Some(serde_json::from_str(&text).expect("the file of a release"))
}

/// The versions that are written down, the oldest first.
fn versions() -> Vec<String> {
    let names = std::fs::read_dir(folder()).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    let mut versions: Vec<String> = names
        .filter_map(|name| name.to_str().and_then(|name| name.strip_suffix(".sqlite.json")).map(str::to_owned))
        .collect();
    versions.sort_by_key(|version| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>());
    versions
}

// --- the statements of the sources -------------------------------------------

/// Every string literal of Rust code, as the program has it.
fn literals(code: &str) -> Vec<String> {
    let (mut found, mut chars) = (Vec::new(), code.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next().is_some_and(|c| c != '\n') {},
            // A character, which may be a quote; else a lifetime.
            '\'' => match (chars.next(), chars.peek().copied()) {
                (Some('\\'), _) => {
                    chars.next();
                    while chars.next().is_some_and(|c| c != '\'') {}
                }
                (_, Some('\'')) => drop(chars.next()),
                _ => {}
            },
            '"' => {
                let mut text = String::new();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => match chars.next() {
                            // A continued line.
                            Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                            Some('n') => text.push('\n'),
                            Some(c) => text.push(c),
                            None => {}
                        },
                        c => text.push(c),
                    }
                }
                found.push(text);
            }
            _ => {}
        }
    }
    found
}

/// Every SQL statement that the program may send, white space evened out.
fn statements() -> BTreeSet<String> {
    let literals = house::code().into_iter().flat_map(|(_, code)| literals(&code));
    let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];
    let even = literals.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    even.filter(|text| verbs.iter().any(|verb| text.starts_with(verb))).collect()
}

/// Otherwise [`statements`] would not know them all, or what is written down would lack some.
fn every_statement_is_one_literal() {
    let (statements, code) = (statements(), house::code());
    for known in [
        "SELECT value FROM ephemeral WHERE key = $1",
        "SELECT session_id, record FROM sessions WHERE user_id = $1",
        "UPDATE signing_keys SET state = 'retiring', verify_until = $2 WHERE kid = $1 AND state = 'active'",
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < $1 LIMIT 1000)",
    ] {
        assert!(statements.contains(known), "not found: {known}");
    }
    let written =
        ["sqlite", "postgres"].map(|database| read(env!("CARGO_PKG_VERSION"), database).expect("written down"));
    let nowhere = |sql: &&String| written.iter().all(|release| !release.statements.contains_key(*sql));
    assert_eq!(statements.iter().filter(nowhere).collect::<Vec<_>>(), [] as [&String; 0], "SQL of neither database");
    for (here, there) in [(0, 1), (1, 0)] {
        let only = written[here].statements.keys().filter(|sql| !written[there].statements.contains_key(*sql)).count();
        assert!(only < 12, "most of it is SQL of both: {only}");
    }
    let asked: usize = code.iter().map(|(_, code)| code.matches("sqlx::query").count()).sum();
    assert!(statements.len() * 10 > asked * 8, "{} statements in {asked} places", statements.len());
    for (path, code) in code {
        for word in ["AssertSqlSafe", "QueryBuilder", "SELECT *", "RETURNING *"] {
            assert!(!code.contains(word) || path == "db/migrate.rs", "{path} has {word}");
        }
    }
    assert_eq!(
        literals("f('\"', 'a'); // \"no\"\n g::<'b>(\"one \\\n   line\", \"\\\"two\\\"\", '\\'', \"x\")"),
        ["one line", "\"two\"", "x"]
    );
}

// --- what a database says of itself ------------------------------------------

/// One connection to the database of a stack, with the schema of today.
enum Door {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// What a prepared statement takes and gives.
fn shape<S: Statement>(statement: &S) -> String {
    let takes = match statement.parameters() {
        Some(Either::Left(types)) => types.iter().map(|kind| kind.name().to_owned()).collect::<Vec<_>>().join(", "),
        Some(Either::Right(number)) => number.to_string(),
        None => String::new(),
    };
    let gives: Vec<String> =
        statement.columns().iter().map(|column| format!("{} {}", column.name(), column.type_info().name())).collect();
    format!("({takes}) -> ({})", gives.join(", "))
}

/// What may be bound to the parameters of a statement: nothing said, and where PostgreSQL cannot tell by itself (`$1 IS
/// NULL OR …`), what the program says.
fn bound(sql: &str) -> Vec<Vec<PgTypeInfo>> {
    let number = (1..20).take_while(|number| sql.contains(&format!("${number}"))).count();
    let int = <i64 as Type<Postgres>>::type_info();
    let (text, uuid) = (<str as Type<Postgres>>::type_info(), <Uuid as Type<Postgres>>::type_info());
    let mut bound = vec![Vec::new()];
    for (first, others) in [(&int, &int), (&text, &int), (&uuid, &int), (&int, &uuid)] {
        bound.push((0..number).map(|place| if place == 0 { first.clone() } else { others.clone() }).collect());
    }
    bound
}

impl Door {
    async fn open(stack: &Stack) -> Self {
        if stack.kind == StackKind::Embedded {
            let path = stack.dir.path().join("schema.db");
            let db = latchkey::db::Db::open_sqlite(&path).await.unwrap();
            db.migrate().await.unwrap();
            db.close().await;
            Self::Sqlite(SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap())
        } else {
            Self::Postgres(PgConnection::connect(&stack.database_url().await).await.unwrap())
        }
    }

    async fn execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(door) => sqlx::raw_sql(sql).execute(door).await.map(drop),
            Self::Postgres(door) => sqlx::raw_sql(sql).execute(door).await.map(drop),
        }
    }

    async fn rows(&mut self, sql: &str) -> Vec<(String, String, String)> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(door) => sqlx::query_as(sql).fetch_all(door).await.unwrap(),
            Self::Postgres(door) => sqlx::query_as(sql).fetch_all(door).await.unwrap(),
        }
    }

    /// Inside a transaction: one that fails leaves it as it was.
    async fn prepare(&mut self, sql: &str) -> Result<String, sqlx::Error> {
        let statement = AssertSqlSafe(sql.to_owned()).into_sql_str();
        match self {
            Self::Sqlite(door) => door.prepare(statement).await.map(|statement| shape(&statement)),
            Self::Postgres(door) => {
                let mut first = None;
                for kinds in bound(sql) {
                    door.execute("SAVEPOINT before").await?;
                    let prepared = door.prepare_with(statement.clone(), &kinds).await;
                    door.execute("ROLLBACK TO before").await?;
                    match prepared {
                        Ok(prepared) => return Ok(shape(&prepared)),
                        Err(error) => first = first.or(Some(error)),
                    }
                }
                Err(first.expect("it was tried"))
            }
        }
    }

    /// Shape by statement, of those that are SQL here.
    async fn prepared<'a>(&mut self, all: impl Iterator<Item = &'a String>) -> BTreeMap<String, String> {
        let mut prepared = BTreeMap::new();
        for sql in all {
            if let Ok(shape) = self.prepare(sql).await {
                prepared.insert(sql.clone(), shape);
            }
        }
        prepared
    }

    async fn columns(&mut self) -> BTreeMap<String, String> {
        let sql = match self {
            Self::Sqlite(_) => {
                "SELECT CAST(tables.name || '.' || columns.name AS TEXT),
                        CAST(columns.type || CASE WHEN columns.\"notnull\" THEN ' not null' ELSE '' END AS TEXT),
                        CAST(coalesce(' default ' || columns.dflt_value, '') AS TEXT)
                 FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
                 WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%'"
            }
            Self::Postgres(_) => {
                "SELECT table_name || '.' || column_name,
                        data_type || CASE WHEN is_nullable = 'NO' THEN ' not null' ELSE '' END,
                        coalesce(' default ' || column_default, '')
                 FROM information_schema.columns WHERE table_schema = 'public'"
            }
        };
        self.rows(sql).await.into_iter().map(|(column, kind, default)| (column, kind + &default)).collect()
    }

    /// Whatever may refuse a row, or do something about it.
    async fn rules(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        if matches!(self, Self::Sqlite(_)) {
            return self.sqlite_rules().await;
        }
        let named = |numbers: &str, table: &str| {
            format!(
                "(SELECT coalesce(string_agg(attname::text, ','), '') FROM pg_attribute
                  WHERE attrelid = {table} AND attnum = ANY ({numbers}))"
            )
        };
        let sql = format!(
            "SELECT conrelid::regclass::text, pg_get_constraintdef(oid), {}
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype <> 'n'
             UNION ALL
             SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid), {}
             FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
             WHERE relnamespace = 'public'::regnamespace AND indisunique
               AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)
             UNION ALL
             SELECT tgrelid::regclass::text, pg_get_triggerdef(pg_trigger.oid),
                    (SELECT string_agg(attname::text, ',') FROM pg_attribute WHERE attrelid = tgrelid AND attnum > 0)
             FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
             WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal",
            named("conkey", "conrelid"),
            named("indkey::int2[]", "indrelid"),
        );
        self.rows(&sql).await.into_iter().map(rule).collect()
    }

    async fn sqlite_rules(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        let columns = self.columns().await;
        let columns: Vec<(&str, &str)> = columns.keys().filter_map(|column| column.split_once('.')).collect();
        let sql = "SELECT CAST(tbl_name AS TEXT), CAST(type AS TEXT), CAST(sql AS TEXT) FROM sqlite_master
                   WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'";
        let mut rules = BTreeMap::new();
        for (table, kind, sql) in self.rows(sql).await {
            let texts = match kind.as_str() {
                "table" => clauses(&sql),
                "index" if !sql.starts_with("CREATE UNIQUE") => Vec::new(),
                _ => vec![sql],
            };
            for text in texts {
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
                let of_table = columns.iter().filter(|(of, _)| *of == table).map(|(_, column)| *column);
                let about = of_table.filter(|column| kind == "trigger" || words.contains(column)).map(str::to_owned);
                rules.insert(format!("{table}: {text}"), about.collect());
            }
        }
        let keys = "SELECT CAST(tables.name AS TEXT), 'PRIMARY KEY', CAST(group_concat(columns.name) AS TEXT)
                    FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
                    WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%' AND columns.pk > 0 GROUP BY 1";
        rules.extend(self.rows(keys).await.into_iter().map(rule));
        rules
    }

    /// What this release relies on, taken from its sources and this database.
    async fn release(&mut self, database: &str) -> Release {
        let (columns, rules) = (self.columns().await, self.rules().await);
        Release {
            migrations: migrations(database),
            columns,
            rules,
            statements: self.prepared(statements().iter()).await,
        }
    }

    /// What a server of `old` would miss here, or be refused.
    async fn complaints(&mut self, old: &Release, database: &str) -> Vec<String> {
        let (columns, rules, migrations) = (self.columns().await, self.rules().await, migrations(database));
        let mut complaints = Vec::new();
        for (sql, shape) in &old.statements {
            match self.prepare(sql).await {
                Ok(now) if now == *shape => {}
                Ok(now) => complaints.push(format!("was {shape} and is {now}: {sql}")),
                Err(error) => complaints.push(format!("{error}: {sql}")),
            }
        }
        for (column, was) in &old.columns {
            // One that is gone is missed by the statements that use it.
            if let Some(is) = columns.get(column).filter(|is| *is != was) {
                complaints.push(format!("{column} was {was} and is {is}"));
            }
        }
        let tables: BTreeSet<&str> = old.columns.keys().filter_map(|column| column.split('.').next()).collect();
        let is_old = |rule: &str, column: &String| {
            let table = rule.split(": ").next().unwrap_or_default();
            old.columns.contains_key(&format!("{table}.{column}"))
        };
        for (column, is) in columns.iter().filter(|(column, _)| !old.columns.contains_key(*column)) {
            let is_of_old_table = column.split('.').next().is_some_and(|table| tables.contains(table));
            if is_of_old_table && is.contains(" not null") && !is.contains(" default ") {
                complaints.push(format!("{column} is new, and no old INSERT gives it a value"));
            }
        }
        for (rule, about) in rules.iter().filter(|(rule, _)| !old.rules.contains_key(*rule)) {
            if about.iter().any(|column| is_old(rule, column)) {
                complaints.push(format!("a new rule for old columns: {rule}"));
            }
        }
        for (rule, about) in old.rules.iter().filter(|(rule, _)| !rules.contains_key(*rule)) {
            let table = rule.split(": ").next().unwrap_or_default();
            if about.iter().all(|column| columns.contains_key(&format!("{table}.{column}"))) {
                complaints.push(format!("no such rule any more: {rule}"));
            }
        }
        for (name, digest) in &old.migrations {
            if migrations.get(name) != Some(digest) {
                complaints.push(format!("{name} was released and is not what it was"));
            }
        }
        complaints.retain(|complaint| FORGIVEN.iter().all(|(part, _)| !complaint.contains(part)));
        complaints
    }
}

fn rule((table, text, columns): (String, String, String)) -> (String, BTreeSet<String>) {
    let columns = columns.split(',').filter(|column| !column.is_empty()).map(str::to_owned).collect();
    (format!("{table}: {text}"), columns)
}

/// The `CHECK (…)` and `REFERENCES …` of a table's text.
fn clauses(sql: &str) -> Vec<String> {
    let checks = sql.match_indices("CHECK (").map(|(at, _)| {
        let mut depth = 0;
        let end = sql[at..].find(|c: char| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => return false,
            };
            depth == 0
        });
        sql[at..=at + end.expect("it ends")].to_owned()
    });
    let references = sql.lines().filter(|line| line.contains("REFERENCES")).map(|line| line.trim().to_owned());
    checks.chain(references).collect()
}

/// The digest of every migration, by its name.
fn migrations(database: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let migration = sqlx::migrate::Migration::new(
                0,
                "".into(),
                sqlx::migrate::MigrationType::Simple,
                AssertSqlSafe(text).into_sql_str(),
                false,
            );
            let digest = migration.checksum.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), digest)
        })
        .collect()
}

// --- the releases ------------------------------------------------------------

async fn this_release_is_written_down(stack: Stack) {
    let (version, database) = (env!("CARGO_PKG_VERSION"), database(&stack));
    let mut door = Door::open(&stack).await;
    door.execute("BEGIN").await.unwrap();
    let release = door.release(database).await;
    assert!(release.statements.len() > 60 && release.columns.len() > 60 && release.rules.len() > 10);
    #[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
    if std::env::var("LATCHKEY_TEST_UPDATE").is_ok() {
        std::fs::create_dir_all(folder()).unwrap();
        let path = folder().join(format!("{version}.{database}.json"));
        std::fs::write(path, format!("{:#}\n", serde_json::to_value(&release).unwrap())).unwrap();
    }
    assert!(
        read(version, database).is_some_and(|written| written == release),
        "what {version} relies on in its database changed; LATCHKEY_TEST_UPDATE=1 writes it anew, for you to review"
    );
}

async fn the_last_release_finds_all_it_relies_on(stack: Stack) {
    let (versions, database) = (versions(), database(&stack));
    // Until there is a second one, the first has only itself to agree with.
    let before = versions.iter().rev().find(|version| *version != env!("CARGO_PKG_VERSION"));
    let last = before.or(versions.first()).expect("a release is written down");
    let mut door = Door::open(&stack).await;
    door.execute("BEGIN").await.unwrap();
    let complaints = door.complaints(&read(last, database).expect("for both databases"), database).await;
    assert!(complaints.is_empty(), "servers of {last} would run into this:\n{}", complaints.join("\n"));
}

/// A tag `v<version>` is the release, so from then on its file is history.
fn what_a_tag_froze_stays_as_it_was() {
    let versions = versions();
    assert!(versions.iter().any(|version| version == env!("CARGO_PKG_VERSION")), "{versions:?}");
    for version in versions {
        for database in ["sqlite", "postgres"] {
            let path = format!("tests/it/snapshots/releases/{version}.{database}.json");
            let root = env!("CARGO_MANIFEST_DIR");
            let shown = Command::new("git").args(["-C", root, "show", &format!("v{version}:{path}")]).output();
            // No git, or no such tag: nothing is frozen by it.
            let Some(shown) = shown.ok().filter(|shown| shown.status.success()) else { continue };
            let now = std::fs::read(Path::new(root).join(&path)).expect("both databases are written down");
            assert!(shown.stdout == now, "{version} is out: raise the version in Cargo.toml, and take {path} back");
        }
    }
}

// --- what the comparison sees ------------------------------------------------

/// Changes that an old server would run into, and what is said of them.
const HARMFUL: [(&str, &str); 8] = [
    ("ALTER TABLE users DROP COLUMN locale", "locale"),
    ("ALTER TABLE users RENAME COLUMN display_name TO shown_name", "display_name"),
    ("ALTER TABLE sessions RENAME TO sittings", "sessions"),
    ("DROP TABLE ended_sessions", "ended_sessions"),
    ("DROP INDEX users_email_key", "no such rule any more: users"),
    ("CREATE UNIQUE INDEX users_display_name ON users (display_name)", "a new rule for old columns: users"),
    (
        "ALTER TABLE users ADD COLUMN sort_name TEXT CHECK (sort_name IS NOT NULL OR display_name IS NULL)",
        "a new rule for old columns: users",
    ),
    ("ALTER TABLE ephemeral RENAME COLUMN value TO packed", "value"),
];

/// The same, where only PostgreSQL can.
const HARMFUL_ON_POSTGRES: [(&str, &str); 7] = [
    ("ALTER TABLE users ADD COLUMN tenant TEXT NOT NULL", "users.tenant is new"),
    ("ALTER TABLE users ALTER COLUMN display_name SET NOT NULL", "users.display_name was text and is text not null"),
    ("ALTER TABLE users ALTER COLUMN epoch DROP NOT NULL", "users.epoch was bigint not null and is bigint"),
    ("ALTER TABLE users ALTER COLUMN epoch TYPE INTEGER", "epoch INT4"),
    ("ALTER TABLE outbox ALTER COLUMN unacknowledged DROP DEFAULT", "outbox.unacknowledged was"),
    ("ALTER TABLE users ADD CHECK (length(locale) < 9)", "a new rule for old columns: users"),
    ("ALTER TABLE users DROP CONSTRAINT users_status_check", "no such rule any more: users"),
];

/// Changes that it would not notice.
const HARMLESS: [&str; 5] = [
    "ALTER TABLE users ADD COLUMN nickname TEXT",
    "ALTER TABLE users ADD COLUMN visits INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE outbox ADD COLUMN urgency TEXT NOT NULL DEFAULT 'low' CHECK (urgency IN ('low', 'high'))",
    "CREATE TABLE tenants (id TEXT NOT NULL PRIMARY KEY)",
    "CREATE INDEX users_display_name ON users (display_name)",
];

async fn a_change_that_an_old_server_would_not_survive_is_seen(stack: Stack) {
    let database = database(&stack);
    let mut door = Door::open(&stack).await;
    door.execute("BEGIN").await.unwrap();
    let mut today = door.release(database).await;
    door.execute("ROLLBACK").await.unwrap();
    let more = if database == "postgres" { &HARMFUL_ON_POSTGRES[..] } else { &[] };
    let harmful = HARMFUL.iter().chain(more).map(|(sql, complaint)| (*sql, Some(*complaint)));
    for (sql, expected) in harmful.chain(HARMLESS.map(|sql| (sql, None))) {
        // Without what it has prepared.
        drop(std::mem::replace(&mut door, Door::open(&stack).await));
        door.execute("BEGIN").await.unwrap();
        door.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let complaints = door.complaints(&today, database).await;
        match expected {
            Some(expected) => assert!(complaints.iter().any(|text| text.contains(expected)), "{sql}: {complaints:#?}"),
            None => assert!(complaints.is_empty(), "{sql}: {complaints:#?}"),
        }
        door.execute("ROLLBACK").await.unwrap();
    }

    // What nobody uses may go, with the rules about it.
    door.execute("BEGIN").await.unwrap();
    let unused = [("users.nickname".to_owned(), "text".to_owned())];
    today.columns.extend(unused);
    today.rules.insert("users: CHECK ((length(nickname) < 9))".into(), BTreeSet::from(["nickname".to_owned()]));
    assert_eq!(door.complaints(&today, database).await, [] as [String; 0]);
    today.migrations.insert("0001_accounts.sql".into(), "another".into());
    assert_eq!(door.complaints(&today, database).await.len(), 1);
}
