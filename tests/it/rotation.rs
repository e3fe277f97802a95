//! Keys in motion: rotating and retiring, what running nodes make of it, and what must not happen meanwhile.
//!
//! What is about moments (who wins, when a key is over) runs in this process under a clock that stands; what is about
//! noticing runs as the real program, two nodes where the stack has room for two.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use latchkey::keys::{KeyFiles, KeyState, PrivateKey, Retirement, RingKey, Rotation, RotationError, retire};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tokio::task::JoinSet;

use crate::support::{Client, PASSWORD, Person, Process, Stack, StackKind, Test, TestApp, eventually, scale};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(
        &StackKind::ALL;
        a_rotation_moves_every_key_one_state_on,
        a_key_that_stepped_down_is_retired_when_its_last_token_is_dead,
        of_rotations_at_the_same_instant_one_wins,
        retiring_ends_what_verifies_and_spares_what_signs,
        running_nodes_notice_a_rotation,
        a_retired_keys_tokens_die_on_running_nodes,
        rotate_commands_at_the_same_time_keep_one_active_key,
    );
    tests.extend(crate::on_stacks!(
        &[StackKind::Embedded];
        the_oldest_next_key_that_is_here_takes_over,
        a_rotation_mends_a_ring_without_an_active_key,
        forged_kids_cost_one_reading_a_second,
        a_retired_kid_is_refused_without_a_reading,
        an_unknown_kid_that_cannot_be_looked_up_is_unavailable,
        a_running_node_keeps_what_it_holds_whatever_lies_in_its_folder,
        rotating_early_is_warned_about_and_waiting_waits,
        rotate_prints_one_json_object_a_key,
        retire_says_what_it_did_and_what_is_left_to_do,
        a_kid_may_begin_with_a_hyphen,
        rotate_makes_a_key_with_an_https_url,
    ));
    tests.extend(crate::on_stacks!(
        &StackKind::SHARED;
        a_token_of_a_key_that_a_node_never_heard_of_is_looked_up,
        forged_kids_do_not_shut_out_an_honest_token,
        a_private_key_that_comes_late_is_picked_up,
        rotations_under_load_refuse_nobody,
        a_running_node_without_keys_verifies_and_signs_once_it_has_them,
        a_rotation_that_cannot_write_its_file_does_nothing,
    ));
    tests
}

// --- Looking at it ---------------------------------------------------------------------------------------------------

fn jwt(stack: &Stack) -> PathBuf {
    stack.dir.path().join("jwt")
}

fn files(stack: &Stack) -> KeyFiles {
    KeyFiles::new(&jwt(stack))
}

/// The kids that have a file of that name.
fn kids_with_files(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".pem").map(str::to_owned)).collect()
}

fn kid(token: &str) -> String {
    let (header, _) = token.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

/// The token with the name of a key that nobody has.
fn forged(token: &str, number: usize) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    let kid = format!("{number:0>43}");
    let header = json!({"typ": "at+jwt", "alg": "ES256", "kid": kid});
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

/// The one key in that state.
fn the_one(app: &TestApp, state: KeyState) -> RingKey {
    let mut keys = app.keys.list();
    keys.retain(|key| key.state == state);
    assert_eq!(keys.len(), 1, "one key is {state:?}: {keys:?}");
    keys.remove(0)
}

fn state_of(app: &TestApp, kid: &str) -> KeyState {
    app.keys.list().into_iter().find(|key| key.kid == kid).expect("a key of the ring").state
}

async fn published(client: &Client) -> BTreeSet<String> {
    let set = client.get("/.well-known/jwks.json").await.is(200).json();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn set<const N: usize>(kids: [&str; N]) -> BTreeSet<String> {
    kids.map(str::to_owned).into()
}

async fn takes(client: &Client, token: &str) {
    client.bearer(token).get("/me").await.is(200);
}

async fn refuses(client: &Client, token: &str) {
    client.bearer(token).get("/me").await.is_problem(401, "invalid_token");
}

/// Signs in again and again to see which key signs; who does so pushes sessions of its own out over the cap.
const WATCH: &str = "watch";

async fn sign_in(client: &Client, name: &str) -> String {
    client.login(&format!("{name}@example.com"), PASSWORD).await.is(200).text("/access_token")
}

/// The data of the events of this kind.
async fn events(app: &TestApp, kind: &str) -> Vec<Value> {
    let mut data = Vec::new();
    for number in 0..app.events(kind).await {
        let sql =
            format!("SELECT CAST(data AS TEXT) FROM events WHERE kind = '{kind}' ORDER BY id LIMIT 1 OFFSET {number}");
        data.push(serde_json::from_str(&app.text(&sql).await).unwrap());
    }
    data
}

// --- Doing it --------------------------------------------------------------------------------------------------------

const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// Rotates as the command does, at the app's time; the app does not look at the table by itself.
pub async fn rotate(app: &TestApp, stack: &Stack) -> Result<(), RotationError> {
    Rotation::of(&app.keys.list())?.run(&app.db, &files(stack), TOKEN_LIFE, &app.ambient).await?;
    app.keys.reload(&app.db).await.unwrap();
    Ok(())
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    /// One JSON object a line.
    keys: Vec<Value>,
    stderr: String,
}

impl Ended {
    fn of(mut command: Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let keys = stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
        Self { code: output.status.code(), keys, stderr: String::from_utf8(output.stderr).unwrap() }
    }

    /// The KID of the one key of that state that was printed.
    fn kid(&self, state: &str) -> String {
        let mut keys = self.keys.iter().filter(|key| key["state"] == state);
        let found = keys.next().unwrap_or_else(|| panic!("no {state}: {self:?}"))["kid"].as_str().unwrap().to_owned();
        assert!(keys.next().is_none(), "{self:?}");
        found
    }
}

/// Runs `latchkey keys …` as an operator would.
async fn keys(stack: &Stack, settings: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut all = stack.settings().await;
    all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let mut command = Process::command(stack.dir.path(), &all);
    command.arg("keys").args(arguments);
    tokio::task::spawn_blocking(|| Ended::of(command)).await.unwrap()
}

/// Runs SQL beside the servers.
async fn sql(stack: &Stack, sql: &str) {
    let text = AssertSqlSafe(sql.to_owned());
    if stack.kind == StackKind::Embedded {
        let url = format!("sqlite://{}/data/latchkey.db", stack.dir.path().display());
        let mut door = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(text).execute(&mut door).await.map(drop)
    } else {
        let mut door = PgConnection::connect(&stack.database_url().await).await.unwrap();
        sqlx::raw_sql(text).execute(&mut door).await.map(drop)
    }
    .expect("good SQL");
}

/// As if every key had been published so much earlier.
async fn age(stack: &Stack, seconds: u64) {
    sql(stack, &format!("UPDATE signing_keys SET published_at = published_at - {}", seconds * 1000)).await;
}

/// As many running nodes as the stack has room for.
async fn nodes(stack: &Stack) -> Vec<Process> {
    let settings = stack.settings().await;
    let count = if stack.kind == StackKind::Embedded { 1 } else { 2 };
    (0..count).map(|_| Process::start(stack.dir.path(), &settings)).collect()
}

// --- The ring --------------------------------------------------------------------------------------------------------

async fn a_rotation_moves_every_key_one_state_on(stack: Stack) {
    let app = stack.app().await;
    let (first, second) = (the_one(&app, KeyState::Active).kid, the_one(&app, KeyState::Next).kid);
    let alice = app.person("alice").await;
    let before = app.anonymous().get("/.well-known/jwks.json").await.is(200);
    let etag = before.header("etag").to_owned();

    app.pass(Duration::from_secs(1000));
    let now = app.ambient.now();
    let mut alice = alice.elsewhere().await;
    rotate(&app, &stack).await.unwrap();
    let (retiring, active, next) =
        (the_one(&app, KeyState::Retiring), the_one(&app, KeyState::Active), the_one(&app, KeyState::Next));
    assert_eq!((&retiring.kid, &active.kid), (&first, &second));
    assert_eq!((active.active_at, active.verify_until), (Some(now), None));
    // The life of a token, 5 s and 10 s of leeway, 60 s for those who notice late.
    assert_eq!(retiring.verify_until, Some(now.after(Duration::from_secs(300 + 15 + 60))));
    assert_eq!((next.published_at, next.active_at, next.held), (now, None, true));
    let path = jwt(&stack).join(format!("{}.pem", next.kid));
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);

    // What was signed before goes on, what comes is signed by the new one, and the published set tells of all three.
    takes(&app.anonymous(), &alice.access).await;
    assert_eq!(kid(&alice.access), first);
    alice.take(&alice.client.refresh(&alice.refresh).await.is(200));
    assert_eq!(kid(&alice.access), second);
    takes(&app.anonymous(), &alice.access).await;
    assert_eq!(published(&app.anonymous()).await, set([&first, &second, &next.kid]));
    let known = app.anonymous().with("if-none-match", &etag);
    assert_ne!(known.get("/.well-known/jwks.json").await.is(200).header("etag"), etag);

    assert_eq!(events(&app, "key_rotated").await, [json!({"from": first, "to": second})]);
    let told = events(&app, "key_published").await;
    assert!(told.contains(&json!({"kid": next.kid})) && told.len() == 3, "{told:?}");
    assert_eq!(app.events("key_retired").await, 0);
}

async fn a_key_that_stepped_down_is_retired_when_its_last_token_is_dead(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let first = kid(&alice.access);
    let stale = app.keys.signer().unwrap();
    rotate(&app, &stack).await.unwrap();
    let until = the_one(&app, KeyState::Retiring).verify_until.unwrap();

    // A node that has not noticed for a minute and has a clock ten seconds ahead: its last token lives out its life.
    let mut claims: latchkey::keys::AccessClaims =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(alice.access.split('.').nth(1).unwrap()).unwrap()).unwrap();
    claims.iat = app.ambient.now().seconds() + 60 + 10;
    claims.exp = claims.iat + 300;
    let last = stale.sign(&claims).unwrap();
    app.pass(Duration::from_millis(u64::try_from(until.millis() - app.ambient.now().millis()).unwrap() - 1));
    takes(&app.anonymous(), &last).await;
    app.sweep().await;
    app.keys.reload(&app.db).await.unwrap();
    assert_eq!(state_of(&app, &first), KeyState::Retiring, "not before its hour");
    assert!(published(&app.anonymous()).await.contains(&first));
    assert_eq!(app.events("key_retired").await, 0);

    app.pass(Duration::from_millis(1));
    refuses(&app.anonymous(), &last).await;
    for _ in 0..2 {
        app.sweep().await;
        app.keys.reload(&app.db).await.unwrap();
        assert_eq!(state_of(&app, &first), KeyState::Retired);
        assert_eq!(events(&app, "key_retired").await, [json!({"kid": first, "cause": "lifetime"})]);
    }
    the_one(&app, KeyState::Active);
    the_one(&app, KeyState::Next);
}

async fn of_rotations_at_the_same_instant_one_wins(stack: Stack) {
    let app = stack.app().await;
    for round in 1..=scale::races() {
        let (active, next) = (the_one(&app, KeyState::Active).kid, the_one(&app, KeyState::Next).kid);
        let mut race = JoinSet::new();
        for _ in 0..4 {
            let rotation = Rotation::of(&app.keys.list()).unwrap();
            let (inner, files) = (app.app.clone(), files(&stack));
            race.spawn(async move { rotation.run(&inner.db, &files, TOKEN_LIFE, &inner.ambient).await });
        }
        let outcomes = race.join_all().await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let lost = outcomes.iter().filter(|outcome| matches!(outcome, Err(RotationError::Overtaken))).count();
        assert_eq!((won, lost), (1, 3), "{outcomes:?}");
        app.keys.reload(&app.db).await.unwrap();
        assert_eq!(state_of(&app, &active), KeyState::Retiring);
        assert_eq!(the_one(&app, KeyState::Active).kid, next);
        the_one(&app, KeyState::Next);
        assert_eq!(usize::try_from(app.events("key_rotated").await).unwrap(), round);
        // Those who lost left no file behind that the next start would take in.
        let kids: BTreeSet<String> = app.keys.list().into_iter().map(|key| key.kid).collect();
        assert_eq!(kids_with_files(&jwt(&stack)), kids);
    }
}

async fn retiring_ends_what_verifies_and_spares_what_signs(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (first, second) = (the_one(&app, KeyState::Active).kid, the_one(&app, KeyState::Next).kid);
    let retired = async |kid: &str| {
        let outcome = retire(&app.db, kid, &app.ambient).await.unwrap();
        app.keys.reload(&app.db).await.unwrap();
        outcome
    };
    assert_eq!(retired(&first).await, Retirement::Signs);
    assert_eq!(retired("nobody").await, Retirement::Unknown);
    assert_eq!(retired(&first[..42]).await, Retirement::Unknown, "a part of a name is no name");
    assert_eq!((state_of(&app, &first), app.events("key_retired").await), (KeyState::Active, 0));
    alice.me().await.is(200);

    rotate(&app, &stack).await.unwrap();
    alice.me().await.is(200);
    assert_eq!(retired(&first).await, Retirement::Retired);
    assert_eq!(state_of(&app, &first), KeyState::Retired);
    assert_eq!(the_one(&app, KeyState::Retired).verify_until, Some(app.ambient.now()));
    refuses(&app.anonymous(), &alice.access).await;
    assert_eq!(retired(&first).await, Retirement::WasRetired);
    // Whoever held such a token refreshes it.
    let access = alice.client.refresh(&alice.refresh).await.is(200).text("/access_token");
    assert_eq!(kid(&access), second);
    takes(&app.anonymous(), &access).await;

    // The last next one too: then nobody could take over.
    let third = the_one(&app, KeyState::Next).kid;
    assert_eq!(retired(&third).await, Retirement::Retired);
    assert_eq!(published(&app.anonymous()).await, set([&second]));
    assert!(matches!(rotate(&app, &stack).await, Err(RotationError::NoNextKey)));
    assert_eq!(the_one(&app, KeyState::Active).kid, second);
    let told = events(&app, "key_retired").await;
    assert_eq!(told.len(), 2);
    for kid in [&first, &third] {
        assert!(told.contains(&json!({"kid": kid, "cause": "command"})), "{told:?}");
    }
}

async fn the_oldest_next_key_that_is_here_takes_over(stack: Stack) {
    let app = stack.app().await;
    let made = the_one(&app, KeyState::Next).kid;
    let spare: Vec<PrivateKey> = (0..2).map(|_| PrivateKey::generate(&app.ambient)).collect();
    for key in &spare {
        files(&stack).save(key, &app.ambient).unwrap();
    }
    drop(app);
    let app = restarted(&stack).await;
    // By the time of publication, not by name: both orders.
    let order = [&spare[0].kid, &made, &spare[1].kid];
    for (at, kid) in order.iter().enumerate() {
        app.sql(&format!("UPDATE signing_keys SET published_at = {} WHERE kid = '{kid}'", 1000 + at)).await;
    }
    fs::remove_file(jwt(&stack).join(format!("{}.pem", spare[0].kid))).unwrap();
    drop(app);
    let app = restarted(&stack).await;
    rotate(&app, &stack).await.unwrap();
    assert_eq!(the_one(&app, KeyState::Active).kid, made, "not the oldest, whose file is not here");
    assert_eq!(state_of(&app, &spare[0].kid), KeyState::Next);
    rotate(&app, &stack).await.unwrap();
    assert_eq!(the_one(&app, KeyState::Active).kid, spare[1].kid, "older than what the rotation made");
}

/// A node where another one was: that one's hold on the embedded file ends a moment after it.
async fn restarted(stack: &Stack) -> TestApp {
    for _ in 0..200 {
        if let Ok(app) = TestApp::try_start(stack, &[]).await {
            return app;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the node before does not end");
}

async fn a_rotation_mends_a_ring_without_an_active_key(stack: Stack) {
    let app = stack.app().await;
    let next = the_one(&app, KeyState::Next).kid;
    app.sql("UPDATE signing_keys SET state = 'retired' WHERE state = 'active'").await;
    app.keys.reload(&app.db).await.unwrap();
    let rotation = Rotation::of(&app.keys.list()).unwrap();
    rotate(&app, &stack).await.unwrap();
    assert_eq!(the_one(&app, KeyState::Active).kid, next);
    assert_eq!(events(&app, "key_rotated").await, [json!({"to": next})]);
    // And a second one that saw the same ring is too late.
    let late = rotation.run(&app.db, &files(&stack), TOKEN_LIFE, &app.ambient).await;
    assert!(matches!(late, Err(RotationError::Overtaken)), "{late:?}");
}

// --- Tokens of keys that a node has not heard of ---------------------------------------------------------------------

async fn a_token_of_a_key_that_a_node_never_heard_of_is_looked_up(stack: Stack) {
    let (one, other) = (stack.app().await, stack.app().await);
    one.person("alice").await;
    for round in 0..3 {
        // Two rotations: what signs now was not even `next` when the other node last looked.
        rotate(&one, &stack).await.unwrap();
        rotate(&one, &stack).await.unwrap();
        let token = sign_in(&one.anonymous(), "alice").await;
        assert!(other.keys.list().iter().all(|key| key.kid != kid(&token)), "the other node has not heard of it");
        if round == 2 {
            // The other way in that takes an access token.
            other.anonymous().bearer(&token).send(axum::http::Method::POST, "/logout", "".into()).await.is(204);
        } else {
            takes(&other.anonymous(), &token).await;
        }
        assert_eq!(the_one(&other, KeyState::Active).kid, kid(&token));
    }
}

async fn forged_kids_cost_one_reading_a_second(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let asked = || app.db.asked().statements.load(Ordering::Relaxed);
    let (before, started) = (asked(), Instant::now());
    for round in 0..3 {
        let mut race = JoinSet::new();
        for number in 0..scale::race() {
            let (client, token) = (app.anonymous(), forged(&alice.access, round * 1000 + number));
            race.spawn(async move { refuses(&client, &token).await });
        }
        race.join_all().await;
    }
    let readings = asked() - before;
    assert!(readings >= 3, "each of those who came later was looked up: {readings}");
    assert!(readings <= 2 + started.elapsed().as_secs(), "{readings} readings in {:?}", started.elapsed());
    alice.me().await.is(200);
}

async fn a_retired_kid_is_refused_without_a_reading(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    rotate(&app, &stack).await.unwrap();
    retire(&app.db, &kid(&alice.access), &app.ambient).await.unwrap();
    app.keys.reload(&app.db).await.unwrap();
    let before = app.db.asked().statements.load(Ordering::Relaxed);
    for _ in 0..10 {
        refuses(&app.anonymous(), &alice.access).await;
    }
    assert_eq!(app.db.asked().statements.load(Ordering::Relaxed), before);
}

async fn forged_kids_do_not_shut_out_an_honest_token(stack: Stack) {
    let (one, other) = (stack.app().await, stack.app().await);
    let alice = one.person("alice").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut flood = JoinSet::new();
    for number in 0..5 {
        let (client, token, stop) = (other.anonymous(), forged(&alice.access, number), Arc::clone(&stop));
        flood.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                refuses(&client, &token).await;
            }
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rotate(&one, &stack).await.unwrap();
        rotate(&one, &stack).await.unwrap();
        takes(&other.anonymous(), &sign_in(&one.anonymous(), "alice").await).await;
    }
    stop.store(true, Ordering::Relaxed);
    flood.join_all().await;
}

async fn an_unknown_kid_that_cannot_be_looked_up_is_unavailable(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let unknown = forged(&alice.access, 1);
    app.sql("ALTER TABLE signing_keys RENAME TO lost").await;
    app.anonymous().bearer(&unknown).get("/me").await.is_problem(503, "unavailable");
    alice.me().await.is(200);
    app.sql("ALTER TABLE lost RENAME TO signing_keys").await;
    refuses(&app.anonymous(), &unknown).await;
    alice.me().await.is(200);
}

// --- Files that come and go while a node runs ------------------------------------------------------------------------

async fn a_private_key_that_comes_late_is_picked_up(stack: Stack) {
    let own = stack.dir.path().join("own");
    let one = stack.app().await;
    one.person("alice").await;
    let copy = |name: &str| fs::copy(jwt(&stack).join(name), own.join(name)).unwrap();
    fs::create_dir(&own).unwrap();
    for entry in fs::read_dir(jwt(&stack)).unwrap() {
        copy(entry.unwrap().file_name().to_str().unwrap());
    }
    let other = stack.app_with(&[("LATCHKEY_JWT_DIR", own.to_str().unwrap())]).await;
    let signs = async || kid(&sign_in(&other.anonymous(), "alice").await);
    let reload = async || other.keys.reload(&other.db).await.unwrap();

    // The key that was next has come along with the folder.
    rotate(&one, &stack).await.unwrap();
    reload().await;
    assert_eq!(signs().await, the_one(&one, KeyState::Active).kid);

    // What was made since has not: neither what signs nor what is next is here, and what stepped down signs no more.
    rotate(&one, &stack).await.unwrap();
    reload().await;
    let (active, next) = (the_one(&one, KeyState::Active).kid, the_one(&one, KeyState::Next).kid);
    other.anonymous().login("alice@example.com", PASSWORD).await.is_problem(503, "unavailable");
    takes(&other.anonymous(), &sign_in(&one.anonymous(), "alice").await).await;
    // With the rows as they were, a file alone is noticed.
    copy(&format!("{next}.pem"));
    reload().await;
    assert_eq!(signs().await, next, "the newest published key that it holds");
    copy(&format!("{active}.pem"));
    reload().await;
    assert_eq!(signs().await, active);

    // A key that is next by now is fetched when it is heard of, so that it is here when it signs.
    rotate(&one, &stack).await.unwrap();
    copy(&format!("{}.pem", the_one(&one, KeyState::Next).kid));
    reload().await;
    assert!(other.keys.list().iter().filter(|key| key.state.may_sign()).all(|key| key.held), "{:?}", other.keys.list());
}

async fn a_running_node_keeps_what_it_holds_whatever_lies_in_its_folder(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    rotate(&app, &stack).await.unwrap();
    let active = the_one(&app, KeyState::Active).kid;
    // A stray file, and nothing that was there.
    for kid in kids_with_files(&jwt(&stack)) {
        fs::remove_file(jwt(&stack).join(format!("{kid}.pem"))).unwrap();
    }
    fs::write(jwt(&stack).join("notes.txt"), "the safe opens with 4711").unwrap();
    app.keys.reload(&app.db).await.unwrap();
    alice.sign_in().await;
    assert_eq!(kid(&alice.access), active);

    // A rotation by another process: its new file is found beside the stray one.
    let rotation = Rotation::of(&app.keys.list()).unwrap();
    rotation.run(&app.db, &files(&stack), TOKEN_LIFE, &app.ambient).await.unwrap();
    app.keys.reload(&app.db).await.unwrap();
    assert!(app.keys.list().iter().all(|key| key.held), "{:?}", app.keys.list());
    alice.sign_in().await;
    assert_eq!(kid(&alice.access), rotation.successor());
    alice.me().await.is(200);
    // A folder that is gone takes nothing away either.
    fs::remove_dir_all(jwt(&stack)).unwrap();
    app.sql("UPDATE signing_keys SET state = 'retired' WHERE state = 'next'").await;
    app.keys.reload(&app.db).await.unwrap();
    alice.sign_in().await;
    alice.me().await.is(200);
}

// --- Running nodes ---------------------------------------------------------------------------------------------------

async fn running_nodes_notice_a_rotation(stack: Stack) {
    let nodes = nodes(&stack).await;
    let alice = nodes[0].client().register("alice").await;
    nodes[0].client().register(WATCH).await;
    age(&stack, 400).await;
    let ended = keys(&stack, &[], &["rotate"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (active, next) = (ended.kid("active"), ended.kid("next"));
    assert_eq!(ended.kid("retiring"), kid(&alice.access));
    for node in &nodes {
        eventually("the new key signs", || async {
            takes(&node.client(), &alice.access).await;
            kid(&sign_in(&node.client(), WATCH).await) == active
        })
        .await;
        assert_eq!(published(&node.client()).await, set([&kid(&alice.access), &active, &next]));
        takes(&node.client(), &alice.access).await;
    }
    // What the rotation made is in the nodes' hands too: a second one finds it ready.
    let ended = keys(&stack, &[], &["rotate"]).await;
    assert_eq!((ended.code, ended.kid("active")), (Some(0), next.clone()), "{ended:?}");
    for node in &nodes {
        eventually("the next key signs", || async { kid(&sign_in(&node.client(), WATCH).await) == next }).await;
        takes(&node.client(), &alice.access).await;
        assert!(!node.output().contains("does not hold the active signing key"), "{}", node.output());
    }
}

async fn a_retired_keys_tokens_die_on_running_nodes(stack: Stack) {
    let nodes = nodes(&stack).await;
    let mut alice = nodes[0].client().register("alice").await;
    let old = kid(&alice.access);
    let refused = keys(&stack, &[], &["retire", &old]).await;
    assert_eq!((refused.code, refused.keys.len()), (Some(1), 0), "{refused:?}");
    assert!(refused.stderr.contains("rotate first"), "{refused:?}");
    assert_eq!(keys(&stack, &[], &["rotate"]).await.code, Some(0));
    let ended = keys(&stack, &[], &["retire", &old]).await;
    assert_eq!((ended.code, ended.kid("retired")), (Some(0), old.clone()), "{ended:?}");
    for node in &nodes {
        let old = Person { client: node.client(), ..alice.clone() };
        eventually("the old token is refused", || async { !old.is_signed_in().await }).await;
        assert!(!published(&node.client()).await.contains(&kid(&old.access)));
    }
    // Its file is still there, and a start neither takes it in nor signs with it.
    assert!(kids_with_files(&jwt(&stack)).contains(&old));
    drop(nodes);
    let nodes = self::nodes(&stack).await;
    alice.client = nodes[0].client();
    refuses(&alice.client, &alice.access).await;
    alice.take(&alice.client.refresh(&alice.refresh).await.is(200));
    assert_ne!(kid(&alice.access), old);
    alice.me().await.is(200);
    let list = keys(&stack, &[], &["list"]).await;
    assert_eq!(list.kid("retired"), old);
}

async fn rotate_commands_at_the_same_time_keep_one_active_key(stack: Stack) {
    let nodes = nodes(&stack).await;
    let alice = nodes[0].client().register("alice").await;
    let (a, b, c) =
        tokio::join!(keys(&stack, &[], &["rotate"]), keys(&stack, &[], &["rotate"]), keys(&stack, &[], &["rotate"]));
    let all = [a, b, c];
    for ended in &all {
        assert!(ended.code == Some(0) || ended.stderr.contains("came first"), "{ended:?}");
    }
    let won = all.iter().filter(|ended| ended.code == Some(0)).count();
    let list = keys(&stack, &[], &["list"]).await;
    let count = |state: &str| list.keys.iter().filter(|key| key["state"] == state).count();
    assert!(won >= 1);
    assert_eq!((count("active"), count("next"), count("retiring")), (1, 1, won), "{list:?}");
    takes(&nodes[0].client(), &alice.access).await;
}

/// What was answered how often.
type Tally = Arc<Mutex<BTreeMap<(String, u16), usize>>>;

/// Signs in, asks, refreshes and signs out on alternating nodes until told to stop.
async fn come_and_go(clients: Vec<Client>, resting: Person, stop: Arc<AtomicBool>, tally: Tally) -> BTreeSet<String> {
    let mut kids = BTreeSet::new();
    let note = |what: &str, status: u16| *tally.lock().unwrap().entry((what.to_owned(), status)).or_default() += 1;
    let ask = async |token: &str| {
        for client in &clients {
            note("/me", client.bearer(token).get("/me").await.status);
        }
    };
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (here, there) = (&clients[turn % clients.len()], &clients[(turn + 1) % clients.len()]);
        ask(&resting.access).await;
        let reply = here.login(&resting.email, PASSWORD).await;
        note("/login", reply.status);
        if reply.status != 200 {
            continue;
        }
        let (access, refresh) = (reply.text("/access_token"), reply.text("/refresh_token"));
        kids.insert(kid(&access));
        ask(&access).await;
        let reply = there.refresh(&refresh).await;
        note("/refresh", reply.status);
        if reply.status == 200 {
            kids.insert(kid(&reply.text("/access_token")));
            ask(&reply.text("/access_token")).await;
        }
        let reply = here.bearer(&access).send(axum::http::Method::POST, "/logout", "".into()).await;
        note("/logout", reply.status);
    }
    kids
}

async fn rotations_under_load_refuse_nobody(stack: Stack) {
    let nodes = nodes(&stack).await;
    let (stop, tally) = (Arc::new(AtomicBool::new(false)), Tally::default());
    let clients: Vec<Client> = nodes.iter().map(Process::client).collect();
    clients[0].register(WATCH).await;
    let mut load = JoinSet::new();
    for number in 0..4 {
        let person = clients[number % 2].register(&format!("alice{number}")).await;
        load.spawn(come_and_go(clients.clone(), person, Arc::clone(&stop), Arc::clone(&tally)));
    }
    let mut active = String::new();
    for number in 0..scale::rotations() {
        // Faster than the nodes look, so that tokens come with keys that a node has not heard of.
        let ended = keys(&stack, &[], &["rotate"]).await;
        assert_eq!(ended.code, Some(0), "rotation {number}: {ended:?}");
        active = ended.kid("active");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    for client in &clients {
        eventually("the last key signs", || async { kid(&sign_in(client, WATCH).await) == active }).await;
    }
    stop.store(true, Ordering::Relaxed);
    let kids: BTreeSet<String> = load.join_all().await.into_iter().flatten().collect();
    let tally = tally.lock().unwrap().clone();
    let refused: Vec<_> = tally.iter().filter(|((_, status), _)| *status == 401).collect();
    assert!(refused.is_empty(), "refused: {refused:?} of {tally:?}");
    assert!(tally[&("/me".to_owned(), 200)] > 100, "there was a load: {tally:?}");
    assert!(kids.len() > 2, "tokens of several keys were seen: {kids:?}");
    println!("rotations under load: {} keys signed; {tally:?}", kids.len());
}

async fn a_running_node_without_keys_verifies_and_signs_once_it_has_them(stack: Stack) {
    let secret = STANDARD.encode([7; 32]);
    let own = stack.dir.path().join("own");
    let mut settings = stack.settings().await;
    settings.push(("LATCHKEY_SECRET".to_owned(), secret.clone()));
    let one = Process::start(stack.dir.path(), &settings);
    let alice = one.client().register("alice").await;
    one.client().register(WATCH).await;
    settings.push(("LATCHKEY_JWT_DIR".to_owned(), own.display().to_string()));
    let other = Process::start(stack.dir.path(), &settings);
    takes(&other.client(), &alice.access).await;
    other.client().login(&alice.email, PASSWORD).await.is_problem(503, "unavailable");
    // Two periods of reading, and a row that changed: it does not say so each time.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    age(&stack, 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let told = |kid: &str| {
        let output = other.output();
        output
            .lines()
            .filter(|line| line.contains("does not hold the active signing key") && line.contains(kid))
            .count()
    };
    assert_eq!(told(&kid(&alice.access)), 1, "{}", other.output());

    let settings = [("LATCHKEY_SECRET", secret.as_str())];
    let active = keys(&stack, &settings, &["rotate"]).await.kid("active");
    eventually("the new key signs", || async { kid(&sign_in(&one.client(), WATCH).await) == active }).await;
    takes(&other.client(), &sign_in(&one.client(), "alice").await).await;
    takes(&other.client(), &alice.access).await;
    eventually("it warns of the new one", || async { told(&active) == 1 }).await;
    // The folder is brought, without a restart.
    fs::create_dir(&own).unwrap();
    let name = format!("{active}.pem");
    fs::copy(jwt(&stack).join(&name), own.join(&name)).unwrap();
    eventually("the key is picked up", || async { other.client().login(&alice.email, PASSWORD).await.status == 200 })
        .await;
    assert_eq!(kid(&sign_in(&other.client(), "alice").await), active);
    assert_eq!(told(&active), 1);
}

// --- The commands ----------------------------------------------------------------------------------------------------

async fn rotating_early_is_warned_about_and_waiting_waits(stack: Stack) {
    let _nodes = nodes(&stack).await;
    // Published a moment ago.
    let early = keys(&stack, &[], &["rotate"]).await;
    assert_eq!(early.code, Some(0), "it warns and goes on: {early:?}");
    let warning = early.stderr.lines().find(|line| line.starts_with("warning: ")).expect("a warning");
    assert!(warning.contains(&early.kid("active")) && warning.contains("--wait"), "{warning}");
    // Just within the time that others may keep the old set, and just beyond.
    age(&stack, 290).await;
    assert!(keys(&stack, &[], &["rotate"]).await.stderr.contains("warning: "));
    age(&stack, 310).await;
    let old = keys(&stack, &[], &["rotate"]).await;
    assert_eq!((old.code, old.stderr.contains("warning")), (Some(0), false), "{old:?}");

    age(&stack, 305).await;
    let started = Instant::now();
    let waited = keys(&stack, &[], &["rotate", "--wait"]).await;
    assert_eq!((waited.code, waited.stderr.contains("warning")), (Some(0), false), "{waited:?}");
    assert!(waited.stderr.contains("Waiting ") && waited.stderr.contains(&waited.kid("active")), "{waited:?}");
    let published: Vec<_> = waited.keys.iter().map(|key| key["published_at"].as_str().unwrap()).collect();
    assert!(started.elapsed() > Duration::from_secs(2), "{:?}, {published:?}", started.elapsed());
    age(&stack, 310).await;
    let ready = keys(&stack, &[], &["rotate", "--wait"]).await;
    assert_eq!((ready.code, ready.stderr.contains("Waiting")), (Some(0), false), "{ready:?}");
}

async fn rotate_prints_one_json_object_a_key(stack: Stack) {
    let _nodes = nodes(&stack).await;
    let before = keys(&stack, &[], &["list"]).await;
    let ended = keys(&stack, &[], &["rotate"]).await;
    assert_eq!(ended.keys.len(), 3, "what changed and nothing else: {ended:?}");
    assert_eq!(ended.kid("retiring"), before.kid("active"));
    assert_eq!(ended.kid("active"), before.kid("next"));
    assert_eq!(keys(&stack, &[], &["list"]).await.keys, ended.keys, "as `keys list` has them");
    let retiring = ended.keys.iter().find(|key| key["state"] == "retiring").unwrap();
    assert!(retiring["verify_until"].is_string() && ended.keys.iter().all(|key| key["held"] == true), "{ended:?}");
    let second = keys(&stack, &[], &["rotate"]).await;
    assert_eq!((second.keys.len(), second.kid("active")), (3, ended.kid("next")));
}

async fn retire_says_what_it_did_and_what_is_left_to_do(stack: Stack) {
    let _nodes = nodes(&stack).await;
    let unknown = keys(&stack, &[], &["retire", "nobody"]).await;
    assert_eq!((unknown.code, unknown.keys.len()), (Some(1), 0), "{unknown:?}");
    assert!(unknown.stderr.contains("latchkey keys list"), "{unknown:?}");
    let none = keys(&stack, &[], &["retire"]).await;
    assert_eq!(none.code, Some(2), "{none:?}");

    // A stray file does not stand in the way.
    fs::write(jwt(&stack).join("notes.txt"), "the safe opens with 4711").unwrap();
    let next = {
        let mut keys = kids_with_files(&jwt(&stack));
        let signs = sql_text(&stack, "SELECT kid FROM signing_keys WHERE state = 'active'").await;
        assert!(keys.remove(&signs));
        keys.pop_first().unwrap()
    };
    let ended = keys(&stack, &[], &["retire", &next]).await;
    assert_eq!((ended.code, ended.kid("retired"), ended.keys.len()), (Some(0), next.clone(), 1), "{ended:?}");
    assert!(ended.stderr.contains("can be deleted"), "{ended:?}");
    assert!(ended.stderr.contains("latchkey keys generate"), "no next key is left: {ended:?}");
    assert!(kids_with_files(&jwt(&stack)).contains(&next), "the file is left to the operator");
    let again = keys(&stack, &[], &["retire", &next]).await;
    assert_eq!((again.code, again.stderr.contains("nothing changed")), (Some(0), true), "{again:?}");

    fs::remove_file(jwt(&stack).join("notes.txt")).unwrap();
    let nobody = keys(&stack, &[], &["rotate"]).await;
    assert_eq!((nobody.code, nobody.keys.len()), (Some(1), 0), "{nobody:?}");
    assert!(nobody.stderr.contains("latchkey keys generate"), "{nobody:?}");
    let mut command = Process::command(stack.dir.path(), &stack.settings().await);
    assert!(command.args(["keys", "generate"]).output().unwrap().status.success());
    assert_eq!(keys(&stack, &[], &["rotate"]).await.code, Some(0));
    // While there is a next key, or none of its files is here, nothing is said of it.
    let list = keys(&stack, &[], &["list"]).await;
    let old = list.kid("retiring");
    fs::remove_file(jwt(&stack).join(format!("{old}.pem"))).unwrap();
    let ended = keys(&stack, &[], &["retire", &old]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("deleted") && !ended.stderr.contains("generate"), "{ended:?}");
}

/// One text, read beside the server of the embedded stack.
async fn sql_text(stack: &Stack, sql: &'static str) -> String {
    let url = format!("sqlite://{}/data/latchkey.db", stack.dir.path().display());
    let mut door = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut door).await.unwrap()
}

async fn a_kid_may_begin_with_a_hyphen(stack: Stack) {
    let app = stack.app().await;
    let key = loop {
        let key = PrivateKey::generate(&app.ambient);
        if key.kid.starts_with('-') {
            break key;
        }
    };
    files(&stack).save(&key, &app.ambient).unwrap();
    drop(app);
    let app = restarted(&stack).await;
    assert_eq!(state_of(&app, &key.kid), KeyState::Next);
    let ended = keys(&stack, &[], &["retire", &key.kid]).await;
    assert_eq!((ended.code, ended.kid("retired")), (Some(0), key.kid), "{ended:?}");
    let help = Process::command(stack.dir.path(), &[]).args(["keys", "retire", "--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("KID"));
}

async fn rotate_makes_a_key_with_an_https_url(stack: Stack) {
    drop(stack.app().await);
    let settings = [("LATCHKEY_PUBLIC_URL", "https://auth.example.com"), ("SMTP_URL", "smtp://localhost")];
    let before = kids_with_files(&jwt(&stack));
    let ended = keys(&stack, &settings, &["rotate"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let made: Vec<_> = kids_with_files(&jwt(&stack)).difference(&before).cloned().collect();
    assert_eq!(made, [ended.kid("next")]);
}

async fn a_rotation_that_cannot_write_its_file_does_nothing(stack: Stack) {
    let app = stack.app().await;
    let (before, files) = (format!("{:?}", app.keys.list()), kids_with_files(&jwt(&stack)));
    let program = Process::command(stack.dir.path(), &stack.settings().await);
    let mut command = Command::new("/bin/sh");
    command.current_dir(stack.dir.path()).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // No file can grow, as on a full disk.
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" keys rotate"]).arg(program.get_program());
    let ended = tokio::task::spawn_blocking(|| Ended::of(command)).await.unwrap();
    assert_eq!((ended.code, ended.keys.len()), (Some(1), 0), "{ended:?}");
    assert!(ended.stderr.contains("cannot write the new key"), "{ended:?}");
    app.keys.reload(&app.db).await.unwrap();
    assert_eq!(format!("{:?}", app.keys.list()), before);
    assert_eq!(kids_with_files(&jwt(&stack)), files);
    assert_eq!(app.events("key_rotated").await, 0);
}
