//! Redis in each of its shapes, with what may be wrong about it: Sentinels that are silent, mistaken or at odds; a master
//! of a Cluster that is silent while the others are well; slots that move; scripts that are forgotten; certificates. And
//! what Redis holds: nothing after FLUSHALL, and little for each session before.

use std::{path::Path, time::Duration};

use futures_util::{StreamExt, stream};
use latchkey::{
    db::Timestamp,
    ephemeral::{Device, Ephemeral, NONCE_HASH, RedisStore, RedisUrl, SessionRecord},
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::{
    on_stacks,
    support::{
        Authority, Client, PASSWORD, Person, Process, Stack, StackKind, Test, TestApp, eventually,
        redis::{RedisCluster, RedisServer, SentinelSet, sentinel, sentinel_url},
    },
};

/// Within which a request that needs Redis is refused: 500 ms, and room for a busy machine.
const WITHOUT_REDIS: Duration = Duration::from_millis(1500);

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&[StackKind::PgRedis], crate::support::redis::redis_missing;
        after_flushall_people_sign_in_again_and_nothing_worse,
        a_session_costs_redis_little,
        tls_needs_a_certificate_of_a_known_authority,
    ];
    tests.extend(on_stacks![&StackKind::REDISES;
        scripts_that_were_forgotten_are_told_again,
    ]);
    tests.extend(on_stacks![&[StackKind::Sentinel];
        sentinels_that_are_silent_mistaken_or_at_odds_keep_nobody_out,
        a_master_that_sentinels_replaced_is_left_though_it_answers,
        a_server_without_redis_does_not_start_and_says_why,
    ]);
    tests.extend(on_stacks![&[StackKind::Cluster];
        a_silent_master_keeps_out_its_own_people_only,
        slots_may_move_while_people_are_here,
    ]);
    tests
}

/// An app on servers of the test's own.
async fn app_on(stack: &Stack, url: &str) -> TestApp {
    stack.app_with(&[("REDIS_URL", url)]).await
}

fn key(stack: &Stack, person: &Person) -> String {
    format!("{}:{{{}}}:s", stack.redis_prefix(), person.id)
}

// --- what Redis holds --------------------------------------------------------

async fn after_flushall_people_sign_in_again_and_nothing_worse(stack: Stack) {
    let redis = RedisServer::start(&[]).await;
    let app = stack.app_with(&[("REDIS_URL", &redis.url()), ("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    let anonymous = app.anonymous();
    let mut alice = app.person("alice").await;
    let old = alice.refresh.clone();
    alice.take(&anonymous.refresh(&old).await.is(200));
    anonymous.login(&alice.email, "wrong password").await.is(401);
    let flow = anonymous.post("/password/forgot", json!({"email": alice.email})).await.is(202).text("/flow_id");

    let () = redis.run_command("FLUSHALL").await;

    alice.me().await.is_problem(401, "invalid_token");
    for token in [&alice.refresh, &old] {
        anonymous.refresh(token).await.is_problem(401, "invalid_refresh_token");
    }
    anonymous.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    let body = json!({"flow_id": flow, "code": "12345678", "new_password": "another horse battery"});
    anonymous.post("/password/reset", body).await.is_problem(400, "invalid_code");
    assert_eq!((app.events("session_ended").await, app.events("session_healed").await), (0, 0));

    alice.sign_in().await;
    alice.me().await.is(200);
    anonymous.refresh(&alice.refresh).await.is(200);
    let bob = app.person("bob").await;
    bob.me().await.is(200);
    anonymous.get("/.well-known/jwks.json").await.is(200);
    anonymous.post("/password/forgot", json!({"email": alice.email})).await.is(202);
}

/// The address is of the longer kind, and the prefix is that of production.
async fn a_session_costs_redis_little(_: Stack) {
    const PEOPLE: u128 = 10_000;
    let redis = RedisServer::bare(&[]).await;
    let url = RedisUrl::parse(&redis.url()).unwrap();
    let store = Ephemeral::Redis(Box::new(RedisStore::new(&url, "lk", Duration::from_secs(30 * 86_400))));
    let now = Timestamp::from_millis(1_795_344_960_000);
    let record = SessionRecord {
        epoch: 1,
        created_at: now,
        made_at: now,
        idle: Duration::from_secs(7 * 86_400),
        absolute: Duration::from_secs(30 * 86_400),
        generation: 3,
        nonce_hash: [0x5A; NONCE_HASH],
        device: Device { browser: 4, system: 7 },
        address: "2001:db8::7".parse().unwrap(),
    };
    // Ids as they are made: of a moment, with much in them that is drawn.
    let id = |number: u128| {
        Uuid::from_u128(0x01A2_03C5_3645_7000_8000_0000_0000_0000 | number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 2)
    };
    let open = async |session: u128| {
        let all = stream::iter(0..PEOPLE).map(|person| {
            let (store, record) = (&store, &record);
            async move { store.open(now, id(person), id(1_000_000 * session + person), record, 50, &[]).await.unwrap() }
        });
        all.buffer_unordered(32).collect::<Vec<()>>().await;
    };
    // A table that has just grown stands twice, until all is moved.
    let used = async || {
        let mut lowest = u128::MAX;
        loop {
            let used = redis.info("used_memory").await.parse::<u128>().unwrap();
            if used >= lowest {
                return used;
            }
            lowest = used;
            sleep(Duration::from_secs(1)).await;
        }
    };

    // The scripts and the buffers of the connection are nobody's session.
    open(0).await;
    let () = redis.run_command("FLUSHALL").await;
    let before = used().await;
    open(1).await;
    let one = (used().await - before) / PEOPLE;
    open(2).await;
    open(3).await;
    let three = (used().await - before) / (3 * PEOPLE);
    assert_eq!(store.list(now, id(4711)).await.unwrap().len(), 3);
    println!("{one} bytes a session with one each, {three} with three");
    assert!(one < 260, "{one} bytes a session with one each");
    assert!(three < 200, "{three} bytes a session with three each");
}

async fn scripts_that_were_forgotten_are_told_again(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_LIMIT_ACCOUNT", "on")]).await;
    // In a Cluster on every master.
    let mut people = Vec::new();
    for name in ["anna", "bert", "carl", "dora", "emil", "finn"] {
        people.push(app.person(name).await);
    }
    for _ in 0..2 {
        for mut master in stack.redis_masters().await {
            let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut master).await.unwrap();
        }
        for person in &mut people {
            person.take(&app.anonymous().refresh(&person.refresh).await.is(200));
            person.sign_in().await;
            person.me().await.is(200);
        }
    }
}

// --- Sentinels ---------------------------------------------------------------

/// A port where somebody listens and says nothing.
async fn black_hole() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn sentinels_that_are_silent_mistaken_or_at_odds_keep_nobody_out(stack: Stack) {
    let set = SentinelSet::calm().await;
    let (_hole, silent) = black_hole().await;
    let (gone, dead) = black_hole().await;
    drop(gone);
    // One names a server that is dead, two the replica; none hears of the right one, as their master is another.
    let mistaken = sentinel(&format!("127.0.0.1 {dead}"), "60000").await;
    let replica = format!("127.0.0.1 {}", set.servers[1].port);
    let (confused, too) = (sentinel(&replica, "60000").await, sentinel(&replica, "60000").await);
    let at = |port: u16| format!("127.0.0.1:{port}");
    let right = at(set.sentinels[0].port);
    let every = [
        vec![at(silent)],
        vec![at(dead)],
        vec![at(mistaken.port)],
        // More of them than say it right.
        vec![at(confused.port), at(too.port)],
        vec![at(silent), at(dead), at(mistaken.port), at(confused.port)],
    ];
    for (number, others) in every.into_iter().enumerate() {
        let hosts = [others, vec![right.clone()]].concat().join(",");
        let app = app_on(&stack, &sentinel_url(&hosts)).await;
        eventually("the master is found", || async { app.ephemeral.ping().await.is_ok() }).await;
        let started = Instant::now();
        let alice = app.person(&format!("alice{number}")).await;
        alice.me().await.is(200);
        app.anonymous().refresh(&alice.refresh).await.is(200);
        assert!(started.elapsed() < Duration::from_secs(3), "{hosts}: {:?}", started.elapsed());
    }
    // Nobody knows: refused in time, and found when somebody does.
    let app = app_on(&stack, &sentinel_url(&[at(silent), at(mistaken.port), at(confused.port)].join(","))).await;
    let alice = app.anonymous();
    let body = json!({"email": "nobody@example.com", "password": PASSWORD});
    alice.post("/register", body).await.is(201);
    for _ in 0..3 {
        let reply = timeout(WITHOUT_REDIS, alice.login("nobody@example.com", PASSWORD)).await.expect("in time");
        reply.is_problem(503, "unavailable");
    }
}

/// As when the old master is cut off from everybody but us.
async fn a_master_that_sentinels_replaced_is_left_though_it_answers(stack: Stack) {
    let set = SentinelSet::calm().await;
    let app = app_on(&stack, &set.url()).await;
    let alice = app.person("alice").await;
    let () = set.servers[1].run_command("REPLICAOF NO ONE").await;
    set.point_at(&set.servers[1]).await;
    assert!(set.servers[0].is_master().await && set.servers[1].is_master().await);
    let started = Instant::now();
    let key = key(&stack, &alice);
    eventually("sessions are kept by the new one", || async {
        alice.elsewhere().await;
        set.servers[1].run_command::<u32>(&format!("HLEN {key}")).await > 1
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    alice.me().await.is(200);
}

async fn a_server_without_redis_does_not_start_and_says_why(stack: Stack) {
    let (_hole, silent) = black_hole().await;
    let (gone, dead) = black_hole().await;
    drop(gone);
    for url in [
        format!("redis://:canary@127.0.0.1:{silent}"),
        format!("rediss://:canary@127.0.0.1:{silent}"),
        format!("redis-cluster://:canary@127.0.0.1:{dead},127.0.0.1:{silent}"),
        format!("redis-sentinel://:canary@127.0.0.1:{silent},127.0.0.1:{dead}/m?sentinel_password=canary"),
        // Right, and without the password.
        stack
            .settings()
            .await
            .into_iter()
            .find(|(name, _)| name == "REDIS_URL")
            .unwrap()
            .1
            .replacen(":p%40s", ":canary", 1),
    ] {
        let mut settings = stack.settings().await;
        settings.retain(|(name, _)| name != "REDIS_URL");
        settings.push(("REDIS_URL".to_owned(), url));
        let started = Instant::now();
        let Err(said) = Process::try_start(stack.dir.path(), &settings) else { panic!("it started") };
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(said.contains("Redis does not answer"), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
}

// --- a Cluster ---------------------------------------------------------------

/// People of whom each master has two.
async fn spread(stack: &Stack, app: &TestApp, cluster: &RedisCluster) -> [Vec<Person>; 3] {
    let mut people: [Vec<Person>; 3] = Default::default();
    for number in 0..200 {
        if people.iter().all(|all| all.len() >= 2) {
            return people;
        }
        let person = app.person(&format!("person{number}")).await;
        people[cluster.owner(&key(stack, &person)).await].push(person);
    }
    panic!("the dice are loaded");
}

async fn a_silent_master_keeps_out_its_own_people_only(stack: Stack) {
    let cluster = RedisCluster::of_masters().await;
    let app = app_on(&stack, &cluster.url()).await;
    let [mut kept_out, mut first, mut second] = spread(&stack, &app, &cluster).await;
    let anonymous = app.anonymous();
    eventually("ready", || async { Client::of(app.internal_router()).get("/health/ready").await.status == 200 }).await;

    cluster.nodes[0].freeze();
    for node in &cluster.nodes[1..] {
        let () = node.run_command("SCRIPT FLUSH").await;
    }
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(6) {
        let (out, me) = (kept_out[0].clone(), kept_out[1].clone());
        let silent = tokio::spawn(async move {
            let refused = async {
                out.me().await.is_problem(503, "unavailable");
                out.client.refresh(&out.refresh).await.is_problem(503, "unavailable");
                me.client.login(&me.email, PASSWORD).await.is_problem(503, "unavailable");
            };
            timeout(3 * WITHOUT_REDIS, refused).await.expect("each in time");
        });
        while !silent.is_finished() {
            for person in first.iter_mut().chain(&mut second) {
                let started = Instant::now();
                person.take(&anonymous.refresh(&person.refresh).await.is(200));
                person.me().await.is(200);
                person.sign_in().await;
                assert!(started.elapsed() < Duration::from_secs(1), "held up for {:?}", started.elapsed());
            }
            sleep(Duration::from_millis(20)).await;
        }
        silent.await.unwrap();
    }
    let ready = Client::of(app.internal_router()).get("/health/ready").await.is(503).json();
    assert_eq!(ready["checks"]["sessions"]["status"], "down", "{ready}");
    // A node that starts now has to do with the others.
    let node = app_on(&stack, &cluster.url()).await;
    assert!(node.ephemeral.clock().await.unwrap().is_some(), "who answers first will do");
    eventually("a new node serves them", || async {
        Client::of(node.router.clone()).bearer(&first[0].access).get("/me").await.status == 200
    })
    .await;

    cluster.nodes[0].thaw();
    let thawed = Instant::now();
    for person in &mut kept_out {
        eventually("served again", || async { person.me().await.status == 200 }).await;
        let reply = anonymous.refresh(&person.refresh).await.is(200);
        person.take(&reply);
    }
    assert!(thawed.elapsed() < Duration::from_secs(5), "{:?}", thawed.elapsed());
}

/// One slot moves as `redis-cli --cluster reshard` does it, and somebody's sessions with it.
async fn slots_may_move_while_people_are_here(stack: Stack) {
    let cluster = RedisCluster::of_masters().await;
    let app = app_on(&stack, &cluster.url()).await;
    let [mut people, _, _] = spread(&stack, &app, &cluster).await;
    let anonymous = app.anonymous();
    let alice = &mut people[0];
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let key = key(&stack, alice);
    let slot: u16 = from.run_command(&format!("CLUSTER KEYSLOT {key}")).await;
    let (from_id, to_id): (String, String) =
        (from.run_command("CLUSTER MYID").await, to.run_command("CLUSTER MYID").await);
    let () = to.run_command(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
    let () = from.run_command(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
    alice.me().await.is(200);
    let () = redis::cmd("MIGRATE")
        .arg("127.0.0.1")
        .arg(to.port)
        .arg("")
        .arg(0)
        .arg(1000)
        .arg("AUTH")
        .arg(crate::support::redis::REDIS_PASSWORD)
        .arg("KEYS")
        .arg(&key)
        .query_async(&mut from.connect().await)
        .await
        .unwrap();
    // Asked by the one, answered by the other.
    alice.me().await.is(200);
    alice.sign_in().await;
    alice.me().await.is(200);
    for node in [to, from, &cluster.nodes[2]] {
        let () = node.run_command(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
    }
    for _ in 0..5 {
        alice.me().await.is(200);
        alice.take(&anonymous.refresh(&alice.refresh).await.is(200));
    }
}

// --- TLS ---------------------------------------------------------------------

/// The settings of a server on this Redis, which trusts this authority alone.
async fn trusting(stack: &Stack, url: &str, authority: &Path) -> Vec<(String, String)> {
    let mut settings = stack.settings().await;
    settings.retain(|(name, _)| name != "REDIS_URL");
    settings.push(("REDIS_URL".to_owned(), url.to_owned()));
    settings.push(("SSL_CERT_FILE".to_owned(), authority.display().to_string()));
    settings
}

async fn tls_needs_a_certificate_of_a_known_authority(stack: Stack) {
    let (known, foreign) = (Authority::new(), Authority::new());
    let path = |name: &str| stack.dir.path().join(name);
    known.write_pem(&path("known.pem"));
    foreign.write_pem(&path("foreign.pem"));
    known.write_server_pem(&["127.0.0.1"], &path("server.pem"), &path("server.key"));
    known.write_server_pem(&["redis.example.org"], &path("other.pem"), &path("other.key"));
    let text = |name: &str| path(name).display().to_string();
    let redis = RedisServer::with_tls(&text("server.pem"), &text("server.key"), &[]).await;
    let other = RedisServer::with_tls(&text("other.pem"), &text("other.key"), &[]).await;
    let nodes = RedisServer::with_tls(
        &text("server.pem"),
        &text("server.key"),
        &["--cluster-enabled", "yes", "--tls-cluster", "yes", "--tls-ca-cert-file", &text("known.pem")],
    )
    .await;
    let () = nodes.run_command("CLUSTER ADDSLOTSRANGE 0 16383").await;
    let (tls, cluster) = (format!("rediss://127.0.0.1:{}", redis.tls_port()), nodes.tls_port());
    eventually("the cluster stands", || async {
        nodes.run_command::<String>("CLUSTER INFO").await.contains("cluster_state:ok")
    })
    .await;

    for (url, name) in [(&tls, "alice"), (&format!("redis-cluster://127.0.0.1:{cluster}?tls=true"), "bob")] {
        let process = Process::start(stack.dir.path(), &trusting(&stack, url, &path("known.pem")).await);
        let person = process.client().register(name).await;
        person.me().await.is(200);
        person.client.refresh(&person.refresh).await.is(200);
    }
    for (url, authority, what) in [
        (&tls, "foreign.pem", "an authority that nobody knows"),
        (&format!("rediss://127.0.0.1:{}", other.tls_port()), "known.pem", "a certificate of another name"),
        (&format!("rediss://127.0.0.1:{}", redis.port), "known.pem", "a server that speaks no TLS"),
        (&format!("redis://127.0.0.1:{}", redis.tls_port()), "known.pem", "a server that wants TLS"),
    ] {
        match Process::try_start(stack.dir.path(), &trusting(&stack, url, &path(authority)).await) {
            Ok(_) => panic!("{what}: it started"),
            Err(said) => {
                assert!(said.contains("Redis does not answer"), "{what}: {said}");
                // The reason stands in the log.
                assert!(said.contains("Redis is not reached"), "{what}: {said}");
            }
        }
    }
}
