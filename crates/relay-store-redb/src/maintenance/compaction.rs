//! Frees space in the journal: moves live items out of sparse segments, and deletes segments and
//! blobs without live items.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_journal::{Frame, ReadError, Reader, Segment};
use tokio::sync::oneshot;

use crate::engine::command::Job;
use crate::error::{StoreError, caught};
use crate::format;
use crate::format::record::{ItemRecord, kind};
use crate::index::snapshot::IndexSnapshot;
use crate::maintenance::Maintenance;

/// The most items and bytes that one job copies. A push waits for at most one such job.
const MOVE_ITEMS: usize = 256;
const MOVE_BYTES: usize = 1024 * 1024;

/// How many segments are emptied before a checkpoint frees them.
const SEGMENTS_PER_CHECKPOINT: u32 = 4;

/// A segment is emptied only if at most this percentage of it is live, because emptying writes that
/// much. The second value applies when there is time.
const SPARSE_PERCENT: u64 = 75;
const SPARSE_PERCENT_QUIET: u64 = 90;

impl Maintenance {
    /// Reclaims as much space as is worth its cost.
    pub(super) fn reclaim(&mut self) -> Result<(), StoreError> {
        self.postponed.clear();
        self.is_quiet = self.shared.throttle.is_quiet();
        if !self.is_compact()? {
            self.empty_segments()?;
        }
        self.remove_dead_rows();
        Ok(())
    }

    /// Empties every segment that has holes, and rewrites the index.
    pub(super) fn compact_all(&mut self) -> Result<(), StoreError> {
        self.is_thorough = true;
        self.postponed.clear();
        let emptied = self.empty_segments();
        self.is_thorough = false;
        emptied?;
        self.checkpoint()?;
        self.remove_dead_rows();
        let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
        self.rewrite(index_snapshot)
    }

    /// Records the size of the index, and the time if all space that should be reclaimed was.
    pub(super) fn update_metrics(&mut self) {
        let now = self.shared.clock.now();
        if let Ok(bytes) = self.index.file_bytes() {
            self.shared.metrics.index_bytes(bytes);
        }
        if matches!(caught(|| self.is_compact()), Ok(true)) {
            self.shared.metrics.reclaimed(now);
        }
    }

    /// Whether there is too little to reclaim. A checkpoint rewrites every page of the index that
    /// it touches, so it has to be worth that.
    fn is_compact(&mut self) -> Result<bool, StoreError> {
        let live_bytes: u64 = self.shared.version().main_segments().values().map(|live| live.bytes).sum();
        let (_, bytes) = self.shared.journal.main.usage();
        let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
        let is_index_compact = !(self.is_quiet && self.index.is_wasteful(&index_snapshot, true)?);
        let is_journal_compact = bytes <= self.allowed_bytes(live_bytes);
        Ok(is_index_compact && is_journal_compact && !self.has_dead_blobs(&index_snapshot))
    }

    /// How large the journal may be: its live bytes, plus a half of them, or an eighth when there
    /// is time, plus a segment.
    fn allowed_bytes(&self, live_bytes: u64) -> u64 {
        if self.is_thorough {
            return live_bytes;
        }
        live_bytes + live_bytes / if self.is_quiet { 8 } else { 2 } + self.due.segment_bytes
    }

    /// Whether there is a blob that no item refers to. There may be very many blobs, so the lock is
    /// taken for one at a time.
    fn has_dead_blobs(&self, index_snapshot: &IndexSnapshot) -> bool {
        let is_dead = |file: Segment| {
            self.shared.throttle.yield_core();
            let version = self.shared.version();
            // A file without a segment number was created and never used.
            let is_live = format::blob_segment(file.id)
                .is_some_and(|segment| version.live(index_snapshot, segment).items > 0);
            file.id <= version.blobs_through() && !is_live
        };
        self.shared.journal.blobs.each_segment().any(is_dead)
    }

    /// Deletes the segments and blobs without live items that no replay would read, unless a
    /// snapshot needs them.
    pub(super) fn remove_dead_segments(&self) {
        if self.shared.pins.load(Ordering::SeqCst) > 0 {
            return;
        }
        let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
        let position = index_snapshot.position.unwrap_or_default();
        let is_dead = |segment: u32| !index_snapshot.segments.contains_key(&segment);
        self.remove_segments(&self.shared.journal.main, |id| id < position.segment && is_dead(id));
        self.remove_segments(&self.shared.journal.blobs, |id| {
            id <= index_snapshot.blobs_through && format::blob_segment(id).is_none_or(is_dead)
        });
    }

    /// Deletes the dead segments of a journal. When the writer requests a checkpoint, this stops
    /// after twice the bytes that arrive between two checkpoints, and the next call continues.
    /// Until then the memtable grows, and nothing slows the writer down.
    fn remove_segments(&self, journal: &Reader, is_dead: impl Fn(u32) -> bool) {
        let throttle = &self.shared.throttle;
        let mut removed_bytes = 0;
        for segment in journal.each_segment().filter(|segment| is_dead(segment.id)) {
            if removed_bytes > self.due.replay_bytes.saturating_mul(2) && throttle.is_checkpoint_requested() {
                return;
            }
            removed_bytes += segment.bytes;
            if let Err(error) = journal.remove(segment.id, &|| throttle.yield_disk_while_freeing()) {
                tracing::warn!(%error, segment = segment.id, "cannot delete a dead segment");
            }
        }
    }

    /// Empties sparse segments until the journal is small enough.
    fn empty_segments(&mut self) -> Result<(), StoreError> {
        self.checkpoint()?;
        // Moved items go to later segments, so this ends.
        let end = self.shared.version().position().segment;
        let mut emptied = 0;
        while let Some(segment) = self.sparsest(end) {
            if !self.empty_segment(segment)? {
                break;
            }
            emptied += 1;
            if emptied % SEGMENTS_PER_CHECKPOINT == 0 {
                self.checkpoint()?;
            }
        }
        if emptied > 0 { self.checkpoint() } else { Ok(()) }
    }

    /// The sparsest segment before `end`, if the journal is larger than it may be.
    pub(super) fn sparsest(&self, end: u32) -> Option<u32> {
        // A copied item takes space twice until its old segment is deleted, and a snapshot prevents
        // that.
        if self.shared.pins.load(Ordering::SeqCst) > 0 {
            return None;
        }
        let (live, position) = {
            let version = self.shared.version();
            (version.main_segments(), version.position())
        };
        let segments = self.shared.journal.main.each_segment();
        let with_live: Vec<_> = segments
            .filter_map(|segment| {
                let live_bytes = live.get(&segment.id).filter(|live| live.items > 0)?.bytes;
                Some((segment.id, live_bytes, segment.bytes))
            })
            .collect();
        let live_bytes: u64 = with_live.iter().map(|segment| segment.1).sum();
        let bytes: u64 = with_live.iter().map(|segment| segment.2).sum();
        if bytes <= self.allowed_bytes(live_bytes) {
            return None;
        }
        let has_time = self.is_quiet || self.is_thorough;
        let percent = if has_time { SPARSE_PERCENT_QUIET } else { SPARSE_PERCENT };
        let end = end.min(position.segment);
        let sparse = with_live.into_iter().filter(|(id, live_bytes, bytes)| {
            let is_sparse = live_bytes * 100 <= bytes * percent;
            *id < end && is_sparse && !self.unmovable.contains(id) && !self.postponed.contains(id)
        });
        sparse.min_by_key(|(_, live_bytes, bytes)| live_bytes * 1000 / (*bytes).max(1)).map(|(id, ..)| id)
    }

    /// Copies the live items of a segment to the end of the journal, as far as they can be read.
    /// False if the writer has ended.
    pub(super) fn empty_segment(&mut self, segment: u32) -> Result<bool, StoreError> {
        let mut io_error = None;
        let has_writer = self.move_live(segment, &mut io_error)?;
        let has_live = self.shared.version().main_segments().get(&segment).is_some_and(|live| live.items > 0);
        if !has_writer || !has_live {
            return Ok(has_writer);
        }
        // A failed read may succeed later. A corrupt item stays corrupt.
        if let Some(error) = io_error {
            tracing::warn!(%error, segment, "cannot read a segment to empty it; the next sweep retries");
            self.postponed.insert(segment);
        } else {
            tracing::error!(segment, "a segment holds corrupt items that cannot be moved; it is kept");
            self.unmovable.insert(segment);
        }
        Ok(true)
    }

    /// As [`Maintenance::empty_segment`]. Stores in `io_error` why the segment or the index could
    /// not be read, unless that is corruption.
    fn move_live(&mut self, segment: u32, io_error: &mut Option<StoreError>) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let mut outcome = Ok(true);
        let scanned = shared.journal.main.scan(segment, |frame| {
            let Ok(frame) = frame else { return ControlFlow::Continue(()) };
            match self.is_live(&frame) {
                Ok(true) => {}
                Err(error) if !error.is_corruption() => {
                    *io_error = Some(error);
                    return ControlFlow::Continue(());
                }
                // Where the index is corrupt, nothing says that the item is live.
                Ok(false) | Err(_) => return ControlFlow::Continue(()),
            }
            bytes += frame.body.len();
            frames.push(frame);
            if frames.len() < MOVE_ITEMS && bytes < MOVE_BYTES {
                return ControlFlow::Continue(());
            }
            bytes = 0;
            outcome = self.move_items(std::mem::take(&mut frames));
            if matches!(outcome, Ok(true)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match scanned {
            Ok(()) => {}
            Err(error @ ReadError::Io(_)) => *io_error = Some(error.into()),
            Err(error) => tracing::error!(%error, segment, "cannot read a segment to its end"),
        }
        if matches!(outcome, Ok(true)) && !frames.is_empty() {
            outcome = self.move_items(frames);
        }
        outcome
    }

    fn is_live(&self, frame: &Frame) -> Result<bool, StoreError> {
        if !matches!(frame.kind, kind::PUSHED | kind::MOVED) {
            return Ok(false);
        }
        let Ok(record) = ItemRecord::parse(&frame.body) else { return Ok(false) };
        caught(|| self.shared.version().is_live_at(&record, frame.location))
    }

    /// Lets the writer copy items. False if the writer has ended.
    fn move_items(&mut self, frames: Vec<Frame>) -> Result<bool, StoreError> {
        let Some(mailbox) = self.mailbox.upgrade() else { return Ok(false) };
        let (caller, response) = oneshot::channel();
        if mailbox.blocking_send(Job::Move(frames, caller)).is_err() {
            return Ok(false);
        }
        drop(mailbox);
        let Ok(outcome) = response.blocking_recv() else { return Ok(false) };
        outcome?;
        self.checkpoint_if_requested()?;
        Ok(true)
    }
}
