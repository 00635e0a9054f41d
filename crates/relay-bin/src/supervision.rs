//! How the program and the relay that it runs talk to each other: requests to reload files, and
//! what the program observes.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::sync::Arc;

use relay_http::{Liveness, Metrics, Readiness, Unready};
use tokio::sync::{mpsc, oneshot};

use crate::config::{ConfigErrors, Loaded};
use crate::logging::LogFilter;
use crate::passed_sockets::PassedSockets;

/// The side of the relay.
pub(crate) struct Supervision {
    /// What the service manager has passed.
    pub(crate) sockets: PassedSockets,
    pub(crate) reloads: ReloadRequests,
    /// The filter of the log, if the relay may change it.
    pub(crate) log: Option<LogFilter>,
    /// Reads all sources of the configuration again. `None` if it cannot be read again.
    pub(crate) configuration: Option<LoadConfiguration>,
    /// Gets the monitor when the relay listens.
    pub(crate) monitor: oneshot::Sender<Monitor>,
}

/// Reads all sources of a configuration.
pub(crate) type LoadConfiguration = Arc<dyn Fn() -> Result<Loaded, ConfigErrors> + Send + Sync>;

/// A request to read the files again that the relay reads while it serves. It is done when all
/// clones are dropped.
#[derive(Clone, Debug)]
pub(crate) struct ReloadRequest {
    _done: mpsc::Sender<Infallible>,
}

/// The requests to reload.
#[derive(Debug)]
pub(crate) struct ReloadRequests(pub(crate) mpsc::Receiver<ReloadRequest>);

/// Sends requests to reload.
#[derive(Debug)]
pub(crate) struct Reloader(mpsc::Sender<ReloadRequest>);

/// What the program observes of a relay.
pub(crate) struct Monitor {
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) liveness: Liveness,
}

impl Supervision {
    /// Both sides: of the relay, and of the program.
    pub(crate) fn new(sockets: PassedSockets) -> (Self, Reloader, oneshot::Receiver<Monitor>) {
        let (sender, requests) = mpsc::channel(1);
        let (monitor, monitored) = oneshot::channel();
        let supervision =
            Self { sockets, reloads: ReloadRequests(requests), log: None, configuration: None, monitor };
        (supervision, Reloader(sender), monitored)
    }

    /// Of a relay that nobody supervises.
    pub(crate) fn none() -> Self {
        Self::new(PassedSockets::default()).0
    }
}

impl ReloadRequests {
    /// Resolves with the next request, if there is ever one.
    pub(crate) async fn next(&mut self) -> ReloadRequest {
        match self.0.recv().await {
            Some(request) => request,
            None => pending().await,
        }
    }
}

impl Reloader {
    /// Resolves when the relay has reloaded its files, usable or not, or has ended.
    pub(crate) async fn reload(&self) {
        let (sender, mut done) = mpsc::channel(1);
        if self.0.send(ReloadRequest { _done: sender }).await.is_ok() {
            // `None` when all are dropped; nothing else can be received.
            let _: Option<Infallible> = done.recv().await;
        }
    }
}

impl Monitor {
    pub(crate) fn readiness(&self) -> Result<(), Unready> {
        self.readiness.check()
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.metrics.open_connections()
    }

    /// Resolves to true when every thread that serves clients has answered. While one of them is
    /// stuck, this does not resolve. Clients cannot delay it. It does not ask the store, which may
    /// wait for a slow disk.
    pub(crate) async fn answers(&self) -> bool {
        self.liveness.answered().await
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}
