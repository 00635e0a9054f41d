//! An open segment file with its header, and why a segment cannot be opened.

use std::io;
use std::sync::Arc;

use relay_disk::DiskFile;

use crate::format::{HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::{Damage, ReadError};

/// An open segment file and its header.
#[derive(Clone, Debug)]
pub(crate) struct OpenSegment {
    pub(crate) header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    /// Shared by all users of the segment. While any exist, a removed file is not truncated.
    _user: Arc<()>,
}

/// A segment that takes batches.
#[derive(Debug)]
pub(crate) struct CurrentSegment {
    pub(crate) segment: OpenSegment,
    /// The end of its last synced batch, or of its header.
    pub(crate) end: u32,
}

/// Why a segment cannot be opened.
#[derive(Debug)]
pub(crate) enum SegmentError {
    Missing,
    /// The file cannot be opened, or its length is unknown.
    Io(io::Error),
    /// The disk cannot read the header.
    Unreadable(io::Error),
    /// The header is not valid.
    Corrupted(Damage),
    Format(u32),
    /// The segment is from before the first release.
    Earlier,
}

impl OpenSegment {
    pub(crate) fn new(file: Arc<dyn DiskFile>, header: SegmentHeader, user: Arc<()>) -> Self {
        Self { header, file, _user: user }
    }

    pub(crate) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }
}

impl From<SegmentError> for io::Error {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Missing => io::ErrorKind::NotFound.into(),
            SegmentError::Io(error) | SegmentError::Unreadable(error) => error,
            SegmentError::Corrupted(damage) => Self::new(io::ErrorKind::InvalidData, damage.to_string()),
            SegmentError::Format(found) => {
                Self::new(io::ErrorKind::Unsupported, format!("a segment has the unsupported format {found}"))
            }
            SegmentError::Earlier => {
                Self::new(io::ErrorKind::Unsupported, "a segment was written by an earlier build")
            }
        }
    }
}

impl From<SegmentError> for ReadError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Missing => Self::Gone,
            SegmentError::Corrupted(damage) => Self::Corrupted(damage),
            other => io::Error::from(other).into(),
        }
    }
}

/// The length of a segment file.
pub(crate) fn file_len(file: &dyn DiskFile) -> io::Result<u32> {
    Ok(clamp_len(file.len()?))
}

/// Offsets have 32 bits, so the journal ignores any bytes after them.
pub(crate) fn clamp_len(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

pub(crate) fn read_header(file: &dyn DiskFile, segment: u32) -> Result<SegmentHeader, SegmentError> {
    let len = file_len(file).map_err(SegmentError::Io)?;
    let corrupted = |what| SegmentError::Corrupted(Damage { segment, from: 0, to: len, what });
    if len < SEGMENT_HEADER_BYTES {
        return Err(corrupted("the segment header is incomplete"));
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    // Without its header the whole segment is lost, so a failed read is retried once.
    file.read_exact_at(&mut bytes, 0)
        .or_else(|_| file.read_exact_at(&mut bytes, 0))
        .map_err(SegmentError::Unreadable)?;
    SegmentHeader::decode(&bytes, segment).map_err(|error| match error {
        HeaderError::Corrupted(what) => corrupted(what),
        HeaderError::Format(found) => SegmentError::Format(found),
        HeaderError::Earlier => SegmentError::Earlier,
    })
}
