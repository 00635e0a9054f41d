//! A relay whose store is still being opened. The port serves from the first moment, so that a
//! client that gives a restart a quarter of a second finds somebody. A request that needs the store
//! waits for it for a while, before its body is read, and is then told to come again. It decides
//! nothing about queues, and never waits once the store was there.

use std::sync::Arc;
use std::time::Duration;

use relay_core::{Ack, AckOutcome, Envelope, Error, Figures, Page, Pull, PushOutcome, Relay, Swept};
use relay_http::Unready;
use tokio::sync::{Semaphore, SetOnce, mpsc};
use tokio::time::{sleep, timeout};

/// When to come again. Most stores are open before that.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const NOT_READY: Error = Error::NotReady { retry_after: RETRY_AFTER };

/// How long the end waits for the last holder of the store, which is a thread on its way out.
pub(crate) const STORE_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most requests that wait for the store at once; further ones are told to come again. Each
/// keeps some kilobytes.
const WAITING_MAX: usize = 4096;

/// A store that is there, or will be, and that tells when its last holder has let go of it and it
/// is closed.
pub(crate) struct DeferredStore<R> {
    store: SetOnce<R>,
    progress: Progress,
    /// How long a request waits for the store.
    start_wait: Duration,
    waiting: Semaphore,
    /// Set when the relay ends, whether the store is there or not.
    ending: SetOnce<()>,
    /// Dropped after the store, since fields are dropped in order.
    _held: mpsc::Sender<()>,
}

/// Waits for the end of a [`DeferredStore`].
pub(crate) struct Release(mpsc::Receiver<()>);

/// How far the store has come, in percent; `None` as long as it has not begun to replay, or knows
/// nothing of that.
pub(crate) type Progress = Box<dyn Fn() -> Option<u8> + Send + Sync>;

impl<R: Relay> DeferredStore<R> {
    /// Lets requests wait for the store up to `start_wait`.
    pub(crate) fn track(progress: Progress, start_wait: Duration) -> (Arc<Self>, Release) {
        let (held, release) = mpsc::channel(1);
        let opening = Self {
            store: SetOnce::new(),
            progress,
            start_wait,
            waiting: Semaphore::new(WAITING_MAX),
            ending: SetOnce::new(),
            _held: held,
        };
        (Arc::new(opening), Release(release))
    }

    /// Puts the store in place, once.
    pub(crate) fn set(&self, store: R) {
        // Only the start does, and there is one.
        drop(self.store.set(store));
    }

    /// Notes that the relay ends. Who still waits for the store is answered at once.
    pub(crate) fn end(&self) {
        // The first time counts.
        drop(self.ending.set(()));
    }

    /// What `/ready` is to tell.
    pub(crate) fn readiness(&self) -> Result<(), Unready> {
        if self.ending.get().is_some() {
            return Err(Unready::Draining);
        }
        match self.store.get() {
            Some(store) if store.is_full() => Err(Unready::StorageFull),
            Some(_) => Ok(()),
            None => {
                Err((self.progress)().map_or(Unready::Starting, |percent| Unready::Replaying { percent }))
            }
        }
    }

    /// Resolves when the store is there.
    pub(crate) async fn opened(&self) -> &R {
        self.store.wait().await
    }

    fn store(&self) -> Result<&R, Error> {
        self.store.get().ok_or(NOT_READY)
    }
}

impl Release {
    pub(crate) async fn wait(mut self) {
        if timeout(STORE_RELEASE_TIMEOUT, self.0.recv()).await.is_err() {
            tracing::warn!("the store is still in use");
        }
    }
}

impl<R: Relay> Relay for DeferredStore<R> {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.store()?.push(envelope).await
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        self.store()?.pull(pull).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        self.store()?.ack(ack).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.store()?.sweep().await
    }

    async fn ready(&self) -> Result<(), Error> {
        if self.store.get().is_some() {
            return Ok(());
        }
        let _place = self.waiting.try_acquire().map_err(|_| NOT_READY)?;
        tokio::select! {
            biased;
            _ = self.store.wait() => Ok(()),
            _ = self.ending.wait() => Err(NOT_READY),
            () = sleep(self.start_wait) => Err(NOT_READY),
        }
    }

    fn is_full(&self) -> bool {
        self.store.get().is_some_and(Relay::is_full)
    }

    fn figures(&self) -> Figures {
        self.store.get().map(Relay::figures).unwrap_or_default()
    }

    async fn ended(&self) -> Error {
        self.opened().await.ended().await
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use relay_core::{Clock, Limits, MemoryRelay, Timestamp};

    use super::*;

    struct Never;

    impl Clock for Never {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }

        fn elapsed_ms(&self) -> u64 {
            0
        }
    }

    const PATIENT: Duration = Duration::from_secs(3600);

    fn opening(start_wait: Duration) -> Arc<DeferredStore<MemoryRelay>> {
        DeferredStore::track(Box::new(|| None), start_wait).0
    }

    fn store() -> MemoryRelay {
        MemoryRelay::new(Limits::default(), Arc::new(Never))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn who_waits_is_let_through_when_the_store_is_there_and_sent_away_when_the_relay_ends() {
        runtime().block_on(async {
            let opening = opening(PATIENT);
            let mut cx = Context::from_waker(Waker::noop());
            let mut waiting = pin!(opening.ready());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            opening.set(store());
            assert!(matches!(waiting.await, Ok(())));

            let opening = self::opening(PATIENT);
            let mut waiting = pin!(opening.ready());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            assert_eq!(opening.readiness(), Err(Unready::Starting));
            opening.end();
            assert!(matches!(waiting.await, Err(Error::NotReady { .. })));
            assert_eq!(opening.readiness(), Err(Unready::Draining));
            assert!(matches!(opening.ready().await, Err(Error::NotReady { .. })), "nor does who comes later");
        });
    }

    #[test]
    fn without_patience_nobody_waits() {
        let answered = runtime().block_on(opening(Duration::ZERO).ready());
        assert!(matches!(answered, Err(Error::NotReady { .. })));
    }

    #[test]
    fn only_so_many_wait_and_who_goes_gives_the_place_back() {
        runtime().block_on(async {
            let opening = opening(PATIENT);
            let mut cx = Context::from_waker(Waker::noop());
            let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(opening.ready())).collect();
            assert!(waiting.iter_mut().all(|waiting| waiting.as_mut().poll(&mut cx).is_pending()));
            let mut further = Box::pin(opening.ready());
            assert!(matches!(further.as_mut().poll(&mut cx), Poll::Ready(Err(Error::NotReady { .. }))));
            drop(waiting.pop());
            assert!(Box::pin(opening.ready()).as_mut().poll(&mut cx).is_pending());
        });
    }
}
