//! A relay whose store may not be open yet, so that the port serves from the start. Even a client
//! that retries only for a quarter of a second gets an answer. A request waits for the store before
//! the server reads its body, and fails with [`Error::NotReady`] if that takes too long.

use std::sync::Arc;
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, Envelope, Error, Figures, Limits, Operation, Page, Pull, PushOutcome, Recipient, Relay,
    Swept, TooManyWaiters, Unavailable, Waiter,
};
use relay_http::Unready;
use tokio::sync::{Semaphore, SetOnce, mpsc};
use tokio::time::{sleep, timeout};

/// Most stores open in less time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const NOT_READY: Error = Error::NotReady { retry_after: RETRY_AFTER };

/// How long the end waits until the store is released. Only a thread that ends can still hold it.
pub(crate) const STORE_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most requests that wait for the store at once; further ones fail. Each takes some kilobytes.
const WAITING_MAX: usize = 4096;

/// A store that is open, or will be.
pub(crate) struct DeferredStore<R> {
    store: SetOnce<R>,
    replay_percent: ReplayPercent,
    /// How long a request waits for the store.
    start_wait: Duration,
    waiting: Semaphore,
    /// Set when the relay ends, whether the store is open or not.
    ending: SetOnce<()>,
    /// Dropped after the store, since fields are dropped in order.
    _release: mpsc::Sender<()>,
}

/// Waits until a [`DeferredStore`] is dropped, and its store closed.
pub(crate) struct Release(mpsc::Receiver<()>);

/// The progress of the replay, in percent; `None` before it begins, or if it is unknown.
pub(crate) type ReplayPercent = Box<dyn Fn() -> Option<u8> + Send + Sync>;

impl<R: Relay> DeferredStore<R> {
    /// Requests wait for the store for at most `start_wait`.
    pub(crate) fn track(replay_percent: ReplayPercent, start_wait: Duration) -> (Arc<Self>, Release) {
        let (sender, receiver) = mpsc::channel(1);
        let opening = Self {
            store: SetOnce::new(),
            replay_percent,
            start_wait,
            waiting: Semaphore::new(WAITING_MAX),
            ending: SetOnce::new(),
            _release: sender,
        };
        (Arc::new(opening), Release(receiver))
    }

    /// Sets the store, once.
    pub(crate) fn set(&self, store: R) {
        // Each relay starts once.
        drop(self.store.set(store));
    }

    /// The store, if it is open.
    #[cfg(feature = "redb")]
    pub(crate) fn get(&self) -> Option<&R> {
        self.store.get()
    }

    /// Ends the relay: requests that wait for the store fail at once.
    pub(crate) fn end(&self) {
        // A second call changes nothing.
        drop(self.ending.set(()));
    }

    /// What `/ready` answers.
    pub(crate) fn readiness(&self) -> Result<(), Unready> {
        if self.ending.get().is_some() {
            return Err(Unready::Draining);
        }
        match self.store.get() {
            Some(store) if let Some(unavailable) = store.unavailable() => Err(match unavailable {
                Unavailable::Database => Unready::Database,
                Unavailable::Standby => Unready::Standby,
            }),
            Some(store) if store.is_full() => Err(Unready::StorageFull),
            Some(_) => Ok(()),
            None => {
                let percent = (self.replay_percent)();
                Err(percent.map_or(Unready::Starting, |percent| Unready::Replaying { percent }))
            }
        }
    }

    /// Resolves when the store is open.
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

    async fn push_all(&self, envelopes: Vec<Envelope>) -> Result<Vec<Result<PushOutcome, Error>>, Error> {
        self.store()?.push_all(envelopes).await
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
        if let Some(store) = self.store.get() {
            return store.ready().await;
        }
        let _permit = self.waiting.try_acquire().map_err(|_| NOT_READY)?;
        tokio::select! {
            biased;
            _ = self.store.wait() => Ok(()),
            _ = self.ending.wait() => Err(NOT_READY),
            () = sleep(self.start_wait) => Err(NOT_READY),
        }
    }

    async fn permit(
        &self,
        operation: Operation,
        recipient: &Recipient,
        authorization: Option<&[u8]>,
    ) -> Result<(), Error> {
        self.store()?.permit(operation, recipient, authorization).await
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        self.store.get().map_or(Ok(None), |store| store.waiter(recipient))
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        self.store.get().is_some_and(|store| store.has_waiter(recipient))
    }

    fn is_full(&self) -> bool {
        self.store.get().is_some_and(Relay::is_full)
    }

    fn unavailable(&self) -> Option<Unavailable> {
        self.store.get().and_then(Relay::unavailable)
    }

    fn set_limits(&self, limits: &Limits) -> bool {
        self.store.get().is_some_and(|store| store.set_limits(limits))
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
    fn a_waiting_request_continues_when_the_store_opens_and_fails_when_the_relay_ends() {
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
            assert!(matches!(opening.ready().await, Err(Error::NotReady { .. })), "later requests fail too");
        });
    }

    #[test]
    fn with_a_start_wait_of_zero_no_request_waits() {
        let answered = runtime().block_on(opening(Duration::ZERO).ready());
        assert!(matches!(answered, Err(Error::NotReady { .. })));
    }

    #[test]
    fn the_number_of_waiting_requests_is_bounded() {
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
