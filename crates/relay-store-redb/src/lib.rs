//! The durable store of the relay. A journal makes each request durable;
//! [redb](https://docs.rs/redb) makes items findable. No other crate knows redb.
//!
//! An answered push or ack is synced to disk. One thread, the writer, owns all writes: it decides
//! the waiting requests as a batch, appends their records to the journal, syncs once, and answers.
//! Another thread writes and syncs large payloads (blobs) first. Changes since the last checkpoint
//! stay in memory (the active memtable), on top of an index in redb that the maintenance thread
//! updates in the background. Pulls read both and never pass the writer. The rules are
//! relay-core's; they run over the rows of this store. `docs/storage.md` specifies the format byte
//! by byte, and what may be on disk after a crash.
//!
//! - `format`: everything that is written, as bytes: keys, items, queues, numbers, segments,
//!   records.
//! - `memtable`, `rows`: changes that are not in the index yet. `index_snapshot`: the index as a
//!   checkpoint left it. `view`: both as one. `version`: all of them, and where the journal
//!   continues. `excerpt`, `coverage`: the part of a version that one read needs. `dedup_filter`:
//!   which acked ids there may be, which `learn` fills after a start. `queue_cache`: queues that
//!   were looked up lately.
//! - `queue_reader`, `read`: what relay-core's rules ask. `tables`, `batch`, `handle`: what they
//!   change. `replay`: how a restart repeats it. `verify`: does everything add up? `index_check`:
//!   are the pages of the index intact?
//! - `journals`, `payload`: inline payloads and blobs, read in the same way.
//! - `command`: what threads ask of each other. `shared`: what they share. `writer`: the thread
//!   that decides and writes; `reply`: how it answers; `backlog`: how much may wait for it.
//!   `blob_writer`: the thread that writes large payloads. `read_ahead`, `cold`: reads for the
//!   writer while the disk is slow. `space_monitor`: is there room for new items? `clock`: the time
//!   of the store.
//! - `maintenance`, `index`: the thread that writes checkpoints and frees space; `sweep` removes
//!   what has expired; `checkpoint_due`: when a checkpoint is due. `index_file`: the file as redb
//!   sees it. `progress`: how far a start has come. `io_throttle`: how background work leaves
//!   processor and disk to requests. `alarm`: how the maintenance thread learns that the index has
//!   failed. `metrics`, `figures`: counts and timings.
//! - `export`, `import`: a store as items. `snapshot`, `snapshots`, `pin`, `backup`, `manifest`: a
//!   store as files.

#![warn(missing_docs)]

mod alarm;
mod backlog;
mod backup;
mod batch;
mod blob_writer;
mod checkpoint_due;
mod clock;
mod cold;
mod command;
mod coverage;
mod dedup_filter;
mod error;
mod excerpt;
mod exit_signal;
mod export;
mod figures;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod import;
mod imported;
mod index;
mod index_check;
mod index_file;
mod index_snapshot;
mod io_throttle;
mod journals;
mod learn;
mod maintenance;
mod manifest;
mod memtable;
mod metrics;
mod open;
mod payload;
mod pin;
mod progress;
mod queue_cache;
mod queue_reader;
mod read;
mod read_ahead;
mod replay;
mod reply;
mod rows;
mod shared;
mod snapshot;
mod snapshots;
mod space_monitor;
mod sweep;
mod tables;
mod verify;
mod version;
mod view;
mod writer;

#[cfg(test)]
#[path = "tests/samples.rs"]
mod samples;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, Clock, Envelope, Error, Figures, ItemId, Limits, Page, Pull, PushOutcome, Recipient,
    Relay, Swept, Usage,
};
use relay_disk::{Directory, Disk};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::backlog::{Backlog, Permit};
pub use crate::backup::{Copied, Progress, inspect, restore};
use crate::blob_writer::BlobWriter;
use crate::checkpoint_due::CheckpointDue;
use crate::command::{Answer, Job, Prepared, Push, Pushed, Task};
use crate::error::caught;
pub use crate::error::{CopyError, OpenError, StoreError};
use crate::exit_signal::ExitSignal;
pub use crate::export::{Files, Stats};
pub use crate::imported::Imported;
pub use crate::index_check::{verify_index, verify_index_on};
use crate::maintenance::Maintenance;
pub use crate::progress::OpenProgress;
use crate::queue_cache::QueueCache;
use crate::reply::{Responder, reply};
use crate::shared::Shared;
pub use crate::snapshot::Snapshot;
pub use crate::snapshots::Snapshots;
use crate::writer::{Payloads, Writer};

/// The file of the index, which every store has in its directory. Who owns it owns the store.
pub const INDEX_FILE: &str = index_file::FILE_NAME;

/// When a caller that was turned away may come back: a few batches later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How the store uses memory and the disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// The memory of the index's page cache, in bytes. Two thirds of it are pages.
    /// A checkpoint that changes more than half of those writes its pages twice.
    pub cache_bytes: usize,
    /// The most requests that wait for the writer; one more is answered [`Error::Overloaded`].
    pub waiting_jobs_max: usize,
    /// The most bytes that wait for the writer, payloads and what acks weigh, except that a single
    /// request may always wait.
    pub waiting_bytes_max: u64,
    /// The most pages that are read at the same time; further pulls wait.
    pub readers_max: usize,
    /// How many changed rows in memory make a checkpoint due, some 130 bytes each: one for a push
    /// to a queue of few items and three for one to a queue of many, one for each acked name, and
    /// one more for each four items in the row of a queue. While one is written, twice as many may
    /// pile up.
    pub checkpoint_rows: usize,
    /// How many bytes of the journal, which a restart would read, make a checkpoint due.
    pub checkpoint_bytes: u64,
    /// How many threads replay the journal at a start that has much to replay, at most.
    pub replay_threads: usize,
    /// The length of a segment of the journal, in bytes. Space is given back in such pieces.
    pub segment_bytes: u64,
    /// From this length on a payload has a file of its own, which is written before its push is
    /// decided, so that nothing small waits for it.
    pub blob_bytes: u64,
    /// While less than this is free on the disk, in bytes, what is new is refused with
    /// [`Error::StorageFull`]; acks and all that frees space go on, and have this room for what
    /// they write. 0: as long as the disk takes it.
    pub free_bytes_min: u64,
    /// While the files of the store together take more than this, in bytes, the same. What was
    /// acked counts until its space is reclaimed, which some of it is only with time: half of what
    /// lives, and 48 MiB. 0: as much as there is.
    pub store_bytes_max: u64,
    /// The operator says that the machine's clock is right: the store begins with its time, however
    /// much later that is than the one it had come to, and what is due by it has expired. Otherwise
    /// a clock that is more than a week ahead is taken for wrong.
    pub trust_clock: bool,
    /// Told how far a start has come, if somebody wants to know.
    pub progress: Option<OpenProgress>,
}

/// A relay whose queues live in a journal and an index over it.
///
/// Its futures need a tokio runtime. Dropping it lets the writer finish what it has taken on, waits
/// for that and for a last checkpoint, and releases the store.
pub struct RedbRelay {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    options: Options,
    backlog: Arc<Backlog>,
    readers: Arc<Semaphore>,
    findings: Vec<String>,
    /// `None` only while it is being dropped.
    mailbox: Option<mpsc::Sender<Job>>,
    /// Where large pushes go first. As above.
    aside: Option<mpsc::Sender<Push>>,
    threads: Vec<JoinHandle<()>>,
    /// Something is sent when one of the threads ends.
    ended: watch::Receiver<()>,
}

/// What a store holds, expired items that are not reclaimed yet included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Queues that hold items or remember acked names.
    pub queues: u64,
    /// Items and their payloads.
    pub usage: Usage,
    /// Acked names that are remembered.
    pub acked: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 128 * 1024 * 1024,
            waiting_jobs_max: 4096,
            waiting_bytes_max: 128 * 1024 * 1024,
            readers_max: 8,
            checkpoint_rows: 400_000,
            checkpoint_bytes: 192 * 1024 * 1024,
            replay_threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            segment_bytes: 32 * 1024 * 1024,
            blob_bytes: 256 * 1024,
            free_bytes_min: 0,
            store_bytes_max: 0,
            trust_clock: false,
            progress: None,
        }
    }
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
            undecided: Payloads::default(),
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

    /// Recounts everything and lists what does not add up, and what was found damaged when the
    /// store was opened. Reads the whole store, as it was when this began: requests go on, and the
    /// space of what goes meanwhile is given back afterwards.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read at all.
    pub fn verify(&self) -> Result<Vec<String>, StoreError> {
        let mut findings = self.findings.clone();
        findings.extend(self.shared.read_whole(|whole| verify::verify(whole, &self.shared))?);
        Ok(findings)
    }

    /// What the store holds.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn contents(&self) -> Result<Contents, StoreError> {
        self.shared.read_whole(|whole| verify::contents(&whole.reading(&self.shared.journal)))
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

    fn post<J>(mailbox: Option<&mpsc::Sender<J>>, job: J) -> Result<(), Error> {
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
