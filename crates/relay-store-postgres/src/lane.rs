//! A lane: one connection that writes. It collects the requests that wait, decides and writes them
//! in one transaction, answers them, and begins anew. While one batch is on its way, the next one
//! collects.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use relay_core::{Error, PushOutcome};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::clock::instant;
use crate::connect::Connection;
use crate::error::{PostgresError, Remedy};
use crate::flights;
use crate::image::Image;
use crate::job::{Job, Outcome, RETRY_AFTER, Task, Weight};
use crate::shared::Shared;

/// The most that one transaction does.
const BATCH_JOBS: usize = 128;
const BATCH: Weight = Weight { items: 2_048, bytes: 4 << 20 };

/// How long a round trip may take that waits for no standby.
const FLIGHT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a commit may take until the relay refuses further requests.
const COMMIT_SOON: Duration = Duration::from_secs(3);

/// When queues that are locked are looked at again.
const ASIDE_PAUSE: Duration = Duration::from_millis(50);

/// The pauses between attempts.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// One connection that writes, and the requests that it gets.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
    /// The first job of the next batch, which did not fit into this one.
    next: Option<Job>,
    /// Jobs whose queues another transaction has locked.
    aside: Vec<Job>,
    connection: Option<Connection>,
}

impl Lane {
    pub(crate) const fn new(shared: Arc<Shared>, jobs: mpsc::UnboundedReceiver<Job>) -> Self {
        Self { shared, jobs, next: None, aside: Vec::new(), connection: None }
    }

    /// Serves until all senders of jobs are gone.
    pub(crate) async fn run(mut self) {
        while let Some(batch) = self.collect().await {
            self.serve(batch).await;
        }
    }

    /// Waits for a job, and takes those that wait with it. The batch may be empty.
    async fn collect(&mut self) -> Option<Vec<Job>> {
        let mut batch = self.take_free().await;
        if batch.is_empty() {
            let first = match self.next.take() {
                Some(job) => job,
                None if self.aside.is_empty() => self.jobs.recv().await?,
                None => match timeout(ASIDE_PAUSE, self.jobs.recv()).await {
                    Ok(job) => job?,
                    Err(_) => return Some(batch),
                },
            };
            self.add(&mut batch, first);
        }
        let mut weight = batch.iter().map(Job::weight).fold(Weight::default(), Weight::plus);
        let mut is_alone = batch.iter().any(Job::is_alone);
        while !is_alone && batch.len() < BATCH_JOBS {
            let Ok(job) = self.jobs.try_recv() else { break };
            weight = weight.plus(job.weight());
            let is_first = batch.is_empty();
            if !is_first && (job.is_alone() || weight.items > BATCH.items || weight.bytes > BATCH.bytes) {
                self.next = Some(job);
                break;
            }
            is_alone = job.is_alone();
            self.add(&mut batch, job);
        }
        Some(batch)
    }

    /// Adds a job to a batch, or sets it aside behind others of its queue.
    fn add(&mut self, batch: &mut Vec<Job>, job: Job) {
        let is_behind = self.aside.iter().any(|other| other.queue == job.queue);
        if is_behind { self.aside.push(job) } else { batch.push(job) }
    }

    /// Sets aside the jobs of a batch whose queues another transaction has locked, such as a purge
    /// of a long queue, so that they do not delay those of other queues.
    async fn set_aside(&mut self, batch: &mut Vec<Job>) {
        let locked = self.locked(batch).await;
        self.aside.extend(batch.extract_if(.., |job| locked.contains(&job.queue)));
    }

    /// Takes back the jobs whose queues are free again. One that must be alone comes alone.
    async fn take_free(&mut self) -> Vec<Job> {
        let mut aside = std::mem::take(&mut self.aside);
        drop_overdue(&mut aside, instant());
        if aside.is_empty() {
            return aside;
        }
        let locked = self.locked(&aside).await;
        let (mut free, mut weight) = (Vec::new(), Weight::default());
        for job in aside {
            weight = weight.plus(job.weight());
            let is_full =
                free.len() >= BATCH_JOBS || weight.items > BATCH.items || weight.bytes > BATCH.bytes;
            let has_room = free.is_empty() || !(is_full || job.is_alone() || free.iter().any(Job::is_alone));
            let is_behind = self.aside.iter().any(|other| other.queue == job.queue);
            if locked.contains(&job.queue) || !has_room || is_behind {
                self.aside.push(job);
            } else {
                free.push(job);
            }
        }
        free
    }

    /// The queues of these jobs that are locked. If that cannot be known, none.
    async fn locked(&mut self, jobs: &[Job]) -> Vec<Uuid> {
        let queues: Vec<Uuid> = jobs.iter().map(|job| job.queue).collect();
        let Some(connection) = self.connection.take() else { return Vec::new() };
        match timeout(FLIGHT_TIMEOUT, connection.locked(&queues)).await {
            Ok(Ok(locked)) => {
                self.connection = Some(connection);
                locked
            }
            _ => Vec::new(),
        }
    }

    /// Repeats a batch until its outcome is known, or nobody waits for it any more.
    async fn serve(&mut self, mut batch: Vec<Job>) {
        let mut pause = PAUSE_MIN;
        loop {
            drop_overdue(&mut batch, instant());
            if batch.is_empty() {
                return;
            }
            match self.attempt(&mut batch).await {
                Ok(outcomes) => return self.answer(batch, outcomes),
                Err(error) => match error.remedy() {
                    Remedy::Repeat if error.is_lock_timeout() => self.set_aside(&mut batch).await,
                    Remedy::Repeat => {}
                    // The monitor finds out whether the database serves.
                    Remedy::Reconnect => {
                        self.connection = None;
                        tracing::debug!(%error, "a transaction will be repeated over a new connection");
                    }
                    Remedy::Full => {
                        self.shared.health.set_full(true);
                        batch.iter_mut().for_each(|job| job.fail(Error::StorageFull));
                        return;
                    }
                    Remedy::Fail if batch.len() > 1 => {
                        // The fault may be of one request.
                        for job in batch {
                            Box::pin(self.serve(vec![job])).await;
                        }
                        return;
                    }
                    Remedy::Fail => {
                        tracing::error!(%error, "a request to the database failed");
                        let mut error = Some(error);
                        for job in &mut batch {
                            job.fail(error.take().unwrap_or(PostgresError::Ending).into());
                        }
                        return;
                    }
                },
            }
            batch.iter_mut().for_each(|job| job.is_repeated = true);
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Tries a batch once. After an error, a connection that is kept has no open transaction.
    async fn attempt(&mut self, batch: &mut [Job]) -> Result<Vec<Outcome>, PostgresError> {
        let outcomes = self.try_batch(batch).await;
        if let (Err(error), Some(connection)) = (&outcomes, &self.connection)
            && error.remedy() != Remedy::Reconnect
        {
            let rolled_back = timeout(FLIGHT_TIMEOUT, flights::roll_back(connection)).await;
            if !matches!(rolled_back, Ok(Ok(()))) {
                self.connection = None;
            }
        }
        outcomes
    }

    async fn try_batch(&mut self, batch: &mut [Job]) -> Result<Vec<Outcome>, PostgresError> {
        let connecting = self.shared.connector.connect_again(self.connection.take());
        let connection = connecting.await.map_err(PostgresError::in_connecting)?;
        let now = self.shared.clock.given();
        let deciding = flights::decide(&connection, &self.shared.rules, now, batch);
        let (image, outcomes) = match timeout(FLIGHT_TIMEOUT, deciding).await {
            Err(_) => return Err(PostgresError::Timeout),
            Ok(Err(error)) => {
                self.connection = Some(connection);
                return Err(error);
            }
            Ok(Ok(decided)) => decided,
        };
        let committed = self.commit(&connection, &image, batch).await;
        if !committed.as_ref().is_err_and(|error| error.remedy() == Remedy::Reconnect) {
            self.connection = Some(connection);
        }
        committed.map(|()| outcomes)
    }

    /// Commits. As long as the standby does not confirm, this waits: to give up would leave the
    /// transaction on one server, and a repetition would wait for its locks.
    async fn commit(
        &mut self,
        connection: &Connection,
        image: &Image,
        batch: &mut [Job],
    ) -> Result<(), PostgresError> {
        let (shared, begun) = (Arc::clone(&self.shared), instant());
        let mut committing = pin!(flights::commit(connection, image, shared.rules.durability));
        let mut moved = pin!(shared.monitor.moved_from(&connection.server));
        let mut late = pin!(sleep_until(begun + COMMIT_SOON));
        let mut is_late = false;
        loop {
            let unanswered = batch.iter().filter(|job| !job.is_answered());
            let due = unanswered.map(|job| job.due).min();
            tokio::select! {
                committed = &mut committing => {
                    shared.figures.committed(instant() - begun);
                    return committed;
                }
                () = &mut moved => {
                    return Err(PostgresError::Connection("another server is the primary now".to_owned()));
                }
                () = &mut late, if !is_late => {
                    is_late = true;
                    self.next.take().iter_mut().chain(&mut self.aside).for_each(refuse);
                    self.aside.clear();
                }
                () = sleep_until(due.unwrap_or(begun)), if is_late && due.is_some() => {
                    fail_overdue(batch, instant());
                }
                // Nothing of these has begun.
                Some(mut job) = self.jobs.recv(), if is_late => refuse(&mut job),
            }
        }
    }

    fn answer(&self, batch: Vec<Job>, outcomes: Vec<Outcome>) {
        self.shared.figures.batch(batch.len());
        for (mut job, outcome) in batch.into_iter().zip(outcomes) {
            if let (Task::Push(envelope, _), Outcome::Push(Ok(PushOutcome::Stored { .. }))) =
                (&job.task, &outcome)
            {
                self.shared.arrived(&envelope.recipient, job.queue);
            }
            job.answer(self.shared.clock.outside(outcome));
        }
    }
}

/// Drops the requests that have an answer, and those that have waited too long, which get one.
/// What was sent of them may have taken effect.
fn drop_overdue(batch: &mut Vec<Job>, now: Instant) {
    fail_overdue(batch, now);
    batch.retain(|job| !job.is_answered());
}

fn fail_overdue(batch: &mut [Job], now: Instant) {
    for job in batch.iter_mut().filter(|job| job.due <= now) {
        job.fail(Error::storage(PostgresError::Timeout));
    }
}

/// Refuses a request of which nothing has begun.
fn refuse(job: &mut Job) {
    job.fail(Error::NotReady { retry_after: RETRY_AFTER });
}
