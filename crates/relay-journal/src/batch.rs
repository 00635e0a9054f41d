//! A batch before its commit: it collects frames in memory, with their final locations and
//! checksums. Nothing is written before the commit.

use bytes::Bytes;

use crate::format::{FRAME_HEADER_BYTES, FrameHeader, Salt};
use crate::{JournalError, Location, Position};

/// Tails of at least this length are not copied.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// The unit in which files reach the disk. If a batch ends within a page, the next batch writes
/// that page again.
const PAGE_BYTES: u32 = 4096;

/// [`Batch::fill_page`] adds at most half a page, and at most a quarter of the batch.
const ZEROS: &[u8] = &[0; (PAGE_BYTES / 2 - FRAME_HEADER_BYTES) as usize];
const FILL_SHARE: u64 = 4;

/// How much memory a batch leaves for the next one.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Frames that become durable together or not at all. Dropping a batch discards them.
#[derive(Debug)]
pub struct Batch {
    frames: Frames,
    start: Position,
    salt: Salt,
}

/// The length of a batch at some moment, for [`Batch::rewind`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    copied: usize,
    shared: usize,
    headers: usize,
    bytes: u64,
}

/// Encoded frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Headers and small bodies, in sequence.
    copied: Vec<u8>,
    /// Large tails, each with the number of bytes in `copied` before it.
    shared: Vec<(usize, Bytes)>,
    headers: Vec<Appended>,
    /// The bytes of all frames together.
    bytes: u64,
}

/// A frame whose header can still change: only the end of the batch decides which frame is last.
#[derive(Debug)]
struct Appended {
    header: FrameHeader,
    /// The offset of the frame in the segment.
    offset: u32,
    /// The index of its header in [`Frames::copied`].
    copied_at: usize,
}

impl Batch {
    pub(crate) fn new(frames: Frames, start: Position, salt: Salt) -> Self {
        Self { frames, start, salt }
    }

    /// Appends a frame with the body `head` followed by `tail`, and returns its future location.
    ///
    /// The commit fails if a frame has kind 0 or the batch is too large.
    pub fn append(&mut self, kind: u8, head: &[u8], tail: Bytes) -> Location {
        let offset = saturate(self.end());
        let body_bytes = head.len() as u64 + tail.len() as u64;
        let header = FrameHeader {
            body_bytes: saturate(body_bytes),
            kind,
            is_last: false,
            batch: self.start.offset,
            body_crc: self.salt.body_crc(offset, &[head, &tail]),
        };
        let frames = &mut self.frames;
        frames.headers.push(Appended { header, offset, copied_at: frames.copied.len() });
        frames.bytes += u64::from(FRAME_HEADER_BYTES) + body_bytes;
        frames.copied.extend_from_slice(&header.encode(self.salt, offset));
        frames.copied.extend_from_slice(head);
        if tail.len() < SHARED_BYTES_MIN {
            frames.copied.extend_from_slice(&tail);
        } else {
            frames.shared.push((frames.copied.len(), tail));
        }
        Location { segment: self.start.segment, offset, length: saturate(header.frame_bytes()) }
    }

    /// Appends a frame of this kind with a body of zeros that ends on a page boundary, so that the
    /// next batch does not write the last page again. It does nothing if more than half a page or a
    /// quarter of the batch is missing.
    pub fn fill_page(&mut self, kind: u8) {
        let page_end = self.end().next_multiple_of(PAGE_BYTES.into());
        let missing = page_end - self.end();
        let is_small = missing <= self.frames.bytes / FILL_SHARE && u32::try_from(page_end).is_ok();
        if let Some(body) = missing.checked_sub(FRAME_HEADER_BYTES.into()).filter(|_| is_small)
            && let Some(zeros) = ZEROS.get(..saturate(body) as usize)
        {
            self.append(kind, zeros, Bytes::new());
        }
    }

    /// Marks the current end of the batch.
    pub fn mark(&self) -> Mark {
        let Frames { copied, shared, headers, bytes } = &self.frames;
        Mark { copied: copied.len(), shared: shared.len(), headers: headers.len(), bytes: *bytes }
    }

    /// Removes the frames appended after `mark`, which must come from this batch.
    pub fn rewind(&mut self, mark: Mark) {
        self.frames.copied.truncate(mark.copied);
        self.frames.shared.truncate(mark.shared);
        self.frames.headers.truncate(mark.headers);
        self.frames.bytes = mark.bytes;
    }

    /// Whether the batch contains no frame.
    pub fn is_empty(&self) -> bool {
        self.frames.headers.is_empty()
    }

    /// How many bytes the batch occupies on disk.
    pub fn bytes(&self) -> u64 {
        self.frames.bytes
    }

    pub(crate) fn start(&self) -> Position {
        self.start
    }

    /// The finished frames, and the offset where they end.
    pub(crate) fn finish(mut self) -> Result<(Frames, u32), JournalError> {
        if self.frames.headers.iter().any(|frame| frame.header.kind == 0) {
            return Err(JournalError::ReservedKind);
        }
        let end = u32::try_from(self.end()).map_err(|_| JournalError::TooLarge)?;
        self.frames.mark_last(self.salt);
        Ok((self.frames, end))
    }

    /// The end of the batch in the segment; more than 32 bits if the batch is too large.
    fn end(&self) -> u64 {
        u64::from(self.start.offset) + self.frames.bytes
    }
}

impl Frames {
    /// The bytes to write, as slices in sequence.
    pub(crate) fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut rest = self.copied.as_slice();
        let mut consumed = 0;
        for (copied_before, tail) in &self.shared {
            let (copied, remaining) = rest.split_at(copied_before - consumed);
            parts.extend([copied, tail]);
            (rest, consumed) = (remaining, *copied_before);
        }
        parts.push(rest);
        parts
    }

    #[cfg(test)]
    pub(crate) fn copied_capacity(&self) -> usize {
        self.copied.capacity()
    }

    fn mark_last(&mut self, salt: Salt) {
        let Some(last) = self.headers.last_mut() else { return };
        last.header.is_last = true;
        let encoded = last.header.encode(salt, last.offset);
        if let Some(bytes) = self.copied.get_mut(last.copied_at..last.copied_at + encoded.len()) {
            bytes.copy_from_slice(&encoded);
        }
    }

    /// Removes all frames, and keeps a limited part of the memory.
    pub(crate) fn clear(&mut self) {
        self.copied.clear();
        self.copied.shrink_to(SPARE_BYTES_MAX);
        self.shared.clear();
        self.headers.clear();
        self.bytes = 0;
    }
}

/// Converts a number for a batch that may be too large. In that case the commit fails, so the
/// result does not matter.
fn saturate(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
