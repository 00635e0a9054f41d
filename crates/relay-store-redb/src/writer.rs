//! The one thread that writes. It takes whatever waits, decides all of it in one transaction, commits once, and only then
//! answers: while one commit runs, the next batch collects. No timer, no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability};
use relay_core::{
    Ack, AckOutcome, Clock, Envelope, PushOutcome, Rejection, SweepStep, Swept, Timestamp, queue,
};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::Core;
use crate::batch::Batch;
use crate::error::StoreError;

/// The most requests of one batch, and the cost in bytes after which it takes no more.
const BATCH_JOBS_MAX: usize = 1024;
const BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How many rows one step of the sweep reclaims: a few milliseconds, which is what a push waits for it.
const SWEEP_STEP_ROWS: usize = 256;

pub(crate) type Answer<T> = Result<T, StoreError>;

/// Whom to tell, once it is known.
type Caller<T> = oneshot::Sender<Answer<T>>;

/// A push may be refused, which is no failure.
type Pushed = Result<PushOutcome, Rejection>;

/// What a caller wants written.
pub(crate) enum Job {
    Push(Envelope, Caller<Pushed>, Weight),
    Ack(Ack, Caller<AckOutcome>, Weight),
    Sweep(Caller<Swept>),
}

/// What an acked item costs, in payload bytes that take as long to write: ten thousand of them are most of a batch.
const ACK_ITEM_COST_BYTES: u64 = 1024;

/// What a push costs beside its payload: names, rows, the job itself.
const PUSH_COST_BYTES: u64 = 512;

/// The cost in bytes of all that waits. Each request holds its [`Weight`] until it is answered.
#[derive(Debug, Default)]
pub(crate) struct Load {
    bytes: AtomicU64,
}

/// A request's share of the [`Load`], given back when it is dropped.
pub(crate) struct Weight {
    load: Arc<Load>,
    bytes: u64,
}

impl Load {
    /// Takes a share, unless something is waiting already and the sum would pass `max`.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64, max: u64) -> Option<Weight> {
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let weight = Weight { load: Arc::clone(self), bytes };
        (waiting == 0 || waiting.saturating_add(bytes) <= max).then_some(weight)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The writer's side of the store.
pub(crate) struct Writer {
    /// Dropped when the thread ends, for whatever reason.
    pub(crate) _alive: watch::Sender<()>,
    pub(crate) core: Arc<Core>,
    pub(crate) mailbox: mpsc::Receiver<Job>,
    pub(crate) sweep: Sweep,
}

/// A sweep under way, over as many batches as it takes.
#[derive(Default)]
pub(crate) struct Sweep {
    waiting: Vec<Caller<Swept>>,
    swept: Swept,
}

/// The answers of a batch, kept until it is committed.
#[derive(Default)]
struct Answers {
    pushes: Vec<(Caller<Pushed>, Pushed, Weight)>,
    acks: Vec<(Caller<AckOutcome>, AckOutcome, Weight)>,
}

impl Writer {
    /// Works until the mailbox is closed and empty.
    pub(crate) fn run(mut self) {
        let mut jobs = Vec::new();
        while self.collect(&mut jobs) {
            self.write_batch(std::mem::take(&mut jobs));
        }
    }

    /// Takes what waits; waits itself only when there is nothing to do. False when all is done for good.
    fn collect(&mut self, jobs: &mut Vec<Job>) -> bool {
        let mut bytes = 0;
        if self.sweep.waiting.is_empty() {
            let Some(job) = self.mailbox.blocking_recv() else { return false };
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
                // Nobody is left to wait for a sweep; the next start finishes it.
                Err(TryRecvError::Disconnected) => return !jobs.is_empty(),
            }
        }
        true
    }

    fn write_batch(&mut self, jobs: Vec<Job>) {
        let mut writes = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Sweep(caller) => self.sweep.waiting.push(caller),
                job => writes.push(job),
            }
        }
        let mut answers = Answers::default();
        match self.decide_and_commit(writes, &mut answers) {
            Ok(step) => {
                answers.send(None);
                self.sweep.advance(step);
            }
            Err((error, unanswered)) => {
                tracing::warn!(%error, "a batch could not be written");
                answers.send(Some(&error));
                unanswered.into_iter().for_each(|job| job.fail(&error));
                self.sweep.fail(&error);
            }
        }
    }

    /// Decides every job in one transaction and commits it. On failure nothing of it is visible, and the jobs that were
    /// not decided come back.
    fn decide_and_commit(
        &self,
        jobs: Vec<Job>,
        answers: &mut Answers,
    ) -> Result<Option<SweepStep>, (StoreError, Vec<Job>)> {
        let mut jobs = jobs.into_iter();
        if self.core.is_closed() {
            self.core.reopen();
        }
        let written = self.core.with_db(|db| self.attempt(db, &mut jobs, answers));
        written.map_err(|error| {
            // A damaged row does not get better by that.
            if matches!(error, StoreError::Database(_)) {
                self.core.reopen();
            }
            (error, jobs.collect())
        })
    }

    fn attempt(
        &self,
        db: &Database,
        jobs: &mut impl Iterator<Item = Job>,
        answers: &mut Answers,
    ) -> Result<Option<SweepStep>, StoreError> {
        let now = self.core.clock.now();
        let mut tx = db.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        // Makes reopening after a crash a matter of milliseconds instead of a walk over the file.
        tx.set_quick_repair(true);
        let mut batch = Batch::open(&tx)?;
        for job in jobs {
            self.decide(&mut batch, now, job, answers)?;
        }
        let sweeping = !self.sweep.waiting.is_empty();
        let step = sweeping.then(|| queue::expire(&mut batch, now, SWEEP_STEP_ROWS)).transpose()?;
        if batch.finish()? {
            tx.commit()?;
        } else {
            tx.abort()?;
        }
        Ok(step)
    }

    fn decide(
        &self,
        batch: &mut Batch<'_>,
        now: Timestamp,
        job: Job,
        answers: &mut Answers,
    ) -> Result<(), StoreError> {
        let limits = &self.core.limits;
        match job {
            Job::Push(envelope, caller, weight) => match queue::push(batch, limits, now, envelope) {
                Ok(outcome) => answers.pushes.push((caller, outcome, weight)),
                Err(error) => return Err(fail(caller, error)),
            },
            Job::Ack(ack, caller, weight) => match queue::ack(batch, limits, now, &ack) {
                Ok(outcome) => answers.acks.push((caller, outcome, weight)),
                Err(error) => return Err(fail(caller, error)),
            },
            Job::Sweep(_) => {}
        }
        Ok(())
    }
}

impl Job {
    fn cost_bytes(&self) -> u64 {
        match self {
            Self::Push(envelope, ..) => push_cost_bytes(envelope),
            Self::Ack(ack, ..) => ack_cost_bytes(ack),
            Self::Sweep(_) => 0,
        }
    }

    fn fail(self, error: &StoreError) {
        // A caller that has gone away needs no answer; here as below.
        match self {
            Self::Push(_, caller, _) => drop(fail(caller, error.clone())),
            Self::Ack(_, caller, _) => drop(fail(caller, error.clone())),
            Self::Sweep(caller) => drop(fail(caller, error.clone())),
        }
    }
}

impl Sweep {
    fn advance(&mut self, step: Option<SweepStep>) {
        let Some(step) = step else { return };
        self.swept = self.swept.plus(step.swept);
        if !step.more {
            let swept = std::mem::take(&mut self.swept);
            for caller in self.waiting.drain(..) {
                drop(caller.send(Ok(swept)));
            }
        }
    }

    fn fail(&mut self, error: &StoreError) {
        self.swept = Swept::default();
        for caller in self.waiting.drain(..) {
            drop(caller.send(Err(error.clone())));
        }
    }
}

impl Answers {
    /// Answers everybody: with what was decided, or with what went wrong.
    fn send(self, error: Option<&StoreError>) {
        for (caller, outcome, _weight) in self.pushes {
            drop(caller.send(error.map_or(Ok(outcome), |error| Err(error.clone()))));
        }
        for (caller, outcome, _weight) in self.acks {
            drop(caller.send(error.map_or(Ok(outcome), |error| Err(error.clone()))));
        }
    }
}

/// Tells a caller what went wrong, and hands it on: it takes the whole batch down.
fn fail<T>(caller: Caller<T>, error: StoreError) -> StoreError {
    drop(caller.send(Err(error.clone())));
    error
}

pub(crate) fn push_cost_bytes(envelope: &Envelope) -> u64 {
    envelope.payload_bytes().saturating_add(PUSH_COST_BYTES)
}

pub(crate) fn ack_cost_bytes(ack: &Ack) -> u64 {
    (ack.items().len() as u64).saturating_mul(ACK_ITEM_COST_BYTES)
}
