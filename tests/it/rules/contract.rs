use std::time::Duration;

use latchkey::ephemeral::{Decision, Ephemeral, Rotate, SessionRecord};
use uuid::Uuid;

use crate::{
    contract::sessions::{at, record, rotate},
    on_stacks,
    support::{Stack, StackKind, Test},
};

const DAY: Duration = Duration::from_secs(86_400);

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL;
        what_is_dead_by_its_absolute_lifetime_makes_room,
        of_many_logins_at_once_no_more_than_the_cap_stay,
        a_record_of_a_newer_layout_is_left_alone,
    ];
    tests.extend(on_stacks![&[StackKind::Embedded, StackKind::Pg]; a_sweep_takes_the_dead_and_leaves_the_living]);
    tests.extend(on_stacks![&StackKind::REDIS; a_key_lives_an_hour_longer_than_its_longest_session]);
    tests
}

async fn opened(stack: &Stack, record: &SessionRecord) -> (Ephemeral, Uuid, Uuid, crate::support::TestApp) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_ABSOLUTE_TTL", "3650d")]).await;
    let (user, session) = (Uuid::from_u128(0xA11CE), Uuid::from_u128(0x5E55));
    let store = app.ephemeral.clone();
    store.open(record.made_at, user, session, record, 50, &[]).await.unwrap();
    (store, user, session, app)
}
// ---- paste from here

/// The dead one was used last, so it would be the last to go if it counted.
async fn what_is_dead_by_its_absolute_lifetime_makes_room(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_ABSOLUTE_TTL", "10d")]).await;
    let (store, user) = (app.ephemeral.clone(), Uuid::from_u128(1));
    let (brief, old, living) = (Uuid::from_u128(2), Uuid::from_u128(3), Uuid::from_u128(4));
    // One dead by its own absolute lifetime, one by today's setting, which is shorter than that of its login.
    for (dead, absolute) in [(brief, 10 * DAY), (old, 30 * DAY)] {
        let used = SessionRecord { absolute, made_at: at(9 * 86_400 + 10), ..record(at(0)) };
        store.open(at(9 * 86_400), user, living, &record(at(9 * 86_400)), 50, &[]).await.unwrap();
        store.open(at(9 * 86_400 + 10), user, dead, &used, 50, &[]).await.unwrap();
        store.open(at(10 * 86_400), user, Uuid::from_u128(5), &record(at(10 * 86_400)), 2, &[]).await.unwrap();
        let alive = store.find(at(10 * 86_400), user, living).await.unwrap();
        assert!(alive.is_some(), "absolute {absolute:?}: the dead one made room");
        store.close_others(at(10 * 86_400), user, None).await.unwrap();
    }
}

async fn of_many_logins_at_once_no_more_than_the_cap_stay(stack: Stack) {
    let (store, user, _, _app) = opened(&stack, &record(at(0))).await;
    for round in 1..=5 {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..10 {
            let store = store.clone();
            let session = Uuid::from_u128(round * 1000 + number);
            tasks.spawn(async move { store.open(at(1), user, session, &record(at(1)), 3, &[]).await.unwrap() });
        }
        tasks.join_all().await;
        assert_eq!(store.list(at(1), user).await.unwrap().len(), 3, "round {round}");
    }
}

/// A newer node wrote it: this one can neither judge nor use it, and must not break it.
async fn a_record_of_a_newer_layout_is_left_alone(stack: Stack) {
    let (store, user, session, app) = opened(&stack, &record(at(0))).await;
    let mut newer = record(at(0)).pack();
    newer[0] = 2;
    let hex: String = newer.iter().map(|byte| format!("{byte:02x}")).collect();
    let url = app.settings.iter().rev().find(|(name, _)| name == "REDIS_URL").map(|(_, url)| url.as_str());
    let redis = match url {
        Some(url) => Some(redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()),
        None => None,
    };
    let key = format!("{}:{{{user}}}:s", stack.redis_prefix());
    match redis.clone() {
        Some(mut redis) => {
            let mut hset = redis::cmd("HSET");
            let added: i64 = hset.arg(&key).arg(session.as_bytes()).arg(&newer).query_async(&mut redis).await.unwrap();
            assert_eq!(added, 0, "the field is where this test looks");
        }
        None if stack.kind == StackKind::Embedded => app.sql(&format!("UPDATE sessions SET record = x'{hex}'")).await,
        None => app.sql(&format!("UPDATE sessions SET record = '\\x{hex}'")).await,
    }
    let is_untouched = async || match redis.clone() {
        Some(mut redis) => {
            let mut hget = redis::cmd("HGET");
            let now: Vec<u8> = hget.arg(&key).arg(session.as_bytes()).query_async(&mut redis).await.unwrap();
            now == newer
        }
        None => {
            let encode = if stack.kind == StackKind::Embedded { "lower(hex(record))" } else { "encode(record, 'hex')" };
            let id = app.id(session);
            app.text(&format!("SELECT {encode} FROM sessions WHERE session_id = {id}")).await == hex
        }
    };
    assert!(store.find(at(1), user, session).await.is_err());
    assert!(store.rotate(at(1), user, session, &rotate(0)).await.is_err());
    assert!(is_untouched().await, "a refresh moves nothing that it cannot read");
    // Nor is it in the way: at a cap of two there is room for two that this node knows.
    for number in 2..=4u32 {
        let now = at(u64::from(number));
        store.open(now, user, Uuid::from_u128(u128::from(number)), &record(now), 2, &[]).await.unwrap();
    }
    assert_eq!(store.list(at(5), user).await.unwrap().len(), 2);
    assert!(is_untouched().await, "a login leaves it");
    // Nobody here knows where its epoch stands, so it is not spared.
    store.close_others(at(6), user, Some((session, 5))).await.unwrap();
    assert_eq!(store.find(at(6), user, session).await.unwrap(), None);
}

async fn a_sweep_takes_the_dead_and_leaves_the_living(stack: Stack) {
    let (store, user, session, app) = opened(&stack, &record(at(0))).await;
    let (alive, dead) = (at(7 * 86_400 - 1), at(7 * 86_400));
    assert_eq!(store.sweep(alive).await.unwrap(), 0);
    assert!(store.find(alive, user, session).await.unwrap().is_some());
    assert_eq!(store.sweep(dead).await.unwrap(), 1);
    assert_eq!(app.number("SELECT COUNT(*) FROM sessions").await, 0);
}

/// The TTL is only the broom; one that comes too early throws living sessions out.
async fn a_key_lives_an_hour_longer_than_its_longest_session(stack: Stack) {
    const HOUR: Duration = Duration::from_secs(3600);
    let brief = SessionRecord { idle: HOUR, ..record(at(0)) };
    let (store, user, session, app) = opened(&stack, &brief).await;
    let url = &app.settings.iter().rev().find(|(name, _)| name == "REDIS_URL").unwrap().1;
    let redis = redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let key = format!("{}:{{{user}}}:s", stack.redis_prefix());
    // Real time passes while a test runs, but no minute of it.
    let lives = async |expected: Duration, what: &str| {
        let ttl: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis.clone()).await.unwrap();
        let left = Duration::from_millis(u64::try_from(ttl).unwrap_or_else(|_| panic!("{what}: no TTL ({ttl})")));
        let range = expected - Duration::from_secs(60)..=expected;
        assert!(range.contains(&left), "{what}: {left:?} instead of {expected:?}");
    };
    lives(HOUR + HOUR, "a login").await;
    // A refresh under a longer idle lifetime.
    assert!(matches!(store.rotate(at(0), user, session, &rotate(0)).await.unwrap(), Decision::Moved(_)));
    lives(7 * DAY + HOUR, "a refresh").await;
    // A briefer session beside it takes nothing away, neither at its login nor at its refresh.
    store.open(at(0), user, Uuid::from_u128(2), &brief, 50, &[]).await.unwrap();
    lives(7 * DAY + HOUR, "a briefer login").await;
    let short = Rotate { idle: HOUR, ..rotate(0) };
    assert!(matches!(store.rotate(at(0), user, Uuid::from_u128(2), &short).await.unwrap(), Decision::Moved(_)));
    lives(7 * DAY + HOUR, "a briefer refresh").await;
    // Whoever is spared keeps it.
    store.close_others(at(0), user, Some((session, 5))).await.unwrap();
    lives(7 * DAY + HOUR, "a spared session").await;
}
