//! Reads frames by their places, beside the journal that writes. It checks every frame and never
//! sees half of one; which frames there are, and whether they are synced, is the caller's business.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::buffers::Buffers;
use crate::files::{Files, OpenSegment, len};
use crate::format::{SEGMENT_HEADER_BYTES, decode_frame};
use crate::walk::{Step, Walk};
use crate::{Damage, Frame, Location, ReadError, Segment};

/// Frames that are no farther apart are read together, with what lies between.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// No more than this is read at once, unless a single frame is larger.
const SPAN_BYTES_MAX: u64 = 512 << 10;

/// Reads the frames of a journal. Clones share its open files.
#[derive(Clone, Debug)]
pub struct Reader {
    files: Arc<Files>,
    buffers: Buffers,
    last_stays: bool,
}

/// A frame that was asked for, and how many were before it.
type Asked = (usize, Location);

impl Reader {
    pub(crate) fn new(files: Arc<Files>, last_stays: bool) -> Self {
        Self { files, buffers: Buffers::default(), last_stays }
    }

    /// Reads the frames at `locations`, in that order. Each is whole and sound, or an error of its
    /// own.
    ///
    /// A segment that is removed meanwhile is read to the end by those who have begun; who comes
    /// later finds it [`ReadError::Gone`].
    pub fn read(&self, locations: &[Location]) -> Vec<Result<Frame, ReadError>> {
        let mut sorted: Vec<Asked> = locations.iter().copied().enumerate().collect();
        sorted.sort_unstable_by_key(|(_, location)| (location.segment, location.offset));
        let mut answers: Vec<_> = locations.iter().map(|_| Err(ReadError::Gone)).collect();
        let mut answer = |index: usize, frame| {
            if let Some(place) = answers.get_mut(index) {
                *place = frame;
            }
        };
        let mut rest = sorted.as_slice();
        while !rest.is_empty() {
            let (group, behind) = rest.split_at(neighbours(rest));
            self.read_group(group, &mut answer);
            rest = behind;
        }
        answers
    }

    /// Visits all frames of a segment in order, and what is damaged between, until told to stop. It
    /// takes a bounded amount of memory, whatever the segment's length.
    ///
    /// What the disk cannot read is damage at its place, and in the end also an error.
    pub fn scan(
        &self,
        segment: u32,
        mut visit: impl FnMut(Result<Frame, Damage>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let end = self.synced_end(segment).ok_or(ReadError::Gone)?;
        let OpenSegment { file, header } = self.files.open(segment)?;
        let range = (SEGMENT_HEADER_BYTES, end);
        let mut walk = Walk::new(&*file, segment, header.salt, range, len(&*file)?);
        for step in &mut walk {
            let found = match step {
                Step::Frame(walked) => Ok(walked.frame),
                Step::Damage(damage) => Err(damage),
            };
            if visit(found).is_break() {
                break;
            }
        }
        walk.into_unreadable().map_or(Ok(()), |error| Err(error.into()))
    }

    /// All segments, ascending. The last one is the one that is written, or was.
    pub fn segments(&self) -> Vec<Segment> {
        self.each_segment().collect()
    }

    /// The same one by one. However many there are, others wait for a few of them only; so one that
    /// is made or removed meanwhile may be among them or not.
    pub fn each_segment(&self) -> impl Iterator<Item = Segment> {
        self.files.each_segment()
    }

    /// How many segments there are, and how long they are together in bytes.
    pub fn usage(&self) -> (u64, u64) {
        self.files.usage()
    }

    /// What the file of a segment is called.
    pub fn file_name(&self, segment: u32) -> String {
        self.files.name(segment)
    }

    /// Removes a segment. One that is not there is no error, but the last one of a journal that is
    /// replayed cannot be removed ([`io::ErrorKind::InvalidInput`]). After a crash the segment may
    /// be there again. A large one is given back to the disk piece by piece, with a `pause` between
    /// two.
    pub fn remove(&self, segment: u32, pause: &dyn Fn()) -> io::Result<()> {
        if self.last_stays && self.files.last() == Some(segment) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the last segment stays"));
        }
        self.files.remove(segment, pause)
    }

    /// Where the last batch of a segment ends. The next segment knows it best: what the journal was
    /// not asked to replay it has not read.
    fn synced_end(&self, segment: u32) -> Option<u32> {
        let next = self.files.first_behind(segment).and_then(|next| self.files.open(next).ok());
        let told = next.map(|next| next.header.previous).filter(|previous| previous.segment == segment);
        told.map(|previous| previous.offset).or_else(|| self.files.end(segment))
    }

    /// Reads neighbours in one go; if that fails, one by one, so that none suffers for another.
    fn read_group(&self, group: &[Asked], answer: &mut impl FnMut(usize, Result<Frame, ReadError>)) {
        match (self.read_span(group, answer), group) {
            (Ok(()), _) => {}
            (Err(error), [(index, _)]) => answer(*index, Err(error)),
            (Err(_), _) => group.iter().for_each(|one| self.read_group(std::slice::from_ref(one), answer)),
        }
    }

    fn read_span(
        &self,
        group: &[Asked],
        answer: &mut impl FnMut(usize, Result<Frame, ReadError>),
    ) -> Result<(), ReadError> {
        let Some((_, first)) = group.first() else { return Ok(()) };
        let span_end = group.iter().map(|(_, location)| end(location)).max().unwrap_or_default();
        // Checked before memory is taken for it.
        if span_end > u64::from(self.files.end(first.segment).ok_or(ReadError::Gone)?) {
            return Err(damaged(first, "the segment ends before"));
        }
        let OpenSegment { file, header } = self.files.open(first.segment)?;
        let start = u64::from(first.offset);
        let span_bytes = usize::try_from(span_end - start).unwrap_or_default();
        let read = self.buffers.fill(span_bytes, |span| file.read_exact_at(span, start));
        let span = read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(first, "the file ends before"),
            _ => error.into(),
        })?;
        let asked_bytes: u64 = group.iter().map(|(_, location)| u64::from(location.length)).sum();
        let is_sparse = asked_bytes < (span_end - start) / 2;
        for (index, location) in group {
            let from = (location.offset - first.offset) as usize;
            let bytes = span.slice(from..from + location.length as usize);
            // A slow client may hold its page for long, and must not hold what lies between along
            // with it.
            let bytes = if is_sparse { Bytes::copy_from_slice(&bytes) } else { bytes };
            let frame = decode_frame(&bytes, *location, header.salt);
            answer(*index, frame.ok_or_else(|| damaged(location, "there is not the frame that was written")));
        }
        Ok(())
    }
}

/// How many of the first of these, which are sorted, are read together. At least one.
fn neighbours(sorted: &[Asked]) -> usize {
    let Some((_, first)) = sorted.first() else { return 0 };
    let mut span_end = end(first);
    let joins = |(_, location): &&Asked| {
        let is_near = u64::from(location.offset) <= span_end + GAP_BYTES_MAX;
        let joined = span_end.max(end(location));
        let fits = joined - u64::from(first.offset) <= SPAN_BYTES_MAX;
        span_end = joined;
        location.segment == first.segment && is_near && fits
    };
    1 + sorted.iter().skip(1).take_while(joins).count()
}

/// Where the frame should end; more than 32 bits if the location is wrong.
fn end(location: &Location) -> u64 {
    u64::from(location.offset) + u64::from(location.length)
}

fn damaged(location: &Location, what: &'static str) -> ReadError {
    let Location { segment, offset: from, .. } = *location;
    let to = u32::try_from(end(location)).unwrap_or(u32::MAX);
    ReadError::Damaged(Damage { segment, from, to, what })
}
