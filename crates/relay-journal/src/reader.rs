//! Reads frames by location, while the journal writes. It checks every frame and never returns an
//! incomplete one. The caller knows which frames exist and which are synced.

use std::io;
use std::ops::ControlFlow;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;

use crate::buffers::Buffers;
use crate::files::Files;
use crate::format::{SEGMENT_HEADER_BYTES, decode_frame};
use crate::segment_file::file_len;
use crate::walk::Walk;
use crate::{Damage, Frame, Location, ReadError, Segment};

/// Frames within this distance are read together, including the bytes between them.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// The maximum size of one read, unless a single frame is larger.
const SPAN_BYTES_MAX: u64 = 512 << 10;

/// Reads the frames of a journal. Clones share its open files.
#[derive(Clone, Debug)]
pub struct Reader {
    files: Arc<Files>,
    buffers: Buffers,
    keeps_last: bool,
}

/// The location of a requested frame, with its index in the request.
type Requested = (usize, Location);

impl Reader {
    pub(crate) fn new(files: Arc<Files>, keeps_last: bool) -> Self {
        Self { files, buffers: Buffers::default(), keeps_last }
    }

    /// Reads the frames at `locations`, in that order. Each result is a valid frame, or an error
    /// that affects this frame only.
    ///
    /// A read that has opened a segment finishes even if the segment is removed meanwhile. Later
    /// reads fail with [`ReadError::Gone`].
    pub fn read(&self, locations: &[Location]) -> Vec<Result<Frame, ReadError>> {
        let mut sorted: Vec<Requested> = locations.iter().copied().enumerate().collect();
        sorted.sort_unstable_by_key(|(_, location)| (location.segment, location.offset));
        let mut results = vec![Err(ReadError::Gone); locations.len()];
        let mut rest = sorted.as_slice();
        while !rest.is_empty() {
            let (group, remaining) = rest.split_at(group_len(rest));
            for ((index, _), frame) in group.iter().zip(self.read_group(group)) {
                if let Some(result) = results.get_mut(*index) {
                    *result = frame;
                }
            }
            rest = remaining;
        }
        results
    }

    /// Visits all frames and all damage of a segment in order, until `visit` breaks. Its memory use
    /// does not depend on the length of the segment.
    ///
    /// # Errors
    /// If the disk fails to read some bytes. `visit` gets these as damage first.
    pub fn scan(
        &self,
        segment: u32,
        mut visit: impl FnMut(Result<Frame, Damage>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let end = self.synced_end(segment).ok_or(ReadError::Gone)?;
        let opened = self.files.open(segment)?;
        let mut walk = Walk::new(&opened, (SEGMENT_HEADER_BYTES, end), file_len(opened.file())?);
        for step in &mut walk {
            if visit(step.map(|walked| walked.frame)).is_break() {
                break;
            }
        }
        walk.disk_error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// All segments, ascending. The journal writes to the last one, if it still writes.
    pub fn segments(&self) -> Vec<Segment> {
        self.each_segment().collect()
    }

    /// Iterates over all segments without delaying other users of the journal, however many
    /// segments there are. A segment that is created or removed meanwhile may be included or not.
    pub fn each_segment(&self) -> impl Iterator<Item = Segment> {
        self.files.each_segment()
    }

    /// The number of segments, and their total length in bytes.
    pub fn usage(&self) -> (u64, u64) {
        self.files.usage()
    }

    /// The file name of a segment.
    pub fn file_name(&self, segment: u32) -> String {
        self.files.name(segment)
    }

    /// Removes a segment; a missing segment is not an error. A large file is truncated step by
    /// step, with `pause` after each step. After a crash the segment may exist again.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for the last segment of a journal that is replayed.
    pub fn remove(&self, segment: u32, pause: &dyn Fn()) -> io::Result<()> {
        if self.keeps_last && self.files.last() == Some(segment) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the last segment cannot be removed"));
        }
        self.files.remove(segment, pause)
    }

    /// Where the last batch of a segment ends. The header of the next segment is more precise than
    /// the file length, which is all that is known of segments without a replay.
    fn synced_end(&self, segment: u32) -> Option<u32> {
        let next = self.files.first_after(segment).and_then(|next| self.files.open(next).ok());
        let previous = next.map(|next| next.header.previous).filter(|previous| previous.segment == segment);
        previous.map(|previous| previous.offset).or_else(|| self.files.end(segment))
    }

    /// Reads a group at once. If that fails, reads each frame separately, so that a bad frame does
    /// not affect the others.
    fn read_group(&self, group: &[Requested]) -> Vec<Result<Frame, ReadError>> {
        match self.read_span(group) {
            Ok(frames) => frames,
            Err(error) if group.len() == 1 => vec![Err(error)],
            Err(_) => group.iter().flat_map(|one| self.read_group(slice::from_ref(one))).collect(),
        }
    }

    fn read_span(&self, group: &[Requested]) -> Result<Vec<Result<Frame, ReadError>>, ReadError> {
        let Some((_, first)) = group.first() else { return Ok(Vec::new()) };
        let span_end = group.iter().map(|(_, location)| end(location)).max().unwrap_or_default();
        // Checked before memory is allocated for the span.
        if span_end > u64::from(self.files.end(first.segment).ok_or(ReadError::Gone)?) {
            return Err(corrupted(first, "the frame exceeds the segment"));
        }
        let segment = self.files.open(first.segment)?;
        let start = u64::from(first.offset);
        let span_bytes = usize::try_from(span_end - start).unwrap_or_default();
        let read = self.buffers.fill(span_bytes, |span| segment.file().read_exact_at(span, start));
        let span = read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => corrupted(first, "the frame exceeds the file"),
            _ => error.into(),
        })?;
        let requested_bytes: u64 = group.iter().map(|(_, location)| u64::from(location.length)).sum();
        let is_sparse = requested_bytes < (span_end - start) / 2;
        let decode = |(_, location): &Requested| {
            let from = (location.offset - first.offset) as usize;
            let bytes = span.slice(from..from + location.length as usize);
            // A slow client may use its page for long, which must not occupy the bytes between the
            // frames.
            let bytes = if is_sparse { Bytes::copy_from_slice(&bytes) } else { bytes };
            let frame = decode_frame(&bytes, *location, segment.header.salt);
            frame.ok_or_else(|| corrupted(location, "there is no valid frame"))
        };
        Ok(group.iter().map(decode).collect())
    }
}

/// How many of the first locations are read together; at least one. The locations are sorted.
fn group_len(sorted: &[Requested]) -> usize {
    let Some((_, first)) = sorted.first() else { return 0 };
    let mut span_end = end(first);
    let joins = |(_, location): &&Requested| {
        let is_near = u64::from(location.offset) <= span_end + GAP_BYTES_MAX;
        let joined_end = span_end.max(end(location));
        let fits = joined_end - u64::from(first.offset) <= SPAN_BYTES_MAX;
        span_end = joined_end;
        location.segment == first.segment && is_near && fits
    };
    1 + sorted.iter().skip(1).take_while(joins).count()
}

/// The end of the frame; more than 32 bits if the location is wrong.
fn end(location: &Location) -> u64 {
    u64::from(location.offset) + u64::from(location.length)
}

fn corrupted(location: &Location, what: &'static str) -> ReadError {
    let Location { segment, offset: from, .. } = *location;
    let to = u32::try_from(end(location)).unwrap_or(u32::MAX);
    ReadError::Corrupted(Damage { segment, from, to, what })
}
