//! Sends the acks of one recipient, many in one request, until the relay has confirmed them.
//!
//! The task ends when everything that could still ack is dropped, even in the middle of a request:
//! nobody waits for its outcome then.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::key::MessageKey;
use super::known::Known;
use crate::client::Shared;
use crate::clock;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::retry::Backoff;
use crate::wire::{self, AckBody, AckEntry};

/// How many commands wait for the task before their senders wait.
const COMMANDS_MAX: usize = 64;

/// With this many waiting, no message is acked again: it only stays on the relay until it expires.
const AGAIN_MAX: usize = 4096;

/// How long closing waits for acks.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Sends acks to the task.
#[derive(Clone, Debug)]
pub(crate) struct Acks(mpsc::Sender<Command>);

#[derive(Debug)]
enum Command {
    Ack(Job),
    Close(Closing),
}

/// Send what waits, say so, and end; or end at the deadline.
#[derive(Debug)]
struct Closing {
    deadline: Instant,
    flushed: oneshot::Sender<()>,
}

/// A message to ack.
#[derive(Debug)]
struct Job {
    key: MessageKey,
    /// The chunks to ack.
    left: Range<u64>,
    /// `None`: the message was acked before, and nobody waits.
    confirm: Option<oneshot::Sender<Result<(), Error>>>,
}

/// The state of the task.
struct Task {
    shared: Arc<Shared>,
    recipient: String,
    credentials: Credentials,
    known: Arc<Known>,
    commands: mpsc::Receiver<Command>,
    jobs: VecDeque<Job>,
    closing: Option<Closing>,
}

/// Nobody is left who could ack.
struct Ended;

impl Acks {
    /// Starts the task.
    pub(crate) fn spawn(
        shared: Arc<Shared>,
        recipient: String,
        credentials: Credentials,
        known: Arc<Known>,
    ) -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let task =
            Task { shared, recipient, credentials, known, commands, jobs: VecDeque::new(), closing: None };
        tokio::spawn(async move {
            let Ended = task.run().await;
        });
        Self(sender)
    }

    /// Acks all chunks of a message. Returns when the relay has confirmed it.
    pub(crate) async fn ack(&self, key: MessageKey) -> Result<(), Error> {
        let (confirm, confirmed) = oneshot::channel();
        let job = Job { left: 0..key.chunk_count, key, confirm: Some(confirm) };
        self.0.send(Command::Ack(job)).await.map_err(|_| Error::Closed)?;
        confirmed.await.unwrap_or(Err(Error::Closed))
    }

    /// Acks a chunk of a message that was acked before. Returns when that is queued.
    pub(crate) async fn again(&self, key: MessageKey, chunk_index: u64) {
        let job = Job { left: chunk_index..chunk_index.saturating_add(1), key, confirm: None };
        // After the end, the chunk stays on the relay until it expires.
        drop(self.0.send(Command::Ack(job)).await);
    }

    /// Sends what waits, and ends the task. Takes five seconds at most.
    pub(crate) async fn close(&self) {
        let (flushed, is_flushed) = oneshot::channel();
        let close = Closing { deadline: clock::instant() + CLOSE_MAX, flushed };
        if self.0.send(Command::Close(close)).await.is_ok() && is_flushed.await.is_err() {
            tracing::warn!("acks were not confirmed in time; their messages will come again");
        }
    }
}

impl Task {
    async fn run(mut self) -> Ended {
        loop {
            if let Err(ended) = self.gather().await {
                return ended;
            }
            if !self.jobs.is_empty()
                && let Err(ended) = self.send().await
            {
                return ended;
            }
            if self.jobs.is_empty()
                && let Some(closing) = self.closing.take()
            {
                // Whoever closes may have given up.
                let _: Result<(), ()> = closing.flushed.send(());
                return Ended;
            }
        }
    }

    /// Waits until there are enough acks, or the first has waited long enough.
    async fn gather(&mut self) -> Result<(), Ended> {
        if self.jobs.is_empty() && self.closing.is_none() {
            let command = self.commands.recv().await.ok_or(Ended)?;
            self.take(command);
        }
        let deadline = clock::instant() + self.shared.options.ack_delay;
        while self.closing.is_none() && !self.is_full() {
            match timeout_at(deadline, self.commands.recv()).await {
                Ok(Some(command)) => self.take(command),
                Ok(None) => return Err(Ended),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Ack(job) if job.confirm.is_none() => {
                if self.jobs.len() < AGAIN_MAX {
                    self.jobs.push_back(job);
                }
            }
            // Whoever gave up on an ack may ask again, any number of times.
            Command::Ack(job) => {
                let is_same = |other: &&mut Job| other.confirm.is_some() && other.key == job.key;
                match self.jobs.iter_mut().find(is_same) {
                    Some(other) => other.confirm = job.confirm,
                    None => self.jobs.push_back(job),
                }
            }
            Command::Close(closing) => self.closing = Some(closing),
        }
    }

    fn is_full(&self) -> bool {
        let entries: u64 = self.jobs.iter().map(|job| job.left.end - job.left.start).sum();
        entries >= self.shared.options.ack_max as u64
    }

    /// Sends one request until the relay answers it, and meanwhile takes commands.
    async fn send(&mut self) -> Result<(), Ended> {
        let (entries, covered) = self.entries();
        let (shared, recipient, credentials) =
            (Arc::clone(&self.shared), self.recipient.clone(), self.credentials.clone());
        let request = async move {
            let body = wire::write(&AckBody { recipient: &recipient, ack: entries })?;
            let mut backoff = Backoff::new();
            loop {
                let error = match shared.ack(&recipient, &credentials, body.clone()).await {
                    Ok(_) => return Ok(()),
                    Err(error) if error.is_transient() => error,
                    Err(error) => return Err(error),
                };
                tracing::debug!(code = error.code(), "acking again");
                sleep(backoff.pause(error.retry_after())).await;
            }
        };
        tokio::pin!(request);
        let result = loop {
            tokio::select! {
                result = &mut request => break result,
                command = self.commands.recv() => self.take(command.ok_or(Ended)?),
                () = late(self.closing.as_ref().map(|closing| closing.deadline)) => return Err(Ended),
            }
        };
        self.confirm(&covered, &result);
        Ok(())
    }

    /// The entries of one request, and how many are of each of the first jobs.
    fn entries(&self) -> (Vec<AckEntry>, Vec<u64>) {
        let ack_max = self.shared.options.ack_max;
        let (mut entries, mut covered) = (Vec::new(), Vec::new());
        for job in &self.jobs {
            let room = (ack_max - entries.len()) as u64;
            if room == 0 {
                break;
            }
            let Range { start, end } = job.left;
            let end = end.min(start.saturating_add(room));
            let message_id = job.key.message_id.hyphenated().to_string();
            entries.extend(
                (start..end).map(|chunk_index| AckEntry { message_id: message_id.clone(), chunk_index }),
            );
            covered.push(end - start);
        }
        (entries, covered)
    }

    /// Tells those whose messages are acked completely, or refused.
    fn confirm(&mut self, covered: &[u64], result: &Result<(), Error>) {
        for count in covered {
            let Some(mut job) = self.jobs.pop_front() else { return };
            job.left.start += count;
            if result.is_ok() && !job.left.is_empty() {
                self.jobs.push_front(job);
                return;
            }
            let Some(confirm) = job.confirm else { continue };
            if result.is_ok() {
                self.known.ack(&job.key);
            }
            // Whoever asked may have stopped to wait.
            let _: Result<(), _> = confirm.send(result.clone());
        }
    }
}

/// Waits for a deadline, if there is one.
async fn late(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
