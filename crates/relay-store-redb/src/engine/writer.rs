//! The one thread that writes. It takes whatever waits, decides all of it over one view, syncs the
//! journal once, and only then answers: while one sync runs, the next batch collects. No timer, and
//! no lock while it waits for the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, Envelope, Limits, Timestamp,
    queue::{self, Admission},
};
use relay_journal::{Journal, JournalError, Location, Position};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::engine::backlog::Permit;
use crate::engine::batch::Batch;
use crate::engine::checkpoint_due::CheckpointDue;
use crate::engine::command::{Answer, Front, Job, Prepared, Push, Pushed, Task, TaskResponder};
use crate::engine::exit_signal::ExitSignal;
use crate::engine::import;
use crate::engine::imported::Imported;
use crate::engine::reply::{Responder, WakeBatch};
use crate::engine::shared::Shared;
use crate::error::{StoreError, caught};
use crate::format;
use crate::format::record::kind;
use crate::index::snapshot::IndexSnapshot;
use crate::io::metrics::Stopwatch;
use crate::memtable::Memtable;
use crate::memtable::dedup_filter::slot_ms;
use crate::memtable::queue_cache::QueueCache;

/// The most requests of one batch, and the cost in bytes after which it takes no more.
const BATCH_JOBS_MAX: usize = 1024;
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How many items of an ack are decided in one batch. One of more is decided over several, so that
/// nobody waits for all of it: each item takes 3 microseconds.
const ACK_STEP_ITEMS: usize = 1024;

/// So long the writer looks for the next request before it sleeps, when there was one alone before:
/// who pushes one after the other is back within this time, and waking a thread up takes a tenth of
/// what a push does. It costs what no other thread wants of a core.
const LOOK_OUT: Duration = Duration::from_micros(150);

/// What an acked item costs, in payload bytes that take as long to write: four thousand of them
/// fill a batch.
const ACK_ITEM_COST_BYTES: u64 = 1024;

/// What a push costs beside its payload: names, rows, the job itself.
const PUSH_COST_BYTES: u64 = 512;

/// The writer's side of the store.
pub(crate) struct Writer {
    pub(crate) _alive: ExitSignal,
    pub(crate) shared: Arc<Shared>,
    pub(crate) journal: Journal,
    pub(crate) mailbox: mpsc::Receiver<Job>,
    /// It holds a task for each sweep that somebody waits for, and few others: a checkpoint is
    /// asked for once until one has begun.
    pub(crate) maintenance: Arc<Sender<Task>>,
    pub(crate) acks: VecDeque<Acking>,
    /// Says what is published, between batches.
    pub(crate) cache: QueueCache,
    pub(crate) checkpoint: CheckpointDue,
    /// How many jobs the last batch had.
    pub(crate) jobs_before: usize,
    /// Payload files of batches that failed. They are decided once another batch is written: until
    /// then a crash may bring those back.
    pub(crate) undecided: DecidedBlobs,
}

/// An ack that takes several batches.
pub(crate) struct Acking {
    /// What is left of it.
    parts: Box<dyn ExactSizeIterator<Item = Ack> + Send>,
    /// What became of the parts before.
    outcome: AckOutcome,
    caller: Responder<Answer<AckOutcome>>,
    permit: Permit,
}

/// The answers of a batch, kept until it is synced.
#[derive(Default)]
struct Answers {
    pushes: Vec<(Responder<Answer<Pushed>>, Pushed, Permit)>,
    acks: Vec<(Responder<Answer<AckOutcome>>, AckOutcome, Permit)>,
    moves: Vec<TaskResponder<()>>,
    trims: Vec<(TaskResponder<u64>, u64)>,
    imports: Vec<(TaskResponder<Imported>, Imported)>,
}

impl Writer {
    /// Works until the mailbox is closed and empty.
    pub(crate) fn run(mut self) {
        let mut jobs = Vec::new();
        while self.collect(&mut jobs) {
            let number = jobs.len();
            self.write_batch(std::mem::take(&mut jobs));
            self.jobs_before = number;
        }
    }

    /// Takes what waits; waits itself only when there is nothing to do. False when all is done for
    /// good.
    fn collect(&mut self, jobs: &mut Vec<Job>) -> bool {
        let mut bytes = 0;
        if self.acks.is_empty() {
            let Some(job) = self.next_job() else { return false };
            bytes += job.cost_bytes();
            jobs.push(job);
        }
        while jobs.len() < BATCH_JOBS_MAX && bytes < BATCH_BYTES_MAX {
            match self.mailbox.try_recv() {
                Ok(job) => {
                    bytes += job.cost_bytes();
                    jobs.push(job);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return !jobs.is_empty() || !self.acks.is_empty(),
            }
        }
        true
    }

    /// The next job; `None` when there will be none any more.
    fn next_job(&mut self) -> Option<Job> {
        let stopwatch = Stopwatch::start();
        while self.jobs_before == 1 && stopwatch.elapsed() < LOOK_OUT {
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
                // Should the maintenance thread be gone, who waits hears of it as the task is
                // dropped.
                Job::Keep(task) => drop(self.maintenance.send(task)),
                Job::Ack(ack, caller, permit) if ack.items().len() > ACK_STEP_ITEMS => {
                    self.acks.push_back(Acking::new(ack, caller, permit));
                }
                job => writes.push(job),
            }
        }
        self.shared.space.note_written(writes.iter().map(Job::cost_bytes).sum());
        let room = self.shared.wait_for_room(self.checkpoint);
        let begun = room.and_then(|()| Ok(self.journal.begin()?));
        match begun {
            Ok(records) => self.decide_and_sync(writes, records),
            Err(error) => {
                tracing::warn!(%error, "requests could not be taken on");
                self.undecided = self.undecided.and(DecidedBlobs::of(&writes));
                writes.into_iter().for_each(|job| job.fail(&error));
                self.fail_what_is_under_way(&error);
            }
        }
    }

    fn fail_what_is_under_way(&mut self, error: &StoreError) {
        self.acks.drain(..).for_each(|acking| refuse(acking.caller, error));
    }

    /// Decides every job, syncs what was decided, makes it visible, and answers. On failure nothing
    /// of it is; a job that fails alone is told so and takes nothing else with it.
    fn decide_and_sync(&mut self, jobs: Vec<Job>, records: relay_journal::Batch) {
        let shared = Arc::clone(&self.shared);
        let requests = jobs.iter().filter(|job| job.is_request()).count() + self.acks.len().min(1);
        shared.throttle.note_requests(requests);
        let (version, now) = (shared.version(), shared.clock.now());
        let slot_ms = slot_ms(shared.limits.dedup_window_ms);
        let mut batch = Batch::new(&version, &self.cache, records, &shared.journal, slot_ms, now);
        let mut answers = Answers::default();
        let payloads = self.undecided.and(DecidedBlobs::of(&jobs));
        let is_full = shared.space.is_full();
        for job in jobs {
            match job {
                Job::Push(push)
                    if is_full && would_be_stored(&batch, &shared.limits, now, &push.envelope) =>
                {
                    push.fail(&StoreError::Full);
                }
                Job::Import(_, caller) if is_full => fail(caller, &StoreError::Full),
                job => decide(&mut batch, &shared.limits, now, job, &mut answers),
            }
        }
        ack_step(&mut batch, &shared.limits, now, &mut self.acks, &mut answers);
        let (mut memtable, records) = batch.finish();
        memtable.numbers.time = memtable.numbers.time.max(now);
        drop(version);
        let synced = if records.is_empty() { Ok(None) } else { self.commit(requests, records).map(Some) };
        match synced {
            Ok(position) => {
                // Where nothing was written, a crash may still bring back what failed before.
                let is_certain = position.is_some() || self.undecided.through == 0;
                let (decided, undecided) = if is_certain {
                    (payloads, DecidedBlobs::default())
                } else {
                    (DecidedBlobs::default(), payloads)
                };
                self.undecided = undecided;
                self.publish(position.map(|position| (memtable, position)), decided);
                answers.send(None);
            }
            Err(error) => {
                self.cache.forget_all();
                self.undecided = payloads;
                let error = StoreError::from(error);
                tracing::warn!(%error, "a batch could not be written");
                answers.send(Some(&error));
                self.fail_what_is_under_way(&error);
            }
        }
    }

    /// Writes what was decided for so many requests, and for the maintenance thread.
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

    fn publish(&self, synced: Option<(Memtable, Position)>, payloads: DecidedBlobs) {
        if synced.is_none() && payloads.through == 0 {
            return;
        }
        let mut version = self.shared.version_mut();
        if let Some((memtable, position)) = synced {
            version.publish(memtable, position);
        }
        version.note_payloads(payloads.through, payloads.bytes);
        let due = self.checkpoint.is_due(&version);
        drop(version);
        if due && self.shared.throttle.ask() {
            // A maintenance thread that is gone needs no checkpoint.
            drop(self.maintenance.send(Task::Checkpoint));
        }
    }
}

fn decide(batch: &mut Batch<'_>, limits: &Limits, now: Timestamp, job: Job, answers: &mut Answers) {
    match job {
        Job::Push(Push { envelope, caller, permit, ahead }) => {
            batch.ahead = ahead;
            batch.compares_later = true;
            match alone(batch, |batch| queue::push(batch, limits, now, envelope)) {
                Ok(outcome) => {
                    let compare = batch.take_to_compare();
                    answers.pushes.push((caller, Pushed { outcome, compare }, permit));
                }
                Err(error) => refuse(caller, &error),
            }
        }
        Job::Ack(ack, caller, permit) => match alone(batch, |batch| queue::ack(batch, limits, now, &ack)) {
            Ok(outcome) => answers.acks.push((caller, outcome, permit)),
            Err(error) => refuse(caller, &error),
        },
        Job::Move(frames, caller) => {
            match alone(batch, |batch| frames.iter().try_for_each(|frame| batch.move_item(frame))) {
                Ok(()) => answers.moves.push(caller),
                Err(error) => fail(caller, &error),
            }
        }
        Job::Import(items, caller) => {
            batch.ahead = Prepared::Nothing;
            batch.compares_later = false;
            match alone(batch, |batch| import::decide(batch, limits, now, items)) {
                Ok(imported) => answers.imports.push((caller, imported)),
                Err(error) => fail(caller, &error),
            }
        }
        Job::Trim(fronts, index_snapshot, caller) => match trim(batch, &fronts, &index_snapshot) {
            Ok(items) => answers.trims.push((caller, items)),
            Err(error) => fail(caller, &error),
        },
        Job::Keep(_) => {}
    }
}

/// Takes out what has expired. What cannot be read of one queue must not keep the sweep from all
/// others.
fn trim(batch: &mut Batch<'_>, fronts: &[Front], index_snapshot: &IndexSnapshot) -> Result<u64, StoreError> {
    let mut items = 0;
    for front in fronts {
        match alone(batch, |batch| batch.trim(front, index_snapshot)) {
            Err(error) if error.is_corruption() => tracing::error!("the sweep passes a queue over"),
            trimmed => items += trimmed?,
        }
    }
    Ok(items)
}

/// Decides the next part of the first ack that takes several batches.
fn ack_step(
    batch: &mut Batch<'_>,
    limits: &Limits,
    now: Timestamp,
    acks: &mut VecDeque<Acking>,
    answers: &mut Answers,
) {
    let Some(mut acking) = acks.pop_front() else { return };
    let Some(part) = acking.parts.next() else { return };
    match alone(batch, |batch| queue::ack(batch, limits, now, &part)) {
        Ok(outcome) => acking.outcome = acking.outcome.then(outcome),
        Err(error) => return refuse(acking.caller, &error),
    }
    if acking.parts.len() > 0 {
        acks.push_front(acking);
    } else {
        answers.acks.push((acking.caller, acking.outcome, acking.permit));
    }
}

/// Whether a push would bring something new. What is known is answered, and what is refused is told
/// why, however little room there is.
fn would_be_stored(batch: &Batch<'_>, limits: &Limits, now: Timestamp, envelope: &Envelope) -> bool {
    let admitted = caught(|| queue::admit(batch, limits, now, envelope));
    matches!(admitted, Ok(Ok(Admission::Fits { .. })))
}

/// Does something in a batch, or nothing of it: what fails, or panics over a damaged index, is
/// taken back.
fn alone<T>(
    batch: &mut Batch<'_>,
    act: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let savepoint = batch.savepoint();
    let outcome = caught(|| act(batch));
    if let Err(error) = &outcome {
        tracing::warn!(%error, "a request could not be decided");
        batch.rollback(savepoint);
    }
    outcome
}

impl Job {
    /// Whether somebody outside asked for it.
    const fn is_request(&self) -> bool {
        !matches!(self, Self::Move(..) | Self::Trim(..) | Self::Keep(_))
    }

    fn cost_bytes(&self) -> u64 {
        match self {
            Self::Push(push) => match push.ahead {
                Prepared::Nothing => push_cost_bytes(&push.envelope),
                Prepared::Written(_) | Prepared::Compared(..) => PUSH_COST_BYTES,
            },
            Self::Ack(ack, ..) => ack_cost_bytes(ack),
            Self::Trim(fronts, ..) => (fronts.len() as u64).saturating_mul(PUSH_COST_BYTES),
            Self::Keep(_) => 0,
            Self::Move(frames, _) => frames.iter().map(|frame| frame.body.len() as u64).sum(),
            Self::Import(items, _) => items.iter().map(|item| push_cost_bytes(&item.envelope)).sum(),
        }
    }

    fn fail(self, error: &StoreError) {
        match self {
            Self::Push(push) => push.fail(error),
            Self::Ack(_, caller, _) => refuse(caller, error),
            Self::Trim(_, _, caller) => fail(caller, error),
            Self::Move(_, caller) => fail(caller, error),
            Self::Import(_, caller) => fail(caller, error),
            // It is dropped, which tells who waits.
            Self::Keep(_) => {}
        }
    }
}

impl Acking {
    fn new(ack: Ack, caller: Responder<Answer<AckOutcome>>, permit: Permit) -> Self {
        let parts = Box::new(ack.into_parts(ACK_STEP_ITEMS));
        Self { parts, outcome: AckOutcome::default(), caller, permit }
    }
}

impl Push {
    pub(crate) fn fail(self, error: &StoreError) {
        refuse(self.caller, error);
    }
}

/// The payload files that a batch decides. They come in order, so with its last one all before are
/// decided.
#[derive(Clone, Copy, Default)]
pub(crate) struct DecidedBlobs {
    /// The last one; 0 if there is none.
    through: u32,
    bytes: u64,
}

impl DecidedBlobs {
    fn and(self, later: Self) -> Self {
        Self { through: self.through.max(later.through), bytes: self.bytes.saturating_add(later.bytes) }
    }

    fn of(jobs: &[Job]) -> Self {
        let written = jobs.iter().filter_map(|job| match job {
            Job::Push(Push { ahead: Prepared::Written(location), .. }) => {
                Some(format::own_location(*location))
            }
            _ => None,
        });
        let alone = |file: Location| Self { through: file.segment, bytes: u64::from(file.length) };
        written.map(alone).fold(Self::default(), Self::and)
    }
}

impl Answers {
    /// Answers everybody: with what was decided, or with what went wrong.
    fn send(self, error: Option<&StoreError>) {
        let mut wake_batch = WakeBatch::default();
        for (caller, outcome, _weight) in self.pushes {
            wake_batch.add(caller.answer(error.map_or(Ok(outcome), |error| Err(error.clone()))));
        }
        for (caller, outcome, _weight) in self.acks {
            wake_batch.add(caller.answer(error.map_or(Ok(outcome), |error| Err(error.clone()))));
        }
        wake_batch.wake();
        for caller in self.moves {
            drop(caller.send(error.map_or(Ok(()), |error| Err(error.clone()))));
        }
        for (caller, items) in self.trims {
            drop(caller.send(error.map_or(Ok(items), |error| Err(error.clone()))));
        }
        for (caller, imported) in self.imports {
            drop(caller.send(error.map_or(Ok(imported), |error| Err(error.clone()))));
        }
    }
}

/// Tells a caller alone what went wrong.
fn refuse<T: Send + 'static>(caller: Responder<Answer<T>>, error: &StoreError) {
    let mut wake_batch = WakeBatch::default();
    wake_batch.add(caller.answer(Err(error.clone())));
    wake_batch.wake();
}

/// The same. One that has gone away needs no answer; here as above.
fn fail<T>(caller: TaskResponder<T>, error: &StoreError) {
    drop(caller.send(Err(error.clone())));
}

pub(crate) fn push_cost_bytes(envelope: &Envelope) -> u64 {
    envelope.payload_bytes().saturating_add(PUSH_COST_BYTES)
}

pub(crate) fn ack_cost_bytes(ack: &Ack) -> u64 {
    (ack.items().len() as u64).saturating_mul(ACK_ITEM_COST_BYTES)
}
