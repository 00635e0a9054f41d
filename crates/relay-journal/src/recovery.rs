//! What is done once, when a journal is opened: read it from a position on, hand out its batches,
//! and settle where it goes on. It writes to no segment but to cut a torn tail off, and whether
//! that works does not matter as long as a later segment names the end before that tail.
//!
//! A segment with a torn tail takes no further batch. The next one names its end, so the tail is
//! out of the journal for good whatever becomes of its bytes; in the same file, under the same
//! salt, a later batch that is torn in its turn could let some of them shine through. A last
//! segment without a torn tail goes on.
//!
//! What is about to be built upon has to be durable first, and reading it shows only that it is in
//! the cache. The process before this one may have died between a write and its sync, or behind a
//! sync that failed. So the last batch is written once more, to its own place, and synced. All
//! before it were synced, or it would not be there. A last segment without a batch is not used,
//! since that would need the same care; it is removed, and the next one is made in its place.

use std::io;

use relay_disk::DiskFile;

use crate::assemble::{Assembled, Assembly};
use crate::chain::{Chain, Link};
use crate::files::{Files, OpenSegment};
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::walk::{Step, Walk};
use crate::{Damage, Frame, OpenError, Opened, Position};

/// Where the journal goes on.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) opened: Opened,
    /// Behind the last batch.
    pub(crate) end: Position,
    /// The segment that takes the next batch, and where; `None` if it has to be made.
    pub(crate) current: Option<(OpenSegment, u32)>,
    /// Files that hold nothing and could not be removed.
    pub(crate) void: Vec<u32>,
}

/// A segment that was replayed.
#[derive(Debug)]
struct Replayed {
    opened: OpenSegment,
    /// Behind the last batch that counts.
    end: u32,
    /// Where that one begins, if it may be in the cache alone.
    doubtful: Option<u32>,
    /// The length of the file.
    len: u32,
    /// The disk could not read some part of it.
    is_unreadable: bool,
}

/// Replays everything behind `from`.
pub(crate) fn recover<E>(
    files: &Files,
    from: Option<Position>,
    mut replay: impl FnMut(&[Frame]) -> Result<(), E>,
) -> Result<Recovered, OpenError<E>> {
    let Chain { mut links, void } = Chain::trace(files, from)?;
    let end = from.unwrap_or_default();
    let mut recovered = Recovered { opened: Opened::default(), end, current: None, void };
    recovered.check_last(files);
    let last = links.pop();
    for link in &links {
        if let Some(replayed) = recovered.replay(files, link, from, &mut replay)? {
            recovered.check_end(link, &replayed);
        }
    }
    if let Some(link) = last
        && let Some(replayed) = recovered.replay(files, &link, from, &mut replay)?
    {
        recovered.settle(files, replayed)?;
    }
    files.discard(&mut recovered.void);
    files.sync_names()?;
    Ok(recovered)
}

impl Recovered {
    /// Replays one segment; `None` if all of it is lost.
    fn replay<E>(
        &mut self,
        files: &Files,
        link: &Link,
        from: Option<Position>,
        replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<Option<Replayed>, OpenError<E>> {
        let segment = link.segment;
        let start = from.filter(|from| from.segment == segment).map_or(0, |from| from.offset);
        match &link.header {
            Err(lost) => {
                let end = link.synced.unwrap_or(lost.bytes);
                self.damage(segment, start, end, lost.what);
                self.opened.unreadable |= lost.is_unreadable;
                self.end = Position { segment, offset: end };
                Ok(None)
            }
            Ok(_) => {
                let replayed = self.batches(files, link, start.max(SEGMENT_HEADER_BYTES), replay)?;
                files.set_end(segment, replayed.end);
                Ok(Some(replayed))
            }
        }
    }

    fn batches<E>(
        &mut self,
        files: &Files,
        link: &Link,
        start: u32,
        mut replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<Replayed, OpenError<E>> {
        let opened = files.open(link.segment).map_err(io::Error::from)?;
        let len = files.end(link.segment).unwrap_or(0);
        let range = (start, link.synced.unwrap_or(len));
        let mut walk = Walk::new(&*opened.file, link.segment, opened.header.salt, range, len);
        let mut assembly = Assembly::new(start);
        let tally = &mut self.opened;
        let mut count = |frames: &[Frame]| {
            tally.batches += 1;
            tally.frames += frames.len() as u64;
            replay(frames).map_err(OpenError::Replay)
        };
        for step in &mut walk {
            match step {
                Step::Frame(walked) => assembly.frame(walked, &mut count)?,
                Step::Damage(damage) => assembly.damage(damage),
            }
        }
        let Assembled { end, doubtful, damage } = assembly.finish(link.synced, &mut count)?;
        tally.damage.extend(damage);
        let is_unreadable = walk.into_unreadable().is_some();
        tally.unreadable |= is_unreadable;
        Ok(Replayed { opened, end, doubtful, len, is_unreadable })
    }

    /// If the caller has seen a batch in a segment behind the last one that is there, that one is
    /// missing.
    fn check_last(&mut self, files: &Files) {
        let Position { segment, offset } = self.end;
        if segment > files.last().unwrap_or(0) {
            self.damage(segment, 0, offset, "the segment is missing");
        }
    }

    /// If the header of the next segment is lost, nothing tells how far this one counted.
    fn check_end(&mut self, link: &Link, replayed: &Replayed) {
        if link.synced.is_none() {
            self.damage(link.segment, replayed.end, replayed.len, "nothing tells whether this was synced");
        }
    }

    /// Decides what becomes of the last segment.
    fn settle(&mut self, files: &Files, replayed: Replayed) -> io::Result<()> {
        let Replayed { opened, end, doubtful, len, is_unreadable } = replayed;
        let SegmentHeader { id: segment, previous, .. } = opened.header;
        self.end = Position { segment, offset: end };
        if end > len {
            self.damage(segment, len, end, "the file ends before");
        } else if end < len && is_unreadable {
            self.damage(segment, end, len, "the disk cannot read what may be the last batch");
        } else {
            self.opened.torn_bytes = u64::from(len - end);
            if end == SEGMENT_HEADER_BYTES {
                self.end = previous;
                // Nothing else names that end. Where it cannot be made one, the file stays.
                if cut_off(files, previous).is_ok() {
                    self.void.push(segment);
                }
                return Ok(());
            }
        }
        if let Some(start) = doubtful {
            write_again(&*opened.file, start, end)?;
        }
        opened.file.sync()?;
        if end == len {
            self.current = Some((opened, end));
        } else if self.opened.torn_bytes > 0 {
            // For the sake of space alone; the next segment names the end all the same.
            let _ = opened.file.set_len(u64::from(end));
        }
        Ok(())
    }

    fn damage(&mut self, segment: u32, from: u32, to: u32, what: &'static str) {
        if from < to {
            self.opened.damage.push(Damage { segment, from, to, what });
        }
    }
}

/// Makes sure that nothing is read behind the end of a segment, also after a crash: what lies there
/// did not count.
pub(crate) fn cut_off(files: &Files, end: Position) -> io::Result<()> {
    if files.end(end.segment).is_none() {
        return Ok(());
    }
    let file = files.open(end.segment)?.file;
    if file.len()? > u64::from(end.offset) {
        file.set_len(u64::from(end.offset))?;
    }
    // If it was cut off before, that may not be durable yet.
    file.sync()
}

/// Makes the cache believe that it has yet to write these bytes: what a failed sync has passed
/// over, no later one does.
fn write_again(file: &dyn DiskFile, start: u32, end: u32) -> io::Result<()> {
    let mut bytes = vec![0; (end - start) as usize];
    file.read_exact_at(&mut bytes, u64::from(start))?;
    file.write_all_at(&[&bytes], u64::from(start))
}
