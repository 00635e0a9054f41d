//! Errors of opening, writing and reading a journal. None of them contains payload bytes.

use std::io;
use std::sync::Arc;

use crate::Damage;

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// The disk failed.
    #[error("the journal cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A segment has a format that this version does not support.
    #[error("journal segment {segment} has format {found}, this version reads format {expected}")]
    Format {
        /// The number of the segment.
        segment: u32,
        /// The format in its header.
        found: u32,
        /// The only supported format.
        expected: u32,
    },
    /// A segment was written by a build from before the first release.
    #[error("journal segment {segment} was written by an earlier build of this program and cannot be read")]
    Earlier {
        /// The number of the segment.
        segment: u32,
    },
    /// The caller rejected a batch.
    #[error("the replay rejected a batch")]
    Replay(E),
}

/// Why a batch is not in the journal. Once a later batch has begun, no replay returns this batch.
/// Until then, a replay after a crash may return it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The batch could not be written or synced.
    #[error("the journal cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The next segment cannot be created. Nothing was written, and the caller can retry.
    #[error("the next journal segment cannot be created: {0}")]
    Segment(#[source] io::Error),
    /// The batch does not fit into a segment, whose offsets have 32 bits.
    #[error("the batch exceeds the maximum size of a journal segment")]
    TooLarge,
    /// A frame of the batch has kind 0, which is reserved.
    #[error("a frame of the batch has the reserved kind 0")]
    ReservedKind,
    /// Another batch was committed after this one began.
    #[error("the batch does not begin at the end of the journal")]
    OutOfTurn,
    /// No segment number is left.
    #[error("all journal segment numbers are used")]
    Exhausted,
}

/// Why a frame cannot be read. Cheap to clone, because one failed read can affect many frames.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("the journal cannot be read: {0}")]
    Io(Arc<io::Error>),
    /// The bytes are not those of a valid frame or segment.
    #[error("{0}")]
    Corrupted(Damage),
    /// The segment does not exist, or was removed.
    #[error("the segment is not in the journal")]
    Gone,
}

impl<E> OpenError<E> {
    /// The kind of the failure as an I/O error; `Other` if the caller rejected a batch.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Format { .. } | Self::Earlier { .. } => io::ErrorKind::Unsupported,
            Self::Replay(_) => io::ErrorKind::Other,
        }
    }
}

impl JournalError {
    /// The kind of the failure as an I/O error, such as `StorageFull`.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Write(error) | Self::Segment(error) => error.kind(),
            Self::TooLarge => io::ErrorKind::FileTooLarge,
            Self::ReservedKind => io::ErrorKind::InvalidInput,
            Self::Exhausted | Self::OutOfTurn => io::ErrorKind::Other,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
