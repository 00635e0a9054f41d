//! The durable store of the relay, on [redb](https://docs.rs/redb). The only crate that knows redb.
//!
//! An answered push or ack is on disk, synced. One thread owns all writes and commits once for all that waits; pulls read a
//! snapshot on blocking threads and never pass the writer. The rules are relay-core's, run over this store's tables; nothing
//! here decides.
//!
//! - `schema`: the rows to the byte.
//! - `read`: pages and counts, over a snapshot or a running transaction.
//! - `batch`: the write transaction that the rules run over.
//! - `snapshot`: what a pull reads and what a recount looks at.
//! - `writer`: the thread that writes.

#![warn(missing_docs)]

mod batch;
mod error;
mod read;
mod schema;
mod snapshot;
mod writer;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable};
use relay_core::{
    Ack, AckOutcome, Clock, Envelope, Error, Limits, Page, Pull, PushOutcome, Relay, SteadyClock, Swept,
    queue,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::batch::Batch;
pub use crate::error::{OpenError, StoreError};
use crate::snapshot::Snapshot;
use crate::writer::{Answer, Job, Load, Sweep, Weight, Writer};

/// The file of the database in the storage directory.
const FILE_NAME: &str = "relay.redb";

/// When a caller that was turned away may come back: a few batches later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How the store uses memory.
#[derive(Clone, Debug)]
pub struct Options {
    /// The size of the database's page cache, in bytes.
    pub cache_bytes: usize,
    /// The most requests that wait for the writer; one more is answered [`Error::Overloaded`].
    pub waiting_jobs_max: usize,
    /// The most bytes that wait for the writer, payloads and what acks weigh, except that a single request may always wait.
    pub waiting_bytes_max: u64,
    /// The most pages that are read at the same time; further pulls wait.
    pub readers_max: usize,
}

/// A relay whose queues live in a redb database.
///
/// Its futures need a tokio runtime. Dropping it lets the writer finish what it has taken on, waits for that, and releases the
/// store.
pub struct RedbRelay {
    core: Arc<Core>,
    options: Options,
    load: Arc<Load>,
    readers: Arc<Semaphore>,
    /// `None` only while it is being dropped.
    mailbox: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    writer_alive: watch::Receiver<()>,
}

/// What readers and the writer share.
pub(crate) struct Core {
    directory: PathBuf,
    cache_bytes: usize,
    /// `None` after a failure from which it could not be opened anew. Whoever uses it holds the lock, so that nobody has a view
    /// of it open while it is closed and opened.
    db: RwLock<Option<Database>>,
    pub(crate) limits: Limits,
    pub(crate) clock: SteadyClock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
            waiting_jobs_max: 4096,
            waiting_bytes_max: 128 * 1024 * 1024,
            readers_max: 8,
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
        let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
        make_directory(directory).map_err(failed)?;
        let db = RwLock::new(Some(open_database(directory, options.cache_bytes)?));
        sync_directory(directory).map_err(failed)?;
        let core = Core {
            directory: directory.to_owned(),
            cache_bytes: options.cache_bytes,
            db,
            limits,
            clock: SteadyClock::new(clock),
        };
        let core = Arc::new(core);
        let (mailbox, jobs) = mpsc::channel(options.waiting_jobs_max.max(1));
        let (alive, writer_alive) = watch::channel(());
        let writer =
            Writer { _alive: alive, core: Arc::clone(&core), mailbox: jobs, sweep: Sweep::default() };
        let writer = std::thread::Builder::new().name("relay-writer".to_owned()).spawn(|| writer.run());
        let writer = Some(writer.map_err(failed)?);
        let readers = Arc::new(Semaphore::new(options.readers_max.max(1)));
        let load = Arc::default();
        Ok(Self { core, options, load, readers, mailbox: Some(mailbox), writer, writer_alive })
    }

    /// Recounts everything and lists what does not add up. Reads the whole store, but not the payloads.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read at all.
    pub fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.core.with_db(|db| Snapshot::open(&db.begin_read()?)?.recount())
    }

    /// A share of the bound on what waits.
    fn weigh(&self, bytes: u64) -> Result<Weight, Error> {
        let weight = self.load.take(bytes, self.options.waiting_bytes_max);
        weight.ok_or(Error::Overloaded { retry_after: RETRY_AFTER })
    }

    /// Hands a job to the writer and waits for its answer.
    async fn submit<T>(&self, make: impl FnOnce(oneshot::Sender<Answer<T>>) -> Job) -> Result<T, Error> {
        let (caller, answer) = oneshot::channel();
        let mailbox = self.mailbox.as_ref().ok_or(StoreError::WriterEnded)?;
        mailbox.try_send(make(caller)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded { retry_after: RETRY_AFTER },
            mpsc::error::TrySendError::Closed(_) => StoreError::WriterEnded.into(),
        })?;
        Ok(answer.await.map_err(|_| StoreError::WriterEnded)??)
    }
}

impl Relay for RedbRelay {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let weight = self.weigh(writer::push_cost_bytes(&envelope))?;
        Ok(self.submit(|caller| Job::Push(envelope, caller, weight)).await??)
    }

    async fn pull(&self, pull: Pull) -> Result<Page<Bytes>, Error> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| StoreError::ReaderEnded)?;
        let core = Arc::clone(&self.core);
        let read = tokio::task::spawn_blocking(move || {
            let page = core.read_page(&pull);
            drop(permit);
            page
        });
        Ok(read.await.map_err(|_| StoreError::ReaderEnded)??)
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let weight = self.weigh(writer::ack_cost_bytes(&ack))?;
        self.submit(|caller| Job::Ack(ack, caller, weight)).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.submit(Job::Sweep).await
    }

    async fn ended(&self) -> Error {
        let mut writer_alive = self.writer_alive.clone();
        // Nothing is ever sent: it fails when the writer drops its end.
        while writer_alive.changed().await.is_ok() {}
        StoreError::WriterEnded.into()
    }
}

impl Drop for RedbRelay {
    fn drop(&mut self) {
        self.mailbox = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer ended by a panic");
        }
        // Waits for pulls that nobody waits for any more, so that the store can be opened again from here on.
        self.core.close();
    }
}

impl fmt::Debug for RedbRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbRelay").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn with_db<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        act(db.as_ref().ok_or(StoreError::Closed)?)
    }

    /// Closes the database and opens it again, at its last commit. redb refuses everything after a failed write until then.
    pub(crate) fn reopen(&self) {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        *db = None;
        match open_database(&self.directory, self.cache_bytes) {
            Ok(opened) => {
                *db = Some(opened);
                tracing::warn!("the store was opened anew after a failure");
            }
            Err(error) => tracing::error!(%error, "the store cannot be opened anew; it is tried again"),
        }
    }

    fn close(&self) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.db.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn read_page(&self, pull: &Pull) -> Result<Page<Bytes>, StoreError> {
        self.with_db(|db| {
            let snapshot = Snapshot::open(&db.begin_read()?)?;
            let page = queue::pull(&snapshot, &self.limits, self.clock.now(), pull)?;
            snapshot.fill(page)
        })
    }
}

/// Makes the directory with mode 0700. One that is there keeps its mode: it is the operator's.
fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Makes the names of the directory and of what is in it as durable as what the files hold.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    match directory.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn open_database(directory: &Path, cache_bytes: usize) -> Result<Database, OpenError> {
    let path = || PathBuf::from(directory);
    let opened = Database::builder().set_cache_size(cache_bytes).create(directory.join(FILE_NAME));
    let db = opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path() },
        error => OpenError::Store { path: path(), source: error.into() },
    })?;
    let found = prepare(&db).map_err(|source| OpenError::Store { path: path(), source })?;
    if found != schema::FORMAT {
        return Err(OpenError::Format { path: path(), found, expected: schema::FORMAT });
    }
    Ok(db)
}

/// Makes all tables of a new store, so that no reader ever misses one, and tells the format of the store.
fn prepare(db: &Database) -> Result<u64, StoreError> {
    let tx = db.begin_write()?;
    let found = {
        let mut meta = tx.open_table(schema::META)?;
        let found = meta.get(schema::META_FORMAT)?.map(|format| format.value());
        if found.is_none() {
            meta.insert(schema::META_FORMAT, schema::FORMAT)?;
        }
        found
    };
    match found {
        Some(found) => {
            tx.abort()?;
            Ok(found)
        }
        None => {
            drop(Batch::open(&tx)?);
            tx.commit()?;
            Ok(schema::FORMAT)
        }
    }
}
