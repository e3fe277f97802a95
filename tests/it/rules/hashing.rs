//! The hashing threads, held and let go from outside (`security.md` §1).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use latchkey::hashing::{Busy, HashMemory};

use crate::{
    on_stacks,
    support::{Stack, StackKind, Test, TestApp},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&[StackKind::Embedded];
        work_that_was_given_up_is_not_done_later,
        work_whose_client_hung_up_is_done_all_the_same,
        a_panic_costs_one_answer_and_no_thread,
        memory_is_kept_for_the_next_hash_unless_a_dear_one_took_more,
        hashing_gives_way_to_everything_else,
        memory_goes_back_after_a_minute_without_work,
    ]
}

async fn one_thread(stack: &Stack) -> TestApp {
    stack.app_with(&[("LATCHKEY_HASH_THREADS", "1")]).await
}

/// Keeps the one hashing thread busy until the sender is used or dropped.
async fn held(app: &TestApp) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let hasher = app.hasher.clone();
    tokio::spawn(async move {
        let work = move |_: &mut HashMemory| {
            let _ = begun.send(());
            let _ = held.recv_timeout(Duration::from_secs(60));
        };
        let _ = hasher.run(work).await;
    });
    has_begun.await.unwrap();
    release
}

fn counting(done: &Arc<AtomicU32>) -> impl FnOnce(&mut HashMemory) + Send + 'static {
    let done = Arc::clone(done);
    move |_| {
        done.fetch_add(1, Ordering::SeqCst);
    }
}

async fn work_that_was_given_up_is_not_done_later(stack: Stack) {
    let app = one_thread(&stack).await;
    let release = held(&app).await;
    let done = Arc::new(AtomicU32::new(0));
    assert_eq!(app.hasher.run(counting(&done)).await, Err(Busy), "nobody took it up within two seconds");
    release.send(()).unwrap();
    // One thread, one order: when this has run, so has whatever was before it.
    app.hasher.run(|_| ()).await.unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 0, "whoever was told busy cost nothing");
}

async fn work_whose_client_hung_up_is_done_all_the_same(stack: Stack) {
    let app = one_thread(&stack).await;
    let release = held(&app).await;
    let done = Arc::new(AtomicU32::new(0));
    let work = app.hasher.run(counting(&done));
    assert!(tokio::time::timeout(Duration::from_millis(100), work).await.is_err());
    release.send(()).unwrap();
    app.hasher.run(|_| ()).await.unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 1, "the place in the queue belongs to the work");
}

async fn a_panic_costs_one_answer_and_no_thread(stack: Stack) {
    let app = one_thread(&stack).await;
    assert_eq!(app.hasher.run(|_| panic!("a fault of ours")).await, Err::<(), _>(Busy));
    assert_eq!(app.hasher.run(|_| 42).await, Ok(42));
    app.person("alice").await;
}

async fn memory_is_kept_for_the_next_hash_unless_a_dear_one_took_more(stack: Stack) {
    let app = one_thread(&stack).await;
    let mark = |blocks: usize| {
        app.hasher.run(move |memory| {
            let blocks = memory.blocks(blocks).unwrap();
            std::mem::replace(&mut blocks[0].as_mut()[0], 42)
        })
    };
    // The settings of a stack ask for 7168 blocks.
    assert_eq!(mark(7168).await, Ok(0), "fresh from the system");
    assert_eq!(mark(7168).await, Ok(42), "used again");
    mark(8 * 7168).await.unwrap();
    assert_eq!(mark(7168).await, Ok(0), "one dear hash does not stay as memory");
}

async fn hashing_gives_way_to_everything_else(stack: Stack) {
    let app = one_thread(&stack).await;
    // Adding nothing tells the thread's own priority.
    let own = rustix::process::nice(0).unwrap();
    let hashing = app.hasher.run(|_| rustix::process::nice(0).unwrap()).await.unwrap();
    assert!(hashing > own, "{hashing} is no lower than {own}");
}

async fn memory_goes_back_after_a_minute_without_work(stack: Stack) {
    if !crate::support::scale::is_soak() {
        return;
    }
    let app = one_thread(&stack).await;
    let mark = || app.hasher.run(|memory| std::mem::replace(&mut memory.blocks(7168).unwrap()[0].as_mut()[0], 42));
    assert_eq!((mark().await, mark().await), (Ok(0), Ok(42)));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(mark().await, Ok(0), "fresh from the system again");
}
