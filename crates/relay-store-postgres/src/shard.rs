//! One database of a store: the tasks that serve its queues, and how requests reach them. Shards
//! share a runtime and a clock, and nothing that one could use up for the others.

use std::sync::Arc;
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, DatabaseFigures, Envelope, Error, Limits, Page, Pull, PushOutcome, Swept, Unavailable,
};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::backlog::{Backlog, LaneSender};
use crate::clock::instant;
use crate::convert::queue_key;
use crate::error::PostgresError;
use crate::job::{Job, RETRY_AFTER, Reply, Task};
use crate::lane::Lane;
use crate::options::Options;
use crate::reads::Readers;
use crate::shared::Shared;
use crate::sweep;

/// A database, and what serves its queues.
#[derive(Clone)]
pub(crate) struct Shard(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    readers: Readers,
    lanes: Vec<LaneSender>,
    large_lanes: Vec<LaneSender>,
    backlog: Backlog,
    patience: Duration,
}

/// Where the outcome of a request comes from.
pub(crate) type Answer<T> = oneshot::Receiver<Result<T, Error>>;

/// What one of many databases may hold of the requests that wait, so that its lanes have space for
/// several large payloads.
const SHARD_BYTES_MIN: u64 = 64 << 20;

/// Tells that a task has ended, also by a panic.
struct EndSignal(Arc<watch::Sender<bool>>);

impl Shard {
    /// Starts the tasks. `end` tells when one of them ends.
    pub(crate) fn start(
        runtime: &Runtime,
        shared: Shared,
        options: &Options,
        end: &Arc<watch::Sender<bool>>,
    ) -> Self {
        let shared = Arc::new(shared);
        let (all, shards) = (options.waiting_bytes_max, options.shards.len().max(1) as u64);
        let backlog = Backlog::new((all / shards).max(SHARD_BYTES_MIN.min(all / 4)));
        let start_lanes = |number: usize| {
            let start = |_| start_lane(runtime, &shared, &backlog, EndSignal(Arc::clone(end)));
            (0..number.max(1)).map(start).collect::<Vec<_>>()
        };
        let (lanes, large_lanes) = (start_lanes(options.lanes), start_lanes(options.large_lanes));
        start_watching(runtime, &shared, end);
        let readers = Readers::new(options.readers);
        Self(Arc::new(Inner { shared, readers, lanes, large_lanes, backlog, patience: options.patience }))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Why it cannot serve at the moment, if it cannot.
    pub(crate) fn unavailable(&self) -> Option<Unavailable> {
        self.0.shared.health.unavailable()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.shared.health.is_full()
    }

    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.0.backlog.waiting_bytes()
    }

    /// The database, as the last look found it.
    pub(crate) fn database(&self) -> DatabaseFigures {
        let is_available = self.unavailable().is_none();
        DatabaseFigures { is_available, ..self.0.shared.monitor.measured() }
    }

    /// Sends a request to its lane. Its outcome comes through the returned channel.
    pub(crate) fn send<T>(
        &self,
        queue: Uuid,
        bytes: usize,
        is_large: bool,
        limits: &Arc<Limits>,
        task: impl FnOnce(Reply<T>) -> Task,
    ) -> Result<Answer<T>, Error> {
        if self.unavailable().is_some() {
            return Err(Error::NotReady { retry_after: RETRY_AFTER });
        }
        let Inner { lanes, large_lanes, backlog, patience, .. } = &*self.0;
        let lanes = if is_large { large_lanes } else { lanes };
        let index = usize::try_from(queue.as_u64_pair().1).unwrap_or_default() % lanes.len().max(1);
        let lane = lanes.get(index).ok_or_else(|| Error::storage(PostgresError::Ending))?;
        let (reply, answer) = Reply::new();
        let job = Job {
            queue,
            ticket: fastrand::i64(..),
            is_repeated: false,
            task: task(reply),
            limits: Arc::clone(limits),
            due: instant() + *patience,
            _permits: backlog.permits(lane, bytes)?,
        };
        lane.jobs.send(job).map_err(|_| Error::storage(PostgresError::Ending))?;
        Ok(answer)
    }

    pub(crate) fn send_push(
        &self,
        queue: Uuid,
        envelope: Envelope,
        is_large: bool,
        limits: &Arc<Limits>,
    ) -> Result<Answer<PushOutcome>, Error> {
        if self.is_full() {
            return Err(Error::StorageFull);
        }
        let bytes = envelope.payload.len();
        self.send(queue, bytes, is_large, limits, |reply| Task::Push(envelope, reply))
    }

    /// Acks so much as fits into one transaction.
    pub(crate) async fn ack(&self, ack: Ack, limits: &Arc<Limits>) -> Result<AckOutcome, Error> {
        let (queue, bytes) = (queue_key(ack.recipient()), ack.items().len().saturating_mul(64));
        let is_large = ack.through().is_some();
        answered(self.send(queue, bytes, is_large, limits, |reply| Task::Ack(ack, reply))?.await)
    }

    /// Reads a page, on the runtime of the store.
    pub(crate) async fn pull(&self, pull: &Pull) -> Result<Page, Error> {
        match self.unavailable() {
            // Pages can still be read.
            None | Some(Unavailable::Standby) => self.0.readers.pull(&self.0.shared, pull).await,
            Some(Unavailable::Database) => Err(Error::NotReady { retry_after: RETRY_AFTER }),
        }
    }

    /// Deletes what has expired, on the runtime of the store.
    pub(crate) async fn sweep(&self) -> Result<Swept, Error> {
        Ok(sweep::sweep(&self.0.shared).await?)
    }
}

fn start_lane(runtime: &Runtime, shared: &Arc<Shared>, backlog: &Backlog, signal: EndSignal) -> LaneSender {
    // The backlog bounds what is in it.
    let (sender, jobs) = mpsc::unbounded_channel();
    let lane = Lane::new(Arc::clone(shared), jobs);
    runtime.spawn(async move {
        let _signal = signal;
        lane.run().await;
    });
    backlog.lane(sender)
}

impl Drop for EndSignal {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Starts what watches the database and looks after waiting clients.
fn start_watching(runtime: &Runtime, shared: &Arc<Shared>, end: &Arc<watch::Sender<bool>>) {
    let (for_monitor, signal) = (Arc::clone(shared), EndSignal(Arc::clone(end)));
    runtime.spawn(async move {
        let _signal = signal;
        for_monitor.monitor.run(&for_monitor.connector, &for_monitor.health).await;
    });
    let (for_wakes, signal) = (Arc::clone(shared), EndSignal(Arc::clone(end)));
    runtime.spawn(async move {
        let _signal = signal;
        let Shared { wakes, connector, monitor, waiters, .. } = &*for_wakes;
        wakes.run(connector, monitor, waiters).await;
    });
}

/// A lane that ends answers nothing.
pub(crate) fn answered<T>(outcome: Result<Result<T, Error>, oneshot::error::RecvError>) -> Result<T, Error> {
    outcome.unwrap_or_else(|_| Err(Error::storage(PostgresError::Ending)))
}
