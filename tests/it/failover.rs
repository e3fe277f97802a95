//! Masters that die, by `kill -9`, or fall silent, by SIGSTOP, on real servers: what people see meanwhile and what is true afterwards (`security.md`
//! §7). Each test has servers of its own.

use std::time::Duration;

use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    on_stacks,
    support::{
        Client, PASSWORD, Person, Stack, StackKind, Test, TestApp, eventually,
        redis::{RedisCluster, RedisServer, SentinelSet},
    },
};

/// Within which a request is answered, with or without Redis: 500 ms, and room for a busy machine.
const IN_TIME: Duration = Duration::from_millis(1500);
/// From the new master on.
const RECOVERY: Duration = Duration::from_secs(5);

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&[StackKind::Sentinel];
        people_go_on_after_a_fail_over_by_sentinels,
        people_go_on_when_sentinels_replace_a_silent_master,
        what_was_told_holds_after_a_fail_over_by_sentinels_that_lost_writes,
    ];
    tests.extend(on_stacks![&[StackKind::Cluster];
        people_go_on_after_a_fail_over_in_a_cluster,
        people_go_on_when_a_cluster_replaces_a_silent_master,
        what_was_told_holds_after_a_fail_over_in_a_cluster_that_lost_writes,
    ]);
    tests
}

/// Servers of which one master will die.
enum Servers {
    Watched(SentinelSet),
    Cluster(RedisCluster),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Self::Watched(set) => set.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    fn master(&self) -> &RedisServer {
        match self {
            Self::Watched(set) => &set.servers[0],
            Self::Cluster(cluster) => &cluster.nodes[0],
        }
    }

    fn replica(&self) -> &RedisServer {
        match self {
            Self::Watched(set) => &set.servers[1],
            Self::Cluster(cluster) => &cluster.nodes[3],
        }
    }

    /// Whether that master has the person's sessions.
    async fn concerns(&self, stack: &Stack, person: &Person) -> bool {
        match self {
            Self::Watched(_) => true,
            Self::Cluster(cluster) => cluster.owner(&key(stack, person)).await == 0,
        }
    }

    /// A person of whom that is so, or not so.
    async fn person(&self, stack: &Stack, app: &TestApp, name: &str, concerned: bool) -> Person {
        for number in 0..100 {
            let person = app.person(&format!("{name}{number}")).await;
            if self.concerns(stack, &person).await == concerned {
                return person;
            }
        }
        panic!("the dice are loaded");
    }

    /// Waits until the replica has everything.
    async fn replicated(&self) {
        let offsets = || async {
            let master = self.master().info("master_repl_offset").await;
            self.replica().info("slave_repl_offset").await == master
        };
        eventually("everything is replicated", offsets).await;
    }

    /// From now on the replica hears nothing more, and does not know why.
    async fn deafen(&self) {
        let () = self.replica().run_command("CONFIG SET masterauth wrong").await;
        let _: i64 = self.master().run_command("CLIENT KILL TYPE replica").await;
        eventually("the replica hears nothing", || async { self.replica().info("master_link_status").await == "down" })
            .await;
    }

    /// Ends the master, and tells when the replica stands in its place.
    async fn fail_over(&self, by: End) -> Instant {
        match by {
            End::Kill => self.master().kill(),
            End::Silence => self.master().freeze(),
        }
        let started = Instant::now();
        while !self.replica().is_master().await {
            assert!(started.elapsed() < Duration::from_secs(30), "nobody replaced the master");
            sleep(Duration::from_millis(20)).await;
        }
        Instant::now()
    }
}

/// How a master ends.
#[derive(Clone, Copy)]
enum End {
    /// Its sockets say so.
    Kill,
    /// Nothing says so, and new connections are taken by the kernel.
    Silence,
}

fn key(stack: &Stack, person: &Person) -> String {
    format!("{}:{{{}}}:s", stack.redis_prefix(), person.id)
}

async fn people_go_on_after_a_fail_over_by_sentinels(stack: Stack) {
    let servers = Servers::Watched(SentinelSet::quick().await);
    let app = people_go_on(&stack, &servers, End::Kill).await;
    // The old master comes back, and is a replica like any other.
    let Servers::Watched(mut set) = servers else { unreachable!() };
    let alice = app.person("alice").await;
    set.servers[0].restart().await;
    let started = Instant::now();
    while set.servers[0].is_master().await {
        assert!(started.elapsed() < Duration::from_secs(30), "the old master is not told");
        alice.me().await.is(200);
        sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..20 {
        alice.me().await.is(200);
        sleep(Duration::from_millis(100)).await;
    }
}

async fn people_go_on_after_a_fail_over_in_a_cluster(stack: Stack) {
    people_go_on(&stack, &Servers::Cluster(RedisCluster::with_replicas().await), End::Kill).await;
}

async fn people_go_on_when_sentinels_replace_a_silent_master(stack: Stack) {
    people_go_on(&stack, &Servers::Watched(SentinelSet::quick().await), End::Silence).await;
}

async fn people_go_on_when_a_cluster_replaces_a_silent_master(stack: Stack) {
    people_go_on(&stack, &Servers::Cluster(RedisCluster::with_replicas().await), End::Silence).await;
}

/// One answer of the crowd.
struct Seen {
    what: &'static str,
    concerned: bool,
    sent: Instant,
    took: Duration,
    status: u16,
}

/// A crowd refreshes, asks and signs in while the master dies.
async fn people_go_on(stack: &Stack, servers: &Servers, end: End) -> TestApp {
    // More than the crowd will open: at the cap it would end its own.
    let app = stack.app_with(&[("REDIS_URL", &servers.url()), ("LATCHKEY_MAX_SESSIONS", "1000")]).await;
    let mut people = Vec::new();
    for number in 0..3 {
        people.push((servers.person(stack, &app, &format!("concerned{number}-"), true).await, true));
    }
    if matches!(servers, Servers::Cluster(_)) {
        for number in 0..3 {
            people.push((servers.person(stack, &app, &format!("other{number}-"), false).await, false));
        }
    }
    servers.replicated().await;

    let (stop, stopped) = watch::channel(false);
    let mut crowd = JoinSet::new();
    for (person, concerned) in people {
        crowd.spawn(go_on(app.anonymous(), person, concerned, stopped.clone()));
    }
    sleep(Duration::from_millis(300)).await;
    let stands = servers.fail_over(end).await;
    sleep(RECOVERY + Duration::from_secs(1)).await;
    stop.send_replace(true);
    let (mut seen, mut people) = (Vec::new(), Vec::new());
    while let Some(outcome) = crowd.join_next().await {
        let (answers, person) = outcome.unwrap();
        seen.extend(answers);
        people.push(person);
    }

    for Seen { what, concerned, sent, took, status } in &seen {
        let after = i128::try_from(sent.saturating_duration_since(stands).as_millis()).unwrap();
        let line = format!("{what}, concerned: {concerned}, {after} ms after the new master: {status} in {took:?}");
        assert!(matches!(status, 200 | 503), "{line}");
        assert!(*took < IN_TIME, "{line}");
        assert!(*status == 200 || *sent < stands + RECOVERY, "{line}");
        // Whose sessions lie elsewhere notices nothing.
        assert!(*status == 200 || *concerned, "{line}");
    }
    let refused = seen.iter().filter(|seen| seen.status == 503).count();
    assert!(refused > 0, "the master was in use");
    let slowest = seen.iter().filter(|seen| seen.status == 503).map(|seen| seen.sent).max().unwrap();
    println!(
        "{} answers, {refused} of them 503; the last of those was asked {:?} after the new master stood",
        seen.len(),
        slowest.saturating_duration_since(stands)
    );
    for mut person in people {
        person.me().await.is(200);
        person.take(&app.anonymous().refresh(&person.refresh).await.is(200));
        person.me().await.is(200);
    }
    assert_eq!(app.events("session_ended").await, 0, "nobody stole anything");
    app
}

/// What one person sees, and the person with what was learnt.
async fn go_on(
    anonymous: Client,
    mut person: Person,
    concerned: bool,
    stopped: watch::Receiver<bool>,
) -> (Vec<Seen>, Person) {
    let mut answers = Vec::new();
    let mut round = 0;
    while !*stopped.borrow() {
        let sent = Instant::now();
        let (what, reply) = match round % 4 {
            0 => ("/refresh", anonymous.refresh(&person.refresh).await),
            // The new session is not used: the master may die before it told anybody of it.
            1 => ("/login", anonymous.login(&person.email, PASSWORD).await),
            _ => ("/me", person.me().await),
        };
        answers.push(Seen { what, concerned, sent, took: sent.elapsed(), status: reply.status });
        if what == "/refresh" && reply.status == 200 {
            person.take(&reply);
        }
        round += 1;
        sleep(Duration::from_millis(20)).await;
    }
    (answers, person)
}

async fn what_was_told_holds_after_a_fail_over_by_sentinels_that_lost_writes(stack: Stack) {
    what_was_told_holds(&stack, &Servers::Watched(SentinelSet::quick().await)).await;
}

async fn what_was_told_holds_after_a_fail_over_in_a_cluster_that_lost_writes(stack: Stack) {
    what_was_told_holds(&stack, &Servers::Cluster(RedisCluster::with_replicas().await)).await;
}

async fn what_was_told_holds(stack: &Stack, servers: &Servers) {
    let app = stack.app_with(&[("REDIS_URL", &servers.url())]).await;
    let person = async |name: &str| servers.person(stack, &app, name, true).await;
    let (singly, everywhere, changed) = (person("singly").await, person("everywhere").await, person("changed").await);
    let (mut healed, newcomer) = (person("healed").await, person("newcomer").await);
    let (singly_else, everywhere_else, changed_else) =
        (singly.elsewhere().await, everywhere.elsewhere().await, changed.elsewhere().await);
    let anonymous = app.anonymous();
    servers.replicated().await;
    servers.deafen().await;

    // What the replica never hears of.
    anonymous.post("/logout", json!({"refresh_token": singly.refresh})).await.is(204);
    everywhere.client.bearer(&everywhere.access).post("/logout", json!({"all": true})).await.is(204);
    let body = json!({"current_password": PASSWORD, "new_password": "another horse battery"}).to_string();
    let client = changed.client.bearer(&changed.access).with("content-type", "application/json");
    client.send(axum::http::Method::PUT, "/me/password", body.into()).await.is(204);
    for _ in 0..3 {
        healed.take(&anonymous.refresh(&healed.refresh).await.is(200));
    }
    let mut late = newcomer.elsewhere().await;

    servers.fail_over(End::Kill).await;
    eventually("the new master is asked", || async { healed.me().await.status == 200 }).await;

    for dead in [&singly, &everywhere, &everywhere_else, &changed_else] {
        dead.me().await.is_problem(401, "invalid_token");
        anonymous.refresh(&dead.refresh).await.is_problem(401, "invalid_refresh_token");
        dead.me().await.is_problem(401, "invalid_token");
    }
    singly_else.me().await.is(200);
    anonymous.refresh(&singly_else.refresh).await.is(200);

    let newest = healed.refresh.clone();
    healed.take(&anonymous.refresh(&newest).await.is(200));
    assert_ne!(healed.refresh, newest);
    healed.me().await.is(200);
    healed.take(&anonymous.refresh(&healed.refresh).await.is(200));
    assert_eq!(app.events("session_healed").await, 1);

    // Opened after the replica heard the last: sign in again, and nothing worse.
    late.me().await.is_problem(401, "invalid_token");
    anonymous.refresh(&late.refresh).await.is_problem(401, "invalid_refresh_token");
    late.sign_in().await;
    late.me().await.is(200);
    newcomer.me().await.is(200);
    anonymous.refresh(&newcomer.refresh).await.is(200);
    assert_eq!(app.events("session_ended").await, 0, "nobody stole anything");
    anonymous.login(&changed.email, "another horse battery").await.is(200);
}
