//! Reads a queue from its beginning on, for as long as it is polled, and hands out its messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::acks::Acks;
use super::again::Again;
use super::assembly::{Added, Assembly};
use super::events::Events;
use super::key::MessageKey;
use super::known::{Known, State};
use super::message::Message;
use crate::client::{Pull, Shared};
use crate::clock;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::http::{PAGE_BYTES_MAX, Request};
use crate::options::SkipReason;
use crate::retry::Backoff;
use crate::wire::{self, Event, Item, Page, PullBody};

const STREAM: &str = "/stream";

/// A relay takes no shorter time between events.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A wait that ends within this time without an item was none.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// How items get here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Pulls that wait until an item arrives. Relays that cannot wait are asked again after
    /// [`Options::poll_interval`](crate::Options::poll_interval).
    #[default]
    Wait,
    /// One response that goes on, if the relay has the feature `stream`; else like
    /// [`Transport::Wait`].
    Stream,
}

/// The state of deliveries.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) recipient: String,
    pub(crate) credentials: Credentials,
    pub(crate) transport: Transport,
    pub(crate) known: Arc<Known>,
    pub(crate) acks: Acks,
    assembly: Assembly,
    ready: VecDeque<Message>,
    cursor: Option<String>,
    events: Option<Events>,
    backoff: Backoff,
    again: Again,
    /// Whether everything in the queue was seen.
    is_caught_up: bool,
    /// Whether the relay did not know the cursor, and has given no other one since.
    is_cursor_lost: bool,
    /// After a page that was too large: one item at a time, until everything was seen.
    is_one_by_one: bool,
    has_failed: bool,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        recipient: String,
        credentials: Credentials,
        transport: Transport,
        known: Arc<Known>,
        acks: Acks,
    ) -> Self {
        let assembly = Assembly::new(shared.options.memory_bytes, shared.options.partial_age);
        Self {
            shared,
            recipient,
            credentials,
            transport,
            known,
            acks,
            assembly,
            ready: VecDeque::new(),
            cursor: None,
            events: None,
            backoff: Backoff::new(),
            again: Again::new(clock::instant()),
            is_caught_up: false,
            is_cursor_lost: false,
            is_one_by_one: false,
            has_failed: false,
        }
    }

    /// The next message, or the error that ends the deliveries.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            if self.has_failed {
                return None;
            }
            if !self.known.has_room() {
                tracing::debug!("too many messages are not acked; no more are pulled");
                self.known.wait_for_room().await;
            }
            if let Err(error) = self.step().await {
                self.has_failed = true;
                return Some(Err(error));
            }
        }
    }

    /// One request or event. Returns errors that end the deliveries.
    async fn step(&mut self) -> Result<(), Error> {
        let result = match self.shared.info().await {
            Ok(info) if self.transport == Transport::Stream && info.has("stream") && !self.is_one_by_one => {
                self.stream().await
            }
            Ok(info) => {
                let (waits, has_tail) = (info.has("wait"), info.has("tail"));
                self.pull(waits && has_tail, has_tail).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = result else { return Ok(()) };
        self.events = None;
        let is_too_large = matches!(error, Error::AnswerTooLarge { .. });
        if is_too_large && !std::mem::replace(&mut self.is_one_by_one, true) {
            tracing::info!("a page is too large; the client asks for one item at a time");
            return Ok(());
        }
        if error.is_about_cursor() && self.cursor.take().is_some() {
            tracing::info!("the relay does not know the cursor; the queue is read from its start");
            self.is_cursor_lost = true;
        } else if !error.is_transient() {
            return Err(error);
        }
        let pause = self.backoff.pause(error.retry_after());
        tracing::debug!(code = error.code(), ?pause, "pulling again");
        sleep(pause).await;
        Ok(())
    }

    async fn pull(&mut self, waits: bool, has_tail: bool) -> Result<(), Error> {
        self.look_after();
        let wait = if waits { self.wait() } else { Duration::ZERO };
        let begin = clock::instant();
        let max = self.is_one_by_one.then_some(1);
        let pull = Pull { cursor: self.cursor.clone(), max, wait, tail: has_tail };
        let page = self.shared.pull(&self.recipient, &self.credentials, &pull).await?;
        let is_empty = page.items.is_empty();
        self.take(page).await;
        if !self.is_caught_up || !self.ready.is_empty() {
            return Ok(());
        }
        if !has_tail {
            // Nothing says where the next items will be.
            self.cursor = None;
        }
        if wait.is_zero() {
            let next = begin + self.shared.options.poll_interval;
            sleep_until(self.deadline().map_or(next, |deadline| deadline.min(next))).await;
        } else if is_empty && clock::instant() < begin + WAIT_MIN {
            sleep(WAIT_MIN).await;
        }
        Ok(())
    }

    async fn stream(&mut self) -> Result<(), Error> {
        self.look_after();
        if self.events.is_none() {
            self.events = Some(self.open().await?);
        }
        let deadline = self.deadline();
        let Some(events) = &mut self.events else { return Ok(()) };
        let next = match deadline {
            Some(deadline) => match timeout_at(deadline, events.next()).await {
                Ok(next) => next,
                Err(_) => return Ok(()),
            },
            None => events.next().await,
        };
        match next? {
            Some(Event::Page(page)) => {
                self.take(page).await;
                Ok(())
            }
            Some(Event::Idle) => {
                self.backoff.reset();
                self.see_all(clock::instant());
                Ok(())
            }
            Some(Event::Bye(reason)) => {
                Err(Error::Unreachable(format!("the relay ends the stream: {reason}")))
            }
            None => Err(Error::Unreachable("the stream has ended".to_owned())),
        }
    }

    async fn open(&self) -> Result<Events, Error> {
        let keepalive_ms = u64::try_from(KEEPALIVE.as_millis()).ok();
        let (recipient, cursor) = (&*self.recipient, self.cursor.as_deref());
        let body = wire::write(&PullBody { recipient, cursor, keepalive_ms, ..PullBody::default() })?;
        let timeout = self.shared.options.request_timeout;
        let open = |authorization| {
            let body = Some(body.clone());
            let request =
                Request { path: STREAM, body, authorization, timeout, answer_bytes_max: PAGE_BYTES_MAX };
            self.shared.http.open(request, Some("application/x-ndjson"))
        };
        let response = self.shared.authorized(&self.recipient, &self.credentials, open).await?;
        Ok(Events::new(response, KEEPALIVE.saturating_add(timeout)))
    }

    /// Takes the items of a page, and where the next one begins.
    async fn take(&mut self, page: Page) {
        let Page { items, next_cursor, remaining } = page;
        // If each cursor is refused, each second page comes. That is no success.
        if !std::mem::take(&mut self.is_cursor_lost) {
            self.backoff.reset();
        }
        // Without a cursor, nothing follows, on relays that give none for the last page.
        let is_last = items.is_empty() || remaining == 0 || next_cursor.is_none();
        if next_cursor.is_some() || !items.is_empty() {
            self.cursor = next_cursor;
        }
        let now = clock::instant();
        for item in items {
            self.take_item(item, now).await;
        }
        self.is_caught_up = false;
        if is_last {
            self.see_all(now);
        }
    }

    /// Everything in the queue was seen.
    fn see_all(&mut self, now: Instant) {
        self.is_caught_up = true;
        self.is_one_by_one = false;
        self.again.end(now);
    }

    async fn take_item(&mut self, mut item: Item, now: Instant) {
        let key = MessageKey::of(&item);
        match self.known.state(&key) {
            State::New => {}
            State::Unacked => return,
            // Its sender has pushed it again after the relay had forgotten it.
            State::Acked if MessageKey::is_sound(&item) => {
                return self.acks.again(key, item.chunk_index).await;
            }
            State::Acked => return,
        }
        let kind = std::mem::take(&mut item.kind);
        match self.assembly.add(&key, item, now) {
            Added::Partial => {}
            Added::Skipped(reason) => self.skip(&key, reason),
            Added::Whole(whole) => {
                if key.chunk_count > 1 {
                    self.again.complete();
                }
                self.known.hand_out(&key, whole.payload.len());
                let (times, acks) = ((whole.sent_ms, whole.arrival_ms), self.acks.clone());
                let known = Arc::clone(&self.known);
                self.ready.push_back(Message::new(key, kind, whole.payload, times, acks, known));
            }
        }
    }

    /// Says that a message is not handed out.
    fn skip(&self, key: &MessageKey, reason: SkipReason) {
        tracing::warn!(reason = reason.as_str(), "skipping a message");
        if let Some(on_skipped) = &self.shared.options.on_skipped {
            on_skipped.call(key.message_id, reason);
        }
    }

    /// Gives up old messages. If some did not fit before, and everything else was seen, reads the
    /// queue from its start again.
    fn look_after(&mut self) {
        let now = clock::instant();
        for key in self.assembly.expire(now) {
            self.skip(&key, SkipReason::Incomplete);
        }
        if self.is_caught_up && self.again_at().is_some_and(|again| again <= now) {
            tracing::debug!("reading the queue from its start, for messages that did not fit");
            self.assembly.begin_again();
            self.again.begin();
            self.is_caught_up = false;
            self.cursor = None;
            self.events = None;
        }
    }

    /// When the queue may be read from its start again, if it has to be.
    fn again_at(&self) -> Option<Instant> {
        self.assembly.has_dropped().then_some(self.again.from())
    }

    /// When there is something to look after.
    fn deadline(&self) -> Option<Instant> {
        let again = self.again_at().filter(|_| self.is_caught_up);
        self.assembly.next_expiry().into_iter().chain(again).min()
    }

    /// How long a pull may wait.
    fn wait(&self) -> Duration {
        let wait = self.shared.options.wait;
        let until = self.deadline().map(|deadline| deadline.saturating_duration_since(clock::instant()));
        // A wait of nothing would be none.
        until.map_or(wait, |until| wait.min(until.max(Duration::from_millis(1))))
    }
}
