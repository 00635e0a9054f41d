//! The store as a relay: its threads, and how requests reach them.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, Clock, Envelope, Error, Figures, ItemId, Limits, Page, Pull, PushOutcome, Recipient,
    Relay, Swept,
};
use relay_disk::{Directory, Disk};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::engine::backlog::{Backlog, Permit};
use crate::engine::blob_writer::BlobWriter;
use crate::engine::checkpoint_due::CheckpointDue;
use crate::engine::command::{Answer, Job, Prepared, Push, Pushed, Task};
use crate::engine::exit_signal::ExitSignal;
use crate::engine::figures;
use crate::engine::reply::{Responder, reply};
use crate::engine::shared::Shared;
use crate::engine::writer::{self, DecidedBlobs, Writer};
use crate::error::caught;
use crate::error::{OpenError, StoreError};
use crate::maintenance::Maintenance;
use crate::memtable::queue_cache::QueueCache;
use crate::open;
use crate::options::Options;

/// When a caller that was turned away may come back: a few batches later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A relay whose queues live in a journal and an index over it.
///
/// Its futures need a tokio runtime. Dropping it lets the writer finish what it has taken on, waits
/// for that and for a last checkpoint, and releases the store.
pub struct RedbRelay {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<dyn Disk>,
    options: Options,
    backlog: Arc<Backlog>,
    readers: Arc<Semaphore>,
    pub(crate) findings: Vec<String>,
    /// `None` only while it is being dropped.
    pub(crate) mailbox: Option<mpsc::Sender<Job>>,
    /// Where large pushes go first. As above.
    aside: Option<mpsc::Sender<Push>>,
    threads: Vec<JoinHandle<()>>,
    /// Something is sent when one of the threads ends.
    ended: watch::Receiver<()>,
}

impl RedbRelay {
    /// Opens the store in `directory`, which is made, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// [`OpenError`], in words for the operator.
    pub fn open(
        directory: &Path,
        limits: Limits,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Self, OpenError> {
        let disk = Directory::open(directory).map_err(|error| OpenError::of_directory(directory, error))?;
        if disk.may_others_write().unwrap_or_default() {
            tracing::warn!(
                path = %directory.display(),
                "the storage directory may be changed by others than its owner, who can thereby take the place of the relay and of \
                 its files; take that right away (chmod go-w)"
            );
        }
        Self::open_on(Arc::new(disk), directory, limits, clock, options)
    }

    /// As [`RedbRelay::open`], on a disk that the caller brings. `path` is what errors call it.
    ///
    /// # Errors
    /// [`OpenError`], in words for the operator.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        limits: Limits,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Self, OpenError> {
        let opened = caught(|| Ok(open::open(Arc::clone(&disk), path, limits, clock, &options)))
            .unwrap_or_else(|source| Err(OpenError::Store { path: path.to_owned(), source }))?;
        let shared = Arc::new(opened.shared);
        let (mailbox, jobs) = mpsc::channel(options.waiting_jobs_max.max(1));
        let (large, waiting) = mpsc::channel(options.waiting_jobs_max.max(1));
        let (alive, ended) = watch::channel(());
        let (tasks, asked) = std::sync::mpsc::channel::<Task>();
        let tasks = Arc::new(tasks);
        let weak_tasks = Arc::downgrade(&tasks);
        shared.throttle.alarm.connect(move || {
            if let Some(tasks) = weak_tasks.upgrade() {
                // A maintenance thread that is gone opens nothing any more.
                drop(tasks.send(Task::Heal));
            }
        });
        let due = CheckpointDue {
            rows: options.checkpoint_rows,
            replay_bytes: options.checkpoint_bytes,
            segment_bytes: options.segment_bytes,
        };
        let maintenance = Maintenance {
            _alive: ExitSignal(alive.clone()),
            shared: Arc::clone(&shared),
            index: opened.index,
            tasks: asked,
            mailbox: mailbox.downgrade(),
            due,
            stuck: HashSet::new(),
            put_off: HashSet::new(),
            reopened: None,
            is_quiet: false,
            is_thorough: false,
        };
        let aside = BlobWriter {
            _alive: ExitSignal(alive.clone()),
            shared: Arc::clone(&shared),
            payloads: opened.payloads,
            waiting,
            mailbox: mailbox.clone(),
        };
        let writer = Writer {
            _alive: ExitSignal(alive),
            shared: Arc::clone(&shared),
            journal: opened.journal,
            mailbox: jobs,
            maintenance: tasks,
            acks: VecDeque::new(),
            cache: QueueCache::with_room(),
            checkpoint: due,
            jobs_before: 0,
            undecided: DecidedBlobs::default(),
        };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            spawned.map_err(|source| OpenError::Directory { path: path.to_owned(), source })
        };
        // In the order in which they end.
        let threads = vec![
            spawn("relay-aside", Box::new(|| aside.run()))?,
            spawn("relay-writer", Box::new(|| writer.run()))?,
            spawn("relay-maint", Box::new(|| maintenance.run()))?,
        ];
        let readers = Arc::new(Semaphore::new(options.readers_max.max(1)));
        let (backlog, findings) = (Arc::default(), opened.findings);
        let (mailbox, aside) = (Some(mailbox), Some(large));
        Ok(Self { shared, disk, options, backlog, readers, findings, mailbox, aside, threads, ended })
    }

    /// How often a pull has met a damaged item, and left it out, since the store was opened; one
    /// that stays is met with each pull of its page. What it is and where it lies,
    /// [`RedbRelay::verify`] tells.
    pub fn damaged_items(&self) -> u64 {
        self.shared.damaged_items.load(Ordering::Relaxed)
    }

    /// A share of the bound on what waits.
    fn weigh(&self, bytes: u64) -> Result<Permit, Error> {
        let permit = self.backlog.take(bytes, self.options.waiting_bytes_max);
        permit.ok_or(Error::Overloaded { retry_after: RETRY_AFTER })
    }

    /// Hands a job to the writer and waits for its answer.
    async fn submit<J, T>(
        mailbox: Option<&mpsc::Sender<J>>,
        make: impl FnOnce(Responder<Answer<T>>) -> J,
    ) -> Result<T, Error> {
        let (caller, answer) = reply();
        Self::post(mailbox, make(caller))?;
        Ok(answer.await.ok_or(StoreError::WriterEnded)??)
    }

    /// Reads in a thread that may wait for the disk. There are not more of them than there may be.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| StoreError::ReaderEnded)?;
        let (shared, span) = (Arc::clone(&self.shared), tracing::Span::current());
        let reading = tokio::task::spawn_blocking(move || {
            let _entered = span.entered();
            let found = read(&shared);
            drop(shared);
            drop(permit);
            found
        });
        reading.await.map_err(|_| StoreError::ReaderEnded)
    }

    /// While the index is not in memory, reads what the writer will look at for a request about
    /// these items, so that it need not wait for the disk, and all others for it.
    async fn read_ahead(&self, about: impl FnOnce() -> (Recipient, Vec<ItemId>)) {
        if self.shared.throttle.cold.is_for_next() {
            let (recipient, items) = about();
            // Should it end before its time, the writer reads for itself.
            drop(self.read(move |shared| shared.read_ahead(&recipient, &items)).await);
        }
    }

    pub(crate) fn post<J>(mailbox: Option<&mpsc::Sender<J>>, job: J) -> Result<(), Error> {
        let mailbox = mailbox.ok_or(StoreError::WriterEnded)?;
        mailbox.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded { retry_after: RETRY_AFTER },
            mpsc::error::TrySendError::Closed(_) => StoreError::WriterEnded.into(),
        })
    }
}

impl Relay for RedbRelay {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let permit = self.weigh(writer::push_cost_bytes(&envelope))?;
        let is_large = envelope.payload_bytes() >= self.options.blob_bytes;
        let (recipient, id, payload) = (envelope.recipient.clone(), envelope.id(), envelope.payload.clone());
        self.read_ahead(|| (recipient.clone(), vec![id])).await;
        let push = |caller| Push { envelope, caller, permit, ahead: Prepared::Nothing };
        let Pushed { outcome, compare } = if is_large {
            Self::submit(self.aside.as_ref(), push).await?
        } else {
            Self::submit(self.mailbox.as_ref(), |caller| Job::Push(push(caller))).await?
        };
        match (outcome?, compare) {
            (PushOutcome::Duplicate { usage, .. }, Some(seq)) => {
                let is_same =
                    self.read(move |shared| shared.has_payload(&recipient, id, seq, &payload)).await??;
                Ok(PushOutcome::Duplicate { usage, conflict: is_same == Some(false) })
            }
            (outcome, _) => Ok(outcome),
        }
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        Ok(self.read(move |shared| shared.read_page(&pull)).await??)
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let permit = self.weigh(writer::ack_cost_bytes(&ack))?;
        self.read_ahead(|| (ack.recipient().clone(), ack.items().to_vec())).await;
        Self::submit(self.mailbox.as_ref(), |caller| Job::Ack(ack, caller, permit)).await
    }

    /// It waits for its turn: a store that is so busy that it turns requests away has the more to
    /// reclaim.
    async fn sweep(&self) -> Result<Swept, Error> {
        let (caller, answer) = oneshot::channel();
        let mailbox = self.mailbox.as_ref().ok_or(StoreError::WriterEnded)?;
        mailbox.send(Job::Keep(Task::Sweep(caller))).await.map_err(|_| StoreError::WriterEnded)?;
        Ok(answer.await.map_err(|_| StoreError::WriterEnded)??)
    }

    fn is_full(&self) -> bool {
        self.shared.space.is_full()
    }

    async fn ended(&self) -> Error {
        // It fails when all of them have ended.
        drop(self.ended.clone().changed().await);
        StoreError::WriterEnded.into()
    }

    fn figures(&self) -> Figures {
        figures::figures(&self.shared, self.backlog.waiting_bytes())
    }
}

impl Drop for RedbRelay {
    fn drop(&mut self) {
        (self.aside, self.mailbox) = (None, None);
        // What is large goes on to the writer. When that has ended, the maintenance thread is asked
        // for nothing more and ends too.
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store ended by a panic");
            }
        }
    }
}

impl fmt::Debug for RedbRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbRelay").field("options", &self.options).finish_non_exhaustive()
    }
}
