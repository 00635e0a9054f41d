//! The errors of this store, and their conversion to relay-core's errors.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_core::Error;
use relay_disk::DirectoryError;
use relay_journal::{JournalError, ReadError};

use crate::naming::KeyId;

/// Why a store could not be opened. The messages are for the operator and contain the path.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be created or read.
    #[error("the storage directory {path} cannot be used: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process holds the store.
    #[error("the store in {0} is in use by another process; stop it, or choose another storage.path")]
    InUse(PathBuf),
    /// Another version of this program wrote the store.
    #[error("the store in {path} has format {found}, and this program reads formats 1 to {expected} only")]
    Format {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u64,
        /// The latest supported format.
        expected: u64,
    },
    /// A build from before the first release wrote the store.
    #[error(
        "the store in {0} was written by an earlier build of this program, and nothing in it was changed; use `relay-bin export` with the build that wrote it, then `relay-bin import` here, into another directory"
    )]
    Earlier(PathBuf),
    /// The recipients of the store were hashed with another key, so none would be found.
    #[error(
        "the store in {path} holds recipients that were hashed with key {stored}, and the key file holds key {given}; nothing was changed; restore the right key file, or set privacy.key_path to it"
    )]
    OtherKey {
        /// The directory.
        path: PathBuf,
        /// The id of the key that the store needs.
        stored: KeyId,
        /// The id of the key that was given.
        given: KeyId,
    },
    /// The recipients of the store are hashed, and the caller passes them as they are.
    #[error(
        "the store in {path} holds recipients that were hashed with key {stored}; it can only be used with that key"
    )]
    KeyNeeded {
        /// The directory.
        path: PathBuf,
        /// The id of the key that the store needs.
        stored: KeyId,
    },
    /// There is a journal, but not the index that says which of its items are live.
    #[error(
        "the store in {0} has a journal and no index (relay.redb); restore the index, or move the directory away to start with an empty store"
    )]
    IndexMissing(PathBuf),
    /// A backup or a restore into the directory was not finished.
    #[error(
        "{0} is incomplete: a backup or restore into it was not finished; repeat it, or empty the directory"
    )]
    Unfinished(PathBuf),
    /// The directory holds a backup. A start would change it.
    #[error("{0} holds a backup, not a store; restore it with `relay-bin restore`")]
    Backup(PathBuf),
    /// The disk cannot read a part of the journal. Nothing was changed, because a later attempt may
    /// succeed.
    #[error(
        "the disk cannot read all of the journal in {0}; nothing was changed; check the disk, then start again"
    )]
    Unreadable(PathBuf),
    /// The store cannot be read.
    #[error("the store in {path} cannot be opened: {source}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// The error of the store.
        source: StoreError,
    },
}

/// Why the store could not serve a request. Cheap to clone, because each caller of a batch gets a
/// copy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The index failed.
    #[error("index: {0}")]
    Index(#[source] Arc<redb::Error>),
    /// The journal failed.
    #[error("journal: {0}")]
    Journal(#[source] Arc<dyn std::error::Error + Send + Sync>, io::ErrorKind),
    /// Stored data is corrupt.
    #[error("corrupt: {0}")]
    Corrupted(&'static str),
    /// A read needs rows that its snapshot does not hold. The reader takes a larger one and
    /// retries, so no caller sees this error.
    #[error("the read needs rows that its snapshot does not hold")]
    Beyond,
    /// So many items of this queue have expired that the writer should remove some before a read.
    #[error("too many expired items are in the way")]
    Unsettled(u64),
    /// An operation panicked, and was rolled back.
    #[error("a panic, most likely because the index is corrupt")]
    Panicked,
    /// The disk has too little space for new items, by the operator's limits. Nothing was written.
    #[error("too little disk space for new items")]
    Full,
    /// The thread that owns all writes has ended.
    #[error("the writer thread has ended")]
    WriterEnded,
    /// The thread that writes checkpoints has ended.
    #[error("the maintenance thread has ended")]
    MaintenanceEnded,
    /// The caller stopped the operation.
    #[error("stopped before the end")]
    Stopped,
    /// The thread of a pull ended before it was done.
    #[error("the reader thread has ended")]
    ReaderEnded,
}

/// Why a backup could not be written or restored. The messages are for the operator and contain the
/// path.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file or directory cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The index cannot be written.
    #[error("the index cannot be written to {path}: {source}")]
    Index {
        /// The directory.
        path: PathBuf,
        /// The error of the store.
        source: StoreError,
    },
    /// The directory is not empty.
    #[error("{0} is not empty, and nothing in it is overwritten; choose another directory, or empty it")]
    NotEmpty(PathBuf),
    /// The directory is inside the directory of a store or a backup.
    #[error("{0} lies in the directory of a store or a backup; choose one outside of it")]
    Inside(PathBuf),
    /// The directory belongs to another user.
    #[error("{0} belongs to another user, who could change the files; choose another directory")]
    NotOurs(PathBuf),
    /// Other users may change the directory.
    #[error(
        "{0} may be changed by others than its owner; remove that permission (chmod go-w), or choose another directory"
    )]
    Open(PathBuf),
    /// The directory holds no backup, or an unfinished one.
    #[error("{0} holds no complete backup: it was not finished, or files are missing")]
    Incomplete(PathBuf),
    /// A build from before the first release wrote the backup.
    #[error(
        "the backup in {0} was written by an earlier build of this program; use `relay-bin restore` and `export` with the build that wrote it, then `relay-bin import` here"
    )]
    Earlier(PathBuf),
    /// A file of a backup is corrupt.
    #[error("{0} is corrupt: it is not what was written; this backup cannot be restored")]
    Corrupted(PathBuf),
    /// The copy of the index may be wrong.
    #[error(
        "the disk failed during the backup, so the copy of the index may be wrong; the store lost nothing; repeat the backup"
    )]
    Overtaken,
    /// The caller has stopped it.
    #[error("stopped before the end")]
    Stopped,
    /// The directory or the store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// Why the recipients of a store were not hashed. The messages are for the operator, without the
/// path.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The recipients are hashed already, with another key.
    #[error("its recipients were already hashed with key {stored}, and the key file holds key {given}")]
    OtherKey {
        /// The id of the key of the store.
        stored: KeyId,
        /// The id of the key that was given.
        given: KeyId,
    },
    /// The disk has too little space for the second copy.
    #[error(
        "hashing its recipients needs {needed_bytes} bytes for a second copy, and the disk has {free_bytes}; nothing was changed"
    )]
    NoSpace {
        /// The bytes that the copy needs, at most.
        needed_bytes: u64,
        /// The free bytes of the disk.
        free_bytes: u64,
    },
    /// An item or a row is corrupt. It may contain a recipient, which nobody can find there.
    #[error(
        "it holds corrupt data ({0}), so its recipients cannot be hashed; nothing was changed; `relay-bin verify` lists what is corrupt; \
         `relay-bin export` writes everything else, for an import into a new store"
    )]
    Corrupted(StoreError),
    /// The store failed before anything was changed.
    #[error("its recipients cannot be hashed: {0}; nothing was changed")]
    Store(StoreError),
    /// The store failed while the copy took the place of the store.
    #[error("its hashed copy could not take its place entirely: {0}; run the command again")]
    Exchange(StoreError),
    /// Rows were read from an index that was reopened meanwhile.
    #[error("the disk failed meanwhile; nothing was changed; run the command again")]
    Overtaken,
}

impl From<StoreError> for HashError {
    fn from(error: StoreError) -> Self {
        if error.is_corruption() { Self::Corrupted(error) } else { Self::Store(error) }
    }
}

impl OpenError {
    pub(crate) fn of_directory(path: &Path, error: DirectoryError) -> Self {
        let path = path.to_owned();
        match error {
            DirectoryError::InUse => Self::InUse(path),
            DirectoryError::Io(source) => Self::Directory { path, source },
            refused @ (DirectoryError::NotOurs | DirectoryError::Open) => {
                Self::Directory { path, source: io::Error::other(refused) }
            }
        }
    }
}

/// Runs `act` and turns a panic into [`StoreError::Panicked`]: redb may panic on corrupt pages. The
/// caller must discard the changes of a failed `act`.
pub(crate) fn caught<T>(act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or(Err(StoreError::Panicked))
}

impl StoreError {
    /// Whether stored data is corrupt, as opposed to unreadable.
    pub(crate) fn is_corruption(&self) -> bool {
        match self {
            Self::Corrupted(_) | Self::Panicked => true,
            Self::Index(error) => matches!(**error, redb::Error::Corrupted(_)),
            _ => false,
        }
    }

    fn is_out_of_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Index(error) => {
                matches!(&**error, redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded))
            }
            Self::Journal(_, kind) => matches!(kind, StorageFull | QuotaExceeded),
            Self::Full => true,
            _ => false,
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Index(Arc::new(error.into()))
            }
        })+
    };
}

from_redb!(
    io::Error,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
);

impl From<JournalError> for StoreError {
    fn from(error: JournalError) -> Self {
        let kind = error.kind();
        Self::Journal(Arc::new(error), kind)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        Self::Journal(Arc::new(error), io::ErrorKind::Other)
    }
}

impl From<relay_journal::OpenError<Self>> for StoreError {
    fn from(error: relay_journal::OpenError<Self>) -> Self {
        match error {
            relay_journal::OpenError::Replay(error) => error,
            error => {
                let kind = error.kind();
                Self::Journal(Arc::new(error), kind)
            }
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        if error.is_out_of_space() { Self::StorageFull } else { Self::storage(error) }
    }
}
