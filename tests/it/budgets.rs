//! Round trips and statements of each flow (`security.md` §5): a budget that is overspent is a slower product.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::{
    on_stacks,
    support::{PASSWORD, Stack, StackKind, Test, TestApp, eventually},
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::REDISES; flows_stay_within_their_budgets, refusals_of_a_login_cost_the_same];
    tests.extend(on_stacks![&[StackKind::Pg];
        a_table_is_not_read_from_end_to_end_because_it_was_empty_once,
        statements_are_not_compiled,
    ]);
    tests
}

/// A plan is kept as long as its connection, and tables grow.
async fn a_table_is_not_read_from_end_to_end_because_it_was_empty_once(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let scans = |kind: &str| {
        let tables = "('users', 'ended_sessions')";
        format!("SELECT CAST(SUM({kind}_scan) AS BIGINT) FROM pg_stat_user_tables WHERE relname IN {tables}")
    };
    app.sql("ANALYZE users; ANALYZE ended_sessions").await;
    let (before, found) = (app.number(&scans("seq")).await, app.number(&scans("idx")).await);
    let me = alice.client.bearer(&alice.access);
    eventually("PostgreSQL counts", || async {
        me.get("/me/sessions").await.is(200);
        app.number(&scans("idx")).await >= found + 2
    })
    .await;
    assert_eq!(app.number(&scans("seq")).await, before);
}

/// What may not read a table from end to end looks so dear that PostgreSQL would compile it each time.
async fn statements_are_not_compiled(stack: Stack) {
    let app = stack.app().await;
    app.sql(
        "CREATE TABLE found (jit TEXT);
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN INSERT INTO found VALUES (current_setting('jit')); RETURN NEW; END $$;
         CREATE TRIGGER look BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION look()",
    )
    .await;
    app.person("alice").await;
    assert!(app.number("SELECT COUNT(*) FROM found WHERE jit = 'off'").await > 0);
    assert_eq!(app.number("SELECT COUNT(*) FROM found WHERE jit <> 'off'").await, 0);
}

/// Statements, write transactions, Redis round trips.
pub type Spent = (u64, u64, u64);

pub async fn spent<T>(app: &TestApp, work: impl Future<Output = T>) -> (Spent, T) {
    let asked = || {
        let sql = app.db.asked();
        (sql.statements.load(Ordering::SeqCst), sql.transactions.load(Ordering::SeqCst), app.ephemeral.round_trips())
    };
    let before = asked();
    let outcome = work.await;
    let after = asked();
    ((after.0 - before.0, after.1 - before.1, after.2 - before.2), outcome)
}

async fn flows_stay_within_their_budgets(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let alice = app.person("alice").await;

    let (login, _) = spent(&app, alice.client.login(&alice.email, PASSWORD)).await;
    assert_eq!(login, (1 + 2, 1, 2), "1 read, 1 transaction of at most 3 statements, at most 2 trips");
    let elsewhere = alice.client.with("user-agent", "Mozilla/5.0 (X11; Linux) Firefox/140.0");
    let (login, _) = spent(&app, elsewhere.login(&alice.email, PASSWORD)).await;
    assert_eq!(login, (1 + 3, 1, 2), "with the row of the mail that tells of a new device");
    let (me, _) = spent(&app, alice.me()).await;
    assert_eq!(me, (1, 0, 1), "cold: 1 and 1 at the same time");
    let (refresh, reply) = spent(&app, alice.client.refresh(&alice.refresh)).await;
    assert_eq!((refresh, reply.status), ((1, 0, 1), 200));
    let (again, reply) = spent(&app, alice.client.refresh(&alice.refresh)).await;
    assert_eq!((again, reply.status), ((1, 0, 1), 200), "the window costs nothing more");
    let (logout, reply) = spent(&app, alice.client.post("/logout", json!({"refresh_token": alice.refresh}))).await;
    assert_eq!((logout, reply.status), ((2, 1, 1), 204), "1 transaction (end, event) and 1 trip");
    let body = json!({"email": "bob@example.com", "password": PASSWORD});
    let (register, _) = spent(&app, alice.client.post("/register", body)).await;
    assert_eq!(register, (3, 1, 0), "person, event, mail");
}

async fn refusals_of_a_login_cost_the_same(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    for name in ["wrong", "disabled", "passwordless"] {
        app.person(name).await;
    }
    app.sql("UPDATE users SET status = 'disabled' WHERE username = 'disabled'").await;
    app.sql("UPDATE users SET password_hash = NULL WHERE username = 'passwordless'").await;
    for (name, password) in [
        ("wrong", "wrong password"),
        ("disabled", PASSWORD),
        ("passwordless", PASSWORD),
        ("unknown", PASSWORD),
        ("no@such", PASSWORD),
    ] {
        let email = format!("{name}@example.com");
        let (cost, reply) = spent(&app, app.anonymous().login(&email, password)).await;
        assert_eq!((cost, reply.status), ((1, 0, 1), 401), "{name}");
    }
}
