//! The maintenance thread: it decides when to write a checkpoint, to sweep, and to free disk space.
//! Pushes do not wait for it.

mod checkpoint;
mod compaction;
mod dead_rows;
mod learn;
mod sweep;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use relay_core::Swept;
use tokio::sync::mpsc;

use crate::engine::checkpoint_due::CheckpointDue;
use crate::engine::command::{Job, Task, TaskResponder};
use crate::engine::exit_signal::ExitSignal;
use crate::engine::shared::Shared;
use crate::error::{StoreError, caught};
use crate::index::Index;
use crate::io::clock::NOTE_AFTER_MS;
use crate::io::metrics::Stopwatch;
use crate::maintenance::learn::Learning;

/// The longest time between checkpoints when nothing requests one. It only matters for a nearly
/// idle relay, where a checkpoint writes about one page of the index per row. Other limits bound
/// what a restart replays.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// The delay before a failed checkpoint is retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The shortest time between two reopenings of the index. Each request that reads a bad page makes
/// a reopening necessary. In between, other requests can use the index.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Maintenance {
    _alive: ExitSignal,
    shared: Arc<Shared>,
    index: Index,
    tasks: Receiver<Task>,
    mailbox: mpsc::WeakSender<Job>,
    due: CheckpointDue,
    /// Segments with live items that cannot be moved because they are corrupt.
    unmovable: HashSet<u32>,
    /// Segments that were not emptied because the disk failed. The next sweep retries them.
    postponed: HashSet<u32>,
    /// When the index was last reopened, successfully or not.
    reopened: Option<Stopwatch>,
    /// No request arrived between the last two sweeps, so there is time to be thorough.
    is_quiet: bool,
    /// An operator asked to reclaim all space, whatever it costs.
    is_thorough: bool,
    /// The dedup window at the last sweep.
    swept_window_ms: u64,
}

impl Maintenance {
    pub(crate) fn new(
        alive: ExitSignal,
        shared: Arc<Shared>,
        index: Index,
        tasks: Receiver<Task>,
        mailbox: mpsc::WeakSender<Job>,
        due: CheckpointDue,
    ) -> Self {
        Self {
            _alive: alive,
            swept_window_ms: shared.limits.load().dedup_window_ms,
            shared,
            index,
            tasks,
            mailbox,
            due,
            unmovable: HashSet::new(),
            postponed: HashSet::new(),
            reopened: None,
            is_quiet: false,
            is_thorough: false,
        }
    }

    /// Runs until all senders of tasks are dropped, then writes a last checkpoint.
    pub(crate) fn run(mut self) {
        self.index.read_ahead();
        self.update_metrics();
        let mut learning = Learning::new(self.shared.version().acked().unknown_slots());
        let (mut interval, mut last_checkpoint) = (CHECKPOINT_AFTER, Stopwatch::start());
        loop {
            // Other tasks do not postpone a checkpoint, and learning postpones no task.
            let rest = interval.saturating_sub(last_checkpoint.elapsed());
            let rest = self.heal().map_or(rest, |retry_in| retry_in.min(rest));
            let task = self.tasks.recv_timeout(if learning.is_done() { rest } else { Duration::ZERO });
            let is_early = last_checkpoint.elapsed() < interval;
            let outcome = match task {
                Err(RecvTimeoutError::Timeout) if is_early => {
                    self.learn(&mut learning);
                    continue;
                }
                // Requests do not hasten the retry of a failed checkpoint.
                Ok(Task::Checkpoint) if is_early && interval == RETRY_AFTER => continue,
                Ok(Task::Heal) => continue,
                Ok(Task::Checkpoint) | Err(RecvTimeoutError::Timeout) => {
                    let outcome = caught(|| self.checkpoint_and_compact());
                    last_checkpoint = Stopwatch::start();
                    self.update_metrics();
                    outcome
                }
                Ok(Task::Sweep(caller)) => self.sweep_and_reclaim(caller),
                Ok(Task::Snapshot(caller)) => respond(caller, caught(|| self.snapshot())),
                Ok(Task::Compact(caller)) => respond(caller, caught(|| self.compact_all())),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // The success of another task does not make up for a failed checkpoint.
            let is_well = outcome.is_ok() && !self.shared.is_in_trouble();
            interval = if is_well { CHECKPOINT_AFTER } else { RETRY_AFTER };
        }
        self.note_time();
        // On failure, the next start replays the journal instead.
        drop(self.checkpoint());
    }

    /// Reopens the index if redb refuses all access. Returns the time until the next attempt, if
    /// the index still needs it.
    fn heal(&mut self) -> Option<Duration> {
        self.shared.throttle.alarm.reset();
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

    /// Reads some acked item ids, if any are still to learn. The usual bounds of a checkpoint also
    /// hold here, because no checkpoint can begin meanwhile.
    fn learn(&self, learning: &mut Learning) {
        if learning.is_done() {
            return;
        }
        self.shared.throttle.yield_core();
        let step = self.shared.while_no_checkpoint_begins(|| caught(|| learning.step(&self.shared)));
        if let Err(error) = step {
            tracing::warn!(%error, "cannot read old acked item ids; pushes are slower until they expire");
            learning.give_up();
        }
    }

    fn sweep_and_reclaim(&mut self, caller: TaskResponder<Swept>) -> Result<(), StoreError> {
        let swept = caught(|| self.sweep());
        let outcome = match &swept {
            Ok(_) => caught(|| self.reclaim()),
            Err(error) => Err(error.clone()),
        };
        self.update_metrics();
        // The caller learns how the sweep went. If reclaiming fails, only the log says so.
        drop(caller.send(swept));
        outcome
    }

    /// Writes a checkpoint, and empties at most one sparse segment.
    fn checkpoint_and_compact(&mut self) -> Result<(), StoreError> {
        self.is_quiet = false;
        self.note_time();
        self.checkpoint()?;
        match self.sparsest(u32::MAX) {
            Some(segment) => self.empty_segment(segment).map(drop),
            None => Ok(()),
        }
    }

    /// Lets the next checkpoint store the current time, if a long time passed without a change. The
    /// next start continues from that time.
    fn note_time(&self) {
        let now = self.shared.clock.now();
        let mut version = self.shared.version_mut();
        if now >= version.numbers().time.plus_ms(NOTE_AFTER_MS) && version.has_items() {
            version.note_time(now);
        }
    }
}

impl Drop for Maintenance {
    /// If this thread panics, the writer must not wait for a checkpoint that never comes.
    fn drop(&mut self) {
        self.shared.note_checkpoint(Err(StoreError::MaintenanceEnded));
    }
}

/// Sends the outcome to the caller, and returns whether it is a success.
fn respond<T>(caller: TaskResponder<T>, outcome: Result<T, StoreError>) -> Result<(), StoreError> {
    let status = outcome.as_ref().map(drop).map_err(Clone::clone);
    // The caller may have stopped waiting.
    drop(caller.send(outcome));
    status
}
