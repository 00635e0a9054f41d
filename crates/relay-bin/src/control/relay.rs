//! The running relay, as commands see it. It does not keep the store open.

use std::sync::{Arc, Weak};

use relay_core::{Clock as _, Figures, Timestamp};
use relay_http::Unready;
use relay_store_redb::RedbRelay;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::protocol::Refusal;
use crate::clock::SystemClock;
use crate::config::RelayConfig;
use crate::logging::LogFilter;

/// How many commands run at once.
pub(super) const COMMANDS_MAX: usize = 8;

/// A store that may not be open yet.
pub(crate) trait ControlledStore: Send + Sync {
    /// As `/ready` answers.
    fn readiness(&self) -> Result<(), Unready>;

    /// Whether it is open.
    fn is_open(&self) -> bool;

    fn figures(&self) -> Figures;

    /// The store on disk, if it is one, and open.
    fn redb(&self) -> Option<&RedbRelay>;
}

/// What never changes while the relay runs.
pub(crate) struct Facts {
    pub(crate) config: RelayConfig,
    /// The URL for clients.
    pub(crate) base_url: String,
    pub(crate) store: Weak<dyn ControlledStore>,
    /// `None` if the log belongs to a program that embeds the relay.
    pub(crate) log: Option<LogFilter>,
}

/// A running relay.
pub(crate) struct ControlledRelay {
    pub(super) facts: Facts,
    pub(super) started: Timestamp,
    started_elapsed_ms: u64,
    drain: Notify,
    phase: watch::Receiver<Phase>,
    /// One for each command that runs.
    pub(super) slots: Arc<Semaphore>,
    /// One command at a time reads the whole store.
    whole_store: Arc<Semaphore>,
}

/// Tells the commands how the relay ends. Dropping this ends them.
pub(crate) struct Ending(watch::Sender<Phase>);

#[derive(Clone, Debug)]
enum Phase {
    Running,
    /// Clients are no longer served, and the store is being closed.
    Closing,
    /// The store is closed.
    Ended(Result<(), String>),
}

impl ControlledRelay {
    /// A relay that starts now.
    pub(crate) fn new(facts: Facts) -> (Arc<Self>, Ending) {
        let (sender, phase) = watch::channel(Phase::Running);
        let relay = Self {
            facts,
            started: SystemClock.now(),
            started_elapsed_ms: SystemClock.elapsed_ms(),
            drain: Notify::new(),
            phase,
            slots: Arc::new(Semaphore::new(COMMANDS_MAX)),
            whole_store: Arc::new(Semaphore::new(1)),
        };
        (Arc::new(relay), Ending(sender))
    }

    /// Resolves when a command asks the relay to stop.
    pub(crate) async fn drain_requested(&self) {
        self.drain.notified().await;
    }

    pub(super) fn request_drain(&self) {
        self.drain.notify_one();
    }

    pub(super) fn uptime_ms(&self) -> u64 {
        SystemClock.elapsed_ms().saturating_sub(self.started_elapsed_ms)
    }

    /// Resolves when no other command reads the whole store. A thread that reads it keeps this.
    ///
    /// # Errors
    /// Never, since the semaphore stays open.
    pub(super) async fn whole_store_turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.whole_store).acquire_owned().await.map_err(|_| stopping())
    }

    /// The store, which is open. Whoever keeps it delays the end of the relay.
    ///
    /// # Errors
    /// The relay starts, or has stopped.
    pub(super) fn open_store(&self) -> Result<Arc<dyn ControlledStore>, Refusal> {
        let store = self.facts.store.upgrade().ok_or_else(stopping)?;
        if store.is_open() {
            return Ok(store);
        }
        Err(match store.readiness() {
            Err(Unready::Draining) => stopping(),
            Err(Unready::Replaying { percent }) => {
                Refusal::new("starting", format!("the relay is starting, {percent}% replayed"))
            }
            _ => Refusal::new("starting", "the relay is starting"),
        })
    }

    /// Resolves when commands have to end, because the store is being closed.
    pub(super) async fn closing(&self) {
        // An error means that the relay is gone.
        drop(self.phase.clone().wait_for(|phase| !matches!(phase, Phase::Running)).await);
    }

    /// Resolves when the relay has ended, with its outcome.
    pub(super) async fn ended(&self) -> Result<(), String> {
        let mut phase = self.phase.clone();
        match phase.wait_for(|phase| matches!(phase, Phase::Ended(_))).await.as_deref() {
            Ok(Phase::Ended(outcome)) => outcome.clone(),
            _ => Err("the relay ended without a word".to_owned()),
        }
    }
}

/// The refusal of a relay that ends.
pub(super) fn stopping() -> Refusal {
    Refusal::new("stopping", "the relay is stopping")
}

impl Ending {
    /// Ends all commands that use the store.
    pub(crate) fn closing(&self) {
        self.0.send_replace(Phase::Closing);
    }

    /// Tells the outcome to those that wait for the end, and lets them deliver it, for up to a
    /// second.
    pub(crate) async fn ended(self, relay: &ControlledRelay, outcome: Result<(), String>) {
        const DELIVERY: std::time::Duration = std::time::Duration::from_secs(1);
        self.0.send_replace(Phase::Ended(outcome));
        let all = u32::try_from(COMMANDS_MAX).unwrap_or(u32::MAX);
        drop(tokio::time::timeout(DELIVERY, relay.slots.acquire_many(all)).await);
    }
}
