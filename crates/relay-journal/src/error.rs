//! Why a journal cannot be opened, written or read. None of these says what a frame holds.

use std::io;
use std::sync::Arc;

use crate::Damage;

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// The disk failed.
    #[error("the journal cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A segment was written by a version that this one does not understand.
    #[error("journal segment {segment} has format {found}, this version reads format {expected}")]
    Format {
        /// The number of the segment.
        segment: u32,
        /// The format that its header names.
        found: u32,
        /// The only format that is understood.
        expected: u32,
    },
    /// A segment was written by a build from before the first release.
    #[error("journal segment {segment} was written by an earlier build of this program, and is not read")]
    Earlier {
        /// The number of the segment.
        segment: u32,
    },
    /// The caller refused a batch.
    #[error("a batch of the journal was refused")]
    Replay(E),
}

/// Why a batch is not in the journal. Once a later batch could be begun, it is certain that no
/// replay brings it back; until then a crash may.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The batch could not be written or synced.
    #[error("the journal cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The next segment could not be made. Nothing was written; it may be tried again.
    #[error("the next segment of the journal cannot be made: {0}")]
    Segment(#[source] io::Error),
    /// The batch does not fit into a segment, whose offsets are 32 bits wide.
    #[error("the batch is larger than a segment of the journal can be")]
    TooLarge,
    /// A frame of the batch has kind 0, which no frame can have.
    #[error("a frame of the batch has the reserved kind 0")]
    ReservedKind,
    /// Another batch was committed since this one was begun.
    #[error("the batch does not follow the last one of the journal")]
    OutOfTurn,
    /// All numbers of segments are used up.
    #[error("the journal has used up the numbers of its segments")]
    Exhausted,
}

/// Why a frame cannot be had. Cheap to clone, as one failed read may be the answer for many frames.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("the journal cannot be read: {0}")]
    Io(Arc<io::Error>),
    /// What lies there is not what was written.
    #[error("{0}")]
    Damaged(Damage),
    /// The segment is not there, or no longer.
    #[error("the segment is no longer in the journal")]
    Gone,
}

impl<E> OpenError<E> {
    /// The kind of the failure in the terms of the file system; `Other` where it has none.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Format { .. } | Self::Earlier { .. } => io::ErrorKind::Unsupported,
            Self::Replay(_) => io::ErrorKind::Other,
        }
    }
}

impl JournalError {
    /// The kind of the failure in the terms of the file system, such as `StorageFull`.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Write(error) | Self::Segment(error) => error.kind(),
            Self::TooLarge => io::ErrorKind::FileTooLarge,
            Self::ReservedKind => io::ErrorKind::InvalidInput,
            Self::Exhausted | Self::OutOfTurn => io::ErrorKind::Other,
        }
    }
}

impl ReadError {
    /// The kind of the failure in the terms of the file system.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Damaged(_) => io::ErrorKind::InvalidData,
            Self::Gone => io::ErrorKind::NotFound,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
