//! The contract of the ephemeral store's small values: the same for Redis and SQL, expiry included.

use std::time::Duration;

use latchkey::{
    db::Timestamp,
    ephemeral::{Ephemeral, Key, Value},
};

use crate::{
    on_stacks,
    support::{Stack, StackKind, Test, TestApp, scale},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::SESSIONS;
        a_value_is_put_once_and_found_until_it_expires,
        a_swap_needs_what_was_seen,
        a_dead_value_does_not_exist_for_any_verb,
        kinds_slots_and_ids_do_not_meet,
        of_many_swaps_at_once_one_wins,
        what_is_dead_is_swept,
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Note {
    text: String,
    until: Timestamp,
}

impl Value for Note {
    const KIND: &'static str = "note";

    fn expires_at(&self) -> Timestamp {
        self.until
    }

    fn pack(&self) -> Vec<u8> {
        self.text.clone().into_bytes()
    }

    fn unpack(bytes: &[u8], until: Timestamp) -> Option<Self> {
        Some(Self { text: String::from_utf8(bytes.to_vec()).ok()?, until })
    }
}

/// The same bytes under another kind.
#[derive(Debug)]
struct Other(Note);

impl Value for Other {
    const KIND: &'static str = "other";

    fn expires_at(&self) -> Timestamp {
        self.0.until
    }

    fn pack(&self) -> Vec<u8> {
        self.0.pack()
    }

    fn unpack(bytes: &[u8], until: Timestamp) -> Option<Self> {
        Note::unpack(bytes, until).map(Self)
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_795_344_960_000).after(Duration::from_secs(seconds))
}

fn note(text: &str, until: u64) -> Note {
    Note { text: text.to_owned(), until: at(until) }
}

async fn store(stack: &Stack) -> (TestApp, Ephemeral) {
    let app = stack.app().await;
    let store = app.ephemeral.clone();
    (app, store)
}

async fn a_value_is_put_once_and_found_until_it_expires(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let key = Key::new(b"slot", b"id");
    assert_eq!(store.get::<Note>(at(0), &key).await.unwrap(), None);
    assert!(store.swap(at(0), &key, None, &note("one", 60)).await.unwrap());
    assert!(!store.swap(at(0), &key, None, &note("two", 60)).await.unwrap(), "it is there already");
    assert_eq!(store.get(at(59), &key).await.unwrap(), Some(note("one", 60)));
    assert_eq!(store.get::<Note>(at(60), &key).await.unwrap(), None);
    for text in ["", "\0\u{7f}ü"] {
        let key = Key::new(b"slot", text.as_bytes());
        assert!(store.swap(at(0), &key, None, &note(text, 60)).await.unwrap());
        assert_eq!(store.get(at(0), &key).await.unwrap(), Some(note(text, 60)));
    }
}

async fn a_swap_needs_what_was_seen(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let key = Key::new(b"slot", b"id");
    assert!(!store.swap(at(0), &key, Some(&note("one", 60)), &note("two", 60)).await.unwrap(), "nothing was seen");
    store.swap(at(0), &key, None, &note("one", 60)).await.unwrap();
    assert!(!store.swap(at(0), &key, Some(&note("other", 60)), &note("two", 60)).await.unwrap());
    assert!(!store.swap(at(0), &key, Some(&note("one", 61)), &note("two", 60)).await.unwrap(), "another expiry");
    assert!(store.swap(at(0), &key, Some(&note("one", 60)), &note("two", 120)).await.unwrap());
    assert_eq!(store.get(at(60), &key).await.unwrap(), Some(note("two", 120)), "the expiry moves too");
}

async fn a_dead_value_does_not_exist_for_any_verb(stack: Stack) {
    let (_app, store) = store(&stack).await;
    let key = Key::new(b"slot", b"id");
    store.swap(at(0), &key, None, &note("one", 60)).await.unwrap();
    assert!(
        !store.swap(at(60), &key, Some(&note("one", 60)), &note("two", 120)).await.unwrap(),
        "it cannot be changed"
    );
    assert!(store.swap(at(60), &key, None, &note("two", 120)).await.unwrap(), "its place is free");
    assert_eq!(store.get(at(60), &key).await.unwrap(), Some(note("two", 120)));
}

async fn kinds_slots_and_ids_do_not_meet(stack: Stack) {
    let (_app, store) = store(&stack).await;
    store.swap(at(0), &Key::new(b"slot", b"id"), None, &note("one", 60)).await.unwrap();
    for (slot, id) in [(&b"slo"[..], &b"tid"[..]), (b"slot", b"i"), (b"sloT", b"id"), (b"", b"slotid")] {
        assert_eq!(store.get::<Note>(at(0), &Key::new(slot, id)).await.unwrap(), None);
    }
    assert!(store.get::<Other>(at(0), &Key::new(b"slot", b"id")).await.unwrap().is_none());
    assert!(store.swap(at(0), &Key::new(b"slot", b"id"), None, &Other(note("two", 60))).await.unwrap());
    assert_eq!(store.get(at(0), &Key::new(b"slot", b"id")).await.unwrap(), Some(note("one", 60)));
}

async fn of_many_swaps_at_once_one_wins(stack: Stack) {
    let (_app, store) = store(&stack).await;
    for round in 0..scale::races() {
        let id = [u8::try_from(round % 256).unwrap()];
        for before in [None, Some(note("first", 60))] {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..scale::race() {
                let (store, before) = (store.clone(), before.clone());
                let after = if before.is_none() { note("first", 60) } else { note(&number.to_string(), 60) };
                tasks.spawn(async move {
                    store.swap(at(0), &Key::new(b"race", &id), before.as_ref(), &after).await.unwrap()
                });
            }
            let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
            assert_eq!(won, 1);
        }
    }
}

async fn what_is_dead_is_swept(stack: Stack) {
    if StackKind::REDISES.contains(&stack.kind) {
        // Redis forgets by itself: an hour after the expiry at the latest.
        let (_app, store) = store(&stack).await;
        store.swap(at(0), &Key::new(b"slot", b"id"), None, &note("one", 60)).await.unwrap();
        let mut ttls = Vec::new();
        for mut master in stack.redis_masters().await {
            let pattern = format!("{}:*", stack.redis_prefix());
            for key in redis::cmd("KEYS").arg(pattern).query_async::<Vec<String>>(&mut master).await.unwrap() {
                ttls.push(redis::cmd("PTTL").arg(&key).query_async::<u64>(&mut master).await.unwrap());
            }
        }
        assert_eq!(ttls.len(), 1);
        assert!((3_600_000..=3_660_000).contains(&ttls[0]), "{ttls:?}");
        return;
    }
    let (app, store) = store(&stack).await;
    for number in 0..5u8 {
        store.swap(at(0), &Key::new(b"slot", &[number]), None, &note("one", 60 + u64::from(number))).await.unwrap();
    }
    assert_eq!(store.sweep(at(62)).await.unwrap(), 3);
    assert_eq!(app.number("SELECT COUNT(*) FROM ephemeral").await, 2);
}
