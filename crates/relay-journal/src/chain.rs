//! Which segment files make up the journal, in order. It follows the headers from the newest back,
//! each of which names the one before; a file that none of them names holds nothing that counts.

use crate::files::{Files, NotOpen};
use crate::format::{FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::{OpenError, Position};

/// The segments from some position on.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Oldest first.
    pub(crate) links: Vec<Link>,
    /// Files that hold no batch, and that nothing needs.
    pub(crate) void: Vec<u32>,
}

/// A segment of the journal.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) segment: u32,
    /// Where its last batch ends, if the header of the next one is there to tell.
    pub(crate) synced: Option<u32>,
    pub(crate) header: Result<SegmentHeader, Lost>,
}

/// A segment that cannot be read, as its header is not there.
#[derive(Debug)]
pub(crate) struct Lost {
    /// The length of the file; 0 if it is missing.
    pub(crate) bytes: u32,
    pub(crate) what: &'static str,
    /// It is there, but the disk does not read it.
    pub(crate) is_unreadable: bool,
}

impl Chain {
    /// The segments from that of `from` on, or from the oldest one.
    pub(crate) fn trace<E>(files: &Files, from: Option<Position>) -> Result<Self, OpenError<E>> {
        let mut chain = Self::default();
        // Number 0 stands for what is before the first segment.
        let first = from.unwrap_or_default().segment.max(1);
        let mut next = files.last().map(|segment| (segment, None));
        while let Some((segment, synced)) = next.filter(|(segment, _)| *segment >= first) {
            let header = look(files, segment)?;
            let before = files.last_before(segment);
            next = match header {
                Ok(header) => Some((header.previous.segment, Some(header.previous.offset))),
                Err(_) => before.map(|segment| (segment, None)),
            };
            let is_beginning = from.is_none() && before.is_none();
            if !Link::is_nothing(synced, &header, is_beginning) {
                chain.links.push(Link { segment, synced, header });
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
    /// Whether a segment without a header is no loss: it was never finished being made, or it is
    /// one of those that were removed at the beginning of the journal.
    fn is_nothing(synced: Option<u32>, header: &Result<SegmentHeader, Lost>, is_beginning: bool) -> bool {
        let Err(lost) = header else { return false };
        let is_unfinished = synced.is_none() && lost.bytes <= SEGMENT_HEADER_BYTES;
        is_unfinished || (is_beginning && lost.bytes == 0)
    }
}

/// The header of a segment, or why it has none. Only what may be different the next time is an
/// error.
fn look<E>(files: &Files, segment: u32) -> Result<Result<SegmentHeader, Lost>, OpenError<E>> {
    let lost =
        |what, is_unreadable| Ok(Err(Lost { bytes: files.end(segment).unwrap_or(0), what, is_unreadable }));
    match files.open(segment) {
        Ok(opened) => Ok(Ok(opened.header)),
        Err(NotOpen::Missing) => lost("the segment is missing", false),
        Err(NotOpen::Damaged(damage)) => lost(damage.what, false),
        Err(NotOpen::Unreadable(_)) => lost("the disk cannot read the header of the segment", true),
        Err(NotOpen::Io(error)) => Err(error.into()),
        Err(NotOpen::Earlier) => Err(OpenError::Earlier { segment }),
        Err(NotOpen::Format(found)) => Err(OpenError::Format { segment, found, expected: FORMAT }),
    }
}
