//! Reads pages, encodes them, and lets pulls of empty queues wait for an arrival.
//!
//! A waiting pull holds neither memory of the budget nor a thread. It ends when an item arrives,
//! when its time is over, when its client hangs up, or when the relay drains.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use relay_core::{Page, Pull, Recipient, Relay, Waiter};
use relay_ratelimit::Refusal;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::EncodedPage;
use crate::api::cursor::CursorKey;
use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::connection::state::ConnectionState;
use crate::limits::memory_budget::{Budget, Share, overloaded};
use crate::limits::parking::{NoPlace, Parking, ParkingPlace};
use crate::metrics::Metrics;
use crate::monotonic;
use crate::service::client::Client;
use crate::service::offload::offload;

/// A page with this many items is encoded on a blocking thread. To encode their ids and times takes
/// about 100 microseconds. Payloads are encoded later, in small pieces.
const OFFLOAD_ITEMS: usize = 2048;

/// How many pages may be read at once before the budget counts them. Their size is known only
/// afterwards.
const UNCOUNTED_PAGES_MAX: usize = 16;

/// The same while the budget is crowded, when a page may not fit.
const UNCOUNTED_PAGES_MAX_IF_CROWDED: usize = 4;

/// The size of an item in a page besides its payload: ids and times, in memory and encoded.
const ITEM_BYTES: usize = 512;

/// How often the queue of a relay that wakes nobody is looked into.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The name of the limit on waiting requests in responses.
const WAITING_BUCKET: &str = "waiting";

/// When a client may try again that has too many waiting requests.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Reads pages.
pub(super) struct Pages<R> {
    relay: Arc<R>,
    metrics: Arc<Metrics>,
    budget: Budget,
    uncounted: Semaphore,
    uncounted_if_crowded: Semaphore,
    parking: Parking,
}

/// A page, and its share of the budget.
pub(super) struct PageRead {
    pub(super) page: Page,
    pub(super) share: Share,
}

/// A pull of an empty queue that waits for an arrival.
pub(super) struct Waiting {
    until: Instant,
    waiter: Option<Waiter>,
    _place: ParkingPlace,
}

impl<R: Relay> Pages<R> {
    pub(super) fn new(relay: Arc<R>, metrics: Arc<Metrics>, budget: Budget, parking: Parking) -> Self {
        Self {
            relay,
            metrics,
            budget,
            uncounted: Semaphore::new(UNCOUNTED_PAGES_MAX),
            uncounted_if_crowded: Semaphore::new(UNCOUNTED_PAGES_MAX_IF_CROWDED),
            parking,
        }
    }

    /// The requests that wait for arrivals.
    pub(super) fn parking(&self) -> Parking {
        self.parking.clone()
    }

    /// Reads a page. If there is none and the request wants to wait, which it may for `wait_max`,
    /// registers it.
    pub(super) async fn read_or_register(
        &self,
        pull: &Pull,
        (wait, wait_max): (Duration, Duration),
        client: &Client,
        connection: &ConnectionState,
    ) -> Result<Result<PageRead, Waiting>, ApiError> {
        let wait = wait.min(wait_max);
        if wait.is_zero() {
            return Ok(Ok(self.look(pull, client).await?));
        }
        // Before the first look, so that no arrival is missed.
        let parked = self.park(&pull.recipient, wait_max, client, connection);
        let read = self.look(pull, client).await?;
        if !read.is_empty() {
            return Ok(Ok(read));
        }
        // What is there needs no place.
        let (place, waiter) = parked.map_err(|refusal| self.refused(refusal))?;
        Ok(Err(Waiting { until: monotonic::after(monotonic::now(), wait), waiter, _place: place }))
    }

    /// Waits for a page, for as long as the request wants, or until `drained` resolves.
    pub(super) async fn wait(
        &self,
        pull: &Pull,
        waiting: Waiting,
        client: &Client,
        connection: &ConnectionState,
        drained: impl Future<Output = ()>,
    ) -> Result<PageRead, ApiError> {
        let Waiting { until, mut waiter, _place } = waiting;
        let mut end = pin!(async {
            tokio::select! {
                () = sleep_until(until) => {}
                () = connection.hung_up() => {}
                () = drained => {}
            }
        });
        loop {
            tokio::select! {
                () = arrival(waiter.as_mut()) => {}
                () = &mut end => {
                    let page = Page { items: Vec::new(), next: None, remaining: 0 };
                    return Ok(PageRead { page, share: self.budget.share(client.address()) });
                }
            }
            let read = self.look(pull, client).await?;
            if !read.is_empty() {
                return Ok(read);
            }
        }
    }

    /// Takes a place for a request that waits for arrivals, and registers it. A pull may wait for
    /// `wait_max`.
    ///
    /// # Errors
    /// If too many wait already.
    pub(super) fn park(
        &self,
        recipient: &Recipient,
        wait_max: Duration,
        client: &Client,
        connection: &ConnectionState,
    ) -> Result<(ParkingPlace, Option<Waiter>), Refusal> {
        let place = self.parking.enter(client.address(), connection.is_http2());
        let place = place.map_err(|NoPlace(limit)| refusal(limit, wait_max))?;
        let waiter = self.relay.waiter(recipient).map_err(|many| refusal(many.limit, wait_max))?;
        Ok((place, waiter))
    }

    /// Counts a refusal of a request.
    pub(super) fn refused(&self, refusal: Refusal) -> ApiError {
        self.metrics.rate_limited(&refusal);
        ApiError::RateLimited(refusal)
    }

    /// Reads a page, and takes its share of the budget.
    pub(super) async fn look(&self, pull: &Pull, client: &Client) -> Result<PageRead, ApiError> {
        let _uncounted = self.uncounted.acquire().await;
        // A request that waits here holds nothing that the requests ahead of it need.
        let _crowded = match self.budget.is_crowded() {
            true => Some(self.uncounted_if_crowded.acquire().await),
            false => None,
        };
        // A page of unknown size is not read if not even a small one would fit.
        if !self.budget.would_fit(client.address(), ITEM_BYTES) {
            return Err(overloaded());
        }
        let page = self.relay.pull(pull.clone()).await?;
        let share = self.budget.take(client.address(), page_bytes(&page))?;
        Ok(PageRead { page, share })
    }
}

impl PageRead {
    /// Whether there is nothing for the client. A page without items may still lead to the next
    /// one, if its items are corrupt.
    pub(super) fn is_empty(&self) -> bool {
        self.page.items.is_empty() && self.page.next.is_none()
    }
}

fn refusal(limit: usize, wait_max: Duration) -> Refusal {
    Refusal {
        bucket: WAITING_BUCKET,
        retry_after: RETRY_AFTER,
        banned: false,
        ban_began: false,
        quota: u32::try_from(limit).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX),
        window_seconds: u32::try_from(wait_max.as_secs()).unwrap_or(u32::MAX).max(1),
    }
}

/// Waits until it is time to look into the queue of a waiter again.
pub(super) async fn arrival(waiter: Option<&mut Waiter>) {
    match waiter {
        Some(waiter) => waiter.woken().await,
        None => sleep(LOOK_INTERVAL).await,
    }
}

/// Encodes a page of `recipient`'s queue, which `share` counts.
///
/// # Errors
/// If the blocking thread fails.
pub(super) async fn encode(
    format: Format,
    cursors: &CursorKey,
    recipient: &Recipient,
    page: Page,
    share: Share,
) -> Result<(EncodedPage, Share), ApiError> {
    if page.items.len() < OFFLOAD_ITEMS {
        return Ok((EncodedPage::new(format, cursors, recipient, page), share));
    }
    let (cursors, recipient) = (cursors.clone(), recipient.clone());
    offload(move || (EncodedPage::new(format, &cursors, &recipient, page), share)).await
}

/// The bytes that a page counts until it is sent.
fn page_bytes(page: &Page) -> usize {
    page.items.iter().map(|item| item.body.len().saturating_add(ITEM_BYTES)).sum()
}
