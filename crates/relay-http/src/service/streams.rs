//! Streams: responses that go on with the items of a queue as they arrive.
//!
//! A stream holds at most one page, whose bytes the budget counts until they are sent, and reads
//! the next one only then. While it waits for an item, it holds neither memory of the budget nor a
//! thread. It ends when its client hangs up or reads too slowly, when it is too old, when the proof
//! of its client expires, and when the relay drains.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use relay_auth::Operation;
use relay_core::{Error, Page, Pull, Relay, Waiter};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::error::ApiError;
use crate::api::events::{Bye, EventFormat};
use crate::api::{EncodedPage, StreamRequest};
use crate::connection::in_flight_request::InFlightRequest;
use crate::connection::io::ConnectionIo;
use crate::connection::state::ConnectionState;
use crate::limits::memory_budget::Share;
use crate::limits::parking::ParkingPlace;
use crate::monotonic;
use crate::service::client::Client;
use crate::service::pages::{PageRead, arrival, encode};
use crate::service::panics::panic_message;
use crate::service::response::Events;
use crate::service::waits::{Reader, Readers, Standing};

/// When a stream tries again that found no memory for a page: soon at first, and later each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The shortest time between two pages of a stream.
const PAGE_INTERVAL: Duration = Duration::from_millis(20);

/// What all streams share.
pub(super) struct Streams<R> {
    pub(super) readers: Arc<Readers<R>>,
    /// The maximum age of a stream.
    pub(super) age_max: Duration,
    /// How long a pull may wait.
    pub(super) wait_max: Duration,
}

/// One stream.
struct Subscription<R> {
    streams: Arc<Streams<R>>,
    reader: Reader,
    format: EventFormat,
    connection: Rc<ConnectionState>,
    /// `None` over HTTP/2.
    io: Option<ConnectionIo>,
    pull: Pull,
    keepalive: Duration,
    until: Instant,
    waiter: Option<Waiter>,
    /// Whether there are more items than those of the last page.
    is_behind: bool,
    /// Not before then, so that many arrivals in a short time share a page.
    next_look: Instant,
    /// What precedes the page that is being sent, until that is sent.
    prefix: &'static [u8],
    _place: ParkingPlace,
    state: State,
}

enum State {
    /// Everything is sent.
    Waiting,
    /// A page is being sent.
    Sending(EncodedPage, Share),
    /// The end of a page or an event is being sent.
    Sent(Option<Share>),
    Ended,
}

/// What a stream has waited for.
enum Outcome {
    Page(PageRead),
    Idle,
    Bye(Bye),
    HungUp,
}

impl<R: Relay> Streams<R> {
    /// Begins a stream.
    ///
    /// # Errors
    /// If there are too many already.
    pub(super) fn open(
        self: &Arc<Self>,
        request: StreamRequest,
        reader: Reader,
        format: EventFormat,
        in_flight: &InFlightRequest,
    ) -> Result<Events, ApiError> {
        let StreamRequest { pull, keepalive } = request;
        let (pages, wait_max) = (&self.readers.pages, self.wait_max);
        let parked = pages.park(&pull.recipient, wait_max, &reader.client, in_flight.connection());
        let (place, waiter) = parked.map_err(|refusal| self.readers.pages.refused(refusal))?;
        let subscription = Subscription {
            streams: Arc::clone(self),
            reader,
            format,
            connection: Rc::clone(in_flight.connection()),
            io: in_flight.io().cloned(),
            pull,
            keepalive,
            until: monotonic::after(monotonic::now(), self.age_max),
            waiter,
            is_behind: false,
            next_look: monotonic::now(),
            prefix: b"",
            _place: place,
            state: State::Sent(None),
        };
        let events = stream::unfold(subscription, |mut subscription| async move {
            // Unwind safe: the stream ends with a panic, and the shared state stays consistent.
            let piece = AssertUnwindSafe(subscription.next_piece()).catch_unwind().await;
            let piece = piece.unwrap_or_else(|panic| {
                ApiError::Internal(format!("a stream panicked: {}", panic_message(&*panic))).log();
                None
            });
            Some((piece?, subscription))
        });
        Ok(Box::pin(events.fuse()))
    }

    /// Reads a page, if the reader may still read the queue.
    async fn look(
        &self,
        pull: &Pull,
        reader: &Reader,
        connection: &ConnectionState,
    ) -> Result<PageRead, ApiError> {
        self.readers.permit(&pull.recipient, reader, connection).await?;
        self.readers.pages.look(pull, &reader.client).await
    }

    /// Waits until the rate limit allows another page of a long queue. It counts as a pull. A page
    /// that an arrival has caused does not: its push has counted.
    async fn wait_for_turn(&self, client: &Client, connection: &ConnectionState) {
        let standing = self.readers.standing.load_full();
        let Standing { gate, rate_limiter: Some(limiter) } = &*standing else { return };
        let owner = gate.known_owner(Operation::Pull, client, connection.certified_names());
        while let Err(after) = limiter.take_for_page(client, owner.as_ref()) {
            sleep(after).await;
        }
    }
}

impl<R: Relay> Subscription<R> {
    /// The next piece of the response; `None` at its end.
    async fn next_piece(&mut self) -> Option<Bytes> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return None,
                State::Sending(mut page, share) => {
                    let piece = page.next_piece().unwrap_or_default();
                    let prefix = std::mem::take(&mut self.prefix);
                    let suffix = if page.bytes_left() > 0 {
                        self.state = State::Sending(page, share);
                        b""
                    } else {
                        self.state = State::Sent(Some(share));
                        self.format.suffix()
                    };
                    // Most pieces of a long page need no copy.
                    let is_framed = !(prefix.is_empty() && suffix.is_empty());
                    return Some(if is_framed { [prefix, &piece, suffix].concat().into() } else { piece });
                }
                State::Sent(share) => {
                    // The caller polls again when everything is sent.
                    yield_now().await;
                    if let Some(io) = &self.io {
                        io.pause_response();
                    }
                    drop(share);
                    self.state = State::Waiting;
                }
                State::Waiting => {
                    let outcome = self.wait().await;
                    if let Some(io) = &self.io {
                        io.resume_response();
                    }
                    if let Some(piece) = self.begin_event(outcome).await {
                        return Some(piece);
                    }
                }
            }
        }
    }

    /// Begins the event of an outcome. Returns it, unless it is a page.
    async fn begin_event(&mut self, outcome: Outcome) -> Option<Bytes> {
        let format = self.format;
        match outcome {
            Outcome::Page(PageRead { page, share }) => {
                let last = page.items.last().map(|item| item.seq);
                self.is_behind = page.next.is_some();
                self.next_look = monotonic::after(monotonic::now(), PAGE_INTERVAL);
                self.pull.after = page.next.or(last).or(self.pull.after);
                let page = Page { next: self.pull.after, ..page };
                let cursors = &self.streams.readers.cursors;
                match encode(format.format(), cursors, &self.pull.recipient, page, share).await {
                    Ok((page, share)) => {
                        self.prefix = format.prefix();
                        self.state = State::Sending(page, share);
                        None
                    }
                    Err(error) => {
                        error.log();
                        Some(format.bye(Bye::Error))
                    }
                }
            }
            Outcome::Idle => {
                self.state = State::Sent(None);
                Some(format.idle())
            }
            // The state stays at the end.
            Outcome::Bye(bye) => Some(format.bye(bye)),
            Outcome::HungUp => None,
        }
    }

    /// Waits for a page, or for another event.
    async fn wait(&mut self) -> Outcome {
        // Also when other authorities for client certificates are in use.
        if self.connection.is_ending() {
            return Outcome::Bye(Bye::Age);
        }
        let (drain, until) = (Arc::clone(&self.streams.readers.drain), self.until);
        tokio::select! {
            biased;
            () = drain.begun() => Outcome::Bye(Bye::Draining),
            () = sleep_until(until) => Outcome::Bye(Bye::Age),
            outcome = self.wait_for_page() => outcome,
        }
    }

    /// Waits for a page, or until it is time for a sign of life. A read that has begun is not given
    /// up for that.
    async fn wait_for_page(&mut self) -> Outcome {
        let Self { streams, reader, connection, pull, waiter, next_look, is_behind, .. } = self;
        let mut idle = pin!(sleep(self.keepalive));
        let mut retry = RETRY_MIN;
        loop {
            // The turn comes first, so that no token is lost.
            let turn = async {
                sleep_until(*next_look).await;
                if *is_behind {
                    streams.wait_for_turn(&reader.client, connection).await;
                }
            };
            tokio::select! {
                biased;
                () = turn => {}
                () = &mut idle => return Outcome::Idle,
            }
            match streams.look(pull, reader, connection).await {
                Ok(read) if !read.is_empty() => return Outcome::Page(read),
                Ok(_) => {
                    *is_behind = false;
                    tokio::select! {
                        () = arrival(waiter.as_mut()) => {}
                        () = &mut idle => return Outcome::Idle,
                        () = connection.hung_up() => return Outcome::HungUp,
                    }
                }
                Err(error) if is_temporary(&error) => {
                    // The next try pays for what it reads.
                    *is_behind = true;
                    tokio::select! {
                        () = sleep(retry) => retry = (retry * 2).min(RETRY_MAX),
                        () = &mut idle => return Outcome::Idle,
                        () = connection.hung_up() => return Outcome::HungUp,
                    }
                }
                Err(ApiError::Auth { .. } | ApiError::Relay(Error::Rejected(_))) => {
                    return Outcome::Bye(Bye::ProofExpired);
                }
                Err(error) => {
                    error.log();
                    return Outcome::Bye(Bye::Error);
                }
            }
        }
    }
}

/// Whether the relay can soon do what has failed.
const fn is_temporary(error: &ApiError) -> bool {
    matches!(error, ApiError::Relay(Error::Overloaded { .. } | Error::NotReady { .. }))
}
