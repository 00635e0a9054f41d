//! The store as a [`Relay`]: sends each request to the shard that holds its queue.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use relay_core::{
    Ack, AckOutcome, Clock, DatabaseFigures, Envelope, Error, Figures, ImportItem, ImportOutcome, Imported,
    Limits, Page, Pull, PushOutcome, Recipient, Relay, SharedLimits, Swept, TooManyWaiters, Unavailable,
    Waiter, Waiters,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::StoreTime;
use crate::connect::Connector;
use crate::convert::queue_key;
use crate::error::PostgresError;
use crate::figures::Counters;
use crate::flights::Rules;
use crate::health::Health;
use crate::job::{LARGE_BYTES, RETRY_AFTER, Task};
use crate::monitor::Monitor;
use crate::open::{Opened, open};
use crate::options::Options;
use crate::shard::{Answer, Shard, answered};
use crate::shared::Shared;
use crate::slots::SlotMap;
use crate::wakes::Wakes;

/// How many named items of an ack one transaction removes.
const ACK_ITEMS: usize = 1_024;

/// A relay that stores its queues in PostgreSQL: in one database, or in several that hold a part of
/// the queues each. Several relays may use the same databases.
///
/// Its futures need no runtime: it has its own, whose threads end when it is dropped.
pub struct PostgresRelay {
    /// In the order of the options.
    shards: Vec<Shard>,
    map: SlotMap,
    limits: Arc<SharedLimits>,
    /// Of all shards.
    counters: Arc<Counters>,
    ended: watch::Receiver<bool>,
    is_hashed: bool,
    /// `None` only during the drop.
    runtime: Option<Runtime>,
}

impl PostgresRelay {
    /// Connects to databases whose tables [`migrate`](crate::migrate) has created. If one cannot be
    /// reached, this waits for it as long as the options say. Items expire by the clock of their
    /// database; nothing is deleted while that is far ahead of `clock`. Blocks.
    ///
    /// # Errors
    /// [`PostgresError`], with a message for the operator.
    pub fn open(options: Options, limits: Limits, clock: Arc<dyn Clock>) -> Result<Self, PostgresError> {
        Self::start(&options, limits, StoreTime::Database(clock))
    }

    /// Like [`Self::open`], with a clock in place of the databases'. Relays that share a database
    /// then have to share the clock as well, so this is for tests.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_clock(
        options: Options,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PostgresError> {
        Self::start(&options, limits, StoreTime::given_by(clock))
    }

    fn start(options: &Options, limits: Limits, clock: StoreTime) -> Result<Self, PostgresError> {
        let map = SlotMap::new(options.shards.iter().map(|shard| &shard.slots))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("relay-postgres")
            .enable_all()
            .build()
            .map_err(PostgresError::Threads)?;
        let Opened { databases, is_hashed } = runtime.block_on(open(options))?;
        let (clock, counters) = (Arc::new(clock), Arc::new(Counters::new()));
        let limits = Arc::new(SharedLimits::new(limits));
        let (end, ended) = watch::channel(false);
        let end = Arc::new(end);
        let start_shard = |(index, (connector, server)): (usize, (Connector, String))| {
            let slots = connector.slots.clone();
            let shared = Shared {
                connector,
                rules: Rules { limits: Arc::clone(&limits), durability: options.durability, slots },
                clock: Arc::clone(&clock),
                health: Health::new(options.number(index)),
                monitor: Monitor::new(server, options.bytes_max),
                figures: Arc::clone(&counters),
                waiters: Waiters::new(),
                wakes: Wakes::new(options.poll_interval),
            };
            Shard::start(&runtime, shared, options, &end)
        };
        let shards = databases.into_iter().enumerate().map(start_shard).collect();
        Ok(Self { shards, map, limits, counters, ended, is_hashed, runtime: Some(runtime) })
    }

    /// Whether the databases hold keyed hashes, so that the caller must hash recipients.
    #[must_use]
    pub const fn is_hashed(&self) -> bool {
        self.is_hashed
    }

    /// Appends items from an export to their queues, with their times. All items of a recipient are
    /// imported in their order. After a refusal, later items may be imported all the same.
    ///
    /// # Errors
    /// Those of the databases. Some items may be imported; it is safe to repeat all.
    pub async fn import(&self, items: Vec<ImportItem>) -> Result<Imported, Error> {
        let (mut imported, mut sent) = (Imported::default(), VecDeque::new());
        let limits = self.limits.load();
        for item in items {
            if imported.refused.is_some() {
                break;
            }
            let (queue, bytes) = (queue_key(&item.envelope.recipient), item.envelope.payload.len());
            let shard = self.shard(queue)?;
            let outcome = loop {
                let import = |reply| Task::Import(item.clone(), reply);
                match shard.send(queue, bytes, false, &limits, import) {
                    // Its lane has no space until it has done what was sent before.
                    Err(Error::Overloaded { .. }) if !sent.is_empty() => {
                        note_first(&mut sent, &mut imported).await?;
                    }
                    outcome => break outcome?,
                }
            };
            sent.push_back(outcome);
        }
        while !sent.is_empty() {
            note_first(&mut sent, &mut imported).await?;
        }
        Ok(imported)
    }

    /// The shard of a queue. The map has only indexes of shards.
    fn shard(&self, queue: Uuid) -> Result<&Shard, Error> {
        self.shards.get(self.map.shard(queue)).ok_or_else(|| Error::storage(PostgresError::Ending))
    }

    fn shard_of(&self, recipient: &Recipient) -> Result<&Shard, Error> {
        self.shard(queue_key(recipient))
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
        let queue = queue_key(&envelope.recipient);
        let limits = self.limits.load();
        answered(self.shard(queue)?.send_push(queue, envelope, is_large, &limits)?.await)
    }

    async fn push_all(&self, envelopes: Vec<Envelope>) -> Result<Vec<Result<PushOutcome, Error>>, Error> {
        // All items of a recipient take the same lane, so that they arrive in order.
        let large = envelopes.iter().filter(|envelope| envelope.payload.len() >= LARGE_BYTES);
        let large: HashSet<Recipient> = large.map(|envelope| envelope.recipient.clone()).collect();
        let limits = self.limits.load();
        let sent: Vec<_> = envelopes
            .into_iter()
            .map(|envelope| {
                let (queue, is_large) = (queue_key(&envelope.recipient), large.contains(&envelope.recipient));
                self.shard(queue)?.send_push(queue, envelope, is_large, &limits)
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
        let shard = self.shard_of(&pull.recipient)?.clone();
        self.run(async move { shard.pull(&pull).await }).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let (shard, limits) = (self.shard_of(ack.recipient())?, self.limits.load());
        let mut outcome: Option<AckOutcome> = None;
        for part in ack.into_parts(ACK_ITEMS) {
            let next = shard.ack(part, &limits).await?;
            outcome = Some(outcome.map_or(next, |outcome| outcome.then(next)));
        }
        Ok(outcome.unwrap_or_default())
    }

    /// Sweeps all shards at once. If some fail, the others are swept all the same, and count.
    async fn sweep(&self) -> Result<Swept, Error> {
        let sweeps = self.shards.iter().map(|shard| {
            let shard = shard.clone();
            self.run(async move { shard.sweep().await })
        });
        let (mut swept, mut failures) = (None, Vec::new());
        for (shard, outcome) in (1_usize..).zip(join_all(sweeps).await) {
            match outcome {
                Ok(of_shard) => swept = Some(swept.map_or(of_shard, |sum: Swept| sum.plus(of_shard))),
                Err(error) => failures.push((shard, error)),
            }
        }
        let Some(swept) = swept else {
            return Err(failures.pop().map_or(Error::storage(PostgresError::Ending), |(_, error)| error));
        };
        for (shard, error) in failures {
            tracing::warn!(shard, %error, "sweep of one database failed; the relay will retry");
        }
        Ok(swept)
    }

    /// Requests for the queues of one shard are refused when they are made: before their bodies are
    /// read, nobody knows their recipients.
    async fn ready(&self) -> Result<(), Error> {
        match self.unavailable() {
            // Pages can still be read.
            None | Some(Unavailable::Standby) => Ok(()),
            Some(Unavailable::Database) => Err(Error::NotReady { retry_after: RETRY_AFTER }),
        }
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        let Ok(shard) = self.shard_of(recipient) else { return Ok(None) };
        let waiter = shard.shared().waiters.register(recipient)?;
        shard.shared().wakes.awaits(recipient);
        Ok(Some(waiter))
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        self.shard_of(recipient).is_ok_and(|shard| shard.shared().waiters.has(recipient))
    }

    /// Only if no shard can serve. All relays see the same databases, so to take each of them out
    /// of service for one database would make its outage one of all queues.
    fn unavailable(&self) -> Option<Unavailable> {
        let mut best = Some(Unavailable::Database);
        for shard in &self.shards {
            match shard.unavailable() {
                None => return None,
                Some(Unavailable::Standby) => best = Some(Unavailable::Standby),
                Some(Unavailable::Database) => {}
            }
        }
        best
    }

    async fn ended(&self) -> Error {
        // The senders are gone only if their tasks are.
        drop(self.ended.clone().wait_for(|has_ended| *has_ended).await);
        Error::storage(PostgresError::Ending)
    }

    /// Only if all shards are.
    fn is_full(&self) -> bool {
        self.shards.iter().all(Shard::is_full)
    }

    fn set_limits(&self, limits: &Limits) -> bool {
        self.limits.store(limits.clone());
        true
    }

    fn figures(&self) -> Figures {
        let [batch_requests, sync_us, delivery_age_ms] = self.counters.distributions().map(Some);
        let databases: Vec<DatabaseFigures> = self.shards.iter().map(Shard::database).collect();
        Figures {
            batch_requests,
            sync_us,
            delivery_age_ms,
            waiting_bytes: Some(self.shards.iter().map(Shard::waiting_bytes).sum()),
            // One database that is full needs somebody, too.
            is_full: Some(self.shards.iter().any(Shard::is_full)),
            database: Some(DatabaseFigures::of_all(&databases)),
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
        f.debug_struct("PostgresRelay").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// Waits for the outcome of the import that was sent first.
async fn note_first(
    sent: &mut VecDeque<Answer<ImportOutcome>>,
    imported: &mut Imported,
) -> Result<(), Error> {
    let Some(outcome) = sent.pop_front() else { return Ok(()) };
    match answered(outcome.await) {
        Ok(outcome) => imported.note(outcome),
        Err(Error::Rejected(rejection)) => imported.refused = imported.refused.take().or(Some(rejection)),
        Err(error) => return Err(error),
    }
    Ok(())
}
