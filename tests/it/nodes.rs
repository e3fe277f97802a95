//! Several nodes, many people, clocks that are wrong (`security.md` §3 and §7): nobody is shown what is another's however
//! many hang up, what one node did is felt on the other within the second, and neither nodes whose clocks are 90 s apart
//! nor a clock that is set by an hour let anybody in, put anybody out or hold anything up.
//!
//! What one process does runs over sockets with its own clock; what is about clocks runs in this process, under clocks
//! that are set by hand.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{body::Body, http::Method};
use latchkey::mail::outbox;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    on_stacks,
    process::Dice,
    smtp::mailing,
    support::{
        Client, Coded, Mood, PASSWORD, Person, Process, Reply, Sink, Stack, StackKind, Test, TestApp, json_body, scale,
    },
};

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL;
        nobody_is_shown_what_is_anothers_however_many_hang_up,
        a_clock_that_is_set_by_an_hour_ends_no_session,
        a_clock_that_is_set_back_lets_nobody_in,
        a_clock_that_is_set_back_lengthens_no_wait,
        a_clock_that_is_set_back_holds_up_no_mail,
        a_clock_that_is_set_back_holds_up_no_notice,
        a_clock_that_is_set_back_holds_up_no_code,
    ];
    tests.extend(on_stacks![&StackKind::SHARED;
        sessions_go_on_between_nodes_whose_clocks_are_apart,
        what_ended_is_over_on_nodes_whose_clocks_are_apart,
        codes_work_between_nodes_whose_clocks_are_apart,
        waits_hold_between_nodes_whose_clocks_are_apart,
        keys_are_rotated_between_nodes_whose_clocks_are_apart,
    ]);
    tests
}

/// Within which another node feels an act, by the contract.
const FELT: Duration = Duration::from_secs(1);

// --- many people, many who hang up -----------------------------------------------------------------------------------

/// A session, and what was done to it or to its person.
struct Known {
    person: usize,
    id: String,
    email: String,
    session: String,
    /// This and the other session of the person.
    both: Arc<Vec<String>>,
    access: String,
    refresh: String,
    /// For each node, from when on the session must be dead there; since when it may be.
    dead: [Option<Instant>; 2],
    dying: bool,
    /// While it ends the others it is none of the living for a moment, between its person's new epoch and its own.
    sparing: bool,
    spared: Option<Instant>,
    /// For each name that was given: when every node must know it. Its number is its place in the list.
    names: Vec<[Option<Instant>; 2]>,
}

type People = Arc<Vec<Mutex<Known>>>;

/// A connection that is kept as long as it goes, as a proxy keeps one for whoever comes.
struct Wire {
    address: SocketAddr,
    stream: Option<TcpStream>,
    read: Vec<u8>,
}

impl Wire {
    fn to(address: SocketAddr) -> Self {
        Self { address, stream: None, read: Vec::new() }
    }

    async fn stream(&mut self) -> &mut TcpStream {
        if self.stream.is_none() {
            self.read.clear();
            self.stream = Some(TcpStream::connect(self.address).await.expect("the server accepts"));
        }
        self.stream.as_mut().unwrap()
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream().await.write_all(bytes).await.expect("the server reads");
    }

    /// Hangs up; without a farewell, so that no port is kept for it.
    fn hang_up(&mut self) {
        if let Some(stream) = self.stream.take() {
            let _ = stream.set_zero_linger();
        }
    }

    /// The next answer on this connection.
    async fn answer(&mut self) -> (u16, Value) {
        let Self { stream: Some(stream), read, .. } = self else { panic!("something was asked") };
        loop {
            let head = read.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
            if let Some(head) = head {
                let text = String::from_utf8(read[..head].to_vec()).unwrap().to_ascii_lowercase();
                let status = text.split(' ').nth(1).unwrap().parse().unwrap();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let end = head + length.parse::<usize>().unwrap();
                if read.len() >= end {
                    let body = serde_json::from_slice(&read[head..end]).unwrap();
                    read.drain(..end);
                    return (status, body);
                }
            }
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(length > 0, "the server hung up amid an answer");
            read.extend(&buffer[..length]);
        }
    }
}

fn request(path: &str, access: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {access}\r\n\r\n").into_bytes()
}

/// Judges an answer to a question that was asked on `node` at `asked`.
fn judge(known: &Known, node: usize, asked: Instant, path: &str, status: u16, body: &Value) {
    let who = format!("{} on node {node}, {path}: {status} {body}", known.email);
    if known.dead[node].is_some_and(|from| asked >= from) {
        assert_eq!(status, 401, "let in after the end was felt: {who}");
    }
    let is_going = known.dying || (known.sparing && known.spared.is_none_or(|done| asked < done));
    if status == 401 {
        assert!(is_going, "put out: {who}");
        return;
    }
    assert_eq!(status, 200, "{who}");
    if path == "/me" {
        assert_eq!((body["id"].as_str(), body["email"].as_str()), (Some(&*known.id), Some(&*known.email)), "{who}");
        let must = known.names.iter().rposition(|felt| felt[node].is_some_and(|from| asked >= from));
        let name = body["display_name"].as_str().unwrap();
        let (whose, number) = name.rsplit_once(' ').unwrap();
        assert_eq!(whose, format!("Person {}", known.person), "{who}");
        let number: usize = number.parse().unwrap();
        assert!(number >= must.unwrap() && number < known.names.len(), "not before {must:?}: {who}");
    } else {
        let sessions = body["sessions"].as_array().unwrap();
        let current: Vec<_> = sessions.iter().filter(|session| session["current"] == true).collect();
        // Who is let in and ended then is not in the list.
        assert!(current.len() == 1 || (current.is_empty() && is_going), "{who}");
        assert!(current.iter().all(|session| session["id"] == known.session), "{who}");
        let own = |session: &&Value| known.both.iter().any(|own| session["id"] == **own);
        assert!(sessions.iter().all(|session| own(&session)), "{who}");
    }
}

/// What came of the questions of one connection.
#[derive(Default)]
struct Asked {
    answered: AtomicUsize,
    dropped: AtomicUsize,
}

/// Asks for whoever comes on one connection to each node, and hangs up three times in ten, until enough was asked and
/// every act was done.
async fn ask(
    people: People,
    nodes: Vec<SocketAddr>,
    seed: u64,
    least: usize,
    acting: Arc<AtomicBool>,
    asked: Arc<Asked>,
) {
    let mut dice = Dice::new(seed);
    let mut wires: Vec<_> = nodes.iter().map(|address| Wire::to(*address)).collect();
    let mut number = 0;
    while number < least || acting.load(Ordering::SeqCst) {
        let node = dice.below(wires.len());
        // Several at once on one connection, the answers in their order.
        let crowd = if dice.below(8) == 0 { 4 } else { 1 };
        let mut bytes = Vec::new();
        let mut questions = Vec::new();
        for _ in 0..crowd {
            let who = dice.below(people.len());
            let path = if dice.below(16) == 0 { "/me/sessions" } else { "/me" };
            bytes.extend(request(path, &people[who].lock().unwrap().access));
            questions.push((who, path));
        }
        number += crowd;
        let wire = &mut wires[node];
        let at = Instant::now();
        if dice.below(10) < 3 {
            if dice.below(2) == 0 {
                bytes.truncate(dice.below(bytes.len()));
            }
            wire.write(&bytes).await;
            tokio::time::sleep(Duration::from_micros(dice.below(4000) as u64)).await;
            wire.hang_up();
            asked.dropped.fetch_add(crowd, Ordering::SeqCst);
            continue;
        }
        wire.write(&bytes).await;
        for (who, path) in questions {
            let (status, body) = wire.answer().await;
            judge(&people[who].lock().unwrap(), node, at, path, status, &body);
            asked.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn typed(client: &Client, access: &str) -> Client {
    client.bearer(access).with("content-type", "application/json")
}

/// Runs SQL beside the server.
async fn sql(stack: &Stack, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    if stack.kind == StackKind::Embedded {
        let url = format!("sqlite://{}/data/latchkey.db", stack.dir.path().display());
        SqliteConnection::connect(&url).await.unwrap().execute(sql).await.unwrap();
    } else {
        PgConnection::connect(&stack.database_url().await).await.unwrap().execute(sql).await.unwrap();
    }
}

/// From when on `node` feels what was done at `done` on node `on`.
fn felt(node: usize, on: Option<usize>, done: Instant) -> Option<Instant> {
    Some(if on == Some(node) { done } else { done + FELT })
}

/// Every living session of a person, and the dead ones: people have two places each.
fn places(person: usize) -> [usize; 2] {
    [2 * person, 2 * person + 1]
}

/// Changes names, signs out, ends other sessions and disables people while they are asked for.
async fn act(people: People, nodes: Vec<SocketAddr>, stack: &Stack) {
    let mut dice = Dice::new(7);
    let count = people.len() / 2;
    for person in 0..count {
        let on = dice.below(nodes.len());
        let client = Client::at(nodes[on]);
        let [first, second] = places(person);
        let (access, refresh, session) = {
            let known = people[first].lock().unwrap();
            (known.access.clone(), known.refresh.clone(), people[second].lock().unwrap().session.clone())
        };
        let dying = |places: &[usize]| places.iter().for_each(|place| people[*place].lock().unwrap().dying = true);
        let mut dead = (Vec::new(), Some(on));
        match person % 5 {
            0 | 1 => {
                let number = people[first].lock().unwrap().names.len();
                for place in places(person) {
                    people[place].lock().unwrap().names.push([None; 2]);
                }
                let body = json_body(&json!({"display_name": format!("Person {person} {number}")}));
                typed(&client, &access).send(Method::PATCH, "/me", body).await.is(200);
                let done = Instant::now();
                for place in places(person) {
                    let name = &mut people[place].lock().unwrap().names[number];
                    *name = [felt(0, Some(on), done), felt(1, Some(on), done)];
                }
            }
            2 => {
                dying(&[first]);
                client.post("/logout", json!({"refresh_token": refresh})).await.is(204);
                dead.0 = vec![first];
            }
            3 => {
                dying(&[second]);
                people[first].lock().unwrap().sparing = true;
                let path = if person % 2 == 0 { "/me/sessions".to_owned() } else { format!("/me/sessions/{session}") };
                client.bearer(&access).send(Method::DELETE, &path, Body::empty()).await.is(204);
                people[first].lock().unwrap().spared = Some(Instant::now());
                dead.0 = vec![second];
            }
            _ => {
                dying(&places(person));
                let email = people[first].lock().unwrap().email.clone();
                sql(stack, &format!("UPDATE users SET status = 'disabled' WHERE email = '{email}'")).await;
                dead = (places(person).to_vec(), None);
            }
        }
        let done = Instant::now();
        for place in dead.0 {
            people[place].lock().unwrap().dead = [felt(0, dead.1, done), felt(1, dead.1, done)];
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // So that what the last of them did is asked for when everybody must feel it.
    tokio::time::sleep(FELT + Duration::from_millis(500)).await;
}

/// A registered person in two sessions.
async fn sign_up(client: &Client, person: usize) -> [Known; 2] {
    let email = format!("person{person}@example.com");
    let body = json!({"email": email, "password": PASSWORD, "display_name": format!("Person {person} 0")});
    let id = client.post("/register", body).await.is(201).text("/user/id");
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let reply = client.login(&email, PASSWORD).await.is(200);
        sessions.push(Known {
            person,
            id: id.clone(),
            email: email.clone(),
            session: reply.text("/session_id"),
            both: Arc::default(),
            access: reply.text("/access_token"),
            refresh: reply.text("/refresh_token"),
            dead: [None; 2],
            dying: false,
            sparing: false,
            spared: None,
            names: vec![[Some(Instant::now()); 2]],
        });
    }
    let both: Arc<Vec<_>> = Arc::new(sessions.iter().map(|known| known.session.clone()).collect());
    sessions.iter_mut().for_each(|known| known.both = Arc::clone(&both));
    sessions.try_into().ok().unwrap()
}

async fn nobody_is_shown_what_is_anothers_however_many_hang_up(stack: Stack) {
    const CONNECTIONS: usize = 16;
    let mut settings = stack.settings().await;
    // A soak takes longer than a token lives.
    settings.push(("LATCHKEY_ACCESS_TTL".to_owned(), "1h".to_owned()));
    let count = if stack.kind == StackKind::Embedded { 1 } else { 2 };
    let processes: Vec<_> = (0..count).map(|_| Process::start(stack.dir.path(), &settings)).collect();
    let nodes: Vec<_> = processes.iter().map(|process| process.address).collect();

    let (crowd, questions) = scale::crowd();
    let mut people = Vec::new();
    for person in 0..crowd {
        people.extend(sign_up(&processes[person % count].client(), person).await.map(Mutex::new));
    }
    let people: People = Arc::new(people);
    let (acting, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(Asked::default()));
    let mut asking = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (people, nodes) = (Arc::clone(&people), nodes.clone());
        let (acting, asked) = (Arc::clone(&acting), Arc::clone(&asked));
        asking.spawn(ask(people, nodes, number as u64, crowd * questions / CONNECTIONS, acting, asked));
    }
    act(Arc::clone(&people), nodes, &stack).await;
    acting.store(false, Ordering::SeqCst);
    while let Some(outcome) = asking.join_next().await {
        outcome.unwrap();
    }
    let (answered, dropped) = (asked.answered.load(Ordering::SeqCst), asked.dropped.load(Ordering::SeqCst));
    assert!(answered + dropped >= crowd * questions, "{answered} {dropped}");
    assert!(dropped * 5 > answered, "three in ten hung up: {answered} {dropped}");
    for process in processes {
        let client = process.client();
        client.login("person0@example.com", PASSWORD).await.is(200);
    }
}

// --- clocks ----------------------------------------------------------------------------------------------------------

const APART: Duration = Duration::from_secs(90);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000;

/// Two nodes, of which the second is ahead.
async fn apart(stack: &Stack, settings: &[(&str, &str)]) -> [TestApp; 2] {
    let nodes = [stack.app_with(settings).await, stack.app_with(settings).await];
    nodes[1].set_clock(i64::try_from(APART.as_millis()).unwrap());
    nodes
}

/// Lets time pass on all of them.
fn pass(nodes: &[TestApp], time: Duration) {
    nodes.iter().for_each(|node| node.pass(time));
}

/// `person`, talking to this node.
fn at(person: &Person, node: &TestApp) -> Person {
    Person { client: node.anonymous(), ..person.clone() }
}

/// Nothing looked like theft or like lost writes.
async fn nobody_was_alarmed(app: &TestApp) {
    assert_eq!((app.events("session_ended").await, app.events("session_healed").await), (0, 0));
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE kind = 'session_stolen'").await, 0);
}

async fn sessions_go_on_between_nodes_whose_clocks_are_apart(stack: Stack) {
    let nodes = apart(&stack, &[]).await;
    let [behind, ahead] = &nodes;
    // Signed in where it is earlier: used where it is later, until the token is over there.
    let mut alice = behind.person("alice").await;
    at(&alice, ahead).me().await.is(200);
    // Signed in where it is later: the other node does not take a token from the future, which a client mends by itself.
    let mut bob = ahead.person("bob").await;
    at(&bob, behind).me().await.is_problem(401, "invalid_token");
    bob.take(&behind.anonymous().refresh(&bob.refresh).await.is(200));
    for node in &nodes {
        at(&bob, node).me().await.is(200);
    }
    // Back and forth, as a client does that is sent now here and now there.
    for round in 0..12 {
        pass(&nodes, Duration::from_secs(20));
        let node = &nodes[(round / 2) % 2];
        for person in [&mut alice, &mut bob] {
            let before = person.refresh.clone();
            person.take(&node.anonymous().refresh(&before).await.is(200));
            at(person, node).me().await.is(200);
            // An answer that was lost, asked for once more on the node that gave it.
            assert_eq!(node.anonymous().refresh(&before).await.is(200).text("/refresh_token"), person.refresh);
        }
    }
    // An answer of the node that is ahead, asked for once more on the other.
    let before = alice.refresh.clone();
    alice.take(&ahead.anonymous().refresh(&before).await.is(200));
    assert_eq!(behind.anonymous().refresh(&before).await.is(200).text("/refresh_token"), alice.refresh);
    alice.take(&behind.anonymous().refresh(&alice.refresh).await.is(200));
    for node in &nodes {
        let sessions = node.anonymous().bearer(&alice.access).get("/me/sessions").await.is(200).json();
        assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
    }
    nobody_was_alarmed(behind).await;
    // What a token may be used for ends on each node by its own clock, never later than by the one it came from.
    pass(&nodes, Duration::from_secs(305));
    for node in &nodes {
        at(&alice, node).me().await.is_problem(401, "invalid_token");
    }
}

async fn what_ended_is_over_on_nodes_whose_clocks_are_apart(stack: Stack) {
    let nodes = apart(&stack, &[]).await;
    for (here, there) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let name = if std::ptr::eq(here, &nodes[0]) { "alice" } else { "bob" };
        // Good on both, so that only the end can be why it is refused.
        let register = nodes[0].person(name).await;
        for end in ["logout", "one", "others", "everywhere", "password", "stolen"] {
            let (mut gone, stays) = (register.elsewhere().await, register.elsewhere().await);
            let bearer = here.anonymous().bearer(&stays.access);
            for node in &nodes {
                at(&gone, node).me().await.is(200);
            }
            match end {
                "logout" => here.anonymous().post("/logout", json!({"refresh_token": gone.refresh})).await.is(204),
                "one" => {
                    bearer.send(Method::DELETE, &format!("/me/sessions/{}", gone.session), Body::empty()).await.is(204)
                }
                "others" => bearer.send(Method::DELETE, "/me/sessions", Body::empty()).await.is(204),
                "everywhere" => bearer.post("/logout", json!({"all": true})).await.is(204),
                "password" => {
                    let body = json_body(&json!({"current_password": PASSWORD, "new_password": PASSWORD}));
                    let reply = typed(&here.anonymous(), &stays.access).send(Method::PUT, "/me/password", body).await;
                    reply.is(204)
                }
                _ => {
                    let first = gone.refresh.clone();
                    for _ in 0..2 {
                        gone.take(&nodes[0].anonymous().refresh(&gone.refresh).await.is(200));
                    }
                    here.anonymous().refresh(&first).await.is_problem(401, "refresh_token_reused")
                }
            };
            pass(&nodes, Duration::from_millis(500));
            for node in [here, there] {
                at(&gone, node).me().await.is_problem(401, "invalid_token");
                node.anonymous().refresh(&gone.refresh).await.is_problem(401, "invalid_refresh_token");
                let status = if end == "everywhere" { 401 } else { 200 };
                at(&stays, node).me().await.is(status);
            }
            // Nor does it come back when the node that is behind is where the other one was.
            pass(&nodes, APART);
            for node in &nodes {
                at(&gone, node).me().await.is_problem(401, "invalid_token");
            }
        }
    }
}

async fn codes_work_between_nodes_whose_clocks_are_apart(stack: Stack) {
    let nodes = apart(&stack, &[]).await;
    for (number, (here, there)) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])].into_iter().enumerate() {
        let person = here.person(&format!("person{number}")).await;
        let coded = here.reset_code(&person.email).await;
        there.anonymous().post("/password/reset", coded.reset("a staple for the horse")).await.is(204);
        here.anonymous()
            .post("/password/reset", coded.reset("a staple for the horse"))
            .await
            .is_problem(400, "invalid_code");
        let reply = there.anonymous().login(&person.email, "a staple for the horse").await.is(200);
        // Ten minutes, and no longer than the clocks are apart.
        here.pass(MINUTE);
        there.pass(MINUTE);
        let late = here.reset_code(&person.email).await;
        pass(&nodes, 10 * MINUTE + APART);
        for node in &nodes {
            node.anonymous()
                .post("/password/reset", late.reset("too late for it"))
                .await
                .is_problem(400, "invalid_code");
        }
        drop(reply);
    }
    // One mail each, whichever node was asked.
    here_and_there_one_mail_each(&nodes).await;
}

/// Both nodes work at one outbox: every mail goes once.
async fn here_and_there_one_mail_each(nodes: &[TestApp; 2]) {
    for (number, node) in nodes.iter().enumerate() {
        let email = format!("mail{number}@example.com");
        node.anonymous().post("/register", json!({"email": email, "password": PASSWORD})).await.is(201);
    }
    for _ in 0..5 {
        for node in nodes {
            node.deliver().await;
        }
        pass(nodes, MINUTE);
    }
    for number in 0..nodes.len() {
        assert_eq!(nodes[0].mails_to("verify_address", &format!("mail{number}@example.com")).len(), 1);
    }
}

/// The wait that an answer tells.
fn wait(reply: &Reply) -> Duration {
    Duration::from_secs(reply.header("retry-after").parse().unwrap())
}

async fn fail(node: &TestApp, email: &str, times: usize) {
    for _ in 0..times {
        node.anonymous().login(email, "not the password").await.is_problem(401, "invalid_credentials");
    }
}

async fn waits_hold_between_nodes_whose_clocks_are_apart(stack: Stack) {
    let nodes = apart(&stack, &[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let [behind, ahead] = &nodes;
    let (alice, bob) = (behind.person("alice").await, behind.person("bob").await);
    // Counted together: what failed on one is not forgiven on the other.
    fail(ahead, &alice.email, 3).await;
    fail(behind, &alice.email, 2).await;
    behind.anonymous().login(&alice.email, PASSWORD).await.is_problem(429, "too_many_attempts");
    // A wait that began where it is later is longer where it is earlier, by no more than the clocks are apart.
    fail(ahead, &bob.email, 5).await;
    for (node, most) in [(ahead, Duration::from_secs(1)), (behind, APART + Duration::from_secs(1))] {
        let reply = node.anonymous().login(&bob.email, PASSWORD).await.is_problem(429, "too_many_attempts");
        assert!(wait(&reply) <= most, "{:?}", wait(&reply));
    }
    pass(&nodes, APART + Duration::from_secs(1));
    for person in [&alice, &bob] {
        behind.anonymous().login(&person.email, PASSWORD).await.is(200);
    }
}

async fn keys_are_rotated_between_nodes_whose_clocks_are_apart(stack: Stack) {
    let nodes = apart(&stack, &[]).await;
    for rotating in &nodes {
        let name = if std::ptr::eq(rotating, &nodes[0]) { "alice" } else { "bob" };
        let alice = nodes[0].person(name).await;
        crate::rotation::rotate(rotating, &stack).await.unwrap();
        for node in &nodes {
            node.keys.reload(&node.db).await.unwrap();
            // Signed by the key that stepped down: good for as long as it lives.
            at(&alice, node).me().await.is(200);
        }
        pass(&nodes, Duration::from_secs(300 + 4) - APART);
        for node in &nodes {
            at(&alice, node).me().await.is(200);
        }
        pass(&nodes, APART + Duration::from_secs(1));
        for node in &nodes {
            at(&alice, node).me().await.is_problem(401, "invalid_token");
        }
        // And the key is over, on both.
        pass(&nodes, Duration::from_secs(80) + APART);
        for node in &nodes {
            let keys = node.anonymous().get("/.well-known/jwks.json").await.is(200).json();
            assert_eq!(keys["keys"].as_array().unwrap().len(), 2, "{keys}");
        }
    }
}

async fn a_clock_that_is_set_by_an_hour_ends_no_session(stack: Stack) {
    for by in [HOUR, -HOUR] {
        let app = stack.app().await;
        let name = if by > 0 { "alice" } else { "bob" };
        let mut alice = app.person(name).await;
        let elsewhere = alice.elsewhere().await;
        let client = app.anonymous();
        let before = alice.access.clone();

        app.set_clock(by);
        // An access token is too old or too new then; refreshing mends it.
        app.pass(Duration::from_millis(500));
        alice.me().await.is_problem(401, "invalid_token");
        let first = alice.refresh.clone();
        alice.take(&client.refresh(&first).await.is(200));
        assert_eq!(client.refresh(&first).await.is(200).text("/refresh_token"), alice.refresh, "a lost answer");
        alice.me().await.is(200);
        let during = app.person(&format!("{name}-during")).await;

        app.set_clock(-by);
        app.pass(Duration::from_millis(500));
        client.bearer(&before).get("/me").await.is(200);
        alice.me().await.is_problem(401, "invalid_token");
        for mut person in [alice, elsewhere, during] {
            person.take(&client.refresh(&person.refresh).await.is(200));
            let second = person.refresh.clone();
            person.take(&client.refresh(&second).await.is(200));
            assert_eq!(client.refresh(&second).await.is(200).text("/refresh_token"), person.refresh, "a lost answer");
            person.me().await.is(200);
            let sessions = client.bearer(&person.access).get("/me/sessions").await.is(200).json();
            assert!(!sessions["sessions"].as_array().unwrap().is_empty());
        }
        nobody_was_alarmed(&app).await;
        drop(app);
    }
}

async fn a_clock_that_is_set_back_lets_nobody_in(stack: Stack) {
    let app = stack.app().await;
    app.set_clock(HOUR);
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let leaving = alice.elsewhere().await;
    app.anonymous().post("/logout", json!({"refresh_token": leaving.refresh})).await.is(204);
    for person in [&alice, &bob] {
        person.me().await.is(200);
    }
    // What is kept of a session is as old as it is, whatever the clock says: the token is good again an hour later.
    app.set_clock(-HOUR);
    let mut bob = bob;
    bob.take(&app.anonymous().refresh(&bob.refresh).await.is(200));
    bob.me().await.is(200);
    app.set_clock(-5000);
    bob.me().await.is(200);
    app.sql("UPDATE users SET status = 'disabled' WHERE username = 'bob'").await;
    bob.me().await.is_problem(401, "invalid_token");
    // What ended stays so at every time.
    for by in [0, HOUR, 10 * MINUTE.as_millis() as i64] {
        app.set_clock(by);
        leaving.me().await.is_problem(401, "invalid_token");
        app.anonymous().refresh(&leaving.refresh).await.is_problem(401, "invalid_refresh_token");
        app.anonymous().refresh(&bob.refresh).await.is_problem(401, "invalid_refresh_token");
    }
}

async fn a_clock_that_is_set_back_lengthens_no_wait(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let mut alice = app.person("alice").await;
    app.set_clock(HOUR);
    fail(&app, &alice.email, 5).await;
    for _ in 0..30 {
        alice.take(&app.anonymous().refresh(&alice.refresh).await.is(200));
    }
    app.anonymous().refresh(&alice.refresh).await.is_problem(429, "too_many_attempts");
    app.set_clock(-HOUR);
    // No wait is longer than a minute, whoever asks.
    for _ in 0..2 {
        let reply = app.anonymous().login(&alice.email, PASSWORD).await;
        assert!(reply.status == 200 || wait(&reply) <= MINUTE, "{:?}", wait(&reply));
        let reply = app.anonymous().refresh(&alice.refresh).await;
        assert!(reply.status == 200 || wait(&reply) <= MINUTE, "{:?}", wait(&reply));
        if reply.status == 200 {
            alice.take(&reply);
        }
        app.pass(MINUTE);
    }
    app.anonymous().login(&alice.email, PASSWORD).await.is(200);
    alice.take(&app.anonymous().refresh(&alice.refresh).await.is(200));
}

async fn a_clock_that_is_set_back_holds_up_no_mail(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    app.set_clock(HOUR);
    // One that was refused, one that a worker has who dies, one that nobody looked at.
    sink.set(Mood::Temporary);
    crate::smtp::register(&app, ["refused".to_owned()]).await;
    app.deliver().await;
    crate::smtp::register(&app, ["claimed".to_owned()]).await;
    let claimed = outbox::claim(&app.db, app.ambient.now(), app.ambient.uuid(), 1).await.unwrap();
    assert_eq!(claimed.len(), 1);
    crate::smtp::register(&app, ["posted".to_owned()]).await;
    sink.set(Mood::Accept);
    app.set_clock(-HOUR);
    for _ in 0..6 {
        app.deliver().await;
        app.pass(Duration::from_secs(10));
    }
    app.deliver().await;
    let mut to: Vec<_> = sink.mails().iter().flat_map(|mail| mail.to.clone()).collect();
    to.sort();
    assert_eq!(to, ["claimed@example.com", "posted@example.com", "refused@example.com"]);
}

async fn a_clock_that_is_set_back_holds_up_no_notice(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let change = async |alice: &Person| {
        let body = json_body(&json!({"current_password": PASSWORD, "new_password": PASSWORD}));
        typed(&app.anonymous(), &alice.access).send(Method::PUT, "/me/password", body).await.is(204);
        app.deliver().await;
    };
    app.set_clock(HOUR);
    alice.sign_in().await;
    change(&alice).await;
    assert_eq!(app.mails_to("password_changed", &alice.email).len(), 1);
    app.set_clock(-HOUR);
    alice.sign_in().await;
    change(&alice).await;
    app.pass(10 * MINUTE);
    app.deliver().await;
    assert_eq!(app.mails_to("password_changed", &alice.email).len(), 2);
}

async fn a_clock_that_is_set_back_holds_up_no_code(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.set_clock(HOUR);
    let early = app.reset_code(&alice.email).await;
    app.set_clock(-HOUR);
    // The one that came works, and after the minute between two mails another one comes.
    app.pass(MINUTE);
    let flow = app.anonymous().post("/password/forgot", json!({"email": alice.email})).await.is(202).text("/flow_id");
    app.deliver().await;
    let mut codes = app.mails_to("reset_password", &alice.email).into_iter().filter_map(|mail| mail.code());
    let coded = Coded { flow, code: codes.rfind(|code| *code != early.code).expect("another code") };
    app.anonymous().post("/password/reset", early.wrong(0).reset(PASSWORD)).await.is_problem(400, "invalid_code");
    app.anonymous().post("/password/reset", coded.reset("a staple for the horse")).await.is(204);
    app.anonymous().login(&alice.email, "a staple for the horse").await.is(200);
}
