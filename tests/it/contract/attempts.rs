//! The contract of counting attempts: the same waits on Redis and SQL, and no attempt uncounted.

use std::time::Duration;

use latchkey::{
    db::Timestamp,
    ephemeral::{Attempts, Ephemeral, Key},
};

use crate::{
    on_stacks,
    support::{Stack, StackKind, Test, TestApp, scale},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        five_attempts_are_free_and_then_the_waits_grow,
        what_is_cleared_begins_anew,
        an_attempt_that_was_never_judged_is_taken_back,
        a_bucket_is_forgotten_a_day_after_its_last_failure,
        a_hundred_failures_lock_only_where_there_is_a_lock,
        parallel_attempts_all_count,
        buckets_do_not_meet,
    ]
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_795_344_960_000).after(Duration::from_millis(millis))
}

fn bucket(name: &str) -> Key<Attempts> {
    Key::new(name.as_bytes(), name.as_bytes())
}

async fn store(stack: &Stack) -> (TestApp, Ephemeral) {
    let app = stack.app().await;
    let store = app.ephemeral.clone();
    (app, store)
}

async fn five_attempts_are_free_and_then_the_waits_grow(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let (key, mut now) = (bucket("a"), 0);
    for _ in 0..5 {
        assert_eq!(store.reserve(at(now), &key, None).await.unwrap(), Ok(()));
    }
    for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|seconds: u64| seconds * 1000) {
        let refused = store.reserve(at(now), &key, None).await.unwrap();
        assert_eq!(refused, Err(Duration::from_millis(wait)));
        assert_eq!(store.reserve(at(now + 300), &key, None).await.unwrap(), Err(Duration::from_millis(wait - 300)));
        assert_eq!(store.reserve(at(now + wait - 1), &key, None).await.unwrap(), Err(Duration::from_millis(1)));
        now += wait;
        assert_eq!(store.reserve(at(now), &key, None).await.unwrap(), Ok(()), "after {wait} ms");
    }
}

async fn what_is_cleared_begins_anew(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let keys = [bucket("a"), bucket("b")];
    for key in &keys {
        while store.reserve(at(0), key, None).await.unwrap().is_ok() {}
    }
    store.clear(&keys).await.unwrap();
    for key in &keys {
        for _ in 0..5 {
            assert_eq!(store.reserve(at(0), key, None).await.unwrap(), Ok(()));
        }
    }
    store.clear(&[]).await.unwrap();
}

async fn an_attempt_that_was_never_judged_is_taken_back(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let key = bucket("a");
    store.take_back(at(0), &key).await.unwrap();
    for _ in 0..20 {
        assert_eq!(store.reserve(at(0), &key, None).await.unwrap(), Ok(()));
        store.take_back(at(0), &key).await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(store.reserve(at(0), &key, None).await.unwrap(), Ok(()));
    }
    store.take_back(at(0), &key).await.unwrap();
    assert_eq!(store.reserve(at(0), &key, None).await.unwrap(), Ok(()));
    assert!(store.reserve(at(0), &key, None).await.unwrap().is_err());
}

async fn a_bucket_is_forgotten_a_day_after_its_last_failure(stack: Stack) {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let (_app, store) = store(&stack).await;
    let key = bucket("a");
    for _ in 0..5 {
        assert_eq!(store.reserve(at(0), &key, None).await.unwrap(), Ok(()));
    }
    assert_eq!(store.reserve(at(DAY - 1), &key, None).await.unwrap(), Ok(()), "the wait of a second is over");
    assert!(store.reserve(at(DAY - 1), &key, None).await.unwrap().is_err(), "and it is still the seventh");
    for _ in 0..5 {
        assert_eq!(store.reserve(at(2 * DAY), &key, None).await.unwrap(), Ok(()));
    }
}

async fn a_hundred_failures_lock_only_where_there_is_a_lock(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let (key, mut now) = (bucket("a"), 0);
    for _ in 0..100 {
        now += 60_000;
        assert_eq!(store.reserve(at(now), &key, Some(100)).await.unwrap(), Ok(()));
    }
    for _ in 0..3 {
        now += 2 * 60 * 60 * 1000;
        assert_eq!(store.reserve(at(now), &key, Some(100)).await.unwrap(), Err(Duration::from_secs(3600)));
    }
    assert_eq!(store.reserve(at(now), &key, None).await.unwrap(), Ok(()));
    store.clear(&[key]).await.unwrap();
    assert_eq!(store.reserve(at(now), &bucket("a"), Some(100)).await.unwrap(), Ok(()));
}

async fn parallel_attempts_all_count(stack: Stack) {
    let (_app, store) = store(&stack).await;
    for round in 0..scale::races() {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..scale::race() {
            let (store, name) = (store.clone(), format!("race{round}"));
            tasks.spawn(async move { store.reserve(at(0), &bucket(&name), None).await.unwrap().is_ok() });
        }
        assert_eq!(tasks.join_all().await.into_iter().filter(|free| *free).count(), 5);
    }
}

async fn buckets_do_not_meet(stack: Stack) {
    let (_app, store) = store(&stack).await;
    while store.reserve(at(0), &bucket("a"), None).await.unwrap().is_ok() {}
    assert_eq!(store.reserve(at(0), &bucket("b"), None).await.unwrap(), Ok(()));
    store.clear(&[bucket("b")]).await.unwrap();
    assert!(store.reserve(at(0), &bucket("a"), None).await.unwrap().is_err());
}
