//! What was read of a caller a moment ago, so that somebody who asks often costs the stores two reads a second.
//!
//! 1. A request whose token was found right looks for a reading of its session: record and person, read together.
//! 2. A reading is good for a request that came less than [`FRESH`] after it *began*, while this process did not change
//!    the person since (`db::Changes`). So what another node did is felt within [`FRESH`], what this one did at once, and
//!    nothing is served longer however slow a store is, or whatever is away.
//! 3. There is one reading of a session at a time, unless one takes longer than [`FRESH`]: who comes while it is under
//!    way waits for it, and gets what it gets.
//!    Whoever waits carries it on, and who hangs up leaves it to a task of its own ([`Finish`]).
//! 4. Only a yes is kept. A no is asked again, since the session that was dead a moment ago may have been spared by the
//!    act that ended the others; an error is told to those who wait and forgotten.
//!
//! Only what shows a person to itself is answered out of this (`GET /me`). Acts read both stores anew ([`super::Caller`]).

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use uuid::Uuid;

use super::{Person, User};
use crate::{db::Timestamp, error::ApiError, generations::Generations, http::Finish};

/// How old what is served may be when a request comes.
const FRESH: Duration = Duration::from_millis(500);
/// Sessions of which a reading is kept, of about a kilobyte each.
const MOST: usize = 8 * 1024;

/// A person in a session that was alive when it was read.
#[derive(Debug)]
pub(super) struct Seen {
    pub person: Person,
    /// When the session dies of age; asked each time.
    pub expires_at: Timestamp,
    shown: OnceLock<Bytes>,
}

impl Seen {
    pub(super) fn new(person: Person, expires_at: Timestamp) -> Self {
        Self { person, expires_at, shown: OnceLock::new() }
    }

    /// The person as JSON, rendered once for all who ask.
    pub(super) fn shown(&self) -> Bytes {
        let render = || serde_json::to_vec(&User::from(self.person.clone())).unwrap_or_default().into();
        self.shown.get_or_init(render).clone()
    }
}

/// What a reading comes to; `None` when there is no such living session.
pub(super) type Outcome = Result<Option<Arc<Seen>>, ApiError>;

/// One reading of both stores, under way or done.
#[derive(Clone)]
struct Reading {
    began: Duration,
    changes: u64,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

/// The readings of the last moments.
#[derive(Debug)]
pub struct Recent(Generations<(Uuid, Uuid), Reading>);

impl Default for Recent {
    fn default() -> Self {
        Self(Generations::new(MOST))
    }
}

/// When a request came, and what the counter of its person was then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// [`crate::ambient::Ambient::elapsed`].
    pub at: Duration,
    /// [`crate::db::Changes::of`].
    pub changes: u64,
    /// [`crate::ambient::Ambient::now`].
    pub now: Timestamp,
}

impl Recent {
    /// The person in this session: out of a reading that is good for this arrival, else out of a new one by `read`.
    pub(super) async fn find<F>(&self, person: Uuid, session: Uuid, arrival: Arrival, read: impl Fn() -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (key, mut last) = ((person, session), None);
        // Who found a reading of somebody else's that said no looks once more; then the no is later than the question.
        for _ in 0..2 {
            let is_good = |reading: &Reading| {
                reading.changes == arrival.changes
                    && arrival.at.saturating_sub(reading.began) < FRESH
                    // What it came to, if all who waited for it hung up before they could forget it.
                    && reading.outcome.peek().is_none_or(|outcome| matches!(outcome, Ok(Some(_))))
            };
            let mut is_ours = false;
            let reading = self.0.get_or_insert(key, is_good, || {
                is_ours = true;
                Reading { began: arrival.at, changes: arrival.changes, outcome: read().boxed().shared() }
            });
            let outcome = Finish::new(reading.outcome.clone()).await;
            if matches!(&outcome, Ok(Some(seen)) if arrival.now < seen.expires_at) {
                return outcome;
            }
            self.0.remove_if(&key, |kept| kept.outcome.ptr_eq(&reading.outcome));
            let is_final = is_ours || outcome.is_err();
            last = Some(outcome.map(|_| None));
            if is_final {
                break;
            }
        }
        last.unwrap_or(Ok(None))
    }

    /// Forgets what was not asked for since the last time, so that memory comes back.
    pub fn turn(&self) {
        self.0.turn();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use sqlx::types::Json;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{accounts::Status, error::Code};

    const PERSON: Uuid = Uuid::from_u128(1);
    const SESSION: Uuid = Uuid::from_u128(2);

    fn arrival(millis: u64, changes: u64) -> Arrival {
        Arrival { at: Duration::from_millis(millis), changes, now: Timestamp::from_millis(0) }
    }

    fn seen(name: &str) -> Outcome {
        let person = Person {
            id: PERSON,
            email: None,
            email_verified: false,
            username: None,
            display_name: Some(name.to_owned()),
            roles: Json(Vec::new()),
            status: Status::Active,
            epoch: 0,
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
            last_login_at: None,
        };
        Ok(Some(Arc::new(Seen::new(person, Timestamp::from_millis(1000)))))
    }

    /// Finds, and tells what was found and how often the stores were read for it.
    async fn ask(recent: &Recent, arrival: Arrival, answers: &[Outcome]) -> (Option<String>, u32) {
        let reads = AtomicU32::new(0);
        let read = || {
            let answer = answers[reads.fetch_add(1, Ordering::SeqCst) as usize].clone();
            async move { answer }
        };
        let found = recent.find(PERSON, SESSION, arrival, read).await.ok().flatten();
        (found.and_then(|seen| seen.person.display_name.clone()), reads.load(Ordering::SeqCst))
    }

    fn name(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[tokio::test]
    async fn a_reading_is_good_for_half_a_second() {
        let recent = Recent::default();
        assert_eq!(ask(&recent, arrival(1000, 0), &[seen("first")]).await, (name("first"), 1));
        assert_eq!(ask(&recent, arrival(1499, 0), &[]).await, (name("first"), 0));
        assert_eq!(ask(&recent, arrival(1500, 0), &[seen("second")]).await, (name("second"), 1));
    }

    #[tokio::test]
    async fn a_change_here_makes_it_old_at_once() {
        let recent = Recent::default();
        ask(&recent, arrival(1000, 0), &[seen("before")]).await;
        assert_eq!(ask(&recent, arrival(1000, 1), &[seen("after")]).await, (name("after"), 1));
    }

    #[tokio::test]
    async fn a_no_and_an_error_are_not_kept() {
        let recent = Recent::default();
        assert_eq!(ask(&recent, arrival(1000, 0), &[Ok(None)]).await, (None, 1));
        assert_eq!(ask(&recent, arrival(1000, 0), &[Err(Code::Unavailable.into())]).await, (None, 1));
        assert_eq!(ask(&recent, arrival(1000, 0), &[seen("now")]).await, (name("now"), 1));
    }

    #[tokio::test]
    async fn a_session_that_died_of_age_meanwhile_is_read_again() {
        let recent = Recent::default();
        ask(&recent, arrival(1000, 0), &[seen("young")]).await;
        let later = Arrival { now: Timestamp::from_millis(1000), ..arrival(1100, 0) };
        let Ok(Some(fresh)) = seen("refreshed") else { unreachable!() };
        let fresh = Seen::new(fresh.person.clone(), Timestamp::from_millis(2000));
        assert_eq!(ask(&recent, later, &[Ok(Some(Arc::new(fresh)))]).await, (name("refreshed"), 1));
    }

    /// A reading that ends when told to, and how many are under way.
    fn slow(recent: &Arc<Recent>, arrival: Arrival) -> (oneshot::Sender<Outcome>, tokio::task::JoinHandle<Outcome>) {
        let (end, ended) = oneshot::channel();
        let (recent, ended) = (Arc::clone(recent), std::sync::Mutex::new(Some(ended)));
        let task = tokio::spawn(async move {
            recent
                .find(PERSON, SESSION, arrival, || {
                    let ended = ended.lock().unwrap().take();
                    async move { ended.expect("one reading").await.expect("an end") }
                })
                .await
        });
        (end, task)
    }

    async fn waits(task: &tokio::task::JoinHandle<Outcome>) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished());
    }

    #[tokio::test]
    async fn who_comes_while_it_is_read_waits_for_it() {
        let recent = Arc::new(Recent::default());
        let (end, first) = slow(&recent, arrival(1000, 0));
        waits(&first).await;
        let (unused, second) = slow(&recent, arrival(1400, 0));
        waits(&second).await;
        // Who hangs up takes it from nobody.
        first.abort();
        waits(&second).await;
        end.send(seen("shared")).unwrap();
        assert!(second.await.unwrap().unwrap().is_some());
        drop(unused);
    }

    #[tokio::test]
    async fn who_comes_too_late_for_a_slow_reading_gets_one_of_its_own() {
        for later in [arrival(1500, 0), arrival(1000, 1)] {
            let recent = Arc::new(Recent::default());
            let (old, first) = slow(&recent, arrival(1000, 0));
            waits(&first).await;
            let (new, second) = slow(&recent, later);
            waits(&second).await;
            old.send(seen("old")).unwrap();
            first.await.unwrap().unwrap();
            waits(&second).await;
            new.send(seen("new")).unwrap();
            assert_eq!(second.await.unwrap().unwrap().unwrap().person.display_name, name("new"));
            assert_eq!(ask(&recent, later, &[]).await, (name("new"), 0), "and it is the one that is kept");
        }
    }

    #[tokio::test]
    async fn an_error_that_nobody_waited_for_is_told_to_nobody() {
        let recent = Arc::new(Recent::default());
        let (end, only) = slow(&recent, arrival(1000, 0));
        waits(&only).await;
        let kept = recent.0.get(&(PERSON, SESSION)).unwrap().outcome;
        only.abort();
        let _ = only.await;
        end.send(Err(Code::Unavailable.into())).unwrap();
        // As the map would find it: come to its end, and nobody there to forget it.
        kept.await.unwrap_err();
        assert_eq!(ask(&recent, arrival(1100, 0), &[seen("back")]).await, (name("back"), 1));
    }

    #[tokio::test]
    async fn a_no_to_somebody_else_is_asked_again() {
        let recent = Arc::new(Recent::default());
        let (end, first) = slow(&recent, arrival(1000, 0));
        waits(&first).await;
        let (spared, second) = slow(&recent, arrival(1100, 0));
        waits(&second).await;
        end.send(Ok(None)).unwrap();
        assert!(first.await.unwrap().unwrap().is_none());
        spared.send(seen("spared")).unwrap();
        assert!(second.await.unwrap().unwrap().is_some());
    }
}
