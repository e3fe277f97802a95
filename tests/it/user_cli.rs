//! `latchkey user …`: the real command beside a server, on its database.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::Ordering,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use latchkey::{ambient::Ambient, names::is_unsafe};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{PASSWORD, Process, Stack, StackKind, Test, TestApp, eventually};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&StackKind::ALL;
        an_operator_makes_people_who_can_sign_in,
        what_strangers_may_not_do_an_operator_may,
        every_fault_of_a_new_person_is_told_at_once,
        what_is_taken_is_said_in_words,
        of_creates_at_the_same_time_one_wins,
        who_was_made_without_a_password_sets_one,
        people_are_listed_the_newest_first_and_piece_by_piece,
        people_are_found_by_how_their_names_begin,
        names_cannot_command_a_terminal,
        a_code_from_before_does_not_outlive_disabling,
        disabling_twice_is_disabling_once,
        only_a_living_session_of_that_person_can_be_revoked,
        an_id_is_nobodys_name,
        a_command_makes_no_schema_and_no_keys,
    );
    tests.extend(crate::on_stacks!(&StackKind::SESSIONS;
        a_disabled_person_is_out_everywhere_within_a_second,
        sessions_are_listed_as_their_person_sees_them,
        a_revoked_session_is_over_everywhere_within_a_second,
        revoking_all_ends_every_session_and_code,
    ));
    tests.extend(crate::on_stacks!(&[StackKind::Embedded];
        a_password_is_one_line,
        a_password_is_asked_for_without_showing_it,
        an_interrupted_prompt_leaves_the_terminal_as_it_was,
        a_reader_who_has_seen_enough_is_no_fault,
        bad_usage_is_told_from_failure,
    ));
    tests.extend(crate::on_stacks!(&StackKind::SHARED; what_begins_alike_does_so_in_every_language));
    tests.extend(crate::on_stacks!(&StackKind::REDIS;
        disabling_holds_though_redis_is_away,
        without_redis_all_can_be_revoked_and_one_cannot,
    ));
    tests
}

type Settings = [(String, String)];

fn command(stack: &Stack, settings: &Settings, arguments: &[&str]) -> Command {
    let mut command = Process::command(stack.dir.path(), settings);
    command.arg("user").args(arguments);
    command
}

/// `latchkey user …` with this on its standard input.
fn fed(stack: &Stack, settings: &Settings, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = spawn(command(stack, settings, arguments).stdin(Stdio::piped()));
    // Who needs no input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn user(stack: &Stack, settings: &Settings, arguments: &[&str]) -> Output {
    fed(stack, settings, arguments, b"")
}

fn create(stack: &Stack, settings: &Settings, arguments: &[&str]) -> Output {
    let arguments = [&["create", "--password-stdin"], arguments].concat();
    fed(stack, settings, &arguments, format!("{PASSWORD}\n").as_bytes())
}

/// What a command that went well said, line by line.
#[track_caller]
fn said(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[track_caller]
fn one(output: &Output) -> Value {
    let mut said = said(output);
    assert_eq!(said.len(), 1, "{output:?}");
    said.remove(0)
}

/// Asserts that a command failed, and gives what it said about that.
#[track_caller]
fn complaint(output: &Output, code: i32) -> String {
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(code), true), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn with(settings: &Settings, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    settings.iter().cloned().chain(more).collect()
}

/// Moves the clock of the app to where that of a command stands.
fn catch_up(app: &TestApp) {
    app.clock.store(Ambient::system().now().millis(), Ordering::SeqCst);
}

/// How long a server may answer /me out of what it read before; what another process did is felt from then on.
const FELT: Duration = Duration::from_millis(500);

async fn people(app: &TestApp) -> i64 {
    app.number("SELECT COUNT(*) FROM users").await
}

// --- making people -----------------------------------------------------------

async fn an_operator_makes_people_who_can_sign_in(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_PEPPER", "p1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")]).await;
    catch_up(&app);
    let names = ["--email", "Alice@Example.com", "--username", "Alice", "--display-name", "Alice L.", "--locale", "de"];
    let made = one(&create(&stack, &app.settings, &[&names[..], &["--verified"]].concat()));
    assert_eq!(
        (&made["email"], &made["email_verified"], &made["username"], &made["display_name"], &made["status"]),
        (&json!("alice@example.com"), &json!(true), &json!("Alice"), &json!("Alice L."), &json!("active"))
    );
    // A login would replace a hash that is not of the settings.
    let hash = app.text("SELECT password_hash FROM users").await;
    assert!(hash.starts_with("$argon2id$v=19$m=7168,t=1,p=1,keyid="), "by the settings: {hash}");
    for body in [json!({"email": "alice@example.com"}), json!({"username": "alice"})] {
        let mut body = body;
        body["password"] = PASSWORD.into();
        let access = app.anonymous().post("/login", body).await.is(200).text("/access_token");
        let mut seen = app.anonymous().bearer(&access).get("/me").await.is(200).json();
        seen["last_login_at"] = Value::Null;
        assert_eq!(seen, made, "the whole person, as the API shows one");
    }
    assert_eq!(app.text("SELECT locale FROM users").await, "de");
    let data = "SELECT CAST(data AS TEXT) FROM events WHERE kind = 'registered'";
    let data: Value = serde_json::from_str(&app.text(data).await).unwrap();
    assert_eq!(data, json!({"via": "cli", "verified": "true"}));
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox").await, 0, "nobody gets a mail");

    let made = one(&create(&stack, &app.settings, &["--email", "bob@example.com"]));
    assert_eq!((&made["email_verified"], &made["username"]), (&json!(false), &Value::Null));
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox").await, 0);
    let data = format!(
        "SELECT CAST(data AS TEXT) FROM events WHERE kind = 'registered' AND person_id = {}",
        app.id(made["id"].as_str().unwrap().parse().unwrap())
    );
    let data: Value = serde_json::from_str(&app.text(&data).await).unwrap();
    assert_eq!(data, json!({"via": "cli"}), "nobody vouched for the address");
}

async fn what_strangers_may_not_do_an_operator_may(stack: Stack) {
    let rules = [
        ("LATCHKEY_REGISTRATION", "closed"),
        ("LATCHKEY_REGISTRATION_DOMAINS", "elsewhere.example"),
        ("LATCHKEY_EMAIL_VERIFICATION", "required"),
    ];
    let app = stack.app_with(&rules).await;
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    app.anonymous().post("/register", body).await.is_problem(403, "registration_closed");
    one(&create(&stack, &app.settings, &["--email", "alice@example.com", "--verified"]));
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    one(&create(&stack, &app.settings, &["--email", "bob@example.com"]));
    app.anonymous().login("bob@example.com", PASSWORD).await.is_problem(403, "email_not_verified");
}

async fn every_fault_of_a_new_person_is_told_at_once(stack: Stack) {
    let app = stack.app().await;
    let arguments =
        ["create", "--password-stdin", "--email", "a@b@c", "--username", "x", "--display-name", " ", "--locale", "!"];
    let said = complaint(&fed(&stack, &app.settings, &arguments, b"secret\n"), 1);
    for option in ["--email: ", "--username: ", "--display-name: ", "--locale: ", "the password: Use a longer password"]
    {
        assert_eq!(said.matches(&format!("\n  {option}")).count(), 1, "{option}: {said}");
    }
    for (password, word) in
        [("password1", "commonest"), ("alice.liddell", "your address"), ("Latchkey1", "your address")]
    {
        let arguments = ["create", "--password-stdin", "--email", "alice.liddell@example.com"];
        let said = complaint(&fed(&stack, &app.settings, &arguments, password.as_bytes()), 1);
        assert!(said.contains(word) && !said.contains(password), "{said}");
    }
    let longer = with(&app.settings, &[("LATCHKEY_PASSWORD_MIN_LENGTH", "40")]);
    assert!(complaint(&create(&stack, &longer, &["--email", "a@example.com"]), 1).contains("longer"));
    assert_eq!((people(&app).await, app.events("registered").await), (0, 0));
}

async fn what_is_taken_is_said_in_words(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let said = complaint(&create(&stack, &app.settings, &["--email", "ALICE@example.com"]), 1);
    assert!(said.contains("somebody has the address alice@example.com already"), "{said}");
    let said = complaint(&create(&stack, &app.settings, &["--email", "bob@example.com", "--username", "ALICE"]), 1);
    assert!(said.contains("somebody has this username already"), "{said}");
    let both = ["--email", "alice@example.com", "--username", "alice"];
    assert!(complaint(&create(&stack, &app.settings, &both), 1).contains("address"), "the address first");
    assert_eq!((people(&app).await, app.events("registered").await), (1, 1));
}

async fn of_creates_at_the_same_time_one_wins(stack: Stack) {
    let app = stack.app().await;
    let arguments = ["create", "--password-stdin", "--email", "alice@example.com", "--username", "alice"];
    let mut children: Vec<_> =
        (0..6).map(|_| spawn(command(&stack, &app.settings, &arguments).stdin(Stdio::piped()))).collect();
    for child in &mut children {
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    }
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let codes: Vec<_> = outputs.iter().map(|output| output.status.code().unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{outputs:?}");
    for output in outputs.iter().filter(|output| output.status.code() != Some(0)) {
        assert!(complaint(output, 1).contains("somebody has the address"), "{output:?}");
    }
    assert_eq!((people(&app).await, app.events("registered").await), (1, 1));
}

async fn who_was_made_without_a_password_sets_one(stack: Stack) {
    let app = stack.app().await;
    catch_up(&app);
    let names = ["create", "--no-password", "--verified", "--email", "alice@example.com", "--username", "alice"];
    one(&user(&stack, &app.settings, &names));
    for password in ["", PASSWORD] {
        app.anonymous().login("alice@example.com", password).await.is_problem(401, "invalid_credentials");
    }
    let code = app.reset_code("alice@example.com").await;
    app.anonymous().post("/password/reset", code.reset("a staple for the horse")).await.is(204);
    let reply = app.anonymous().login("alice@example.com", "a staple for the horse").await.is(200);
    let me = app.anonymous().bearer(&reply.text("/access_token")).get("/me").await.is(200);
    assert_eq!(me.text("/username"), "alice", "with --verified a reset is no first proof, and keeps the names");
}

async fn a_password_is_one_line(stack: Stack) {
    let app = stack.app().await;
    let arguments = |email: &str| ["create", "--password-stdin", "--email", email].map(str::to_owned);
    for (number, input) in
        ["correct horse battery", "correct horse battery\n", "correct horse battery\r\n", "correct horse battery\nx\n"]
            .iter()
            .enumerate()
    {
        let email = format!("person{number}@example.com");
        let arguments = arguments(&email);
        one(&fed(&stack, &app.settings, &arguments.each_ref().map(String::as_str), input.as_bytes()));
        app.anonymous().login(&email, PASSWORD).await.is(200);
    }
    let before = people(&app).await;
    let long = "x".repeat(1 << 20);
    for (input, words) in [
        (&b""[..], "the password is empty"),
        (b"\n", "the password is empty"),
        (b"\r\n", "the password is empty"),
        (b"correct\rhorse battery\n", "Leave out line breaks"),
        (b"correct \0horse battery\n", "Leave out line breaks"),
        (b"correct \xffhorse battery\n", "no UTF-8"),
        (long.as_bytes(), "at most 128 characters"),
    ] {
        let arguments = arguments("eve@example.com");
        let output = fed(&stack, &app.settings, &arguments.each_ref().map(String::as_str), input);
        let said = complaint(&output, 1);
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(people(&app).await, before);
}

// --- a terminal ---------------------------------------------------------------

/// A terminal with a command on it.
struct Terminal {
    /// The side of who sits there, and what is shown to them.
    person: File,
    shown: Receiver<Vec<u8>>,
    /// The side of the command.
    program: File,
    child: Child,
    seen: String,
}

impl Terminal {
    fn start(command: &mut Command) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let path = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
        let program = File::options().read(true).write(true).open(path).unwrap();
        let end = || Stdio::from(program.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let person = File::from(person);
        let (mut reader, (sender, shown)) = (person.try_clone().unwrap(), mpsc::channel());
        // It ends with the test: nobody else can tell a read of a terminal to give up.
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(read) = reader.read(&mut buffer)
                && sender.send(buffer[..read].to_vec()).is_ok()
            {}
        });
        Self { person, shown, program, child, seen: String::new() }
    }

    /// Reads until this was shown once more.
    fn shows(&mut self, text: &str) {
        let from = self.seen.len();
        while !self.seen[from..].contains(text) {
            let shown = self.shown.recv_timeout(Duration::from_secs(10));
            let shown = shown.unwrap_or_else(|_| panic!("not shown within ten seconds: {text}\n{}", self.seen));
            self.seen += &String::from_utf8_lossy(&shown);
        }
    }

    fn types(&mut self, text: &str) {
        self.person.write_all(text.as_bytes()).unwrap();
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.program).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// How it ended, and everything that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        // What stands behind everything it said.
        self.program.write_all(b"the end").unwrap();
        if !self.seen.contains("the end") {
            self.shows("the end");
        }
        assert!(self.echoes(), "the terminal is as it was");
        (code, std::mem::take(&mut self.seen))
    }
}

impl Drop for Terminal {
    /// A test that failed leaves nobody waiting for a password.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn a_password_is_asked_for_without_showing_it(stack: Stack) {
    let app = stack.app().await;
    let arguments = ["create", "--email", "alice@example.com"];
    let mut terminal = Terminal::start(&mut command(&stack, &app.settings, &arguments));
    assert!(terminal.echoes());
    terminal.shows("Password: ");
    assert!(!terminal.echoes());
    terminal.types(&format!("{PASSWORD}\n"));
    terminal.shows("The same again: ");
    terminal.types(&format!("{PASSWORD}\n"));
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("horse"), "{shown}");
    assert!(shown.contains("alice@example.com was made, with the id "), "{shown}");
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);

    let mut terminal = Terminal::start(&mut command(&stack, &app.settings, &["create", "--email", "bob@example.com"]));
    terminal.shows("Password: ");
    terminal.types(&format!("{PASSWORD}\n"));
    terminal.shows("The same again: ");
    terminal.types("correct horse batery\n");
    let (code, shown) = terminal.end();
    assert!(code == Some(1) && shown.contains("the two passwords are not the same"), "{shown}");
    assert_eq!(people(&app).await, 1);
}

async fn an_interrupted_prompt_leaves_the_terminal_as_it_was(stack: Stack) {
    let app = stack.app().await;
    let mut terminal = Terminal::start(&mut command(&stack, &app.settings, &["create", "--email", "bob@example.com"]));
    terminal.shows("Password: ");
    // The listener for signals is there a moment after the question.
    std::thread::sleep(Duration::from_millis(300));
    let status = Command::new("kill").arg("-INT").arg(terminal.child.id().to_string()).status().unwrap();
    assert!(status.success());
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(1), "{shown}");
    assert_eq!(people(&app).await, 0);
}

// --- listing -------------------------------------------------------------------

fn emails(people: &[Value]) -> Vec<&str> {
    people.iter().map(|person| person["email"].as_str().unwrap().trim_end_matches("@example.com")).collect()
}

async fn people_are_listed_the_newest_first_and_piece_by_piece(stack: Stack) {
    let app = stack.app().await;
    let names = ["anna", "berta", "carla", "dora", "emma"];
    let mut sessions = Vec::new();
    for name in names {
        sessions.push(app.person(name).await);
        app.pass(Duration::from_millis(5));
    }
    app.sql("UPDATE users SET deleted_at = 1 WHERE username = 'dora'").await;
    let list = |arguments: &[&str]| said(&user(&stack, &app.settings, &[&["list"], arguments].concat()));
    let all = list(&[]);
    assert_eq!(emails(&all), ["emma", "carla", "berta", "anna"]);
    assert_eq!(all[0], sessions[4].me().await.is(200).json(), "as the API shows one");
    let mut pieces = list(&["--limit", "3"]);
    assert_eq!(emails(&pieces), ["emma", "carla", "berta"]);
    pieces.extend(list(&["--limit", "3", "--after", pieces[2]["id"].as_str().unwrap()]));
    assert_eq!(pieces, all);
    for most in ["4", "1000000", "18446744073709551615"] {
        assert_eq!(list(&["--limit", most]), all);
    }
    for nobody in ["0", "-1", "x", "18446744073709551616"] {
        let output = user(&stack, &app.settings, &["list", "--limit", nobody]);
        complaint(&output, 2);
    }

    // More than one reading of the database gives, and more than nothing was said about.
    let now = app.clock.load(Ordering::SeqCst);
    let rows = (0..1200_u128).map(|number| {
        let id = app.id(Uuid::from_u128((0x0300_u128 << 112) | number));
        format!("({id}, 'many{number:04}@example.com', TRUE, '[]', 'active', 0, {now}, {now})")
    });
    let rows = rows.collect::<Vec<_>>().join(", ");
    app.sql(&format!(
        "INSERT INTO users (id, email, email_verified, roles, status, epoch, created_at, updated_at) VALUES {rows}"
    ))
    .await;
    assert_eq!(list(&[]).len(), 50);
    let many = list(&["--limit", "1100"]);
    let ids: BTreeSet<_> = many.iter().map(|person| person["id"].as_str().unwrap()).collect();
    assert_eq!((many.len(), ids.len()), (1100, 1100), "each once");
    assert_eq!(list(&["--limit", "99999"]).len(), 1204);
    assert_eq!(list(&["--limit", "99999", "--search", "MANY"]).len(), 1200);
}

async fn people_are_found_by_how_their_names_begin(stack: Stack) {
    let app = stack.app().await;
    for (email, username) in [
        ("alice@example.com", Some("wonder_alice")),
        ("al.bert@example.com", None),
        ("al_ma@bücher.example", Some("Zoe")),
        ("bob@example.com", Some("AL-bob")),
        ("a%b@example.com", None),
        ("carol@example.com", Some("carol")),
    ] {
        let body = json!({"email": email, "username": username, "password": PASSWORD});
        app.anonymous().post("/register", body).await.is(201);
    }
    app.person("alina").await;
    app.sql("UPDATE users SET deleted_at = 1 WHERE username = 'alina'").await;
    for (text, found) in [
        ("AL", &["al.bert@example.com", "al_ma@xn--bcher-kva.example", "alice@example.com", "bob@example.com"][..]),
        ("al-", &["bob@example.com"]),
        ("al_", &["al_ma@xn--bcher-kva.example"]),
        ("a%", &["a%b@example.com"]),
        ("%", &[]),
        ("_", &[]),
        ("al%", &[]),
        ("'; DROP TABLE users; --", &[]),
        ("\\", &[]),
        ("ZOE", &["al_ma@xn--bcher-kva.example"]),
        ("wonder", &["alice@example.com"]),
        ("Al_Ma@BÜCHER.example", &["al_ma@xn--bcher-kva.example"]),
        ("carol", &["carol@example.com"]),
        ("example.com", &[]),
        ("\u{10ffff}", &[]),
        ("dora", &[]),
    ] {
        let listed = said(&user(&stack, &app.settings, &["list", &format!("--search={text}")]));
        let mut emails: Vec<_> = listed.iter().map(|person| person["email"].as_str().unwrap()).collect();
        emails.sort_unstable();
        assert_eq!(emails, found, "{text}");
    }
    assert_eq!(said(&user(&stack, &app.settings, &["list", "--search", ""])).len(), 6);
}

async fn what_begins_alike_does_so_in_every_language(stack: Stack) {
    let app = stack.app().await;
    // As in a database that was made with this language: marks count for little there, and DEL for nothing.
    for column in ["email", "username_key"] {
        app.sql(&format!("ALTER TABLE users ALTER COLUMN {column} TYPE TEXT COLLATE \"en-x-icu\"")).await;
    }
    for name in ["alice", "al-bert", "alan", "bob"] {
        app.person(name).await;
    }
    for (text, found) in [("al", 3), ("al-", 1), ("ala", 1), ("bob", 1), ("b", 1), ("c", 0)] {
        let listed = said(&user(&stack, &app.settings, &["list", "--search", text]));
        assert_eq!(listed.len(), found, "{text}: {listed:?}");
    }
}

/// An escape sequence, one of eight bits, a line break, a change of direction, DEL.
const HOSTILE: &str = "a\u{1b}[2Jb\u{9b}2Jc\r\nd\u{202e}e\u{7f}f";

async fn names_cannot_command_a_terminal(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    // As an import could bring them.
    app.sql(&format!("UPDATE users SET username = '{HOSTILE}', display_name = '{HOSTILE}', email = '{HOSTILE}'")).await;
    let piped = user(&stack, &app.settings, &["list"]);
    let person = one(&piped);
    for field in ["username", "display_name", "email"] {
        assert_eq!(person[field], HOSTILE, "as it is, for a program");
    }
    let text = String::from_utf8(piped.stdout).unwrap();
    assert!(!text.trim_end_matches('\n').chars().any(is_unsafe), "{text:?}");

    let id = person["id"].as_str().unwrap();
    for arguments in [&["list"][..], &["disable", id], &["enable", id], &["disable", HOSTILE]] {
        let (_, shown) = Terminal::start(&mut command(&stack, &app.settings, arguments)).end();
        // The terminal itself makes CR LF of the ends of lines.
        let shown = shown.replace("\r\n", "");
        assert!(!shown.chars().any(is_unsafe), "{arguments:?}: {shown:?}");
        assert!(shown.contains("a\\u{1b}[2Jb"), "{arguments:?}: {shown:?}");
    }
}

async fn a_reader_who_has_seen_enough_is_no_fault(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let mut child = spawn(&mut command(&stack, &app.settings, &["list"]));
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

// --- disabling -----------------------------------------------------------------

async fn a_disabled_person_is_out_everywhere_within_a_second(stack: Stack) {
    let settings = stack.settings().await;
    let nodes = if stack.kind == StackKind::Embedded { 1 } else { 2 };
    let nodes: Vec<_> = (0..nodes).map(|_| Process::start(stack.dir.path(), &settings)).collect();
    let alice = nodes[0].client().register("alice").await;
    let elsewhere = alice.elsewhere().await;
    let bob = nodes[0].client().register("bob").await;
    for node in &nodes {
        for person in [&alice, &elsewhere] {
            node.client().bearer(&person.access).get("/me").await.is(200);
        }
    }

    let done = one(&user(&stack, &settings, &["disable", "alice"]));
    let started = Instant::now();
    assert_eq!(done, json!({"id": alice.id, "status": "disabled", "changed": true}));
    for node in &nodes {
        for person in [&alice, &elsewhere] {
            let refused = || async {
                let me = node.client().bearer(&person.access).get("/me").await.status;
                let refresh = node.client().refresh(&person.refresh).await.status;
                (me, refresh) == (401, 401)
            };
            eventually("a disabled person is out", refused).await;
        }
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    bob.me().await.is(200);
    for node in &nodes {
        let right = node.client().with("x-request-id", "x").login(&alice.email, PASSWORD).await;
        let unknown = node.client().with("x-request-id", "x").login("nobody@example.com", PASSWORD).await;
        assert_eq!(right.clone().is_problem(401, "invalid_credentials").body, unknown.body);
    }

    let done = one(&user(&stack, &settings, &["enable", "Alice@example.com"]));
    assert_eq!(done, json!({"id": alice.id, "status": "active", "changed": true}));
    for node in &nodes {
        for person in [&alice, &elsewhere] {
            node.client().bearer(&person.access).get("/me").await.is_problem(401, "invalid_token");
            node.client().refresh(&person.refresh).await.is_problem(401, "invalid_refresh_token");
        }
        node.client().login(&alice.email, PASSWORD).await.is(200);
    }
}

async fn a_code_from_before_does_not_outlive_disabling(stack: Stack) {
    let app = stack.app().await;
    catch_up(&app);
    let alice = app.person("alice").await;
    let (reset, verify) = (app.reset_code(&alice.email).await, app.verify_code(&alice.email).await);
    let change = app.change_code(&alice, "alice@elsewhere.example").await;
    one(&user(&stack, &app.settings, &["disable", "alice"]));
    let mails = app.all_mails_to(&alice.email);
    app.pass(Duration::from_secs(60));
    for path in ["/password/forgot", "/email/verify/resend"] {
        app.anonymous().post(path, json!({"email": alice.email})).await.is(202);
    }
    app.deliver().await;
    assert_eq!(app.all_mails_to(&alice.email), mails, "no code for who is kept out");
    one(&user(&stack, &app.settings, &["enable", "alice"]));
    let new_password = "a staple for the horse";
    for (path, body) in [
        ("/password/reset", reset.reset(new_password)),
        ("/email/verify", verify.body()),
        ("/me/email/confirm", change.body()),
    ] {
        app.anonymous().post(path, body).await.is_problem(400, "invalid_code");
    }
    app.anonymous().login(&alice.email, PASSWORD).await.is(200);
    // One that is asked for now does.
    let reset = app.reset_code(&alice.email).await;
    app.anonymous().post("/password/reset", reset.reset(new_password)).await.is(204);
}

async fn disabling_twice_is_disabling_once(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let id = alice.id.to_string();
    let epoch = || app.number("SELECT epoch FROM users");
    let state = |changed: bool, status: &str| json!({"id": alice.id, "status": status, "changed": changed});
    assert_eq!(one(&user(&stack, &app.settings, &["enable", &id])), state(false, "active"));
    assert_eq!((epoch().await, app.events("person_enabled").await), (0, 0));
    assert_eq!(one(&user(&stack, &app.settings, &["disable", &id])), state(true, "disabled"));
    assert!(app.ephemeral.list(app.ambient.now(), alice.id).await.unwrap().is_empty(), "tidied");
    for _ in 0..2 {
        assert_eq!(one(&user(&stack, &app.settings, &["disable", &id])), state(false, "disabled"));
    }
    assert_eq!((epoch().await, app.events("person_disabled").await), (1, 1));
    assert_eq!(one(&user(&stack, &app.settings, &["enable", &id])), state(true, "active"));
    assert_eq!(one(&user(&stack, &app.settings, &["enable", &id])), state(false, "active"));
    assert_eq!((epoch().await, app.events("person_enabled").await), (1, 1));
    let whose = format!(
        "SELECT COUNT(*) FROM events WHERE kind IN ('person_disabled', 'person_enabled') AND person_id = {}
         AND CAST(data AS TEXT) LIKE '%\"via\"%cli%'",
        app.id(alice.id)
    );
    assert_eq!(app.number(&whose).await, 2);

    let children: Vec<_> = (0..4).map(|_| spawn(&mut command(&stack, &app.settings, &["disable", &id]))).collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let changed = outputs.iter().filter(|output| one(output)["changed"] == true).count();
    assert_eq!((changed, epoch().await, app.events("person_disabled").await), (1, 2, 2));
}

async fn disabling_holds_though_redis_is_away(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    // A port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = with(&app.settings, &[("REDIS_URL", &format!("redis://{nobody}/"))]);
    let output = user(&stack, &settings, &["disable", "alice"]);
    assert_eq!(one(&output)["changed"], true);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("warning: the records of the ended sessions could not be removed"), "{said}");
    assert_eq!(app.ephemeral.list(app.ambient.now(), alice.id).await.unwrap().len(), 1, "the record is there");
    alice.me().await.is_problem(401, "invalid_token");
    app.anonymous().refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    one(&user(&stack, &settings, &["enable", "alice"]));
    alice.me().await.is_problem(401, "invalid_token");
    app.anonymous().refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
}

// --- sessions --------------------------------------------------------------------

async fn sessions_are_listed_as_their_person_sees_them(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.pass(Duration::from_secs(60));
    let firefox = app.anonymous().with("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0");
    firefox.login(&alice.email, PASSWORD).await.is(200);
    app.person("bob").await;
    let mut seen = alice.client.bearer(&alice.access).get("/me/sessions").await.is(200).json()["sessions"].clone();
    for session in seen.as_array_mut().unwrap() {
        session.as_object_mut().unwrap().remove("current").unwrap();
    }
    let listed = said(&user(&stack, &app.settings, &["sessions", "alice"]));
    assert_eq!((json!(listed), listed.len()), (seen, 2));
    let (code, shown) = Terminal::start(&mut command(&stack, &app.settings, &["sessions", "alice"])).end();
    for text in [&alice.session.to_string(), "Firefox on Linux  127.0.0.1  2026-11-22 10:57 UTC", "SIGNED IN"] {
        assert!(code == Some(0) && shown.contains(text), "{shown}");
    }
    // What SQL knows to be over is, whatever the store of the sessions still has.
    app.sql(&format!(
        "INSERT INTO ended_sessions (session_id, user_id, \"until\") VALUES ({}, {}, {})",
        app.id(alice.session),
        app.id(alice.id),
        i64::MAX
    ))
    .await;
    assert_eq!(said(&user(&stack, &app.settings, &["sessions", "alice"])).len(), 1);
    app.sql("UPDATE users SET epoch = epoch + 1").await;
    assert_eq!(said(&user(&stack, &app.settings, &["sessions", "alice"])), [] as [Value; 0]);
}

async fn a_revoked_session_is_over_everywhere_within_a_second(stack: Stack) {
    let settings = stack.settings().await;
    let nodes = if stack.kind == StackKind::Embedded { 1 } else { 2 };
    let nodes: Vec<_> = (0..nodes).map(|_| Process::start(stack.dir.path(), &settings)).collect();
    let alice = nodes[0].client().register("alice").await;
    let elsewhere = alice.elsewhere().await;
    for node in &nodes {
        node.client().bearer(&elsewhere.access).get("/me").await.is(200);
    }
    let session = elsewhere.session.to_string();
    let done = one(&user(&stack, &settings, &["revoke", "alice", &session]));
    assert_eq!(done, json!({"id": alice.id, "session_id": elsewhere.session, "all": false}));
    let started = Instant::now();
    for node in &nodes {
        let refused = || async {
            let me = node.client().bearer(&elsewhere.access).get("/me").await.status;
            (me, node.client().refresh(&elsewhere.refresh).await.status) == (401, 401)
        };
        eventually("a revoked session is over", refused).await;
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    for node in &nodes {
        node.client().bearer(&alice.access).get("/me").await.is(200);
    }
    assert_eq!(one(&user(&stack, &settings, &["sessions", "alice"]))["id"], json!(alice.session));
}

async fn only_a_living_session_of_that_person_can_be_revoked(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let revoke = |session: Uuid| user(&stack, &app.settings, &["revoke", "alice", &session.to_string()]);
    for stranger in [bob.session, Uuid::nil(), alice.id] {
        let said = complaint(&revoke(stranger), 1);
        assert!(said.contains("no living session of this id"), "{said}");
    }
    assert!(bob.is_signed_in().await && alice.is_signed_in().await);
    let written = || async {
        let ends = app.number("SELECT COUNT(*) FROM ended_sessions").await;
        (ends, app.events("session_ended").await)
    };
    assert_eq!(written().await, (0, 0));
    one(&revoke(alice.session));
    app.pass(FELT);
    assert!(!alice.is_signed_in().await);
    assert!(app.ephemeral.list(app.ambient.now(), alice.id).await.unwrap().is_empty(), "the record is gone");
    complaint(&revoke(alice.session), 1);
    assert_eq!(written().await, (1, 1));
    let event = format!(
        "SELECT CAST(data AS TEXT) FROM events WHERE kind = 'session_ended' AND person_id = {} AND session_id = {}",
        app.id(alice.id),
        app.id(alice.session)
    );
    let data: Value = serde_json::from_str(&app.text(&event).await).unwrap();
    assert_eq!(data, json!({"cause": "operator", "via": "cli"}));
}

async fn revoking_all_ends_every_session_and_code(stack: Stack) {
    let app = stack.app().await;
    catch_up(&app);
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let elsewhere = alice.elsewhere().await;
    let reset = app.reset_code(&alice.email).await;
    let done = one(&user(&stack, &app.settings, &["revoke", "alice", "--all"]));
    assert_eq!(done, json!({"id": alice.id, "session_id": null, "all": true}));
    for person in [&alice, &elsewhere] {
        assert!(!person.is_signed_in().await);
        app.anonymous().refresh(&person.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    assert!(bob.is_signed_in().await);
    assert!(app.ephemeral.list(app.ambient.now(), alice.id).await.unwrap().is_empty(), "tidied");
    let body = reset.reset("a staple for the horse");
    app.anonymous().post("/password/reset", body).await.is_problem(400, "invalid_code");
    let data = app.text("SELECT CAST(data AS TEXT) FROM events WHERE kind = 'session_ended'").await;
    let data: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(data, json!({"all": "true", "cause": "operator", "via": "cli"}));
    let epoch = |person: Uuid| format!("SELECT epoch FROM users WHERE id = {}", app.id(person));
    assert_eq!((app.number(&epoch(alice.id)).await, app.number(&epoch(bob.id)).await), (1, 0));
    app.anonymous().login(&alice.email, PASSWORD).await.is(200);
}

async fn without_redis_all_can_be_revoked_and_one_cannot(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = with(&app.settings, &[("REDIS_URL", &format!("redis://{nobody}/"))]);
    complaint(&user(&stack, &settings, &["sessions", "alice"]), 1);
    let said = complaint(&user(&stack, &settings, &["revoke", "alice", &alice.session.to_string()]), 1);
    assert!(said.contains("--all needs the database alone"), "{said}");
    assert!(alice.is_signed_in().await);
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 0);
    let output = user(&stack, &settings, &["revoke", "alice", "--all"]);
    assert_eq!(one(&output)["all"], true, "what is logged stands elsewhere");
    assert!(String::from_utf8_lossy(&output.stderr).contains("stay until they expire"), "{output:?}");
    app.pass(FELT);
    assert!(!alice.is_signed_in().await);
}

// --- who, and where ---------------------------------------------------------------

async fn an_id_is_nobodys_name(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let body = json!({"email": "bob@example.com", "username": alice.id, "password": PASSWORD});
    app.anonymous().post("/register", body).await.is(201);
    let id = alice.id.to_string();
    assert_eq!(one(&user(&stack, &app.settings, &["disable", &id]))["id"], json!(alice.id));
    assert_eq!(one(&user(&stack, &app.settings, &["disable", &id.to_uppercase()]))["changed"], false, "the same one");
    // Not even when nobody has the id any more.
    app.sql("UPDATE users SET deleted_at = 1 WHERE username = 'alice'").await;
    for who in [&id, "alice", "alice@example.com", "nobody", "Nobody@example.com", "", "a b", "@", "admin"] {
        for act in [&["disable", who][..], &["enable", who], &["sessions", who], &["revoke", who, "--all"]] {
            let said = complaint(&user(&stack, &app.settings, act), 1);
            assert!(said.contains("latchkey user list --search"), "{said}");
        }
    }
    app.anonymous().login("bob@example.com", PASSWORD).await.is(200);
}

async fn a_command_makes_no_schema_and_no_keys(stack: Stack) {
    let settings = if stack.kind == StackKind::Embedded {
        let said = complaint(&user(&stack, &stack.settings().await, &["list"]), 1);
        assert!(said.contains("there is no database") && said.contains("latchkey migrate"), "{said}");
        assert!(!stack.dir.path().join("data").exists(), "a wrong folder is told, not filled");
        std::fs::create_dir(stack.dir.path().join("data")).unwrap();
        File::create(stack.dir.path().join("data/latchkey.db")).unwrap();
        stack.settings().await
    } else {
        let settings = stack.settings().await;
        let url = latchkey::secret::SecretText::new(stack.database_url().await);
        let db = latchkey::db::Db::open_postgres(&url, 1).await.unwrap();
        db.close().await;
        drop_schema(&stack).await;
        settings
    };
    for arguments in [
        &["list"][..],
        &["create", "--no-password", "--email", "alice@example.com"],
        &["disable", "alice"],
        &["enable", "alice"],
        &["sessions", "alice"],
        &["revoke", "alice", "--all"],
    ] {
        let said = complaint(&user(&stack, &settings, arguments), 1);
        assert!(said.contains("run `latchkey migrate`"), "{said}");
    }
    let migrated = Process::command(stack.dir.path(), &settings).arg("migrate").output().unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    assert_eq!(said(&user(&stack, &settings, &["list"])), [] as [Value; 0]);
    let made = one(&create(&stack, &settings, &["--email", "alice@example.com"]));
    one(&user(&stack, &settings, &["disable", "alice@example.com"]));
    assert_eq!(one(&user(&stack, &settings, &["list"]))["id"], made["id"]);
    assert!(!stack.dir.path().join("jwt").exists(), "no key is needed, and none is made");
}

/// Leaves the database of the stack as an empty one.
async fn drop_schema(stack: &Stack) {
    use sqlx::{Connection, Executor};
    let mut door = sqlx::PgConnection::connect(&stack.database_url().await).await.unwrap();
    door.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
}

async fn bad_usage_is_told_from_failure(stack: Stack) {
    let app = stack.app().await;
    for arguments in [
        &[][..],
        &["create"],
        &["create", "--email", "alice@example.com", "--password", PASSWORD],
        &["create", "--email", "alice@example.com", "--password-stdin", "--no-password"],
        &["list", "--after", "alice"],
        &["disable"],
        &["sessions"],
        &["revoke", "alice"],
        &["revoke", "alice", "one"],
        &["revoke", "alice", "01a203c5-3645-70ad-a9d1-0a46da625171", "--all"],
        &["disable", "alice", "bob"],
    ] {
        complaint(&user(&stack, &app.settings, arguments), 2);
    }
    let said = complaint(&user(&stack, &app.settings, &["create", "--email", "alice@example.com"]), 2);
    assert!(said.contains("--password-stdin") && said.contains("--no-password"), "{said}");
    assert_eq!(people(&app).await, 0);
    for arguments in
        [&["--help"][..], &["create", "--help"], &["list", "--help"], &["disable", "--help"], &["revoke", "--help"]]
    {
        let output = user(&stack, &app.settings, arguments);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    }
}
