//! The thread that looks after what lies on disk: it writes checkpoints of the index, takes away
//! segments of the journal that nothing lives in any more, and empties sparse ones. Pushes wait for
//! none of it.

mod learn;
mod sweep;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use relay_core::Swept;
use relay_journal::{Frame, ReadError, Reader, Segment};
use tokio::sync::{mpsc, oneshot};

use crate::engine::checkpoint_due::CheckpointDue;
use crate::engine::command::{Job, Task, TaskResponder};
use crate::engine::exit_signal::ExitSignal;
use crate::engine::shared::Shared;
use crate::engine::snapshot::{self, Snapshot};
use crate::error::{StoreError, caught};
use crate::format;
use crate::format::record::{ItemRecord, kind};
use crate::index::snapshot::IndexSnapshot;
use crate::index::{Index, Written};
use crate::io::clock::NOTE_AFTER_MS;
use crate::io::metrics::Stopwatch;
use crate::maintenance::learn::Learning;

/// How long what is in memory waits for a checkpoint when nothing asks for one. What a restart has
/// to replay is bounded otherwise; this is for a relay that is nearly idle, and a checkpoint of few
/// rows writes a page of the index for nearly each of them.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// How long after a failed checkpoint the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long after the index was opened anew it may be once more. A place that stays bad fails each
/// request that comes to it; this is what others have of the index meanwhile.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// The most that one job copies, in items and in bytes: what a push waits for it.
const MOVE_ITEMS: usize = 256;
const MOVE_BYTES: usize = 1024 * 1024;

/// How many segments are emptied before a checkpoint lets them go.
const EMPTIED_TOGETHER: u32 = 4;

/// A segment is emptied only when at most this share of it lives, in percent: emptying it writes
/// that much. The second one holds when there is time.
const SPARSE_PERCENT: u64 = 75;
const SPARSE_PERCENT_QUIET: u64 = 90;

pub(crate) struct Maintenance {
    pub(crate) _alive: ExitSignal,
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: Index,
    pub(crate) tasks: Receiver<Task>,
    pub(crate) mailbox: mpsc::WeakSender<Job>,
    pub(crate) due: CheckpointDue,
    /// Segments that hold something live which cannot be moved, since it is damaged.
    pub(crate) stuck: HashSet<u32>,
    /// Segments that could not be emptied since the disk has failed. The next sweep tries again.
    pub(crate) put_off: HashSet<u32>,
    /// When the index was last opened anew, or that was tried.
    pub(crate) reopened: Option<Stopwatch>,
    /// No request came between the last two sweeps: there is time to be thorough.
    pub(crate) is_quiet: bool,
    /// Somebody waits until every segment that is worth it is emptied.
    pub(crate) is_thorough: bool,
}

impl Maintenance {
    /// Works until nobody can ask for anything any more; then writes a last checkpoint.
    pub(crate) fn run(mut self) {
        self.index.read_ahead();
        self.note_tidy();
        let mut learning = Learning::of(self.shared.version().acked().unknown_slots());
        let (mut patience, mut since) = (CHECKPOINT_AFTER, Stopwatch::start());
        loop {
            // Other tasks put no checkpoint off, and what is to be learned puts none of them off.
            let rest = patience.saturating_sub(since.elapsed());
            let rest = self.heal().map_or(rest, |reopened_in| reopened_in.min(rest));
            let task = self.tasks.recv_timeout(if learning.is_over() { rest } else { Duration::ZERO });
            let is_waiting = since.elapsed() < patience;
            let outcome = match task {
                Err(RecvTimeoutError::Timeout) if is_waiting => {
                    self.learn(&mut learning);
                    continue;
                }
                // One that has failed is tried again in its time, however much is asked for it.
                Ok(Task::Checkpoint) if is_waiting && patience == RETRY_AFTER => continue,
                Ok(Task::Heal) => continue,
                Ok(Task::Checkpoint) | Err(RecvTimeoutError::Timeout) => {
                    let outcome = caught(|| self.maintain());
                    since = Stopwatch::start();
                    self.note_tidy();
                    outcome
                }
                Ok(Task::Sweep(caller)) => self.sweep_and_tidy(caller),
                Ok(Task::Snapshot(caller)) => answer(caller, caught(|| self.snapshot())),
                Ok(Task::Compact(caller)) => answer(caller, caught(|| self.compact_all())),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // What went well since a checkpoint failed has not made up for it.
            let is_well = outcome.is_ok() && !self.shared.is_in_trouble();
            patience = if is_well { CHECKPOINT_AFTER } else { RETRY_AFTER };
        }
        self.note_time();
        // What it would have held is replayed by the next start.
        drop(self.checkpoint());
    }

    /// Opens the index anew if redb refuses everything. If it still does, or was opened anew only
    /// just now: after how long that is to be tried.
    fn heal(&mut self) -> Option<Duration> {
        self.shared.throttle.alarm.heard();
        if !self.index.needs_reopening() {
            return None;
        }
        let rest = |reopened: Stopwatch| REOPEN_AFTER.checked_sub(reopened.elapsed());
        if let Some(rest) = self.reopened.and_then(rest) {
            return Some(rest);
        }
        self.reopen();
        self.index.needs_reopening().then_some(REOPEN_AFTER)
    }

    /// Reads some acked names, if there are any to learn. No checkpoint can begin meanwhile, so
    /// what may pile up behind it is bounded as while one is written.
    fn learn(&self, learning: &mut Learning) {
        if learning.is_over() {
            return;
        }
        self.shared.throttle.leave_core();
        let step = self.shared.while_no_checkpoint_begins(|| caught(|| learning.step(&self.shared)));
        if let Err(error) = step {
            tracing::warn!(%error, "pushes are slower until acked names of before are forgotten");
            learning.give_up();
        }
    }

    fn sweep_and_tidy(&mut self, caller: TaskResponder<Swept>) -> Result<(), StoreError> {
        let swept = caught(|| self.sweep());
        let outcome = swept.as_ref().map(drop).map_err(Clone::clone).and_then(|()| caught(|| self.tidy()));
        self.note_tidy();
        // What has expired is gone; that its space is not yet is told by the log.
        drop(caller.send(swept));
        outcome
    }

    /// A checkpoint, and a step towards dense segments.
    fn maintain(&mut self) -> Result<(), StoreError> {
        self.is_quiet = false;
        self.note_time();
        self.checkpoint()?;
        match self.sparsest(u32::MAX) {
            Some(segment) => self.empty_segment(segment).map(drop),
            None => Ok(()),
        }
    }

    /// Has the next checkpoint say what time it is, should nothing have happened for long: a start
    /// goes on from there.
    fn note_time(&self) {
        let now = self.shared.clock.now();
        let mut version = self.shared.version_mut();
        if now >= version.numbers().time.plus_ms(NOTE_AFTER_MS) && version.has_items() {
            version.note_time(now);
        }
    }

    /// Gives back all that can be given back.
    fn tidy(&mut self) -> Result<(), StoreError> {
        self.put_off.clear();
        self.is_quiet = self.shared.throttle.is_quiet();
        if !self.is_tidy()? {
            self.empty_segments()?;
        }
        self.bury_or_warn(Self::bury);
        Ok(())
    }

    fn empty_segments(&mut self) -> Result<(), StoreError> {
        self.checkpoint()?;
        // What is moved comes to lie behind it, so that there is an end.
        let before = self.shared.version().position().segment;
        let mut emptied = 0;
        while let Some(segment) = self.sparsest(before) {
            if !self.empty_segment(segment)? {
                break;
            }
            emptied += 1;
            if emptied % EMPTIED_TOGETHER == 0 {
                self.checkpoint()?;
            }
        }
        if emptied > 0 { self.checkpoint() } else { Ok(()) }
    }

    /// The store with all that is published by now.
    fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        let wanted = self.shared.version().position();
        self.checkpoint()?;
        // After one that had failed, that was what it should have written, and not what came since.
        if self.shared.version().index_snapshot().position.unwrap_or_default() < wanted {
            self.checkpoint()?;
        }
        snapshot::of_checkpoint(&self.shared, &self.index)
    }

    /// Empties every segment that has holes, and writes the index anew.
    fn compact_all(&mut self) -> Result<(), StoreError> {
        self.is_thorough = true;
        self.put_off.clear();
        let emptied = self.empty_segments();
        self.is_thorough = false;
        emptied?;
        self.checkpoint()?;
        self.bury_or_warn(Self::bury);
        let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
        self.rewrite(index_snapshot)
    }

    /// Whether there is too little to give back for a checkpoint, which costs a write of every page
    /// of the index that it touches: less than a segment beyond half of what lives, and no payload
    /// file.
    fn is_tidy(&mut self) -> Result<bool, StoreError> {
        let live_bytes: u64 = self.shared.version().main_segments().values().map(|live| live.bytes).sum();
        let (_, bytes) = self.shared.journal.main.usage();
        let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
        let is_index_tidy = !(self.is_quiet && self.index.is_wasteful(&index_snapshot, true)?);
        let is_journal_tidy = bytes <= self.allowed_bytes(live_bytes);
        Ok(is_index_tidy && is_journal_tidy && !self.has_dead_payloads(&index_snapshot))
    }

    /// Whether there is a payload file that nothing leads to. There may be very many, so the
    /// version is asked about one after the other.
    fn has_dead_payloads(&self, index_snapshot: &IndexSnapshot) -> bool {
        let is_dead = |file: Segment| {
            self.shared.throttle.leave_core();
            let version = self.shared.version();
            // One without such a number was begun and not used.
            let is_live = format::payload_segment(file.id)
                .is_some_and(|segment| version.live(index_snapshot, segment).items > 0);
            file.id <= version.payloads_through() && !is_live
        };
        self.shared.journal.payloads.each_segment().any(is_dead)
    }

    /// Tells how large the index is, and whether all was given back that should be.
    fn note_tidy(&mut self) {
        let now = self.shared.clock.now();
        if let Ok(bytes) = self.index.file_bytes() {
            self.shared.metrics.index_bytes(bytes);
        }
        if matches!(caught(|| self.is_tidy()), Ok(true)) {
            self.shared.metrics.tidy(now);
        }
    }

    /// How large the journal may be: half again what lives in it, or, when there is time, an
    /// eighth; and a segment.
    fn allowed_bytes(&self, live_bytes: u64) -> u64 {
        if self.is_thorough {
            return live_bytes;
        }
        live_bytes + live_bytes / if self.is_quiet { 8 } else { 2 } + self.due.segment_bytes
    }

    /// Writes what is in memory to the index, and takes away the segments that are dead according
    /// to it.
    pub(crate) fn checkpoint(&mut self) -> Result<(), StoreError> {
        let outcome = caught(|| write_checkpoint(&self.shared, &mut self.index).map(drop));
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a checkpoint could not be written; it is tried again");
            self.shared.metrics.checkpoint_failed();
            self.reopen();
        }
        self.shared.note_checkpoint(outcome.clone());
        outcome?;
        self.remove_dead();
        self.bury_or_warn(Self::bury_some);
        self.compact()
    }

    /// Nothing is lost when that fails, and nobody waits for it.
    fn bury_or_warn<T>(&mut self, bury: impl FnOnce(&mut Self) -> Result<T, StoreError>) {
        if let Err(error) = caught(|| bury(self)) {
            tracing::warn!(%error, "rows of items that are gone stay in the index for now");
        }
    }

    /// Writes the index anew when it is mostly holes and there is room for both. Nothing is lost
    /// when that fails.
    fn compact(&mut self) -> Result<(), StoreError> {
        let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
        if !self.index.is_wasteful(&index_snapshot, self.is_quiet)?
            || !self.index.has_room_for_another(&index_snapshot)?
        {
            return Ok(());
        }
        let rewritten = self.rewrite(index_snapshot);
        if let Err(error) = &rewritten {
            tracing::warn!(%error, "the index could not be written anew");
        }
        // A checkpoint that has failed in between is tried again soon.
        if self.shared.is_in_trouble() { rewritten } else { Ok(()) }
    }

    fn rewrite(&mut self, index_snapshot: Arc<IndexSnapshot>) -> Result<(), StoreError> {
        let (shared, mut has_failed) = (Arc::clone(&self.shared), false);
        shared.is_rewriting.store(true, Ordering::Relaxed);
        let rewritten = caught(|| {
            self.index.rewrite(index_snapshot, &mut |index| {
                if !shared.throttle.is_asked() {
                    return Ok(None);
                }
                // Also if it panics.
                has_failed = true;
                let written = write_checkpoint(&shared, index)?;
                has_failed = false;
                shared.note_checkpoint(Ok(()));
                Ok(written)
            })
        });
        let outcome = rewritten.map(|old| {
            match caught(|| self.index.index_snapshot()) {
                Ok(index_snapshot) => self.install(index_snapshot),
                Err(_) => self.reopen(),
            }
            old.give_back();
        });
        // Otherwise the old one is as good as it was, and a snapshot may be reading it.
        if outcome.is_err() && (has_failed || self.index.needs_reopening()) {
            self.reopen();
        }
        if has_failed {
            self.shared.metrics.checkpoint_failed();
        }
        self.shared.is_rewriting.store(false, Ordering::Relaxed);
        self.shared.note_checkpoint(if has_failed { outcome.clone() } else { Ok(()) });
        outcome
    }

    pub(crate) fn reopen(&mut self) {
        match caught(|| self.index.reopen()) {
            Ok(index_snapshot) => {
                self.install(index_snapshot);
                tracing::info!("the index was opened anew");
            }
            Err(error) => tracing::error!(%error, "the index cannot be opened anew; that is tried again"),
        }
        self.reopened = Some(Stopwatch::start());
    }

    pub(crate) fn install(&self, index_snapshot: IndexSnapshot) {
        install(&self.shared, Arc::new(index_snapshot));
    }

    /// Unlinks the segments that hold nothing live and that no replay would read, unless a snapshot
    /// needs them.
    fn remove_dead(&self) {
        if self.shared.pins.load(Ordering::SeqCst) > 0 {
            return;
        }
        let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
        let position = index_snapshot.position.unwrap_or_default();
        let is_dead =
            |segment: Option<u32>| segment.is_none_or(|known| !index_snapshot.segments.contains_key(&known));
        self.remove(&self.shared.journal.main, |id| id < position.segment && is_dead(Some(id)));
        self.remove(&self.shared.journal.payloads, |id| {
            id <= index_snapshot.payloads_through && is_dead(format::payload_segment(id))
        });
    }

    /// Unlinks the segments of a journal that are dead. When a checkpoint is asked for, no more
    /// than twice what comes between two, and it goes on with the rest: what it is to write piles
    /// up meanwhile, and nothing holds the writer up.
    fn remove(&self, journal: &Reader, is_dead: impl Fn(u32) -> bool) {
        let mut removed_bytes = 0;
        for segment in journal.each_segment().filter(|segment| is_dead(segment.id)) {
            if removed_bytes > self.due.replay_bytes.saturating_mul(2) && self.shared.throttle.is_asked() {
                return;
            }
            removed_bytes += segment.bytes;
            if let Err(error) = journal.remove(segment.id, &|| self.shared.throttle.leave_freeing_disk()) {
                tracing::warn!(%error, segment = segment.id, "a dead segment could not be removed");
            }
        }
    }

    /// The segment before this one that is worth emptying most, while the journal is larger than it
    /// may be.
    fn sparsest(&self, before: u32) -> Option<u32> {
        // What is copied out of a segment is there twice until the segment goes, which it may not
        // while there is a snapshot.
        if self.shared.pins.load(Ordering::SeqCst) > 0 {
            return None;
        }
        let (live, position) = {
            let version = self.shared.version();
            (version.main_segments(), version.position())
        };
        let living: Vec<_> = self
            .shared
            .journal
            .main
            .each_segment()
            .filter_map(|segment| {
                let live_bytes = live.get(&segment.id).filter(|live| live.items > 0)?.bytes;
                Some((segment.id, live_bytes, segment.bytes))
            })
            .collect();
        let live_bytes: u64 = living.iter().map(|segment| segment.1).sum();
        let bytes: u64 = living.iter().map(|segment| segment.2).sum();
        if bytes <= self.allowed_bytes(live_bytes) {
            return None;
        }
        let has_time = self.is_quiet || self.is_thorough;
        let percent = if has_time { SPARSE_PERCENT_QUIET } else { SPARSE_PERCENT };
        let before = before.min(position.segment);
        let sparse = living.into_iter().filter(|(id, live_bytes, bytes)| {
            let is_sparse = live_bytes * 100 <= bytes * percent;
            *id < before && is_sparse && !self.stuck.contains(id) && !self.put_off.contains(id)
        });
        sparse.min_by_key(|(_, live_bytes, bytes)| live_bytes * 1000 / (*bytes).max(1)).map(|(id, ..)| id)
    }

    /// Copies what lives in a segment to the end of the journal, as far as it can be read. False
    /// when there is no writer any more.
    fn empty_segment(&mut self, segment: u32) -> Result<bool, StoreError> {
        let mut unread = None;
        let moved = self.move_live(segment, &mut unread);
        let left = self.shared.version().main_segments().get(&segment).is_some_and(|live| live.items > 0);
        // What could not be written may be another time, and what could not be read.
        match (moved, unread) {
            (Ok(true), Some(error)) if left => {
                tracing::warn!(%error, segment, "a segment cannot be read to be emptied; the next sweep tries again");
                self.put_off.insert(segment);
                Ok(true)
            }
            (Ok(true), None) if left => {
                tracing::error!(segment, "a segment holds something that cannot be moved; it stays as it is");
                self.stuck.insert(segment);
                Ok(true)
            }
            (moved, _) => moved,
        }
    }

    /// Tells of what could be read neither of the segment nor of what the index says of it, where
    /// nothing is damaged.
    fn move_live(&mut self, segment: u32, unread: &mut Option<StoreError>) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        let mut outcome = Ok(true);
        let scanned = shared.journal.main.scan(segment, |frame| {
            let Ok(frame) = frame else { return ControlFlow::Continue(()) };
            match self.is_live(&frame) {
                Ok(true) => {}
                Err(error) if !error.is_corruption() => {
                    *unread = Some(error);
                    return ControlFlow::Continue(());
                }
                // What cannot be found out over a damaged index is not moved.
                Ok(false) | Err(_) => return ControlFlow::Continue(()),
            }
            bytes += frame.body.len();
            chunk.push(frame);
            if chunk.len() < MOVE_ITEMS && bytes < MOVE_BYTES {
                return ControlFlow::Continue(());
            }
            bytes = 0;
            outcome = self.move_items(std::mem::take(&mut chunk));
            if matches!(outcome, Ok(true)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match scanned {
            Ok(()) => {}
            Err(error @ ReadError::Io(_)) => *unread = Some(error.into()),
            Err(error) => tracing::error!(%error, segment, "a segment cannot be read to its end"),
        }
        if matches!(outcome, Ok(true)) && !chunk.is_empty() {
            outcome = self.move_items(chunk);
        }
        outcome
    }

    fn is_live(&self, frame: &Frame) -> Result<bool, StoreError> {
        if !matches!(frame.kind, kind::PUSHED | kind::MOVED) {
            return Ok(false);
        }
        let Ok(found) = ItemRecord::parse(&frame.body) else { return Ok(false) };
        caught(|| self.shared.version().lies_at(&found, frame.location))
    }

    /// Has the writer copy items. False when there is no writer any more.
    fn move_items(&mut self, frames: Vec<Frame>) -> Result<bool, StoreError> {
        let Some(mailbox) = self.mailbox.upgrade() else { return Ok(false) };
        let (caller, answer) = oneshot::channel();
        if mailbox.blocking_send(Job::Move(frames, caller)).is_err() {
            return Ok(false);
        }
        drop(mailbox);
        let Ok(outcome) = answer.blocking_recv() else { return Ok(false) };
        outcome?;
        if self.shared.throttle.is_asked() {
            self.checkpoint()?;
        }
        Ok(true)
    }
}

impl Drop for Maintenance {
    /// Should it die while others work, the writer must not wait for a checkpoint that nobody
    /// writes.
    fn drop(&mut self) {
        self.shared.note_checkpoint(Err(StoreError::MaintenanceEnded));
    }
}

/// Answers, and tells the maintenance thread how it went.
fn answer<T>(caller: TaskResponder<T>, outcome: Result<T, StoreError>) -> Result<(), StoreError> {
    let told = outcome.as_ref().map(drop).map_err(Clone::clone);
    // Who asked may have gone.
    drop(caller.send(outcome));
    told
}

/// Writes what is in memory to the index, if there is anything, and tells what that was, and what
/// the index holds now.
fn write_checkpoint(shared: &Shared, index: &mut Index) -> Result<Written, StoreError> {
    shared.throttle.begin();
    let sealed = shared.version_mut().seal();
    let Some(sealed) = sealed else { return Ok(None) };
    let (rows, stopwatch) = (sealed.memtable.weight(), Stopwatch::start());
    let written_bytes = index.checkpoint(&sealed)?;
    let index_snapshot = Arc::new(index.index_snapshot()?);
    install(shared, Arc::clone(&index_snapshot));
    shared.metrics.checkpoint(stopwatch);
    tracing::debug!(rows, written_bytes, "a checkpoint was written");
    Ok(Some((sealed, index_snapshot)))
}

/// Lets go of what is not needed any more without the lock: closing a database takes its time.
fn install(shared: &Shared, index_snapshot: Arc<IndexSnapshot>) {
    let old = shared.version_mut().install(index_snapshot);
    drop(old);
}
