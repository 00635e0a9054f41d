//! The store as a [`Relay`]: starts its threads, and sends requests to them.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use relay_core::{
    Ack, AckOutcome, Clock, Envelope, Error, Figures, ItemId, Limits, Page, Pull, PushOutcome, Recipient,
    Relay, Swept, TooManyWaiters, Waiter,
};
use relay_disk::Disk;
use relay_journal::Journal;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::engine::backlog::{Backlog, Permit};
use crate::engine::blob_writer::BlobWriter;
use crate::engine::checkpoint_due::CheckpointDue;
use crate::engine::command::{
    Answer, Job, Prepared, Push, PushAll, PushItem, Pushed, Task, ack_cost_bytes, push_cost_bytes,
};
use crate::engine::exit_signal::ExitSignal;
use crate::engine::figures;
use crate::engine::reply::{Responder, reply};
use crate::engine::shared::Shared;
use crate::engine::writer::Writer;
use crate::error::{OpenError, StoreError, caught};
use crate::index::Index;
use crate::maintenance::Maintenance;
use crate::naming::Naming;
use crate::open::{self, Opened};
use crate::options::Options;

/// When a rejected caller may try again: a few batches later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How many items of one request are looked up ahead before others get the thread.
const READ_AHEAD_ITEMS: usize = 16;

/// A relay that stores its queues in a journal and an index over it.
///
/// Its futures need a tokio runtime. Dropping it waits until the accepted requests and a last
/// checkpoint are written, and then releases the store.
pub struct RedbRelay {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<dyn Disk>,
    options: Options,
    naming: Naming,
    backlog: Arc<Backlog>,
    readers: Arc<Semaphore>,
    /// The corruption that the start found.
    pub(crate) findings: Vec<String>,
    /// `None` only during the drop.
    pub(crate) mailbox: Option<mpsc::Sender<Job>>,
    /// The mailbox of the blob writer. `None` only during the drop.
    blob_writer: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    /// Changes when one of the threads ends.
    ended: watch::Receiver<()>,
}

/// The running threads of a store, and the channels to them.
struct Threads {
    mailbox: mpsc::Sender<Job>,
    blob_writer: mpsc::Sender<Job>,
    /// In the order in which the threads end.
    handles: Vec<JoinHandle<()>>,
    ended: watch::Receiver<()>,
}

impl RedbRelay {
    /// Opens the store in `directory`. Creates the directory if necessary; only its owner then has
    /// access.
    ///
    /// # Errors
    /// [`OpenError`], with a message for the operator.
    pub fn open(
        directory: &Path,
        limits: Limits,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Self, OpenError> {
        let disk = open::lock(directory)?;
        Self::open_on(Arc::new(disk), directory, limits, clock, options)
    }

    /// Like [`RedbRelay::open`], on a disk of the caller. Error messages contain `path`.
    ///
    /// # Errors
    /// [`OpenError`], with a message for the operator.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        limits: Limits,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Self, OpenError> {
        let opened = caught(|| Ok(open::open(Arc::clone(&disk), path, limits, clock, &options)))
            .unwrap_or_else(|source| Err(OpenError::Store { path: path.to_owned(), source }))?;
        let Opened { shared, index, journal, blobs, findings } = opened;
        let naming = index.naming;
        let threads = Threads::start(&shared, index, journal, blobs, &options)
            .map_err(|source| OpenError::Directory { path: path.to_owned(), source })?;
        Ok(Self {
            shared,
            disk,
            backlog: Arc::default(),
            readers: Arc::new(Semaphore::new(options.readers_max.max(1))),
            options,
            naming,
            findings,
            mailbox: Some(threads.mailbox),
            blob_writer: Some(threads.blob_writer),
            threads: threads.handles,
            ended: threads.ended,
        })
    }

    /// What the store holds in place of recipients, and so whether its caller must hash them.
    #[must_use]
    pub const fn naming(&self) -> Naming {
        self.naming
    }

    /// How often a pull has skipped a corrupt item since the store was opened. An item counts each
    /// time that its page is pulled. [`RedbRelay::verify`] reports which items are corrupt.
    pub fn damaged_items(&self) -> u64 {
        self.shared.damaged_items.load(Ordering::Relaxed)
    }

    /// Reserves a share of the backlog.
    fn reserve(&self, bytes: u64) -> Result<Permit, Error> {
        let permit = self.backlog.take(bytes, self.options.waiting_bytes_max);
        permit.ok_or(Error::Overloaded { retry_after: RETRY_AFTER })
    }

    /// Sends a job and waits for its answer.
    async fn submit<J, T>(
        mailbox: Option<&mpsc::Sender<J>>,
        make: impl FnOnce(Responder<Answer<T>>) -> J,
    ) -> Result<T, Error> {
        let (responder, answer) = reply();
        Self::post(mailbox, make(responder))?;
        Ok(answer.await.ok_or(StoreError::WriterEnded)??)
    }

    /// Runs `read` on a thread that may wait for the disk. [`Options::readers_max`] bounds their
    /// number.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| StoreError::ReaderEnded)?;
        let (shared, span) = (Arc::clone(&self.shared), tracing::Span::current());
        let reading = tokio::task::spawn_blocking(move || {
            let _entered = span.entered();
            let found = read(&shared);
            drop((shared, permit));
            found
        });
        reading.await.map_err(|_| StoreError::ReaderEnded)
    }

    /// While the index is not in memory, reads the pages that the writer will need for a request
    /// about these items. So the writer, and all requests behind it, need not wait for the disk.
    async fn read_ahead(&self, request: impl FnOnce() -> (Recipient, Vec<ItemId>)) {
        if self.shared.throttle.slow_reads.should_read_ahead() {
            let (recipient, items) = request();
            // If this fails, the writer reads the pages itself.
            drop(self.read(move |shared| shared.read_ahead(&recipient, &items)).await);
        }
    }

    /// The same for several pushes.
    async fn read_ahead_all(&self, items: &[(Recipient, ItemId, Bytes)]) {
        if self.shared.throttle.slow_reads.should_read_ahead() {
            // In steps, so that pulls get a thread in between.
            for step in items.chunks(READ_AHEAD_ITEMS) {
                let step: Vec<_> = step.iter().map(|(recipient, id, _)| (recipient.clone(), *id)).collect();
                let read = self.read(move |shared| {
                    step.iter().for_each(|(recipient, id)| shared.read_ahead(recipient, &[*id]));
                });
                drop(read.await);
            }
        }
    }

    /// Lets the writer remove some items of a queue that have expired before one in front of them.
    /// Returns whether there may be more.
    async fn settle(&self, queue: u64) -> Result<bool, Error> {
        let (responder, answer) = oneshot::channel();
        Self::post(self.mailbox.as_ref(), Job::Settle(queue, responder))?;
        let settled = answer.await.map_err(|_| StoreError::WriterEnded)??;
        self.shared.settled_items.fetch_add(settled.expired, Ordering::Relaxed);
        Ok(settled.has_advanced)
    }

    /// The outcome of a push, after the payload of a duplicate is compared.
    async fn compared(
        &self,
        pushed: Pushed,
        recipient: Recipient,
        id: ItemId,
        payload: Bytes,
    ) -> Result<PushOutcome, Error> {
        let outcome = match (pushed.outcome?, pushed.compare) {
            (PushOutcome::Duplicate { usage, deadline, .. }, Some(seq)) => {
                let is_same =
                    self.read(move |shared| shared.has_payload(&recipient, id, seq, &payload)).await??;
                PushOutcome::Duplicate { usage, conflict: is_same == Some(false), deadline }
            }
            (outcome, _) => outcome,
        };
        Ok(outcome.outside(self.shared.clock.read()))
    }

    pub(crate) fn post<J>(mailbox: Option<&mpsc::Sender<J>>, job: J) -> Result<(), Error> {
        let mailbox = mailbox.ok_or(StoreError::WriterEnded)?;
        mailbox.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded { retry_after: RETRY_AFTER },
            mpsc::error::TrySendError::Closed(_) => StoreError::WriterEnded.into(),
        })
    }
}

impl Threads {
    fn start(
        shared: &Arc<Shared>,
        index: Index,
        journal: Journal,
        blobs: Journal,
        options: &Options,
    ) -> io::Result<Self> {
        let (mailbox, jobs) = mpsc::channel(options.waiting_jobs_max.max(1));
        let (blob_writer, large_pushes) = mpsc::channel(options.waiting_jobs_max.max(1));
        let (exit_signal, ended) = ExitSignal::new();
        let (task_sender, tasks) = std::sync::mpsc::channel();
        let task_sender = Arc::new(task_sender);
        heal_on_alarm(shared, &task_sender);
        let due = CheckpointDue {
            rows: options.checkpoint_rows,
            replay_bytes: options.checkpoint_bytes,
            segment_bytes: options.segment_bytes,
        };
        let maintenance =
            Maintenance::new(exit_signal.clone(), Arc::clone(shared), index, tasks, mailbox.downgrade(), due);
        let blob_thread = BlobWriter {
            _exit_signal: exit_signal.clone(),
            shared: Arc::clone(shared),
            blobs,
            blob_bytes: options.blob_bytes,
            pushes: large_pushes,
            mailbox: mailbox.clone(),
        };
        let writer = Writer::new(exit_signal, Arc::clone(shared), journal, jobs, task_sender, due);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run)
        };
        let handles = vec![
            spawn("relay-blobs", Box::new(|| blob_thread.run()))?,
            spawn("relay-writer", Box::new(|| writer.run()))?,
            spawn("relay-maint", Box::new(|| maintenance.run()))?,
        ];
        Ok(Self { mailbox, blob_writer, handles, ended })
    }
}

/// Makes the maintenance thread reopen the index as soon as it fails. The weak reference lets that
/// thread end when the writer, which owns the sender, has ended.
fn heal_on_alarm(shared: &Shared, task_sender: &Arc<Sender<Task>>) {
    let task_sender = Arc::downgrade(task_sender);
    shared.throttle.alarm.connect(move || {
        if let Some(task_sender) = task_sender.upgrade() {
            // A send fails only if the maintenance thread has ended.
            drop(task_sender.send(Task::Heal));
        }
    });
}

impl Relay for RedbRelay {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let permit = self.reserve(push_cost_bytes(&envelope))?;
        let is_large = envelope.payload_bytes() >= self.options.blob_bytes;
        let (recipient, id, payload) = (envelope.recipient.clone(), envelope.id(), envelope.payload.clone());
        self.read_ahead(|| (recipient.clone(), vec![id])).await;
        let mailbox = if is_large { &self.blob_writer } else { &self.mailbox };
        let push = |responder| Job::Push(Push { envelope, responder, permit, prepared: Prepared::Nothing });
        let pushed = Self::submit(mailbox.as_ref(), push).await?;
        self.compared(pushed, recipient, id, payload).await
    }

    async fn push_all(&self, envelopes: Vec<Envelope>) -> Result<Vec<Result<PushOutcome, Error>>, Error> {
        let permit = self.reserve(envelopes.iter().map(push_cost_bytes).sum())?;
        let is_large = envelopes.iter().any(|envelope| envelope.payload_bytes() >= self.options.blob_bytes);
        let items: Vec<_> = envelopes
            .iter()
            .map(|envelope| (envelope.recipient.clone(), envelope.id(), envelope.payload.clone()))
            .collect();
        self.read_ahead_all(&items).await;
        let prepare = |envelope| PushItem { envelope, prepared: Ok(Prepared::Nothing) };
        let pushes = envelopes.into_iter().map(prepare).collect();
        let mailbox = if is_large { &self.blob_writer } else { &self.mailbox };
        let push_all = |responder| Job::PushAll(PushAll { items: pushes, responder, permit });
        let pushed = Self::submit(mailbox.as_ref(), push_all).await?;
        let mut outcomes = Vec::with_capacity(pushed.len());
        for (pushed, (recipient, id, payload)) in pushed.into_iter().zip(items) {
            outcomes.push(match pushed {
                Ok(pushed) => self.compared(pushed, recipient, id, payload).await,
                Err(error) => Err(error.into()),
            });
        }
        Ok(outcomes)
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        let mut is_settled = false;
        loop {
            let request = pull.clone();
            match self.read(move |shared| shared.read_page(&request, is_settled)).await? {
                // A read is possible without it, only slower.
                Err(StoreError::Unsettled(queue)) => is_settled = !self.settle(queue).await.unwrap_or(false),
                found => return Ok(found?),
            }
        }
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let permit = self.reserve(ack_cost_bytes(&ack))?;
        self.read_ahead(|| (ack.recipient().clone(), ack.items().to_vec())).await;
        Self::submit(self.mailbox.as_ref(), |responder| Job::Ack(ack, responder, permit)).await
    }

    /// It waits for space in the mailbox, because an overloaded store needs a sweep most.
    async fn sweep(&self) -> Result<Swept, Error> {
        let (responder, answer) = oneshot::channel();
        let mailbox = self.mailbox.as_ref().ok_or(StoreError::WriterEnded)?;
        mailbox.send(Job::Maintain(Task::Sweep(responder))).await.map_err(|_| StoreError::WriterEnded)?;
        Ok(answer.await.map_err(|_| StoreError::WriterEnded)??)
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        self.shared.waiters.register(recipient).map(Some)
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        self.shared.waiters.has(recipient)
    }

    fn is_full(&self) -> bool {
        self.shared.space.is_full()
    }

    async fn ended(&self) -> Error {
        // An error means that all threads have ended.
        drop(self.ended.clone().changed().await);
        StoreError::WriterEnded.into()
    }

    fn set_limits(&self, limits: &Limits) -> bool {
        self.shared.limits.store(limits.clone());
        true
    }

    fn figures(&self) -> Figures {
        figures::figures(&self.shared, self.backlog.waiting_bytes())
    }
}

impl Drop for RedbRelay {
    fn drop(&mut self) {
        // The blob writer sends its last pushes to the writer and ends; then the writer ends, and
        // then the maintenance thread.
        (self.blob_writer, self.mailbox) = (None, None);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl fmt::Debug for RedbRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbRelay").field("options", &self.options).finish_non_exhaustive()
    }
}
