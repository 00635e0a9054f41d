//! The control socket of a relay that runs: what commands see of its store, and when it is bound.

use std::future::{Future, pending};
use std::sync::{Arc, Weak};

use relay_core::{Figures, MemoryRelay, Relay};
use relay_http::Unready;
use relay_store_redb::RedbRelay;
use relay_wake::WakingRelay;
use tokio::sync::oneshot;

use crate::config::RelayConfig;
use crate::control::{self, Binding, ControlledRelay, ControlledStore, Ending, Facts, Socket};
use crate::deferred_store::DeferredStore;
use crate::error::RelayError;
use crate::logging::LogFilter;
use crate::recipients::HashedRecipients;

/// A relay that commands can ask for its store.
pub(super) trait Controlled: Relay {
    /// The store on disk, if it is one.
    fn redb(&self) -> Option<&RedbRelay>;
}

impl Controlled for MemoryRelay {
    fn redb(&self) -> Option<&RedbRelay> {
        None
    }
}

impl Controlled for HashedRecipients<RedbRelay> {
    fn redb(&self) -> Option<&RedbRelay> {
        Some(self.inner())
    }
}

#[cfg(feature = "postgres")]
impl Controlled for HashedRecipients<relay_store_postgres::PostgresRelay> {
    fn redb(&self) -> Option<&RedbRelay> {
        None
    }
}

impl<R: Controlled> ControlledStore for DeferredStore<WakingRelay<R>> {
    fn readiness(&self) -> Result<(), Unready> {
        Self::readiness(self)
    }

    fn is_open(&self) -> bool {
        self.get().is_some()
    }

    fn figures(&self) -> Figures {
        Relay::figures(self)
    }

    fn redb(&self) -> Option<&RedbRelay> {
        self.get()?.inner().redb()
    }
}

/// Whether a relay gets a control socket, and how.
pub(super) struct ControlPlan<R>(Option<Plan<R>>);

/// A store as commands see it.
type AsControlled<R> = fn(&Arc<DeferredStore<WakingRelay<R>>>) -> Weak<dyn ControlledStore>;

struct Plan<R> {
    socket: oneshot::Receiver<Socket>,
    store: AsControlled<R>,
    log: Option<LogFilter>,
}

impl<R> ControlPlan<R> {
    /// No socket: the store belongs to the caller.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// The commands of a relay that starts.
    pub(super) fn start(
        self,
        config: &RelayConfig,
        base_url: &str,
        store: &Arc<DeferredStore<WakingRelay<R>>>,
    ) -> Control {
        Control(self.0.map(|Plan { socket, store: weak, log }| {
            let facts =
                Facts { config: config.clone(), base_url: base_url.to_owned(), store: weak(store), log };
            let (relay, ending) = ControlledRelay::new(facts);
            Running { relay, ending, socket }
        }))
    }
}

impl<R: Controlled> ControlPlan<R> {
    /// The plan of this configuration. If it has a socket in the storage directory, also the
    /// binding for the start, which locks that directory.
    ///
    /// # Errors
    /// [`RelayError::Control`], if the socket of the configuration cannot be bound.
    pub(super) fn new(
        config: &RelayConfig,
        log: Option<LogFilter>,
    ) -> Result<(Self, Option<Binding>), RelayError> {
        let Some(path) = control::path(config) else { return Ok((Self(None), None)) };
        let (binding, socket) = Binding::new(path.clone());
        let plan = Self(Some(Plan { socket, store: |store| Arc::<DeferredStore<_>>::downgrade(store), log }));
        if control::is_configured(config) {
            binding.bind().map_err(|source| RelayError::Control { path, source })?;
            return Ok((plan, None));
        }
        Ok((plan, Some(binding)))
    }
}

/// The commands of a running relay. Dropping this ends them.
pub(super) struct Control(Option<Running>);

struct Running {
    relay: Arc<ControlledRelay>,
    ending: Ending,
    socket: oneshot::Receiver<Socket>,
}

/// What is left of [`Control`] once its socket is served.
pub(super) struct ControlEnd(Option<(Arc<ControlledRelay>, Ending)>);

impl Control {
    /// Resolves when a command stops the relay.
    pub(super) fn drain_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        let relay = self.0.as_ref().map(|running| Arc::clone(&running.relay));
        async move {
            match relay {
                Some(relay) => relay.drain_requested().await,
                None => pending().await,
            }
        }
    }

    /// The future that serves the socket and never resolves, and the other end of the commands.
    pub(super) fn serve(self) -> (impl Future<Output = ()> + Send, ControlEnd) {
        let (end, serving) = match self.0 {
            Some(Running { relay, ending, socket }) => {
                let serving = control::serve(socket, Arc::clone(&relay));
                (Some((relay, ending)), Some(serving))
            }
            None => (None, None),
        };
        let serving = async {
            match serving {
                Some(serving) => serving.await,
                None => pending().await,
            }
        };
        (serving, ControlEnd(end))
    }
}

impl ControlEnd {
    /// Ends all commands that use the store.
    pub(super) fn closing(&self) {
        if let Some((_, ending)) = &self.0 {
            ending.closing();
        }
    }

    /// Tells the outcome to the commands that wait for it.
    pub(super) async fn ended(self, outcome: &Result<(), RelayError>) {
        if let Some((relay, ending)) = self.0 {
            let outcome = outcome.as_ref().copied().map_err(ToString::to_string);
            ending.ended(&relay, outcome).await;
        }
    }
}
