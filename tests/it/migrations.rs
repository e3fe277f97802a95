//! The two folders of migrations make one schema: the same files, tables, columns, types by the map of
//! `migrations/README.md`, nullability, keys and indexes. Migrating again, or on ten nodes at once, does no harm. And
//! the rules that only the schema can keep: partial unique keys, states, one active signing key.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use latchkey::{db::Db, secret::SecretText};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::support::{Stack, StackKind, Test, TestApp};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::once!(both_folders_have_the_same_files, every_file_keeps_the_rules_of_the_folder);
    tests.extend(crate::on_stacks!(&StackKind::REDIS;
        both_databases_have_the_same_columns,
        both_databases_have_the_same_keys_and_indexes,
    ));
    tests.extend(crate::on_stacks!(&[StackKind::Pg];
        ten_nodes_migrate_a_fresh_database_at_once,
    ));
    tests.extend(crate::on_stacks!(&StackKind::ALL;
        migrating_again_is_harmless,
        an_address_is_taken_among_the_living_only,
        a_username_is_taken_among_the_living_only,
        people_without_address_or_username_are_many,
        states_and_halves_that_make_no_sense_are_refused,
        one_signing_key_is_active,
    ));
    tests
}

fn files(database: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn both_folders_have_the_same_files() {
    let names = files("sqlite");
    assert_eq!(names, files("postgres"));
    assert!(!names.is_empty());
    for (number, name) in (1..).zip(&names) {
        assert!(
            name.starts_with(&format!("{number:04}_")) && name.ends_with(".sql"),
            "in order, without a gap: {name}"
        );
    }
}

/// Which rules of `migrations/README.md` a file breaks, as far as its text alone can tell.
fn violations(name: &str, sql: &str) -> Vec<&'static str> {
    let release = |text: &str| text.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>();
    let needs = name.split('_').skip_while(|part| *part != "needs").nth(1).and_then(release);
    let code: String = sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n").to_uppercase();
    let takes_away = ["DROP TABLE", "DROP COLUMN", "RENAME "].iter().any(|word| code.contains(word));
    let is_alone = sql.starts_with("-- no-transaction\n");
    let statements: Vec<&str> = code.split(';').map(str::trim).filter(|statement| !statement.is_empty()).collect();
    let mut violations = Vec::new();
    if takes_away && needs.is_none() {
        violations.push("takes something away and does not say which release does without");
    }
    if needs.is_some_and(|needs| Some(needs) > release(env!("CARGO_PKG_VERSION"))) {
        violations.push("needs a release that is still to come");
    }
    if is_alone != code.contains("CONCURRENTLY")
        || is_alone && !statements.iter().all(|sql| sql.contains("CONCURRENTLY"))
    {
        violations.push("runs outside a transaction what need not, or inside what cannot");
    }
    if is_alone && statements.len() != code.matches(";\n").count() + usize::from(code.ends_with(';')) {
        violations.push("cannot be cut into its statements");
    }
    if code.contains("CREATE INDEX CONCURRENTLY") && !statements[0].starts_with("DROP INDEX CONCURRENTLY IF EXISTS") {
        violations.push("does not clear away what a failure left");
    }
    violations
}

fn every_file_keeps_the_rules_of_the_folder() {
    for database in ["sqlite", "postgres"] {
        for name in files(database) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database).join(&name);
            let violations = violations(&name, &std::fs::read_to_string(path).unwrap());
            assert!(violations.is_empty(), "{database}/{name}: {violations:?}");
        }
    }
    let index = "DROP INDEX CONCURRENTLY IF EXISTS x;\nCREATE INDEX CONCURRENTLY x ON users (locale);\n";
    let alone = |sql: &str| format!("-- no-transaction\n{sql}");
    for (name, sql, broken) in [
        ("0009_more.sql", "-- DROP TABLE users\nALTER TABLE users ADD COLUMN x TEXT;".to_owned(), 0),
        ("0009_less.sql", "ALTER TABLE users DROP COLUMN locale;".to_owned(), 1),
        ("0009_needs_0.1.0_less.sql", "alter table users drop column locale;".to_owned(), 0),
        ("0009_needs_99.0.0_less.sql", "ALTER TABLE users DROP COLUMN locale;".to_owned(), 1),
        ("0009_index.sql", index.to_owned(), 1),
        ("0009_index.sql", alone(index), 0),
        ("0009_index.sql", alone("CREATE INDEX CONCURRENTLY x ON users (locale);\n"), 1),
        ("0009_index.sql", alone(&index.replace(";\nC", "; C")), 1),
        ("0009_index.sql", alone(&format!("{index}ALTER TABLE users ADD COLUMN x TEXT;\n")), 1),
    ] {
        assert_eq!(violations(name, &sql).len(), broken, "{name}: {sql}");
    }
}

// --- one schema --------------------------------------------------------------

/// An empty SQLite file after every migration.
async fn migrated_sqlite(stack: &Stack) -> SqliteConnection {
    let path = stack.dir.path().join("schema.db");
    let db = Db::open_sqlite(&path).await.unwrap();
    db.migrate().await.unwrap();
    db.close().await;
    SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap()
}

async fn migrated_postgres(stack: &Stack) -> PgConnection {
    PgConnection::connect(&stack.database_url().await).await.unwrap()
}

/// Table and name, with type and whether it may not be null.
type Columns = BTreeMap<(String, String), (String, bool)>;

fn by_name(rows: Vec<(String, String, String, bool)>) -> Columns {
    rows.into_iter().map(|(table, name, kind, not_null)| ((table, name), (kind.to_lowercase(), not_null))).collect()
}

async fn sqlite_columns(stack: &Stack) -> Columns {
    let rows = sqlx::query_as(
        "SELECT CAST(tables.name AS TEXT), CAST(columns.name AS TEXT), CAST(columns.type AS TEXT),
                CAST(columns.\"notnull\" AS INTEGER) <> 0
         FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
         WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%' AND tables.name <> '_sqlx_migrations'",
    );
    by_name(rows.fetch_all(&mut migrated_sqlite(stack).await).await.unwrap())
}

async fn postgres_columns(stack: &Stack) -> Columns {
    let rows = sqlx::query_as(
        "SELECT table_name::text, column_name::text, data_type::text, is_nullable = 'NO'
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'",
    );
    by_name(rows.fetch_all(&mut migrated_postgres(stack).await).await.unwrap())
}

async fn both_databases_have_the_same_columns(stack: Stack) {
    let (sqlite, postgres) = (sqlite_columns(&stack).await, postgres_columns(&stack).await);
    let names = |columns: &Columns| columns.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&sqlite), names(&postgres));
    for table in [
        "users",
        "ended_sessions",
        "sessions",
        "events",
        "signing_keys",
        "secret_checks",
        "outbox",
        "pending_registrations",
        "ephemeral",
    ] {
        assert!(sqlite.keys().any(|(found, _)| found == table), "no table {table}");
    }
    for (column, (kind, not_null)) in &sqlite {
        let (other, other_not_null) = &postgres[column];
        assert_eq!(not_null, other_not_null, "{column:?}: NOT NULL here and not there");
        // The map of migrations/README.md.
        let mapped: &[&str] = match kind.as_str() {
            "blob" => &["uuid", "bytea"],
            "integer" => &["bigint", "boolean"],
            "text" => &["text", "jsonb"],
            other => panic!("{column:?} is {other}, which is not in the map"),
        };
        assert!(mapped.contains(&other.as_str()), "{column:?} is {kind} and {other}");
    }
}

/// Table, columns in their order, whether they are unique, and whether only for some rows; by name.
type Indexes = BTreeMap<String, (String, Vec<String>, bool, bool)>;
/// The columns of each table's primary key, in their order.
type Keys = BTreeMap<String, Vec<String>>;

async fn sqlite_indexes(stack: &Stack) -> (Indexes, Keys) {
    let mut connection = migrated_sqlite(stack).await;
    let rows: Vec<(String, String, bool, bool, String)> = sqlx::query_as(
        "SELECT CAST(tables.name AS TEXT), CAST(indexes.name AS TEXT), CAST(indexes.\"unique\" AS INTEGER) <> 0,
                CAST(indexes.partial AS INTEGER) <> 0, CAST(indexes.origin AS TEXT)
         FROM sqlite_master AS tables, pragma_index_list(tables.name) AS indexes
         WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%' AND tables.name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let (mut indexes, mut keys) = (Indexes::new(), Keys::new());
    for (table, name, unique, partial, origin) in rows {
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT CAST(name AS TEXT) FROM pragma_index_info($1) ORDER BY seqno")
                .bind(&name)
                .fetch_all(&mut connection)
                .await
                .unwrap();
        if origin == "pk" {
            keys.insert(table, columns);
        } else {
            indexes.insert(name, (table, columns, unique, partial));
        }
    }
    (indexes, keys)
}

async fn postgres_indexes(stack: &Stack) -> (Indexes, Keys) {
    let rows: Vec<(String, String, bool, bool, bool, Vec<String>)> = sqlx::query_as(
        "SELECT tables.relname::text, names.relname::text, indexes.indisunique, indexes.indpred IS NOT NULL,
                indexes.indisprimary,
                (SELECT array_agg(columns.attname::text ORDER BY place.number)
                 FROM unnest(indexes.indkey::int2[]) WITH ORDINALITY AS place (attnum, number)
                 JOIN pg_attribute AS columns ON columns.attrelid = tables.oid AND columns.attnum = place.attnum)
         FROM pg_index AS indexes
         JOIN pg_class AS tables ON tables.oid = indexes.indrelid
         JOIN pg_class AS names ON names.oid = indexes.indexrelid
         JOIN pg_namespace AS schemas ON schemas.oid = tables.relnamespace
         WHERE schemas.nspname = 'public' AND tables.relname <> '_sqlx_migrations'",
    )
    .fetch_all(&mut migrated_postgres(stack).await)
    .await
    .unwrap();
    let (mut indexes, mut keys) = (Indexes::new(), Keys::new());
    for (table, name, unique, partial, primary, columns) in rows {
        if primary {
            keys.insert(table, columns);
        } else {
            indexes.insert(name, (table, columns, unique, partial));
        }
    }
    (indexes, keys)
}

/// Indexes byte by byte, as the unique keys are on SQLite anyway.
const POSTGRES_ONLY: [(&str, &str); 2] = [("users_email_prefix", "email"), ("users_username_prefix", "username_key")];

async fn both_databases_have_the_same_keys_and_indexes(stack: Stack) {
    let ((sqlite, sqlite_keys), (mut postgres, postgres_keys)) =
        (sqlite_indexes(&stack).await, postgres_indexes(&stack).await);
    for (name, column) in POSTGRES_ONLY {
        let expected = ("users".to_owned(), vec![column.to_owned()], false, true);
        assert_eq!(postgres.remove(name), Some(expected), "{name}");
    }
    assert_eq!(sqlite_keys, postgres_keys, "primary keys");
    assert_eq!(sqlite, postgres, "indexes: table, columns, unique, partial");
    for name in ["users_email_key", "users_username_key"] {
        let (_, _, unique, partial) = &sqlite[name];
        assert!(*unique && *partial, "{name} is unique among the living");
    }
}

// --- migrating more than once ------------------------------------------------

async fn migrating_again_is_harmless(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    for _ in 0..2 {
        app.db.migrate().await.unwrap();
    }
    alice.me().await.is(200);
    let done = app.number("SELECT COUNT(*) FROM _sqlx_migrations WHERE success").await;
    assert_eq!(done, i64::try_from(files("sqlite").len()).unwrap(), "each ran once");
}

async fn ten_nodes_migrate_a_fresh_database_at_once(stack: Stack) {
    let own = stack.database_url().await;
    let (base, query) =
        own.split_once('?').map_or((own.as_str(), String::new()), |(base, query)| (base, format!("?{query}")));
    let (server, name) = base.rsplit_once('/').expect("a URL with a database");
    let fresh = format!("{name}_fresh");
    let url = format!("{server}/{fresh}{query}");
    let mut admin = PgConnection::connect(&own).await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {fresh}"))).await.unwrap();

    let nodes = (0..10).map(|_| async {
        let db = Db::open_postgres(&SecretText::new(url.clone()), 2).await?;
        db.migrate().await?;
        db.ping().await.expect("it answers");
        db.close().await;
        Ok::<(), latchkey::db::OpenError>(())
    });
    let outcomes = futures_util::future::join_all(nodes).await;
    let done = applied(&url).await;
    // Before anything is judged: a database that stays behind is in everybody's way.
    admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {fresh} WITH (FORCE)"))).await.unwrap();
    assert_eq!(outcomes.len(), 10);
    for outcome in outcomes {
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    assert_eq!(done.expect("the table of migrations is there"), i64::try_from(files("postgres").len()).unwrap());
}

/// How many migrations a database had.
async fn applied(url: &str) -> Result<i64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let done = sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations WHERE success").fetch_one(&mut connection);
    let done = done.await?;
    connection.close().await?;
    Ok(done)
}

// --- rules of the schema -----------------------------------------------------

/// Runs one statement that may break a rule of the schema.
async fn attempt(stack: &Stack, app: &TestApp, sql: String) -> Result<(), sqlx::Error> {
    let setting = |name: &str| app.settings.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if stack.kind == StackKind::Embedded {
        let url = format!("sqlite://{}/latchkey.db", setting("LATCHKEY_DATA_DIR").unwrap());
        SqliteConnection::connect(&url).await?.execute(AssertSqlSafe(sql)).await.map(drop)
    } else {
        let mut connection = PgConnection::connect(&setting("DATABASE_URL").unwrap()).await?;
        connection.execute(AssertSqlSafe(sql)).await.map(drop)
    }
}

/// The whole row of a person.
fn person(app: &TestApp, number: u128, email: Option<&str>, username: Option<&str>, deleted_at: Option<i64>) -> String {
    let text = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'"));
    let (id, email, username) = (app.id(Uuid::from_u128(number)), text(email), text(username));
    let deleted_at = deleted_at.map_or_else(|| "NULL".to_owned(), |at| at.to_string());
    format!(
        "INSERT INTO users (id, email, email_verified, username, username_key, display_name, locale, roles, status,
                            epoch, password_hash, created_at, updated_at, last_login_at, deleted_at)
         VALUES ({id}, {email}, FALSE, {username}, {username}, NULL, NULL, '[]', 'active',
                 0, NULL, 1, 1, NULL, {deleted_at})"
    )
}

/// Which rule an outcome broke, if any.
fn broken(outcome: Result<(), sqlx::Error>) -> Option<&'static str> {
    let error = outcome.err()?;
    let error = error.as_database_error().unwrap_or_else(|| panic!("{error}"));
    match (error.is_unique_violation(), error.is_check_violation()) {
        (true, _) => Some("unique"),
        (_, true) => Some("check"),
        _ => panic!("{error}"),
    }
}

async fn an_address_is_taken_among_the_living_only(stack: Stack) {
    let app = stack.app().await;
    let row = |number, deleted_at| person(&app, number, Some("ada@example.com"), None, deleted_at);
    // Deleted twice, living once.
    for sql in [row(1, Some(10)), row(2, Some(20)), row(3, None)] {
        assert_eq!(broken(attempt(&stack, &app, sql).await), None);
    }
    assert_eq!(broken(attempt(&stack, &app, row(4, None)).await), Some("unique"));
    assert_eq!(broken(attempt(&stack, &app, row(5, Some(30))).await), None);
    // Nobody comes back while the address is somebody else's.
    let revive = format!("UPDATE users SET deleted_at = NULL WHERE id = {}", app.id(Uuid::from_u128(1)));
    assert_eq!(broken(attempt(&stack, &app, revive).await), Some("unique"));
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE email = 'ada@example.com'").await, 4);
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE deleted_at IS NULL").await, 1);
}

async fn a_username_is_taken_among_the_living_only(stack: Stack) {
    let app = stack.app().await;
    let row = |number, deleted_at| person(&app, number, None, Some("ada"), deleted_at);
    for sql in [row(1, Some(10)), row(2, Some(20)), row(3, None)] {
        assert_eq!(broken(attempt(&stack, &app, sql).await), None);
    }
    assert_eq!(broken(attempt(&stack, &app, row(4, None)).await), Some("unique"));
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE username_key = 'ada'").await, 3);
}

async fn people_without_address_or_username_are_many(stack: Stack) {
    let app = stack.app().await;
    for number in 1..=3 {
        assert_eq!(broken(attempt(&stack, &app, person(&app, number, None, None, None)).await), None);
    }
    // An id is one person's for ever, deleted or not.
    assert_eq!(broken(attempt(&stack, &app, person(&app, 1, None, None, Some(1))).await), Some("unique"));
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE email IS NULL").await, 3);
}

async fn states_and_halves_that_make_no_sense_are_refused(stack: Stack) {
    let app = stack.app().await;
    assert_eq!(broken(attempt(&stack, &app, person(&app, 1, Some("ada@example.com"), Some("ada"), None)).await), None);
    for change in [
        "UPDATE users SET status = 'asleep'",
        "UPDATE users SET username = NULL",
        "UPDATE users SET username_key = NULL",
        "UPDATE signing_keys SET state = 'lost' WHERE state = 'next'",
        "UPDATE signing_keys SET alg = 'none'",
        "UPDATE signing_keys SET \"use\" = 'enc'",
    ] {
        assert_eq!(broken(attempt(&stack, &app, change.to_owned()).await), Some("check"), "{change}");
    }
    let mail = |state: &str| {
        let id = app.id(Uuid::from_u128(9));
        format!(
            "INSERT INTO outbox (id, kind, person_id, recipient, locale, data, state, attempts, created_at,
                                 next_attempt_at, claimed_by, finished_at, last_error)
             VALUES ({id}, 'test', NULL, 'ada@example.com', NULL, '{{}}', '{state}', 0, 1, 1, NULL, NULL, NULL)"
        )
    };
    assert_eq!(broken(attempt(&stack, &app, mail("lost")).await), Some("check"));
    assert_eq!(broken(attempt(&stack, &app, mail("pending")).await), None);
}

async fn one_signing_key_is_active(stack: Stack) {
    let app = stack.app().await;
    let promote = "UPDATE signing_keys SET state = 'active' WHERE state = 'next'";
    assert_eq!(broken(attempt(&stack, &app, promote.to_owned()).await), Some("unique"));
    for sql in ["UPDATE signing_keys SET state = 'retiring' WHERE state = 'active'", promote] {
        assert_eq!(broken(attempt(&stack, &app, sql.to_owned()).await), None, "{sql}");
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM signing_keys WHERE state = 'active'").await, 1);
}
