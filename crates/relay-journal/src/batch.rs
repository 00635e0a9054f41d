//! A batch on its way to the disk: frames are collected in memory, with their final places and
//! checksums, and leave it in one write. Nothing is written before it is committed.

use bytes::Bytes;

use crate::format::{FRAME_HEADER_BYTES, FrameHeader, Salt};
use crate::{JournalError, Location, Position};

/// A tail from this length on is not copied.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// What of a file reaches the disk at once. A batch that ends within a page leaves the next one to
/// write it once more.
const PAGE_BYTES: u32 = 4096;

/// No more than this, and than a quarter of the batch, fills a page.
const ZEROS: &[u8] = &[0; (PAGE_BYTES / 2 - FRAME_HEADER_BYTES) as usize];
const FILL_SHARE: u64 = 4;

/// What is kept of the memory of a batch.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Frames that will be durable together or not at all. Dropping it discards them.
#[derive(Debug)]
pub struct Batch {
    frames: Frames,
    start: Position,
    salt: Salt,
}

/// How much of a batch there was at some time.
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
    /// Headers and small bodies, one behind the other.
    copied: Vec<u8>,
    /// Large tails, and how many bytes of `copied` come before each.
    shared: Vec<(usize, Bytes)>,
    headers: Vec<Appended>,
    /// Of all frames together.
    bytes: u64,
}

/// A frame whose header may still change: only the end of the batch tells which one is the last.
#[derive(Debug)]
struct Appended {
    header: FrameHeader,
    /// Where it lies in the segment.
    offset: u32,
    /// Where its header lies in [`Frames::copied`].
    copied_at: usize,
}

impl Batch {
    pub(crate) fn new(frames: Frames, start: Position, salt: Salt) -> Self {
        Self { frames, start, salt }
    }

    /// Appends a frame and tells where it will lie. Its body is `head`, then `tail`; `kind` is not
    /// 0.
    ///
    /// A frame that cannot be written, as its kind is 0 or the batch has become too large, is
    /// refused by the commit.
    pub fn append(&mut self, kind: u8, head: &[u8], tail: Bytes) -> Location {
        let offset = narrow(self.end());
        let header = FrameHeader {
            body_bytes: narrow(head.len() as u64 + tail.len() as u64),
            kind,
            is_last: false,
            batch: self.start.offset,
            body_crc: self.salt.body_crc(offset, &[head, &tail]),
        };
        self.frames.push(
            Appended { header, offset, copied_at: self.frames.copied.len() },
            self.salt,
            head,
            tail,
        );
        Location { segment: self.start.segment, offset, length: narrow(header.frame_bytes()) }
    }

    /// Ends the batch with its page, if little is missing: up to half a page, and no more than a
    /// quarter of the batch. Then the next one does not write what there is of it once more. What
    /// fills it is a frame of this kind, with zeros for a body.
    pub fn fill_page(&mut self, kind: u8) {
        let page_end = self.end().next_multiple_of(PAGE_BYTES.into());
        let missing = page_end - self.end();
        let is_little = missing <= self.frames.bytes / FILL_SHARE && u32::try_from(page_end).is_ok();
        if let Some(body) = missing.checked_sub(FRAME_HEADER_BYTES.into()).filter(|_| is_little)
            && let Some(zeros) = ZEROS.get(..narrow(body) as usize)
        {
            self.append(kind, zeros, Bytes::new());
        }
    }

    /// Remembers how much there is.
    pub fn mark(&self) -> Mark {
        let Frames { copied, shared, headers, bytes } = &self.frames;
        Mark { copied: copied.len(), shared: shared.len(), headers: headers.len(), bytes: *bytes }
    }

    /// Forgets the frames that were appended since `mark`, which is one of this batch.
    pub fn rewind(&mut self, mark: Mark) {
        self.frames.copied.truncate(mark.copied);
        self.frames.shared.truncate(mark.shared);
        self.frames.headers.truncate(mark.headers);
        self.frames.bytes = mark.bytes;
    }

    /// Whether there is no frame in it.
    pub fn is_empty(&self) -> bool {
        self.frames.headers.is_empty()
    }

    /// How many bytes it takes on disk.
    pub fn bytes(&self) -> u64 {
        self.frames.bytes
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> Position {
        self.start
    }

    /// The frames as they are to be written, and where they end.
    pub(crate) fn finish(mut self) -> Result<(Frames, u32), JournalError> {
        if self.frames.headers.iter().any(|frame| frame.header.kind == 0) {
            return Err(JournalError::ReservedKind);
        }
        let end = u32::try_from(self.end()).map_err(|_| JournalError::TooLarge)?;
        self.frames.mark_last(self.salt);
        Ok((self.frames, end))
    }

    /// Where the batch ends in the segment, if it fits.
    fn end(&self) -> u64 {
        u64::from(self.start.offset) + self.frames.bytes
    }
}

impl Frames {
    /// What is to be written, piece by piece.
    pub(crate) fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut rest = self.copied.as_slice();
        let mut passed = 0;
        for (before, tail) in &self.shared {
            let (copied, behind) = rest.split_at(before - passed);
            parts.extend([copied, tail]);
            (rest, passed) = (behind, *before);
        }
        parts.push(rest);
        parts
    }

    #[cfg(test)]
    pub(crate) fn copied_capacity(&self) -> usize {
        self.copied.capacity()
    }

    fn push(&mut self, frame: Appended, salt: Salt, head: &[u8], tail: Bytes) {
        self.bytes += FRAME_HEADER_BYTES as u64 + head.len() as u64 + tail.len() as u64;
        self.copied.extend_from_slice(&frame.header.encode(salt, frame.offset));
        self.copied.extend_from_slice(head);
        if tail.len() < SHARED_BYTES_MIN {
            self.copied.extend_from_slice(&tail);
        } else {
            self.shared.push((self.copied.len(), tail));
        }
        self.headers.push(frame);
    }

    fn mark_last(&mut self, salt: Salt) {
        let Some(last) = self.headers.last_mut() else { return };
        last.header.is_last = true;
        let encoded = last.header.encode(salt, last.offset);
        if let Some(place) = self.copied.get_mut(last.copied_at..last.copied_at + encoded.len()) {
            place.copy_from_slice(&encoded);
        }
    }

    /// Empties it, and keeps some of its memory for the next batch.
    pub(crate) fn clear(&mut self) {
        self.copied.clear();
        self.copied.shrink_to(SPARE_BYTES_MAX);
        self.shared.clear();
        self.headers.clear();
        self.bytes = 0;
    }
}

/// What does not fit cannot be committed, so it does not matter what becomes of it here.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
