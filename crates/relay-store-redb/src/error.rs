//! How this store fails, in its own words, and what the relay above makes of it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_core::Error;
use relay_disk::DirectoryError;
use relay_journal::{JournalError, ReadError};

/// Why a store could not be opened. The text is for the operator and names the path.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or read.
    #[error("the storage directory {path} cannot be used: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process holds the store.
    #[error("the store in {path} is in use by another process; stop it, or choose another storage.path")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The store was written by another version of this program.
    #[error("the store in {path} has format {found}, and this program reads format {expected} only")]
    Format {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u64,
        /// The format that is read and written here.
        expected: u64,
    },
    /// The store was written by a build from before the first release.
    #[error(
        "the store in {path} was written by an earlier build of this program, and nothing in it was changed; use `relay-bin export` with the build that wrote it, then `relay-bin import` here, into another directory"
    )]
    Earlier {
        /// The directory.
        path: PathBuf,
    },
    /// There is a journal, and the index that says what is still live in it is gone.
    #[error(
        "the store in {path} has a journal and no index (relay.redb); restore the index, or move the directory away to begin anew"
    )]
    IndexMissing {
        /// The directory.
        path: PathBuf,
    },
    /// A backup or a restore into the directory was not finished.
    #[error(
        "what is in {path} is not whole: a backup or restore into it was not finished; repeat it, or empty the directory"
    )]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds a backup, which a start would change.
    #[error("{path} holds a backup and no store; bring it back with `relay-bin restore`")]
    Backup {
        /// The directory.
        path: PathBuf,
    },
    /// The disk fails to read what a start needs. Nothing was given up: it may read it another
    /// time.
    #[error(
        "the disk cannot read all of the journal in {path}; nothing was given up: look at the disk, then start again"
    )]
    Unreadable {
        /// The directory.
        path: PathBuf,
    },
    /// The store is there and cannot be read.
    #[error("the store in {path} cannot be opened: {source}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// What the store says.
        source: StoreError,
    },
}

/// Why the store could not do what it was asked to do. Cheap to clone: each caller of a batch is
/// told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The index failed.
    #[error("index: {0}")]
    Index(#[source] Arc<redb::Error>),
    /// The journal failed.
    #[error("journal: {0}")]
    Journal(#[source] Arc<dyn std::error::Error + Send + Sync>, io::ErrorKind),
    /// Something is there and does not say what it should.
    #[error("damaged: {0}")]
    Corrupted(&'static str),
    /// More was asked for than was looked up. Who reads looks again, and nobody else hears of it.
    #[error("more was asked for than was looked up")]
    Beyond,
    /// A panic was caught on the way; what it had done was taken back.
    #[error("a panic was caught, most likely over a damaged index")]
    Panicked,
    /// There is less room than the operator wants kept. Nothing was written.
    #[error("there is too little room for what is new")]
    Full,
    /// The thread that owns all writes has ended.
    #[error("the writer has ended")]
    WriterEnded,
    /// The thread that writes checkpoints has ended.
    #[error("the maintenance thread has ended")]
    MaintenanceEnded,
    /// The thread of a pull has ended before it was done.
    #[error("the reader has ended")]
    ReaderEnded,
}

/// Why a backup could not be written or brought back. The text is for the operator and names the
/// path.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file or directory cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The index cannot be written.
    #[error("the index cannot be written to {path}: {source}")]
    Index {
        /// The directory.
        path: PathBuf,
        /// What the store says.
        source: StoreError,
    },
    /// There is something in the directory, which is not overwritten.
    #[error("{path} is not empty, and nothing in it is overwritten; choose another directory, or empty it")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory lies in that of a store or a backup.
    #[error("{path} lies in the directory of a store or a backup; choose one outside of it")]
    Inside {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another user.
    #[error(
        "{path} belongs to another user than the one that this runs as, who could change what is written; choose another directory"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// Others may change what is in the directory.
    #[error(
        "{path} may be changed by others than its owner; take that right away (chmod go-w), or choose another directory"
    )]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds no backup, or one that was not finished.
    #[error("{path} holds no whole backup: it was not finished, or is not all there")]
    Incomplete {
        /// The directory.
        path: PathBuf,
    },
    /// The backup was written by a build from before the first release.
    #[error(
        "the backup in {path} was written by an earlier build of this program; use `relay-bin restore` and `export` with the build that wrote it, then `relay-bin import` here"
    )]
    Earlier {
        /// The directory.
        path: PathBuf,
    },
    /// A file of a backup is not what was written.
    #[error("{path} is damaged: it is not what was written; nothing was restored")]
    Corrupted {
        /// The file.
        path: PathBuf,
    },
    /// What was copied may be wrong.
    #[error(
        "the disk has failed meanwhile, and what was copied of the index may be wrong; nothing is lost, repeat it"
    )]
    Overtaken,
    /// Who asked for it has stopped it.
    #[error("stopped before the end")]
    Stopped,
    /// Another process has the directory.
    #[error(transparent)]
    Store(#[from] OpenError),
}

impl OpenError {
    /// Why the storage directory cannot be had.
    pub(crate) fn of_directory(path: &Path, error: DirectoryError) -> Self {
        let path = path.to_owned();
        match error {
            DirectoryError::InUse => Self::InUse { path },
            DirectoryError::Io(source) => Self::Directory { path, source },
            refused @ (DirectoryError::NotOurs | DirectoryError::Open) => {
                Self::Directory { path, source: io::Error::other(refused) }
            }
        }
    }
}

/// Does something with the index, over whose damaged pages redb may panic. Nobody sees half of what
/// it has done.
pub(crate) fn caught<T>(act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or(Err(StoreError::Panicked))
}

impl StoreError {
    /// Whether something there does not say what it should, rather than cannot be read.
    pub(crate) fn is_corruption(&self) -> bool {
        match self {
            Self::Corrupted(_) | Self::Panicked => true,
            Self::Index(error) => matches!(**error, redb::Error::Corrupted(_)),
            _ => false,
        }
    }

    fn is_out_of_space(&self) -> bool {
        let kind = match self {
            Self::Index(error) => match &**error {
                redb::Error::Io(error) => error.kind(),
                _ => return false,
            },
            Self::Journal(_, kind) => *kind,
            Self::Full => return true,
            _ => return false,
        };
        matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
