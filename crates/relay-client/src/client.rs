//! A client of one relay, and the raw requests of the API.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio::time::sleep;
use uuid::Uuid;

use crate::clock::{self, Clock};
use crate::credentials::{Authorization, Credentials};
use crate::error::Error;
use crate::http::{ANSWER_BYTES_MAX, Http, PAGE_BYTES_MAX, Request};
use crate::options::Options;
use crate::pace::Pace;
use crate::retry::Backoff;
use crate::wire::{self, AckBody, AckEntry, Acked, Info, Page, PullBody};

const ACK: &str = "/ack";
const INFO: &str = "/info";
const PULL: &str = "/pull";
const PURGE: &str = "/purge";

/// A client of one relay. Clones share its connections, and what it knows of the relay. It has no
/// task and no thread of its own; its connections are tasks of the runtime that end with the last
/// clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Shared>);

/// What the clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) http: Http,
    pub(crate) clock: Clock,
    pub(crate) pace: Pace,
    info: OnceCell<Info>,
}

/// A raw pull; [`Client::pull`] has the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// Where to begin: the `next_cursor` of an earlier page. `None`: the start of the queue.
    pub cursor: Option<String>,
    /// The most items; the relay has a limit of its own.
    pub max: Option<u64>,
    /// How long to wait if nothing is there. Relays without the feature `wait` do not wait.
    pub wait: Duration,
    /// Whether the last page has a cursor as well. Relays without the feature `tail` give none.
    pub tail: bool,
}

impl Client {
    /// A client of the relay at `base_url`, such as `https://relay.example.org`. Reads the
    /// authorities of TLS, which may block on disk. Connects to nobody yet.
    ///
    /// # Errors
    /// `invalid_input` if the address, the authorities or the client certificate cannot be used,
    /// or a number in the options is 0 that may not be, or a duration over a year.
    pub fn new(base_url: &str, options: Options) -> Result<Self, Error> {
        options.check()?;
        let http = Http::new(base_url, &options)?;
        let clock = Clock::new(options.clock_offset_ms);
        Ok(Self(Arc::new(Shared { options, http, clock, pace: Pace::new(), info: OnceCell::new() })))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// What the relay can do. The client asks once and remembers it; relays before 0.1 have no
    /// features.
    ///
    /// # Errors
    /// If the relay cannot be asked within [`Options::push_timeout`].
    pub async fn info(&self) -> Result<&Info, Error> {
        self.0.retry(|| self.0.info()).await
    }

    /// One page of a queue. It removes nothing. Failures that may pass are retried within
    /// [`Options::push_timeout`].
    ///
    /// # Errors
    /// What the relay refuses, or the last failure.
    pub async fn pull(&self, recipient: &str, credentials: &Credentials, pull: &Pull) -> Result<Page, Error> {
        self.0.retry(|| self.0.pull(recipient, credentials, pull)).await
    }

    /// Removes chunks from a queue, at most 10,000. Failures that may pass are retried within
    /// [`Options::push_timeout`].
    ///
    /// # Errors
    /// What the relay refuses, or the last failure.
    pub async fn ack(
        &self,
        recipient: &str,
        credentials: &Credentials,
        chunks: &[(Uuid, u64)],
    ) -> Result<Acked, Error> {
        let entry = |(id, chunk_index): &(Uuid, u64)| AckEntry {
            message_id: id.hyphenated().to_string(),
            chunk_index: *chunk_index,
        };
        let body = wire::write(&AckBody { recipient, ack: chunks.iter().map(entry).collect() })?;
        self.0.retry(|| self.0.ack(recipient, credentials, body.clone())).await
    }

    /// Removes everything from a queue. Not retried: a purge whose answer was lost may have
    /// happened, and another one would remove what came since.
    ///
    /// # Errors
    /// What the relay refuses, or why it could not be reached.
    pub async fn purge(&self, recipient: &str, credentials: &Credentials) -> Result<Acked, Error> {
        let body = wire::write(&PullBody { recipient, ..PullBody::default() })?;
        let timeout = self.0.options.request_timeout;
        let answer = self.0.post(PURGE, recipient, credentials, body, timeout, ANSWER_BYTES_MAX).await?;
        wire::json(&answer)
    }
}

impl Shared {
    /// What the relay can do, asked once.
    pub(crate) async fn info(&self) -> Result<&Info, Error> {
        let ask = async {
            let request = Request {
                path: INFO,
                body: None,
                authorization: None,
                timeout: self.options.request_timeout,
                answer_bytes_max: ANSWER_BYTES_MAX,
            };
            match self.http.send(request).await {
                Ok(body) => wire::info(&body),
                Err(Error::Refused(refusal)) if refusal.status == 404 => Ok(Info::default()),
                Err(error) => Err(error),
            }
        };
        self.info.get_or_try_init(|| ask).await
    }

    /// One page, with one try.
    pub(crate) async fn pull(
        &self,
        recipient: &str,
        credentials: &Credentials,
        pull: &Pull,
    ) -> Result<Page, Error> {
        let wait_ms = u64::try_from(pull.wait.as_millis()).unwrap_or(u64::MAX);
        let body = PullBody {
            recipient,
            cursor: pull.cursor.as_deref(),
            max: pull.max,
            wait_ms: (wait_ms > 0).then_some(wait_ms),
            tail: pull.tail.then_some(true),
            keepalive_ms: None,
        };
        let timeout = self.options.request_timeout.saturating_add(pull.wait);
        let body = wire::write(&body)?;
        wire::page(&self.post(PULL, recipient, credentials, body, timeout, PAGE_BYTES_MAX).await?)
    }

    /// One ack, with one try.
    pub(crate) async fn ack(
        &self,
        recipient: &str,
        credentials: &Credentials,
        body: Bytes,
    ) -> Result<Acked, Error> {
        let timeout = self.options.request_timeout;
        wire::json(&self.post(ACK, recipient, credentials, body, timeout, ANSWER_BYTES_MAX).await?)
    }

    /// One request with a proof, and its response.
    pub(crate) async fn post(
        &self,
        path: &'static str,
        recipient: &str,
        credentials: &Credentials,
        body: Bytes,
        timeout: Duration,
        answer_bytes_max: usize,
    ) -> Result<Bytes, Error> {
        self.authorized(recipient, credentials, |authorization| {
            let body = Some(body.clone());
            self.http.send(Request { path, body, authorization, timeout, answer_bytes_max })
        })
        .await
    }

    /// Sends with a proof, and once more if the relay refuses it because the clock was wrong.
    pub(crate) async fn authorized<T, F: Future<Output = Result<T, Error>>>(
        &self,
        recipient: &str,
        credentials: &Credentials,
        send: impl Fn(Option<reqwest::header::HeaderValue>) -> F,
    ) -> Result<T, Error> {
        let authorization = credentials.authorization(recipient, &self.clock)?;
        let header = authorization.as_ref().map(|authorization| authorization.header.clone());
        match send(header).await {
            Err(error) if authorization.is_some_and(|shown| self.corrects_clock(&error, &shown)) => {
                tracing::info!("the clock of this machine is wrong; tokens are signed by the relay's");
                let authorization = credentials.authorization(recipient, &self.clock)?;
                send(authorization.map(|authorization| authorization.header)).await
            }
            other => other,
        }
    }

    /// Whether the relay refused a token because of its time, and a new one may do better.
    fn corrects_clock(&self, error: &Error, shown: &Authorization) -> bool {
        let Some(refusal) = error.refusal().filter(|refusal| matches!(refusal.status, 401 | 403)) else {
            return false;
        };
        let is_about_time =
            matches!(refusal.reason.as_deref(), None | Some("token_expired" | "token_not_valid_yet"));
        match (refusal.server_ms, shown.was_corrected) {
            (Some(server_ms), Some(was_corrected)) if is_about_time && self.http.is_trusted() => {
                self.clock.correct(server_ms, was_corrected)
            }
            _ => false,
        }
    }

    /// Tries until it works, fails for good, or `push_timeout` has passed. An attempt is not cut
    /// off, because a pull may wait.
    async fn retry<T, F: Future<Output = Result<T, Error>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        let deadline = clock::instant() + self.options.push_timeout;
        let mut backoff = Backoff::new();
        loop {
            let error = match attempt().await {
                Err(error) if error.is_transient() => error,
                other => return other,
            };
            tracing::debug!(code = error.code(), "trying again");
            let pause = backoff.pause(error.retry_after());
            if clock::instant() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
        }
    }
}
