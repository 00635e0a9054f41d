//! The thread that owns all writes. It decides all waiting requests as one batch, syncs the journal
//! once, and then answers. While a sync runs, the next batch collects. It uses no timer, and holds
//! no lock while it waits for the disk.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use relay_journal::{Journal, JournalError, Position};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::engine::answers::Answers;
use crate::engine::batch::Batch;
use crate::engine::checkpoint_due::CheckpointDue;
use crate::engine::command::{Job, Task};
use crate::engine::decide::{ACK_STEP_ITEMS, Decider, LargeAck, Readiness, Settling};
use crate::engine::decided_blobs::DecidedBlobs;
use crate::engine::exit_signal::ExitSignal;
use crate::engine::shared::Shared;
use crate::error::{StoreError, caught};
use crate::format::Key;
use crate::format::record::kind;
use crate::io::metrics::Stopwatch;
use crate::memtable::Memtable;
use crate::memtable::dedup_filter::slot_ms;
use crate::memtable::queue_cache::QueueCache;

/// The number of requests, and the cost in bytes, at which a batch takes no more jobs. Each push of
/// a job counts as a request.
const BATCH_REQUESTS_MAX: usize = 1024;
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How many items behind floors a batch removes beside its requests, so that these hardly wait for
/// it.
const FLOORED_ITEMS: usize = 128;

/// How many expired items a batch removes before its requests are decided: some milliseconds of
/// work. Requests to a queue with more of them wait for the next batches.
const SETTLED_ITEMS: usize = 1024;

/// The pause after a batch that had nothing to write although something waits, such as for a
/// checkpoint.
const REST: Duration = Duration::from_millis(1);

/// After a batch of one job, the writer polls for this long before it sleeps. A client that sends
/// one push after the other is back within this time, and waking a thread takes a tenth of the time
/// of a push. Polling only uses processor time that no other thread wants.
const POLL_TIME: Duration = Duration::from_micros(150);

/// The state of the writer thread.
pub(crate) struct Writer {
    _exit_signal: ExitSignal,
    shared: Arc<Shared>,
    journal: Journal,
    mailbox: mpsc::Receiver<Job>,
    /// Needs no bound: it has one task for each caller that waits for one, and one checkpoint.
    maintenance: Arc<Sender<Task>>,
    large_acks: VecDeque<LargeAck>,
    /// Queues with a floor, whose hidden items are to be removed.
    floors: VecDeque<u64>,
    /// The last batch could not be written. What nobody waits for is not tried again at once.
    is_failing: bool,
    /// The last batch had nothing to write, so what waits could not go on.
    is_idle: bool,
    /// Jobs that wait until expired items are removed from their queues.
    unsettled: Vec<Job>,
    /// Between batches it agrees with the published version.
    cache: QueueCache,
    checkpoint: CheckpointDue,
    last_batch_jobs: usize,
    /// Blobs of failed batches. They count as decided after the next written batch: until then, a
    /// crash may restore the failed one.
    undecided: DecidedBlobs,
}

/// What a batch has decided, before it is written.
struct Decided {
    memtable: Memtable,
    records: relay_journal::Batch,
    answers: Answers,
    /// The queues that have a floor afterwards.
    floors: VecDeque<u64>,
    /// Whether the removal of items behind a floor has failed.
    has_failed: bool,
    /// Whether it has written nothing, and no part of a large ack is decided.
    is_idle: bool,
}

impl Writer {
    pub(crate) fn new(
        exit_signal: ExitSignal,
        shared: Arc<Shared>,
        journal: Journal,
        mailbox: mpsc::Receiver<Job>,
        maintenance: Arc<Sender<Task>>,
        checkpoint: CheckpointDue,
    ) -> Self {
        Self {
            floors: existing_floors(&shared),
            _exit_signal: exit_signal,
            shared,
            journal,
            mailbox,
            maintenance,
            large_acks: VecDeque::new(),
            is_failing: false,
            is_idle: false,
            unsettled: Vec::new(),
            cache: QueueCache::preallocated(),
            checkpoint,
            last_batch_jobs: 0,
            undecided: DecidedBlobs::default(),
        }
    }

    /// Runs until the mailbox is closed and empty.
    pub(crate) fn run(mut self) {
        let mut jobs = Vec::new();
        while self.collect(&mut jobs) {
            self.last_batch_jobs = jobs.len();
            self.write_batch(std::mem::take(&mut jobs));
        }
    }

    /// Takes all waiting jobs, and sleeps only if there is nothing to do. Returns false after the
    /// last job.
    fn collect(&mut self, jobs: &mut Vec<Job>) -> bool {
        let (mut requests, mut bytes) = (0, 0);
        let has_work = !self.large_acks.is_empty() || !self.unsettled.is_empty();
        if !has_work && (self.floors.is_empty() || self.is_failing) {
            let Some(job) = self.next_job() else { return false };
            requests += job.requests().max(1);
            bytes += job.cost_bytes();
            jobs.push(job);
        }
        while requests < BATCH_REQUESTS_MAX && bytes < BATCH_BYTES_MAX {
            match self.mailbox.try_recv() {
                Ok(job) => {
                    requests += job.requests().max(1);
                    bytes += job.cost_bytes();
                    jobs.push(job);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return !jobs.is_empty() || has_work,
            }
        }
        if jobs.is_empty() && self.is_idle {
            std::thread::sleep(REST);
        }
        true
    }

    /// Waits for the next job. Returns `None` after the last one.
    fn next_job(&mut self) -> Option<Job> {
        let stopwatch = Stopwatch::start();
        while self.last_batch_jobs == 1 && stopwatch.elapsed() < POLL_TIME {
            match self.mailbox.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Empty) => std::thread::yield_now(),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        self.mailbox.blocking_recv()
    }

    fn write_batch(&mut self, jobs: Vec<Job>) {
        let mut writes = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                // If the maintenance thread has ended, dropping the task notifies the caller.
                Job::Maintain(task) => drop(self.maintenance.send(task)),
                Job::Ack(ack, responder, permit) if ack.items().len() > ACK_STEP_ITEMS => {
                    self.large_acks.push_back(LargeAck::new(ack, responder, permit));
                }
                job => writes.push(job),
            }
        }
        self.shared.space.note_written(writes.iter().map(Job::cost_bytes).sum());
        let capacity = self.shared.wait_for_capacity(self.checkpoint);
        match capacity.and_then(|()| Ok(self.journal.begin()?)) {
            Ok(records) => self.decide_and_sync(writes, records),
            Err(error) => {
                self.is_failing = true;
                tracing::warn!(%error, "cannot begin a batch");
                self.undecided = self.undecided.and(DecidedBlobs::of(&writes));
                writes.into_iter().for_each(|job| job.fail(&error));
                self.fail_waiting(&error);
            }
        }
    }

    /// Fails the jobs of earlier batches.
    fn fail_waiting(&mut self, error: &StoreError) {
        self.large_acks.drain(..).for_each(|ack| ack.responder.fail(error));
        self.unsettled.drain(..).for_each(|job| job.fail(error));
    }

    /// Decides all jobs, syncs the decisions, publishes them, and answers. If the sync fails, no
    /// decision takes effect.
    fn decide_and_sync(&mut self, jobs: Vec<Job>, records: relay_journal::Batch) {
        let requests = jobs.iter().map(Job::requests).sum::<usize>() + self.large_acks.len().min(1);
        self.shared.throttle.note_requests(requests);
        let had_undecided = !self.undecided.is_empty();
        self.undecided = self.undecided.and(DecidedBlobs::of(&jobs));
        let Decided { memtable, records, answers, floors, has_failed, is_idle } = self.decide(jobs, records);
        self.is_idle = is_idle;
        let position = if records.is_empty() { Ok(None) } else { self.commit(requests, records).map(Some) };
        self.is_failing = has_failed || position.is_err();
        match position {
            Ok(position) => {
                self.floors = floors;
                // If this batch wrote nothing, a crash may still restore an earlier, failed one.
                // A job that waits may still need its blobs.
                let is_certain = (position.is_some() || !had_undecided) && self.unsettled.is_empty();
                let blobs =
                    if is_certain { std::mem::take(&mut self.undecided) } else { DecidedBlobs::default() };
                self.publish(position.map(|position| (memtable, position)), blobs);
                self.shared.settled_items.fetch_add(answers.settled, Ordering::Relaxed);
                answers.send(None, &self.shared.waiters);
            }
            Err(error) => {
                self.cache.forget_all();
                let error = StoreError::from(error);
                tracing::warn!(%error, "cannot write a batch");
                answers.send(Some(&error), &self.shared.waiters);
                self.fail_waiting(&error);
            }
        }
    }

    fn decide(&mut self, jobs: Vec<Job>, records: relay_journal::Batch) -> Decided {
        let shared = &*self.shared;
        let (version, limits, now) = (shared.version(), shared.limits.load(), shared.clock.now());
        let slot_ms = slot_ms(limits.dedup_window_ms);
        let mut decider = Decider {
            batch: Batch::new(&version, &self.cache, records, &shared.journal, slot_ms, now),
            limits: &limits,
            now,
            is_full: shared.space.is_full(),
            answers: Answers::default(),
            waiting_acks: Vec::new(),
        };
        let items_max = if jobs.is_empty() { ACK_STEP_ITEMS } else { FLOORED_ITEMS };
        let mut settling = Settling { items_max: SETTLED_ITEMS, waiting: HashSet::new() };
        let waited = std::mem::take(&mut self.unsettled);
        let (mut advanced, mut waited_bytes) = (Vec::new(), 0);
        for (job, has_waited) in
            waited.into_iter().map(|job| (job, true)).chain(jobs.into_iter().map(|job| (job, false)))
        {
            if has_waited && waited_bytes >= BATCH_BYTES_MAX {
                settling.waiting.extend(job.recipients().cloned());
                self.unsettled.push(job);
                continue;
            }
            match decider.settle(job.recipients(), &mut settling) {
                Ok(Readiness::Ready) => {
                    waited_bytes += if has_waited { job.cost_bytes() } else { 0 };
                    decider.decide(job);
                }
                Ok(Readiness::Advanced) => advanced.push(job),
                Ok(Readiness::Behind) => self.unsettled.push(job),
                Err(error) => job.fail(&error),
            }
        }
        // Those for which nothing was done come first the next time.
        self.unsettled.append(&mut advanced);
        let has_acked = decider.decide_ack_part(&mut self.large_acks, &mut settling);
        self.large_acks.extend(std::mem::take(&mut decider.waiting_acks));
        let mut floors = self.floors.clone();
        for queue in std::mem::take(&mut decider.batch.floors) {
            if !floors.contains(&queue) {
                floors.push_back(queue);
            }
        }
        // While a checkpoint is late, it would only make requests wait for the next one.
        let is_late = version.is_checkpointing() && self.checkpoint.is_due(&version);
        let rests = is_late && !shared.is_in_trouble();
        let has_failed =
            !rests && decider.remove_floored(&mut floors, items_max, &mut self.large_acks).is_err();
        let Decider { batch, answers, .. } = decider;
        let (mut memtable, records) = batch.finish();
        memtable.numbers.time = memtable.numbers.time.max(now);
        Decided { is_idle: records.is_empty() && !has_acked, memtable, records, answers, floors, has_failed }
    }

    /// Writes and syncs the records. `requests` is for the metrics.
    fn commit(
        &mut self,
        requests: usize,
        mut records: relay_journal::Batch,
    ) -> Result<Position, JournalError> {
        records.fill_page(kind::FILL);
        let stopwatch = Stopwatch::start();
        let committed = self.journal.commit(records);
        self.shared.metrics.batch(requests, stopwatch);
        committed
    }

    /// Makes a synced batch visible, and requests a checkpoint if one is due.
    fn publish(&self, synced: Option<(Memtable, Position)>, blobs: DecidedBlobs) {
        if synced.is_none() && blobs.is_empty() {
            return;
        }
        let mut version = self.shared.version_mut();
        if let Some((memtable, position)) = synced {
            version.publish(memtable, position);
        }
        version.note_blobs(blobs.through, blobs.bytes);
        let is_due = self.checkpoint.is_due(&version);
        drop(version);
        if is_due && self.shared.throttle.request_checkpoint() {
            // A send fails only if the maintenance thread has ended.
            drop(self.maintenance.send(Task::Checkpoint));
        }
    }
}

/// The queues that have a floor at the start.
fn existing_floors(shared: &Shared) -> VecDeque<u64> {
    let found = caught(|| {
        let version = shared.version();
        let rows = version.synced().range(&Key::floors_start(), &Key::end())?;
        Ok(rows.filter_map(|row| Some(row.ok()?.0.queue_number())).collect())
    });
    found.unwrap_or_else(|error: StoreError| {
        tracing::error!(%error, "cannot look for acked items that are not removed yet");
        VecDeque::new()
    })
}
