//! The contract of the ephemeral store's session verbs, expiry included: the same for Redis and SQL.

use std::time::Duration;

use latchkey::{
    db::Timestamp,
    ephemeral::{Decision, Device, Ephemeral, NONCE_HASH, Rotate, SessionRecord},
};
use uuid::Uuid;

use crate::{
    on_stacks,
    support::{Stack, StackKind, Test},
};

const DAY: Duration = Duration::from_secs(86_400);

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::SESSIONS;
        an_opened_session_is_found_and_a_closed_one_is_not,
        a_dead_session_does_not_exist_for_any_verb,
        at_the_cap_the_least_recently_used_session_goes,
        dead_sessions_do_not_count_for_the_cap,
        closing_the_others_keeps_one_and_stamps_it,
        rotation_moves_repeats_heals_and_finds_theft,
        rotation_refuses_what_does_not_fit_and_changes_nothing,
        rotation_never_outlives_the_absolute_lifetime,
        a_record_lives_no_longer_than_todays_setting,
        extreme_values_survive_the_packing,
        of_many_rotations_at_once_one_moves,
    ]
}

pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_795_344_960_000).after(Duration::from_secs(seconds))
}

pub fn record(made: Timestamp) -> SessionRecord {
    SessionRecord {
        epoch: 4,
        created_at: made,
        made_at: made,
        idle: 7 * DAY,
        absolute: 30 * DAY,
        generation: 0,
        nonce_hash: [9; NONCE_HASH],
        device: Device { browser: 4, system: 7 },
        address: "2001:db8::7".parse().unwrap(),
    }
}

pub fn rotate(generation: u32) -> Rotate {
    Rotate {
        generation,
        nonce_hash: [9; NONCE_HASH],
        epoch: Some(4),
        idle: 7 * DAY,
        grace: Duration::from_secs(30),
        most_a_minute: 0,
    }
}

async fn opened(stack: &Stack, record: &SessionRecord) -> (Ephemeral, Uuid, Uuid, crate::support::TestApp) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_ABSOLUTE_TTL", "3650d")]).await;
    let (user, session) = (Uuid::from_u128(0xA11CE), Uuid::from_u128(0x5E55));
    let store = app.ephemeral.clone();
    store.open(record.made_at, user, session, record, 50, &[]).await.unwrap();
    (store, user, session, app)
}

async fn an_opened_session_is_found_and_a_closed_one_is_not(stack: Stack) {
    let (store, user, session, _app) = opened(&stack, &record(at(0))).await;
    assert_eq!(store.find(at(1), user, session).await.unwrap(), Some(record(at(0))));
    assert_eq!(store.list(at(1), user).await.unwrap(), [(session, record(at(0)))]);
    assert_eq!(store.find(at(1), user, Uuid::nil()).await.unwrap(), None);
    assert_eq!(store.find(at(1), Uuid::nil(), session).await.unwrap(), None, "a session is found with its person only");

    store.close(user, session).await.unwrap();
    store.close(user, session).await.unwrap();
    assert_eq!(store.find(at(1), user, session).await.unwrap(), None);
    assert_eq!(store.rotate(at(1), user, session, &rotate(0)).await.unwrap(), Decision::Unknown);
}

async fn a_dead_session_does_not_exist_for_any_verb(stack: Stack) {
    let (store, user, session, _app) = opened(&stack, &record(at(0))).await;
    let (alive, dead) = (at(7 * 86_400 - 1), at(7 * 86_400));
    assert!(store.find(alive, user, session).await.unwrap().is_some());
    assert_eq!(store.list(alive, user).await.unwrap().len(), 1);
    assert_eq!(store.find(dead, user, session).await.unwrap(), None);
    assert_eq!(store.list(dead, user).await.unwrap(), []);
    store.close_others(dead, user, Some((session, 5))).await.unwrap();
    assert_eq!(store.find(alive, user, session).await.unwrap(), None, "a dead session is not spared");

    store.open(at(0), user, session, &record(at(0)), 50, &[]).await.unwrap();
    assert_eq!(store.rotate(dead, user, session, &rotate(0)).await.unwrap(), Decision::Unknown);
    assert!(store.sweep(dead).await.is_ok());
    store.open(dead, user, session, &record(dead), 50, &[]).await.unwrap();
    assert_eq!(store.find(dead, user, session).await.unwrap(), Some(record(dead)));
}

async fn at_the_cap_the_least_recently_used_session_goes(stack: Stack) {
    let (store, user, first, _app) = opened(&stack, &record(at(0))).await;
    let (second, third) = (Uuid::from_u128(2), Uuid::from_u128(3));
    store.open(at(1), user, second, &record(at(1)), 2, &[]).await.unwrap();
    // The first one is used again, so the second is now the one that was not used for longest.
    assert!(matches!(store.rotate(at(2), user, first, &rotate(0)).await.unwrap(), Decision::Moved(_)));
    store.open(at(3), user, third, &record(at(3)), 2, &[]).await.unwrap();
    let mut left: Vec<Uuid> = store.list(at(3), user).await.unwrap().into_iter().map(|(id, _)| id).collect();
    left.sort_unstable();
    assert_eq!(left, [third, first]);
    // A cap that was lowered meanwhile is reached at the next login.
    store.open(at(4), user, second, &record(at(4)), 1, &[]).await.unwrap();
    assert_eq!(store.list(at(4), user).await.unwrap(), [(second, record(at(4)))]);
}

async fn dead_sessions_do_not_count_for_the_cap(stack: Stack) {
    let brief = SessionRecord { idle: Duration::from_secs(10), ..record(at(5)) };
    let (store, user, first, _app) = opened(&stack, &record(at(0))).await;
    store.open(at(5), user, Uuid::from_u128(2), &brief, 2, &[]).await.unwrap();
    store.open(at(60), user, Uuid::from_u128(3), &record(at(60)), 2, &[]).await.unwrap();
    assert!(store.find(at(60), user, first).await.unwrap().is_some(), "the dead one made room");
}

async fn closing_the_others_keeps_one_and_stamps_it(stack: Stack) {
    let (store, user, kept, _app) = opened(&stack, &record(at(0))).await;
    store.open(at(1), user, Uuid::from_u128(2), &record(at(1)), 50, &[]).await.unwrap();
    let other_user = Uuid::from_u128(77);
    store.open(at(1), other_user, Uuid::from_u128(3), &record(at(1)), 50, &[]).await.unwrap();

    store.close_others(at(2), user, Some((kept, 5))).await.unwrap();
    assert_eq!(store.list(at(2), user).await.unwrap(), [(kept, SessionRecord { epoch: 5, ..record(at(0)) })]);
    assert_eq!(store.list(at(2), other_user).await.unwrap().len(), 1);
    // Of two acts that both spare it the earlier one may come last.
    store.close_others(at(2), user, Some((kept, 4))).await.unwrap();
    assert_eq!(store.find(at(2), user, kept).await.unwrap().unwrap().epoch, 5);

    store.close_others(at(3), user, None).await.unwrap();
    assert_eq!(store.list(at(3), user).await.unwrap(), []);
    store.close_others(at(3), user, Some((kept, 6))).await.unwrap();
    assert_eq!(store.list(at(3), user).await.unwrap(), [], "sparing what is gone makes nothing");
}

async fn rotation_moves_repeats_heals_and_finds_theft(stack: Stack) {
    let (store, user, session, _app) = opened(&stack, &record(at(0))).await;
    let decide = async |now, generation| store.rotate(now, user, session, &rotate(generation)).await.unwrap();

    let moved = SessionRecord { generation: 1, made_at: at(10), ..record(at(0)) };
    assert_eq!(decide(at(10), 0).await, Decision::Moved(moved.clone()));
    assert_eq!(decide(at(39), 0).await, Decision::Repeated(moved.clone()), "inside the window");
    assert_eq!(decide(at(39), 0).await, Decision::Repeated(moved.clone()), "again; the window does not slide");
    assert_eq!(store.find(at(39), user, session).await.unwrap(), Some(moved.clone()), "nothing moved");
    assert_eq!(decide(at(40), 0).await, Decision::Reused(moved.clone()), "the window is over");
    assert_eq!(store.find(at(40), user, session).await.unwrap(), Some(moved), "the caller ends it, durably first");

    let healed = SessionRecord { generation: 1002, made_at: at(50), ..record(at(0)) };
    assert_eq!(decide(at(50), 1001).await, Decision::Healed(healed.clone()));
    assert_eq!(decide(at(51), 1000).await, Decision::Reused(healed.clone()), "two back is theft at any time");
    assert_eq!(decide(at(51), 2003).await, Decision::Reused(healed.clone()), "too far ahead is no lost write");
    assert_eq!(decide(at(51), 1001).await, Decision::Repeated(healed));
}

async fn rotation_refuses_what_does_not_fit_and_changes_nothing(stack: Stack) {
    let (store, user, session, _app) = opened(&stack, &record(at(0))).await;
    for wrong in [
        Rotate { epoch: None, ..rotate(0) },
        Rotate { epoch: Some(3), ..rotate(0) },
        Rotate { epoch: Some(5), ..rotate(0) },
        Rotate { nonce_hash: [8; NONCE_HASH], ..rotate(0) },
        Rotate { nonce_hash: [8; NONCE_HASH], ..rotate(7) },
        Rotate { generation: u32::MAX, epoch: None, ..rotate(0) },
    ] {
        assert_eq!(store.rotate(at(1), user, session, &wrong).await.unwrap(), Decision::Unknown, "{wrong:?}");
        assert_eq!(store.find(at(1), user, session).await.unwrap(), Some(record(at(0))), "{wrong:?}");
    }
    let strict = Rotate { grace: Duration::ZERO, ..rotate(0) };
    assert!(matches!(store.rotate(at(1), user, session, &strict).await.unwrap(), Decision::Moved(_)));
    assert!(matches!(store.rotate(at(1), user, session, &strict).await.unwrap(), Decision::Reused(_)), "strict");
}

async fn rotation_never_outlives_the_absolute_lifetime(stack: Stack) {
    let brief = SessionRecord { absolute: Duration::from_secs(100), idle: Duration::from_secs(60), ..record(at(0)) };
    let (store, user, session, _app) = opened(&stack, &brief).await;
    let long = Rotate { idle: 7 * DAY, ..rotate(0) };
    let Decision::Moved(moved) = store.rotate(at(50), user, session, &long).await.unwrap() else { panic!("not moved") };
    assert_eq!((moved.idle, moved.expires_at()), (7 * DAY, at(100)));
    assert!(store.find(at(99), user, session).await.unwrap().is_some());
    assert_eq!(store.find(at(100), user, session).await.unwrap(), None);
}

async fn a_record_lives_no_longer_than_todays_setting(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_ABSOLUTE_TTL", "10d")]).await;
    let (store, user, session) = (app.ephemeral.clone(), Uuid::from_u128(1), Uuid::from_u128(2));
    // Opened under a setting of 30 days by a node that is not restarted yet.
    let old = SessionRecord { idle: 20 * DAY, ..record(at(0)) };
    store.open(at(0), user, session, &old, 50, &[]).await.unwrap();
    let (alive, dead) = (at(10 * 86_400 - 1), at(10 * 86_400));
    assert!(store.find(alive, user, session).await.unwrap().is_some());
    assert_eq!(store.find(dead, user, session).await.unwrap(), None);
    store.close_others(dead, user, Some((session, 5))).await.unwrap();
    assert_eq!(store.find(alive, user, session).await.unwrap(), None);
    store.open(at(0), user, session, &old, 50, &[]).await.unwrap();
    assert_eq!(store.rotate(dead, user, session, &rotate(0)).await.unwrap(), Decision::Unknown);
    store.open(at(0), user, session, &old, 50, &[]).await.unwrap();
    store.open(dead, user, Uuid::from_u128(3), &record(dead), 1, &[]).await.unwrap();
    assert_eq!(store.list(dead, user).await.unwrap().len(), 1);
}

async fn extreme_values_survive_the_packing(stack: Stack) {
    let extreme = SessionRecord {
        epoch: i64::from(u32::MAX) - 1,
        created_at: Timestamp::from_millis((1 << 48) - 1 - 1_000_000),
        made_at: Timestamp::from_millis((1 << 48) - 1 - 1_000_000),
        idle: Duration::from_secs(3650 * 86_400),
        absolute: Duration::from_secs(3650 * 86_400),
        generation: u32::MAX - 2,
        nonce_hash: [0xFF; NONCE_HASH],
        device: Device { browser: 255, system: 255 },
        address: "255.255.255.255".parse().unwrap(),
    };
    let (store, user, session, _app) = opened(&stack, &extreme).await;
    let now = extreme.made_at.after(Duration::from_millis(1));
    assert_eq!(store.find(now, user, session).await.unwrap(), Some(extreme.clone()));
    let claim = Rotate {
        generation: u32::MAX - 2,
        nonce_hash: [0xFF; NONCE_HASH],
        epoch: Some(extreme.epoch),
        idle: extreme.idle,
        grace: Duration::from_secs(30),
        most_a_minute: 0,
    };
    let moved = SessionRecord { generation: u32::MAX - 1, made_at: now, ..extreme };
    assert_eq!(store.rotate(now, user, session, &claim).await.unwrap(), Decision::Moved(moved.clone()));
    assert_eq!(store.rotate(now, user, session, &claim).await.unwrap(), Decision::Repeated(moved));
    let last = Rotate { generation: u32::MAX, ..claim };
    assert_eq!(
        store.rotate(now, user, session, &last).await.unwrap(),
        Decision::Unknown,
        "there is no generation after it"
    );
}

async fn of_many_rotations_at_once_one_moves(stack: Stack) {
    let (store, user, session, _app) = opened(&stack, &record(at(0))).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..crate::support::scale::race() {
        let store = store.clone();
        tasks.spawn(async move { store.rotate(at(1), user, session, &rotate(0)).await.unwrap() });
    }
    let decisions = tasks.join_all().await;
    let moved = decisions.iter().filter(|decision| matches!(decision, Decision::Moved(_))).count();
    let repeated = decisions.iter().filter(|decision| matches!(decision, Decision::Repeated(_))).count();
    assert_eq!((moved, repeated), (1, decisions.len() - 1), "{decisions:?}");
}
