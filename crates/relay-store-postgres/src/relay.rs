//! The store as a [`Relay`]: starts its tasks, and sends requests to them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, Clock, DatabaseFigures, Envelope, Error, Figures, ImportItem, Imported, Limits, Page,
    Pull, PushOutcome, Recipient, Relay, Swept, TooManyWaiters, Unavailable, Waiter, Waiters,
};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use uuid::Uuid;

use crate::backlog::{Backlog, LaneSender};
use crate::clock::{StoreTime, instant};
use crate::connect::{Connection, Connector};
use crate::convert::queue_key;
use crate::error::PostgresError;
use crate::figures::Counters;
use crate::flights::Rules;
use crate::health::Health;
use crate::job::{Job, LARGE_BYTES, RETRY_AFTER, Reply, Task};
use crate::lane::Lane;
use crate::monitor::Monitor;
use crate::naming;
use crate::options::Options;
use crate::reads::Readers;
use crate::shared::Shared;
use crate::sweep;
use crate::wakes::Wakes;

/// How many named items of an ack one transaction removes.
const ACK_ITEMS: usize = 1_024;

/// How often an open tries to reach a database.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

/// How long the first start with a database may take to write its key's id, which the standby has
/// to have.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(30);

/// A relay that stores its queues in PostgreSQL. Several relays may use one database.
///
/// Its futures need no runtime: it has its own, whose threads end when it is dropped.
pub struct PostgresRelay {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    lanes: Vec<LaneSender>,
    large_lanes: Vec<LaneSender>,
    ended: watch::Receiver<bool>,
    backlog: Backlog,
    patience: Duration,
    is_hashed: bool,
    /// `None` only during the drop.
    runtime: Option<Runtime>,
}

/// Where the outcome of a request comes from.
type Answer<T> = oneshot::Receiver<Result<T, Error>>;

/// Tells that a task has ended, also by a panic.
struct EndSignal(Arc<watch::Sender<bool>>);

impl PostgresRelay {
    /// Connects to a database whose tables [`migrate`](crate::migrate) has created. If it cannot be
    /// reached, this waits for it as long as the options say. Items expire by the database's clock;
    /// nothing is deleted while that is far ahead of `clock`. Blocks.
    ///
    /// # Errors
    /// [`PostgresError`], with a message for the operator.
    pub fn open(options: Options, limits: Limits, clock: Arc<dyn Clock>) -> Result<Self, PostgresError> {
        Self::start(options, limits, StoreTime::Database(clock))
    }

    /// Like [`Self::open`], with a clock in place of the database's. Relays that share a database
    /// then have to share the clock as well, so this is for tests.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_clock(
        options: Options,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PostgresError> {
        Self::start(options, limits, StoreTime::given_by(clock))
    }

    fn start(options: Options, limits: Limits, clock: StoreTime) -> Result<Self, PostgresError> {
        let connector = Connector::new(&options)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("relay-postgres")
            .enable_all()
            .build()
            .map_err(PostgresError::Threads)?;
        let (server, is_hashed) = runtime.block_on(async {
            let connection = connect_patiently(&connector, options.open_patience).await?;
            let adopting = naming::adopt(&connection.client, options.recipients);
            let is_hashed =
                timeout(ADOPT_TIMEOUT, adopting).await.unwrap_or(Err(PostgresError::Unconfirmed))?;
            Ok::<_, PostgresError>((connection.server, is_hashed))
        })?;
        let shared = Arc::new(Shared {
            connector,
            rules: Rules { limits, durability: options.durability },
            clock,
            health: Health::default(),
            monitor: Monitor::new(server, options.bytes_max),
            figures: Counters::new(),
            waiters: Waiters::new(),
            wakes: Wakes::new(options.poll_interval),
        });
        let backlog = Backlog::new(options.waiting_bytes_max);
        let (end, ended) = watch::channel(false);
        let end = Arc::new(end);
        let start_lanes = |number: usize| {
            let start = |_| start_lane(&runtime, &shared, &backlog, EndSignal(Arc::clone(&end)));
            (0..number.max(1)).map(start).collect::<Vec<_>>()
        };
        let (lanes, large_lanes) = (start_lanes(options.lanes), start_lanes(options.large_lanes));
        start_watching(&runtime, &shared, &end);
        Ok(Self {
            shared,
            readers: Arc::new(Readers::new(options.readers)),
            lanes,
            large_lanes,
            ended,
            backlog,
            patience: options.patience,
            is_hashed,
            runtime: Some(runtime),
        })
    }

    /// Whether the database holds keyed hashes, so that the caller must hash recipients.
    #[must_use]
    pub const fn is_hashed(&self) -> bool {
        self.is_hashed
    }

    /// Appends items from an export to their queues, with their times. All items of a recipient are
    /// imported in their order. After a refusal, later items may be imported all the same.
    ///
    /// # Errors
    /// Those of the database. Some items may be imported; it is safe to repeat all.
    pub async fn import(&self, items: Vec<ImportItem>) -> Result<Imported, Error> {
        let sent = items.into_iter().map(|item| {
            let (queue, bytes) = (queue_key(&item.envelope.recipient), item.envelope.payload.len());
            self.send(queue, bytes, false, |reply| Task::Import(item, reply))
        });
        let mut imported = Imported::default();
        for outcome in sent.collect::<Result<Vec<_>, _>>()? {
            match answered(outcome.await) {
                Ok(outcome) => imported.note(outcome),
                Err(Error::Rejected(rejection)) => {
                    imported.refused = Some(rejection);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(imported)
    }

    /// Sends a request to its lane. Its outcome comes through the returned channel.
    fn send<T>(
        &self,
        queue: Uuid,
        bytes: usize,
        is_large: bool,
        task: impl FnOnce(Reply<T>) -> Task,
    ) -> Result<Answer<T>, Error> {
        if self.unavailable().is_some() {
            return Err(Error::NotReady { retry_after: RETRY_AFTER });
        }
        let lanes = if is_large { &self.large_lanes } else { &self.lanes };
        let index = usize::try_from(queue.as_u64_pair().1).unwrap_or_default() % lanes.len().max(1);
        let lane = lanes.get(index).ok_or_else(|| Error::storage(PostgresError::Ending))?;
        let (reply, answer) = Reply::new();
        let job = Job {
            queue,
            ticket: fastrand::i64(..),
            is_repeated: false,
            task: task(reply),
            due: instant() + self.patience,
            _permits: self.backlog.permits(lane, bytes)?,
        };
        lane.jobs.send(job).map_err(|_| Error::storage(PostgresError::Ending))?;
        Ok(answer)
    }

    fn send_push(&self, envelope: Envelope, is_large: bool) -> Result<Answer<PushOutcome>, Error> {
        if self.is_full() {
            return Err(Error::StorageFull);
        }
        let (queue, bytes) = (queue_key(&envelope.recipient), envelope.payload.len());
        self.send(queue, bytes, is_large, |reply| Task::Push(envelope, reply))
    }

    async fn ack_part(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let (queue, bytes) = (queue_key(ack.recipient()), ack.items().len().saturating_mul(64));
        let is_large = ack.through().is_some();
        answered(self.send(queue, bytes, is_large, |reply| Task::Ack(ack, reply))?.await)
    }

    /// Runs a future on the runtime of the store.
    async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(runtime) = &self.runtime else { return Err(Error::storage(PostgresError::Ending)) };
        runtime.spawn(future).await.unwrap_or_else(|_| Err(Error::storage(PostgresError::Ending)))
    }
}

impl Relay for PostgresRelay {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let is_large = envelope.payload.len() >= LARGE_BYTES;
        answered(self.send_push(envelope, is_large)?.await)
    }

    async fn push_all(&self, envelopes: Vec<Envelope>) -> Result<Vec<Result<PushOutcome, Error>>, Error> {
        // All items of a recipient take the same lane, so that they arrive in order.
        let large = envelopes.iter().filter(|envelope| envelope.payload.len() >= LARGE_BYTES);
        let large: HashSet<Recipient> = large.map(|envelope| envelope.recipient.clone()).collect();
        let sent: Vec<_> = envelopes
            .into_iter()
            .map(|envelope| {
                let is_large = large.contains(&envelope.recipient);
                self.send_push(envelope, is_large)
            })
            .collect();
        let mut outcomes = Vec::with_capacity(sent.len());
        for outcome in sent {
            outcomes.push(match outcome {
                Ok(outcome) => answered(outcome.await),
                Err(error) => Err(error),
            });
        }
        Ok(outcomes)
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        let (shared, readers) = (Arc::clone(&self.shared), Arc::clone(&self.readers));
        self.run(async move { readers.pull(&shared, &pull).await }).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let mut outcome: Option<AckOutcome> = None;
        for part in ack.into_parts(ACK_ITEMS) {
            let next = self.ack_part(part).await?;
            outcome = Some(outcome.map_or(next, |outcome| outcome.then(next)));
        }
        Ok(outcome.unwrap_or_default())
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        let shared = Arc::clone(&self.shared);
        self.run(async move { Ok(sweep::sweep(&shared).await?) }).await
    }

    async fn ready(&self) -> Result<(), Error> {
        match self.unavailable() {
            // Pages can still be read.
            None | Some(Unavailable::Standby) => Ok(()),
            Some(Unavailable::Database) => Err(Error::NotReady { retry_after: RETRY_AFTER }),
        }
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        let waiter = self.shared.waiters.register(recipient)?;
        self.shared.wakes.awaits(recipient);
        Ok(Some(waiter))
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        self.shared.waiters.has(recipient)
    }

    fn unavailable(&self) -> Option<Unavailable> {
        self.shared.health.unavailable()
    }

    async fn ended(&self) -> Error {
        // The senders are gone only if their tasks are.
        drop(self.ended.clone().wait_for(|has_ended| *has_ended).await);
        Error::storage(PostgresError::Ending)
    }

    fn is_full(&self) -> bool {
        self.shared.health.is_full()
    }

    fn figures(&self) -> Figures {
        let [batch_requests, sync_us, delivery_age_ms] = self.shared.figures.distributions().map(Some);
        Figures {
            batch_requests,
            sync_us,
            delivery_age_ms,
            waiting_bytes: Some(self.backlog.waiting_bytes()),
            is_full: Some(self.is_full()),
            database: Some(DatabaseFigures {
                is_available: self.unavailable().is_none(),
                ..self.shared.monitor.measured()
            }),
            ..Figures::default()
        }
    }
}

impl Drop for PostgresRelay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Whoever still waits for an answer gets an error. It may be dropped in a runtime of
            // the caller, where nothing may block.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for PostgresRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresRelay").field("limits", &self.shared.rules.limits).finish_non_exhaustive()
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

async fn connect_patiently(connector: &Connector, patience: Duration) -> Result<Connection, PostgresError> {
    let begun = instant();
    connector.look_at_all().await;
    loop {
        match connector.connect().await {
            Err(error) if error.is_of_connection() && instant() - begun < patience => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// A lane that ends answers nothing.
fn answered<T>(outcome: Result<Result<T, Error>, oneshot::error::RecvError>) -> Result<T, Error> {
    outcome.unwrap_or_else(|_| Err(Error::storage(PostgresError::Ending)))
}
