//! Pushes messages: splits them into chunks, and sends these until the relay has stored them.
//!
//! All of a payload that is in memory at a time is one batch. Every try sends the same ids, so
//! nothing is stored twice.

use std::future::{Future, IntoFuture};
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use uuid::Uuid;

use crate::batch::{Batch, Chunk};
use crate::client::Client;
use crate::credentials::{Secret, random};
use crate::error::Error;
use crate::wire::{self, CHUNKS_MAX, Info, Meta, PushAnswer, PushItem};

/// The kind of a message, unless it is set.
const KIND: &str = "opaque";

/// How a message was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// The id of the message.
    pub message_id: Uuid,
    /// Whether the relay had all of it already, from an earlier push with this id or from a try of
    /// this push whose answer was lost.
    pub is_duplicate: bool,
    /// Whether the relay has another payload under this id, which stays.
    pub is_conflict: bool,
}

/// A message for [`Client::push_all`].
#[derive(Clone, Debug)]
pub struct Outgoing {
    recipient: String,
    payload: Bytes,
    envelope: Envelope,
}

/// A push that begins when it is awaited.
#[must_use = "a push begins when it is awaited"]
#[derive(Debug)]
pub struct Push<'c, R> {
    client: &'c Client,
    recipient: String,
    source: R,
    len: u64,
    envelope: Envelope,
}

/// What a push may set.
#[derive(Clone, Debug, Default)]
struct Envelope {
    kind: Option<String>,
    ttl: Option<Duration>,
    send_secret: Option<Secret>,
    message_id: Option<Uuid>,
}

/// The same methods for both.
macro_rules! envelope_methods {
    () => {
        /// The kind of the message, 1 to 64 bytes; `opaque` by default.
        pub fn kind(mut self, kind: impl Into<String>) -> Self {
            self.envelope.kind = Some(kind.into());
            self
        }

        /// How long the relay keeps the message, in whole seconds, at least 1. Relays before 0.1
        /// ignore it.
        pub fn ttl(mut self, ttl: Duration) -> Self {
            self.envelope.ttl = Some(ttl);
            self
        }

        /// The secret of the recipient's send lock.
        pub fn send_secret(mut self, secret: &Secret) -> Self {
            self.envelope.send_secret = Some(secret.clone());
            self
        }

        /// The id of the message; random by default. A push of a message that the relay has is a
        /// duplicate.
        pub fn message_id(mut self, id: Uuid) -> Self {
            self.envelope.message_id = Some(id);
            self
        }
    };
}

impl Outgoing {
    /// A message for a recipient.
    pub fn new(recipient: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { recipient: recipient.into(), payload: payload.into(), envelope: Envelope::default() }
    }

    envelope_methods!();
}

impl<R> Push<'_, R> {
    envelope_methods!();
}

impl Client {
    /// Pushes a message. Failures that may pass are retried until nothing was stored for
    /// `push_timeout`. Pushes that are awaited one after another arrive in that order.
    ///
    /// Its errors are what the relay refuses, such as `quota_exceeded`, at once; or the last
    /// failure. Of a message of several chunks, some may then be stored.
    pub fn push(&self, recipient: impl Into<String>, payload: impl Into<Bytes>) -> Push<'_, Cursor<Bytes>> {
        let payload = payload.into();
        let len = payload.len() as u64;
        self.push_reader(recipient, Cursor::new(payload), len)
    }

    /// Pushes a message of `len` bytes that is read while it is sent. It is never in memory as a
    /// whole. If the reader ends early or has more, the error is `read_failed`.
    pub fn push_reader<R: AsyncRead + Unpin + Send>(
        &self,
        recipient: impl Into<String>,
        reader: R,
        len: u64,
    ) -> Push<'_, R> {
        let (recipient, envelope) = (recipient.into(), Envelope::default());
        Push { client: self, recipient, source: reader, len, envelope }
    }

    /// Pushes several messages, as many as fit in one request. Returns an outcome for each, in
    /// their order. If one fails and is retried, those after it may arrive before it.
    pub async fn push_all(&self, messages: impl IntoIterator<Item = Outgoing>) -> Vec<Result<Pushed, Error>> {
        let mut batch = Batch::of_messages(Arc::clone(self.shared()));
        let mut outcomes: Vec<Result<Pushed, Error>> = Vec::new();
        for message in messages {
            let index = outcomes.len();
            let Outgoing { recipient, payload, envelope } = message;
            let len = payload.len() as u64;
            match Splitter::new(self, recipient, Cursor::new(payload), len, envelope).await {
                Ok(mut splitter) => {
                    outcomes.push(Ok(splitter.pushed()));
                    while let Some(chunk) = splitter.next().await.transpose() {
                        let sent = match chunk {
                            Ok(chunk) => batch.add(index, chunk).await,
                            Err(error) => vec![(index, Err(error))],
                        };
                        merge(&mut outcomes, sent);
                    }
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        let sent = batch.flush().await;
        merge(&mut outcomes, sent);
        outcomes
    }
}

impl<'c, R: AsyncRead + Unpin + Send + 'c> IntoFuture for Push<'c, R> {
    type Output = Result<Pushed, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<R: AsyncRead + Unpin + Send> Push<'_, R> {
    async fn run(self) -> Result<Pushed, Error> {
        let Self { client, recipient, source, len, envelope } = self;
        let mut splitter = Splitter::new(client, recipient, source, len, envelope).await?;
        let mut batch = Batch::of_one_message(Arc::clone(client.shared()));
        let mut outcome = vec![Ok(splitter.pushed())];
        while let Some(chunk) = splitter.next().await? {
            merge(&mut outcome, batch.add(0, chunk).await);
            if let [Err(error)] = &*outcome {
                return Err(error.clone());
            }
        }
        merge(&mut outcome, batch.flush().await);
        outcome.pop().unwrap_or(Err(Error::Closed))
    }
}

/// Adds what became of chunks to what becomes of their messages.
fn merge(outcomes: &mut [Result<Pushed, Error>], sent: Vec<(usize, Result<PushAnswer, Error>)>) {
    for (index, result) in sent {
        let Some(outcome) = outcomes.get_mut(index) else { continue };
        match (outcome.as_mut(), result) {
            (Ok(pushed), Ok(answer)) => {
                pushed.is_duplicate &= !answer.stored;
                pushed.is_conflict |= answer.conflict;
            }
            (Ok(_), Err(error)) => *outcome = Err(error),
            // The first error stays.
            (Err(_), _) => {}
        }
    }
}

/// Makes chunks of a message while it reads it.
struct Splitter<R> {
    reader: R,
    recipient: String,
    kind: String,
    proof: Option<Secret>,
    has_item_proof: bool,
    ttl_seconds: Option<u64>,
    message_id: Uuid,
    sent_ms: u64,
    total_len: u64,
    chunk_bytes: u64,
    chunk_count: u64,
    chunk_index: u64,
}

impl<R: AsyncRead + Unpin + Send> Splitter<R> {
    async fn new(
        client: &Client,
        recipient: String,
        reader: R,
        total_len: u64,
        envelope: Envelope,
    ) -> Result<Self, Error> {
        let info = client.info().await?;
        let options = &client.shared().options;
        let Envelope { kind, ttl, send_secret, message_id } = envelope;
        let chunk_bytes = chunk_bytes(info, options.chunk_bytes, total_len);
        let chunk_count = total_len.div_ceil(chunk_bytes).max(1);
        if chunk_count > CHUNKS_MAX {
            let message = format!("the message would have {chunk_count} chunks, over {CHUNKS_MAX}");
            return Err(Error::Options(message));
        }
        let message_id = match message_id {
            Some(id) => id,
            None => uuid::Builder::from_random_bytes(random()?).into_uuid(),
        };
        Ok(Self {
            reader,
            recipient,
            kind: kind.unwrap_or_else(|| KIND.to_owned()),
            proof: send_secret,
            has_item_proof: info.has("item_proof"),
            ttl_seconds: ttl.filter(|_| info.has("ttl")).map(|ttl| ttl.as_secs().max(1)),
            message_id,
            sent_ms: client.shared().clock.now().ms,
            total_len,
            chunk_bytes,
            chunk_count,
            chunk_index: 0,
        })
    }

    /// What becomes of a message without chunks.
    fn pushed(&self) -> Pushed {
        Pushed { message_id: self.message_id, is_duplicate: true, is_conflict: false }
    }

    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        if self.chunk_index == self.chunk_count {
            return Ok(None);
        }
        let begins = self.chunk_index * self.chunk_bytes;
        let len = self.chunk_bytes.min(self.total_len.saturating_sub(begins));
        let mut payload = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let failed = |error| Error::Read(Arc::new(error));
        self.reader.read_exact(&mut payload).await.map_err(failed)?;
        let is_last = self.chunk_index + 1 == self.chunk_count;
        if is_last && self.reader.read(&mut [0]).await.map_err(failed)? > 0 {
            return Err(failed(std::io::Error::other("it is longer than its length")));
        }
        let chunk = self.encode(&payload)?;
        self.chunk_index += 1;
        Ok(Some(chunk))
    }

    fn encode(&self, payload: &[u8]) -> Result<Chunk, Error> {
        let secret = self.proof.as_ref().map(Secret::expose);
        let (proof, header) = if self.has_item_proof { (secret, None) } else { (None, self.proof.clone()) };
        let json = wire::write(&PushItem {
            recipient: &self.recipient,
            message_id: self.message_id.hyphenated().to_string(),
            ciphertext_b64: wire::encoded(payload),
            meta: Meta {
                kind: self.kind.as_str().into(),
                total_len: self.total_len,
                chunk_index: self.chunk_index,
                chunk_count: self.chunk_count,
                sent_ms: self.sent_ms,
            },
            proof,
            ttl_seconds: self.ttl_seconds,
        })?;
        let recipient = self.recipient.clone();
        Ok(Chunk { json, payload_bytes: payload.len(), recipient, header })
    }
}

/// The size of chunks: what the options say, within the relay's limit, and larger if there would be
/// too many chunks and the relay takes larger ones.
fn chunk_bytes(info: &Info, wanted: usize, total_len: u64) -> u64 {
    let limit = info.limit("message_bytes").map_or(u64::MAX, |limit| limit.max(1) as u64);
    let needed = total_len.div_ceil(CHUNKS_MAX);
    (wanted as u64).max(needed).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_fit_the_relay_and_are_not_too_many() {
        let mut info = Info::default();
        assert_eq!(chunk_bytes(&info, 1000, 5), 1000);
        assert_eq!(chunk_bytes(&info, 1000, 65_536 * 2000), 2000);
        info.limits.insert("message_bytes".to_owned(), 700);
        assert_eq!(chunk_bytes(&info, 1000, 5), 700);
        assert_eq!(chunk_bytes(&info, 1000, 65_536 * 2000), 700);
        info.limits.insert("message_bytes".to_owned(), 0);
        assert_eq!(chunk_bytes(&info, 1000, 5), 1);
    }
}
