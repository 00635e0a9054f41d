//! Opens a journal: reads its batches from a position on, replays them, and decides where the next
//! batch goes. It only writes to cut off a torn tail and to make the last batch durable.
//!
//! A segment with a torn tail takes no further batch. The next segment names its end, so the bytes
//! of the tail never count again, even if they cannot be cut off. If the same file took the next
//! batch with the same salt, and that batch were torn too, parts of the old tail could pass as its
//! frames. A last segment without a torn tail is used again.
//!
//! The last batch must be durable before the journal continues after it. Reading it only shows that
//! it is in the page cache: the previous process may have died before its sync, or after a failed
//! one. So recovery writes the last batch again, at the same offset, and syncs it. All earlier
//! batches were synced, or the last one would not exist. A last segment without batches would need
//! the same care. Recovery removes it instead, and the journal creates a new one.

use std::io;

use relay_disk::DiskFile;

use crate::assemble::Assembly;
use crate::chain::{Chain, Link};
use crate::files::Files;
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::segment_file::{CurrentSegment, OpenSegment};
use crate::walk::Walk;
use crate::{Damage, Frame, OpenError, Position};

/// The findings from opening a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Synced bytes after the start of the replay that cannot be read.
    pub damage: Vec<Damage>,
    /// Whether the disk failed twice to read some of these bytes, so that a later attempt may
    /// succeed. Opening did not change them.
    pub unreadable: bool,
    /// How many bytes after the last batch were cut off: from a batch that was not synced, or from
    /// a failed one.
    pub torn_bytes: u64,
    /// The number of replayed batches.
    pub batches: u64,
    /// The number of frames in those batches.
    pub frames: u64,
}

/// The state of a journal after its replay.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) opened: Opened,
    /// The end of the last batch.
    pub(crate) end: Position,
    /// The segment for the next batch; `None` if it must be created.
    pub(crate) current: Option<CurrentSegment>,
    /// Void files that could not be removed.
    pub(crate) void: Vec<u32>,
}

/// A segment that was replayed.
#[derive(Debug)]
struct Replayed {
    segment: OpenSegment,
    /// The end of the last batch that counts.
    end: u32,
    /// The start of that batch, if it may not be durable.
    unconfirmed: Option<u32>,
    /// The length of the file.
    len: u32,
    /// Whether the disk failed to read some of it.
    is_unreadable: bool,
}

/// Replays everything after `from`.
pub(crate) fn recover<E>(
    files: &Files,
    from: Option<Position>,
    mut replay: impl FnMut(&[Frame]) -> Result<(), E>,
) -> Result<Recovered, OpenError<E>> {
    let Chain { mut links, void } = Chain::trace(files, from)?;
    let end = from.unwrap_or_default();
    let mut recovered = Recovered { opened: Opened::default(), end, current: None, void };
    if end.segment > files.last().unwrap_or(0) {
        recovered.damage(end.segment, 0, end.offset, "the segment is missing");
    }
    let last = links.pop();
    for link in &links {
        if let Some(replayed) = recovered.replay(files, link, from, &mut replay)?
            && link.synced_end.is_none()
        {
            // The header of the next segment is lost, which names the end of this one.
            let what = "it is unknown whether these bytes were synced";
            recovered.damage(link.segment, replayed.end, replayed.len, what);
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
    /// Replays one segment; `None` if its header is lost.
    fn replay<E>(
        &mut self,
        files: &Files,
        link: &Link,
        from: Option<Position>,
        replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<Option<Replayed>, OpenError<E>> {
        let segment = link.segment;
        let start = from.filter(|from| from.segment == segment).map_or(0, |from| from.offset);
        if let Err(missing) = &link.header {
            let end = link.synced_end.unwrap_or(missing.bytes);
            self.damage(segment, start, end, missing.what);
            self.opened.unreadable |= missing.is_unreadable;
            self.end = Position { segment, offset: end };
            return Ok(None);
        }
        let replayed = self.replay_batches(files, link, start.max(SEGMENT_HEADER_BYTES), replay)?;
        files.set_end(segment, replayed.end);
        Ok(Some(replayed))
    }

    fn replay_batches<E>(
        &mut self,
        files: &Files,
        link: &Link,
        start: u32,
        mut replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<Replayed, OpenError<E>> {
        let segment = files.open(link.segment).map_err(io::Error::from)?;
        let len = files.end(link.segment).unwrap_or(0);
        let mut walk = Walk::new(&segment, (start, link.synced_end.unwrap_or(len)), len);
        let mut assembly = Assembly::new(start);
        let opened = &mut self.opened;
        let mut count_and_replay = |frames: &[Frame]| {
            opened.batches += 1;
            opened.frames += frames.len() as u64;
            replay(frames).map_err(OpenError::Replay)
        };
        for step in &mut walk {
            match step {
                Ok(walked) => assembly.frame(walked, &mut count_and_replay)?,
                Err(damage) => assembly.damage(damage),
            }
        }
        if let Some(synced_end) = link.synced_end {
            assembly.confirm(synced_end, &mut count_and_replay)?;
        }
        let Assembly { end, unconfirmed, damage, .. } = assembly;
        opened.damage.extend(damage);
        let is_unreadable = walk.disk_error.is_some();
        opened.unreadable |= is_unreadable;
        Ok(Replayed { segment, end, unconfirmed, len, is_unreadable })
    }

    /// Prepares the last segment for the next batch, or excludes it from further use.
    fn settle(&mut self, files: &Files, replayed: Replayed) -> io::Result<()> {
        let Replayed { segment, end, unconfirmed, len, is_unreadable } = replayed;
        let SegmentHeader { id, previous, .. } = segment.header;
        self.end = Position { segment: id, offset: end };
        if end > len {
            self.damage(id, len, end, "the file is too short");
        } else if end < len && is_unreadable {
            self.damage(id, end, len, "the disk cannot read what may be the last batch");
        } else {
            self.opened.torn_bytes = u64::from(len - end);
            if end == SEGMENT_HEADER_BYTES {
                self.end = previous;
                // Only this header names the end of the previous segment. If that segment cannot be
                // cut off there, this file stays.
                if cut_off(files, previous).is_ok() {
                    self.void.push(id);
                }
                return Ok(());
            }
        }
        if let Some(start) = unconfirmed {
            write_again(segment.file(), start, end)?;
        }
        segment.file().sync()?;
        if end == len {
            self.current = Some(CurrentSegment { segment, end });
        } else if self.opened.torn_bytes > 0 {
            // Only frees space; the next segment names the end in any case.
            let _ = segment.file().set_len(u64::from(end));
        }
        Ok(())
    }

    fn damage(&mut self, segment: u32, from: u32, to: u32, what: &'static str) {
        if from < to {
            self.opened.damage.push(Damage { segment, from, to, what });
        }
    }
}

/// Durably removes all bytes after the end of a segment.
pub(crate) fn cut_off(files: &Files, end: Position) -> io::Result<()> {
    if files.end(end.segment).is_none() {
        return Ok(());
    }
    let segment = files.open(end.segment)?;
    let file = segment.file();
    if file.len()? > u64::from(end.offset) {
        file.set_len(u64::from(end.offset))?;
    }
    // An earlier truncation may not be durable yet.
    file.sync()
}

/// Marks these bytes as dirty in the page cache: a later sync does not retry what a failed sync has
/// dropped.
fn write_again(file: &dyn DiskFile, start: u32, end: u32) -> io::Result<()> {
    let mut bytes = vec![0; (end - start) as usize];
    file.read_exact_at(&mut bytes, u64::from(start))?;
    file.write_all_at(&[&bytes], u64::from(start))
}
