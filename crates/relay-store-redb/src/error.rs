//! How this store fails, in its own words, and what the relay above makes of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use relay_core::Error;

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
    /// The store is there and cannot be read.
    #[error("the store in {path} cannot be opened: {source}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// What the store says.
        source: StoreError,
    },
}

/// Why the store could not do what it was asked to do. Cheap to clone: each caller of a batch is told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database below failed.
    #[error("database: {0}")]
    Database(#[source] Arc<redb::Error>),
    /// A row is there and does not say what it should.
    #[error("damaged row: {0}")]
    Damaged(&'static str),
    /// It was closed after a failure, and could not be opened again yet.
    #[error("the store is closed after a failure")]
    Closed,
    /// The thread that owns all writes has ended.
    #[error("the writer has ended")]
    WriterEnded,
    /// The thread of a pull has ended before it was done.
    #[error("the reader has ended")]
    ReaderEnded,
}

impl StoreError {
    fn is_out_of_space(&self) -> bool {
        let Self::Database(error) = self else { return false };
        let redb::Error::Io(error) = &**error else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Arc::new(error.into()))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        if error.is_out_of_space() { Self::StorageFull } else { Self::storage(error) }
    }
}
