//! Chunks that are sent together, and again until the relay has stored them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::client::Shared;
use crate::clock;
use crate::credentials::{Credentials, Secret};
use crate::error::Error;
use crate::http::ANSWER_BYTES_MAX;
use crate::pace::CHUNKS_MAX;
use crate::retry::Backoff;
use crate::wire::{self, PushAnswer};

const PUSH: &str = "/push";
const PUSH_BATCH: &str = "/push/batch";

/// The most payload bytes that are sent at once.
const BYTES_MAX: usize = 4 << 20;

/// One chunk as it is sent.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) json: Bytes,
    pub(crate) payload_bytes: usize,
    pub(crate) recipient: String,
    /// The secret of the send lock, for relays that take it in the header alone.
    pub(crate) header: Option<Secret>,
}

/// What became of chunks, each with the number that its owner has given it.
pub(crate) type Sent = Vec<(usize, Result<PushAnswer, Error>)>;

/// Chunks that wait to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    shared: Arc<Shared>,
    waiting: Vec<(usize, Chunk)>,
    payload_bytes: usize,
    /// Whether one refused chunk makes the others useless.
    is_one_message: bool,
}

impl Batch {
    pub(crate) fn of_one_message(shared: Arc<Shared>) -> Self {
        Self { shared, waiting: Vec::new(), payload_bytes: 0, is_one_message: true }
    }

    pub(crate) fn of_messages(shared: Arc<Shared>) -> Self {
        Self { is_one_message: false, ..Self::of_one_message(shared) }
    }

    /// Adds a chunk, and sends those before it if they and it do not fit in one request.
    pub(crate) async fn add(&mut self, owner: usize, chunk: Chunk) -> Sent {
        let sent = if self.fits(&chunk).await { Vec::new() } else { self.flush().await };
        self.payload_bytes += chunk.payload_bytes;
        self.waiting.push((owner, chunk));
        sent
    }

    async fn fits(&self, chunk: &Chunk) -> bool {
        let Ok(info) = self.shared.info().await else { return false };
        let items = info.limit("batch_items").unwrap_or(CHUNKS_MAX).min(CHUNKS_MAX);
        let bytes = info.limit("batch_bytes").unwrap_or(BYTES_MAX).min(BYTES_MAX);
        info.has("batch") && self.waiting.len() < items && self.payload_bytes + chunk.payload_bytes <= bytes
    }

    /// Sends what waits, and returns when all of it is stored, refused, or late.
    pub(crate) async fn flush(&mut self) -> Sent {
        self.payload_bytes = 0;
        let mut pending = std::mem::take(&mut self.waiting);
        let push_timeout = self.shared.options.push_timeout;
        let mut deadline = clock::instant() + push_timeout;
        let (mut sent, mut backoff) = (Vec::new(), Backoff::new());
        while !pending.is_empty() {
            let tried = pending.len().min(self.shared.pace.chunks());
            let rest = pending.split_off(tried);
            let results = self.attempt(&pending, deadline).await;
            let (mut failed, mut failure) = (Vec::new(), None);
            for ((owner, chunk), result) in pending.into_iter().zip(results) {
                match result {
                    Err(error) if error.is_transient() => {
                        failed.push((owner, chunk));
                        failure = Some(slower(failure, error));
                    }
                    result => sent.push((owner, result)),
                }
            }
            self.shared.pace.adapt(tried, failure.as_ref());
            if failed.len() < tried {
                deadline = clock::instant() + push_timeout;
                backoff.reset();
            }
            failed.extend(rest);
            pending = failed;
            if self.is_one_message && sent.iter().any(|(_, result)| result.is_err()) {
                return sent;
            }
            let Some(error) = failure else { continue };
            let pause = backoff.pause(error.retry_after());
            if clock::instant() + pause >= deadline {
                sent.extend(pending.into_iter().map(|(owner, _)| (owner, Err(error.clone()))));
                return sent;
            }
            tracing::debug!(chunks = pending.len(), "pushing again");
            sleep(pause).await;
        }
        sent
    }

    /// Sends each chunk once. Returns a result for each.
    async fn attempt(&self, pending: &[(usize, Chunk)], deadline: Instant) -> Vec<Result<PushAnswer, Error>> {
        match pending {
            [] => Vec::new(),
            [(_, chunk)] => vec![self.push(chunk, deadline).await],
            chunks => match self.push_batch(chunks, deadline).await {
                Ok(results) => results,
                Err(error) => chunks.iter().map(|_| Err(error.clone())).collect(),
            },
        }
    }

    async fn push(&self, chunk: &Chunk, deadline: Instant) -> Result<PushAnswer, Error> {
        let own = chunk.header.as_ref().map(Credentials::secret);
        let credentials = own.as_ref().unwrap_or(&self.shared.options.push_credentials);
        let answer = self.post(PUSH, &chunk.recipient, credentials, chunk.json.clone(), deadline).await?;
        wire::json(&answer)
    }

    async fn push_batch(
        &self,
        chunks: &[(usize, Chunk)],
        deadline: Instant,
    ) -> Result<Vec<Result<PushAnswer, Error>>, Error> {
        let mut body = b"{\"items\":[".to_vec();
        for (index, (_, chunk)) in chunks.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&chunk.json);
        }
        body.extend_from_slice(b"]}");
        let recipient = chunks.first().map_or("", |(_, chunk)| &*chunk.recipient);
        let credentials = &self.shared.options.push_credentials;
        let answer = self.post(PUSH_BATCH, recipient, credentials, body.into(), deadline).await?;
        wire::results(&answer, chunks.len())
    }

    async fn post(
        &self,
        path: &'static str,
        recipient: &str,
        credentials: &Credentials,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let left = deadline.saturating_duration_since(clock::instant());
        let timeout = self.shared.options.request_timeout.min(left);
        self.shared.post(path, recipient, credentials, body, timeout, ANSWER_BYTES_MAX).await
    }
}

/// The failure after which the relay asks for the longer pause.
fn slower(one: Option<Error>, other: Error) -> Error {
    match one {
        Some(one) if one.retry_after() > other.retry_after() => one,
        _ => other,
    }
}
