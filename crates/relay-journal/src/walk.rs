//! Walks over the frames of one segment from some offset on, and finds the way again behind damage.
//! It reads in windows of bounded size, and knows what a frame is but not which batches count.

use std::io;

use bytes::Bytes;
use relay_disk::DiskFile;

use crate::format::{FRAME_HEADER_BYTES, FrameHeader, Salt, decode_frame};
use crate::{Damage, Frame, Location};

/// So much is read at once, unless a single frame is larger.
const WINDOW_BYTES: u32 = 1 << 20;

/// What is read at once where a disk has failed: it fails in units no larger.
const PAGE_BYTES: usize = 4096;

/// A walk. Each step is a frame, or a stretch without one.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    file: &'a dyn DiskFile,
    segment: u32,
    salt: Salt,
    /// Where the next step begins.
    at: u32,
    /// Up to where there should be frames.
    end: u32,
    /// Up to where there can be: the end of the file, if that is before `end`.
    readable: u32,
    window: Window,
    /// The first error of the disk. What it could not read shows as damage.
    unreadable: Option<io::Error>,
}

/// A step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(Walked),
    Damage(Damage),
}

/// A frame, and what its header says of its batch.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) frame: Frame,
    /// Where its batch begins.
    pub(crate) batch: u32,
    /// Whether its batch ends with it.
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
    /// Over the bytes `(from, to)` of a segment whose file has `len` bytes.
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        segment: u32,
        salt: Salt,
        (from, to): (u32, u32),
        len: u32,
    ) -> Self {
        let window = Window::default();
        Self { file, segment, salt, at: from, end: to, readable: to.min(len), window, unreadable: None }
    }

    /// The first error of the disk, if there was one.
    pub(crate) fn into_unreadable(self) -> Option<io::Error> {
        self.unreadable
    }

    fn step(&mut self) -> Step {
        let from = self.at;
        if from >= self.readable {
            self.at = self.end;
            return self.damage(from, "the file ends before");
        }
        let Some(header) = self.header(from) else {
            self.at = self.search(from + 1);
            return self.damage(from, "there is no frame that can be read");
        };
        let walked = self.frame(from, &header);
        self.at = frame_end(from, &header).unwrap_or(self.end);
        walked.map_or_else(|| self.damage(from, "the body of the frame is damaged"), Step::Frame)
    }

    fn damage(&self, from: u32, what: &'static str) -> Step {
        Step::Damage(Damage { segment: self.segment, from, to: self.at, what })
    }

    /// A sound header at `at`, of a frame that ends within the readable part.
    fn header(&mut self, at: u32) -> Option<FrameHeader> {
        let header = FrameHeader::decode(self.view(at, FRAME_HEADER_BYTES)?.first_chunk()?, self.salt, at)?;
        frame_end(at, &header).is_some_and(|end| end <= self.readable).then_some(header)
    }

    /// The frame at `at`, `None` if its body is not the one that its header tells of.
    fn frame(&mut self, at: u32, header: &FrameHeader) -> Option<Walked> {
        let length = u32::try_from(header.frame_bytes()).ok()?;
        let location = Location { segment: self.segment, offset: at, length };
        let frame = decode_frame(&self.view(at, length)?, location, self.salt)?;
        Some(Walked { frame, batch: header.batch, is_last: header.is_last })
    }

    /// Where the next frame begins that is sound in all its parts, at `at` or behind; else where
    /// the readable part ends.
    fn search(&mut self, mut at: u32) -> u32 {
        while let Some(candidate) = self.candidate(at) {
            if self.header(candidate).is_some_and(|header| self.frame(candidate, &header).is_some()) {
                return candidate;
            }
            at = candidate + 1;
        }
        self.readable
    }

    /// Where the next bytes begin that could be a header, for all that can be said without a
    /// checksum.
    fn candidate(&mut self, mut at: u32) -> Option<u32> {
        loop {
            self.view(at, FRAME_HEADER_BYTES)?;
            let seen = self.window.bytes.get((at - self.window.start) as usize..)?;
            let mut starts = seen.windows(FRAME_HEADER_BYTES as usize).zip(at..);
            if let Some((_, start)) = starts.find(|(bytes, _)| FrameHeader::is_plausible(bytes)) {
                return Some(start);
            }
            at = self.window.end - FRAME_HEADER_BYTES + 1;
        }
    }

    /// So many bytes from `at`, `None` if the readable part ends before.
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
        let failed = read_what_can_be(self.file, &mut window, at);
        self.unreadable = self.unreadable.take().or(failed);
        self.window = Window { bytes: window.into(), start: at, end: at + bytes };
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        (self.at < self.end).then(|| self.step())
    }
}

fn frame_end(at: u32, header: &FrameHeader) -> Option<u32> {
    u32::try_from(u64::from(at) + header.frame_bytes()).ok()
}

/// Reads in one go or, where the disk fails, page by page: a page that fails again is left as
/// zeros, and its error is told. So one bad sector costs the frames that it touches, and an error
/// that passes costs nothing.
fn read_what_can_be(file: &dyn DiskFile, out: &mut [u8], at: u32) -> Option<io::Error> {
    file.read_exact_at(out, u64::from(at)).err()?;
    let to_boundary = PAGE_BYTES - at as usize % PAGE_BYTES;
    let (first, rest) = out.split_at_mut(to_boundary.min(out.len()));
    let mut failed = None;
    let mut offset = u64::from(at);
    for page in [first].into_iter().chain(rest.chunks_mut(PAGE_BYTES)) {
        if let Err(error) = file.read_exact_at(page, offset) {
            page.fill(0);
            failed.get_or_insert(error);
        }
        offset += page.len() as u64;
    }
    failed
}
