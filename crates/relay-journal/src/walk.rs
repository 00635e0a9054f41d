//! Walks over the frames of one segment, and searches for the next frame after corrupt bytes. It
//! reads in windows of bounded size. It does not know which batches count.

use std::io;

use bytes::Bytes;
use relay_disk::DiskFile;

use crate::format::{FRAME_HEADER_BYTES, FrameHeader, SegmentHeader, decode_frame};
use crate::segment_file::OpenSegment;
use crate::{Damage, Frame, Location};

/// The size of a read, unless a single frame is larger.
const WINDOW_BYTES: u32 = 1 << 20;

/// The size of the reads after a failure. Disks fail in units no larger than this.
const PAGE_BYTES: usize = 4096;

/// An iterator over frames and the unreadable ranges between them.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    segment: &'a OpenSegment,
    /// Where the next step begins.
    at: u32,
    /// Where the frames should end.
    end: u32,
    /// The smaller of `end` and the length of the file.
    readable: u32,
    window: Window,
    /// The first error of the disk. The bytes that it could not read count as damage.
    pub(crate) disk_error: Option<io::Error>,
}

/// A frame, and what its header says about its batch.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) frame: Frame,
    /// The offset of its batch.
    pub(crate) batch: u32,
    /// Whether it is the last frame of its batch.
    pub(crate) is_last: bool,
}

/// The part of the file that is in memory.
#[derive(Debug, Default)]
struct Window {
    bytes: Bytes,
    start: u32,
    end: u32,
}

impl<'a> Walk<'a> {
    /// Walks over the bytes `(from, to)` of a segment whose file has `len` bytes.
    pub(crate) fn new(segment: &'a OpenSegment, (from, to): (u32, u32), len: u32) -> Self {
        let window = Window::default();
        Self { segment, at: from, end: to, readable: to.min(len), window, disk_error: None }
    }

    fn step(&mut self) -> Result<Walked, Damage> {
        let from = self.at;
        if from >= self.readable {
            self.at = self.end;
            return Err(self.damage(from, "the file is too short"));
        }
        let Some(header) = self.header(from) else {
            self.at = self.search(from + 1);
            return Err(self.damage(from, "there is no valid frame"));
        };
        let walked = self.frame(from, &header);
        self.at = frame_end(from, &header).unwrap_or(self.end);
        walked.ok_or_else(|| self.damage(from, "the body of the frame is corrupt"))
    }

    fn damage(&self, from: u32, what: &'static str) -> Damage {
        Damage { segment: self.segment.header.id, from, to: self.at, what }
    }

    /// The header at `at`, if it is valid and its frame ends within the readable part.
    fn header(&mut self, at: u32) -> Option<FrameHeader> {
        let bytes = self.view(at, FRAME_HEADER_BYTES)?;
        let header = FrameHeader::decode(bytes.first_chunk()?, self.segment.header.salt, at)?;
        frame_end(at, &header).is_some_and(|end| end <= self.readable).then_some(header)
    }

    /// The frame at `at`; `None` if its body does not match its header.
    fn frame(&mut self, at: u32, header: &FrameHeader) -> Option<Walked> {
        let SegmentHeader { id: segment, salt, .. } = self.segment.header;
        let length = u32::try_from(header.frame_bytes()).ok()?;
        let frame = decode_frame(&self.view(at, length)?, Location { segment, offset: at, length }, salt)?;
        Some(Walked { frame, batch: header.batch, is_last: header.is_last })
    }

    /// The offset of the first entirely valid frame from `at` on, or the end of the readable part.
    fn search(&mut self, mut at: u32) -> u32 {
        while let Some(candidate) = self.candidate(at) {
            if self.header(candidate).is_some_and(|header| self.frame(candidate, &header).is_some()) {
                return candidate;
            }
            at = candidate + 1;
        }
        self.readable
    }

    /// The offset of the next bytes that look like a header before any checksum is computed.
    fn candidate(&mut self, mut at: u32) -> Option<u32> {
        loop {
            self.view(at, FRAME_HEADER_BYTES)?;
            let unseen = self.window.bytes.get((at - self.window.start) as usize..)?;
            let mut starts = unseen.windows(FRAME_HEADER_BYTES as usize).zip(at..);
            if let Some((_, start)) = starts.find(|(bytes, _)| FrameHeader::is_plausible(bytes)) {
                return Some(start);
            }
            at = self.window.end - FRAME_HEADER_BYTES + 1;
        }
    }

    /// The next `bytes` bytes from `at` on; `None` if they exceed the readable part.
    fn view(&mut self, at: u32, bytes: u32) -> Option<Bytes> {
        let end = at.checked_add(bytes).filter(|end| *end <= self.readable)?;
        if at < self.window.start || end > self.window.end {
            self.fill(at, bytes.max(WINDOW_BYTES).min(self.readable - at));
        }
        let start = (at - self.window.start) as usize;
        Some(self.window.bytes.slice(start..start + bytes as usize))
    }

    fn fill(&mut self, at: u32, bytes: u32) {
        let mut window = vec![0; bytes as usize];
        let error = read_readable_pages(self.segment.file(), &mut window, at);
        self.disk_error = self.disk_error.take().or(error);
        self.window = Window { bytes: window.into(), start: at, end: at + bytes };
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Walked, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.end).then(|| self.step())
    }
}

fn frame_end(at: u32, header: &FrameHeader) -> Option<u32> {
    u32::try_from(u64::from(at) + header.frame_bytes()).ok()
}

/// Reads all bytes at once. If the disk fails, it reads again page by page, leaves zeros for pages
/// that fail again, and returns the first error. So a bad sector affects only the frames on its
/// page, and a temporary error affects none.
fn read_readable_pages(file: &dyn DiskFile, out: &mut [u8], at: u32) -> Option<io::Error> {
    file.read_exact_at(out, u64::from(at)).err()?;
    let to_boundary = PAGE_BYTES - at as usize % PAGE_BYTES;
    let (first, rest) = out.split_at_mut(to_boundary.min(out.len()));
    let mut first_error = None;
    let mut offset = u64::from(at);
    for page in [first].into_iter().chain(rest.chunks_mut(PAGE_BYTES)) {
        if let Err(error) = file.read_exact_at(page, offset) {
            page.fill(0);
            first_error.get_or_insert(error);
        }
        offset += page.len() as u64;
    }
    first_error
}
