//! A relay whose store is still being opened. The port serves from the first moment, so that a client that gives a restart a
//! quarter of a second finds somebody who tells it to come again; whatever needs the store is answered so until it is there. It
//! decides nothing.

use std::sync::Arc;
use std::time::Duration;

use relay_core::{Ack, AckOutcome, Envelope, Error, Figures, Page, Pull, PushOutcome, Relay, Swept};
use relay_http::Unready;
use tokio::sync::{SetOnce, mpsc};
use tokio::time::timeout;

/// When to come again. Most stores are open before that.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long the end waits for the last holder of the store, which is a thread on its way out.
const STORE_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A store that is there, or will be, and that tells when its last holder has let go of it and it is closed.
pub(crate) struct Opening<R> {
    store: SetOnce<R>,
    progress: Progress,
    /// Dropped after the store, since fields are dropped in order.
    _held: mpsc::Sender<()>,
}

/// Waits for the end of an [`Opening`].
pub(crate) struct Release(mpsc::Receiver<()>);

/// How far the store has come, in percent; `None` as long as it has not begun to replay, or knows nothing of that.
pub(crate) type Progress = Box<dyn Fn() -> Option<u8> + Send + Sync>;

impl<R: Relay> Opening<R> {
    pub(crate) fn track(progress: Progress) -> (Arc<Self>, Release) {
        let (held, release) = mpsc::channel(1);
        (Arc::new(Self { store: SetOnce::new(), progress, _held: held }), Release(release))
    }

    /// Puts the store in place, once.
    pub(crate) fn fill(&self, store: R) {
        // Only the start does, and there is one.
        drop(self.store.set(store));
    }

    /// What `/ready` is to tell.
    pub(crate) fn ready(&self) -> Result<(), Unready> {
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
        self.store.get().ok_or(Error::NotReady { retry_after: RETRY_AFTER })
    }
}

impl Release {
    pub(crate) async fn wait(mut self) {
        if timeout(STORE_RELEASE_TIMEOUT, self.0.recv()).await.is_err() {
            tracing::warn!("the store is still in use");
        }
    }
}

impl<R: Relay> Relay for Opening<R> {
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
