//! Finds the segments that belong to the journal, in order. It starts with the newest and follows
//! the headers, each of which names the previous segment. Files that no header names do not count.

use crate::files::Files;
use crate::format::{FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::segment_file::SegmentError;
use crate::{OpenError, Position};

/// The segments from some position on.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Oldest first.
    pub(crate) links: Vec<Link>,
    /// Files without a batch that nothing needs.
    pub(crate) void: Vec<u32>,
}

/// A segment of the journal.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) segment: u32,
    /// Where its last batch ends, if the header of the next segment is readable.
    pub(crate) synced_end: Option<u32>,
    pub(crate) header: Result<SegmentHeader, MissingHeader>,
}

/// A segment that cannot be read, because its header is missing.
#[derive(Debug)]
pub(crate) struct MissingHeader {
    /// The length of the file; 0 if it is missing.
    pub(crate) bytes: u32,
    pub(crate) what: &'static str,
    /// Whether the disk fails to read the header.
    pub(crate) is_unreadable: bool,
}

impl Chain {
    /// Lists the segments from that of `from` on, or from the oldest one.
    pub(crate) fn trace<E>(files: &Files, from: Option<Position>) -> Result<Self, OpenError<E>> {
        let mut chain = Self::default();
        // The first segment has number 1 and names segment 0 as the previous one.
        let first = from.unwrap_or_default().segment.max(1);
        let mut next = files.last().map(|segment| (segment, None));
        while let Some((segment, synced_end)) = next.filter(|(segment, _)| *segment >= first) {
            let header = read_header(files, segment)?;
            let before = files.last_before(segment);
            next = match &header {
                Ok(header) => Some((header.previous.segment, Some(header.previous.offset))),
                Err(_) => before.map(|segment| (segment, None)),
            };
            let link = Link { segment, synced_end, header };
            let is_oldest = from.is_none() && before.is_none();
            if !link.is_expendable(is_oldest) {
                chain.links.push(link);
            }
        }
        chain.links.reverse();
        let is_linked = |id: &u32| chain.links.iter().any(|link| link.segment == *id);
        let ids = files.each_segment().map(|segment| segment.id);
        chain.void = ids.filter(|id| *id >= first && !is_linked(id)).collect();
        Ok(chain)
    }
}

impl Link {
    /// Whether a segment without a header is no loss: its creation did not finish, or it was
    /// removed from the beginning of the journal.
    fn is_expendable(&self, is_oldest: bool) -> bool {
        let Err(missing) = &self.header else { return false };
        let is_unfinished = self.synced_end.is_none() && missing.bytes <= SEGMENT_HEADER_BYTES;
        is_unfinished || (is_oldest && missing.bytes == 0)
    }
}

/// Reads the header of a segment. Fails if the segment must not be treated as lost: another attempt
/// or another version may read it.
fn read_header<E>(files: &Files, segment: u32) -> Result<Result<SegmentHeader, MissingHeader>, OpenError<E>> {
    let (what, is_unreadable) = match files.open(segment) {
        Ok(opened) => return Ok(Ok(opened.header)),
        Err(SegmentError::Missing) => ("the segment is missing", false),
        Err(SegmentError::Corrupted(damage)) => (damage.what, false),
        Err(SegmentError::Unreadable(_)) => ("the disk cannot read the segment header", true),
        Err(SegmentError::Io(error)) => return Err(error.into()),
        Err(SegmentError::Earlier) => return Err(OpenError::Earlier { segment }),
        Err(SegmentError::Format(found)) => {
            return Err(OpenError::Format { segment, found, expected: FORMAT });
        }
    };
    Ok(Err(MissingHeader { bytes: files.end(segment).unwrap_or(0), what, is_unreadable }))
}
