//! Work that must come to its end although the client hangs up: the server drops the handler of a request then, wherever
//! it stands.
//!
//! 1. The work is done by whoever waits for it, as any other future: nothing is handed to another thread for it.
//! 2. When it is dropped before its end, what is left of it goes on in a task of its own.
//!    Whoever stops the server can wait for those ([`nothing_left`]).
//! 3. A panic inside is an `internal_error` for whoever waits: the work may be shared by several.
//!
//! A task for every piece of work would do the same for a hop there and a hop back each time, which is most of what a
//! quick read costs.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{runtime::Handle, sync::Notify};
use tracing::Instrument;

use crate::error::{ApiError, Code};

/// Runs work that must finish even when the client hangs up.
///
/// # Errors
/// What the work answers; `internal_error` if it panicked.
pub fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Finish<BoxFuture<'static, Result<T, ApiError>>> {
    // What it panicked with may quote anything; its place is logged by the panic hook, and nothing here.
    let unharmed = async { AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(Code::Internal.into())) };
    Finish::new(unharmed.boxed())
}

/// Pieces of work that go on without anybody.
static LEFT: AtomicUsize = AtomicUsize::new(0);
static ENDED: Notify = Notify::const_new();

/// One of them.
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        if LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
            ENDED.notify_waiters();
        }
    }
}

/// Waits until no work goes on whose client hung up.
pub async fn nothing_left() {
    let mut ended = std::pin::pin!(ENDED.notified());
    loop {
        ended.as_mut().enable();
        if LEFT.load(Ordering::SeqCst) == 0 {
            return;
        }
        ended.as_mut().await;
        ended.set(ENDED.notified());
    }
}

/// Work that goes on without whoever waited for it.
#[must_use = "nothing is done before it is awaited"]
#[derive(Debug)]
pub struct Finish<F: Future<Output: Send> + Unpin + Send + 'static> {
    /// `None` from its end on.
    rest: Option<F>,
    is_begun: bool,
}

impl<F: Future<Output: Send> + Unpin + Send + 'static> Finish<F> {
    /// Of work that does not panic, or may.
    pub fn new(work: F) -> Self {
        Self { rest: Some(work), is_begun: false }
    }
}

impl<F: Future<Output: Send> + Unpin + Send + 'static> Future for Finish<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.is_begun = true;
        let Some(rest) = &mut self.rest else { return Poll::Pending };
        let outcome = rest.poll_unpin(context);
        if outcome.is_ready() {
            self.rest = None;
        }
        outcome
    }
}

impl<F: Future<Output: Send> + Unpin + Send + 'static> Drop for Finish<F> {
    fn drop(&mut self) {
        if let (Some(rest), true) = (self.rest.take(), self.is_begun)
            && let Ok(runtime) = Handle::try_current()
        {
            LEFT.fetch_add(1, Ordering::SeqCst);
            runtime.spawn(
                async move {
                    let _left = Left;
                    rest.await
                }
                .in_current_span(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_was_begun_goes_on_without_whoever_waited() {
        let ((go, wait), (done, is_done)) = (oneshot::channel(), oneshot::channel());
        let mut work = finish(async move {
            let told = wait.await.is_ok();
            let _ = done.send(told);
            Ok(())
        });
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        assert!(nothing_left().now_or_never().is_none(), "it goes on");
        go.send(()).expect("somebody waits for it");
        assert_eq!(is_done.await, Ok(true));
        nothing_left().await;
    }

    #[tokio::test]
    async fn what_was_not_begun_does_not_begin() {
        let (done, is_done) = oneshot::channel();
        drop(finish(async move {
            let _ = done.send(());
            Ok(())
        }));
        assert!(is_done.await.is_err());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_whoever_waits() {
        let work = finish(async {
            assert!(std::hint::black_box(false), "a fault");
            Ok(())
        });
        assert_eq!(work.await.map_err(|error| error.code), Err(Code::Internal));
    }
}
