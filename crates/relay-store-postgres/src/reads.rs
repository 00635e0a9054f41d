//! Pulls: each reads a page in one round trip, over one of a few connections.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relay_core::{Error, Page, Pull, queue};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::connect::Connection;
use crate::convert::{ms, queue_key, seq_number, signed};
use crate::error::{PostgresError, Remedy};
use crate::job::RETRY_AFTER;
use crate::page::{ReadPage, with_payload};
use crate::shared::Shared;

/// How long a pull may wait for a page, and how long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(6);

/// How often a page is tried whose connection is lost. A read can be repeated at once.
const ATTEMPTS: usize = 3;

/// The connections that read.
pub(crate) struct Readers {
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn new(connections: usize) -> Self {
        Self { permits: Semaphore::new(connections.max(1)), idle: Mutex::default() }
    }

    /// Reads a page.
    pub(crate) async fn pull(&self, shared: &Arc<Shared>, pull: &Pull) -> Result<Page, Error> {
        let reading = async {
            // The semaphore is never closed.
            let _permit = self.permits.acquire().await;
            let mut error = PostgresError::Timeout;
            for _ in 0..ATTEMPTS {
                let attempt = timeout(ATTEMPT_TIMEOUT, self.try_pull(shared, pull)).await;
                match attempt.unwrap_or(Err(PostgresError::Timeout)) {
                    Ok(page) => return Ok(page),
                    Err(failed) if failed.remedy() == Remedy::Fail => return Err(failed),
                    Err(failed) => error = failed,
                }
            }
            Err(error)
        };
        match timeout(TIMEOUT, reading).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::Overloaded { retry_after: RETRY_AFTER }),
        }
    }

    async fn try_pull(&self, shared: &Arc<Shared>, pull: &Pull) -> Result<Page, PostgresError> {
        let connection = match self.take_idle(shared) {
            Some(connection) => connection,
            None => shared.connector.connect().await?,
        };
        let page = read(shared, &connection, pull).await;
        if page.is_ok() {
            self.idle().push(connection);
        }
        page
    }

    /// A connection to the present primary.
    fn take_idle(&self, shared: &Shared) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() && shared.monitor.is_primary(&connection.server) {
                return Some(connection);
            }
        }
        None
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(shared: &Shared, connection: &Connection, pull: &Pull) -> Result<Page, PostgresError> {
    let limits = shared.rules.limits.load();
    let items_max =
        pull.items_max.map_or(u64::MAX, std::num::NonZeroU64::get).min(limits.page_items_max).max(1);
    let (key, after) = (queue_key(&pull.recipient), pull.after.map_or(-1, seq_number));
    // One more tells whether the page is the last one.
    let (rows_max, bytes_max) = (signed(items_max).saturating_add(1), signed(limits.page_bytes_max));
    let (now, is_front) = (shared.clock.given().map(ms), pull.after.is_none());
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&key, &after, &rows_max, &bytes_max, &now, &is_front];
    let rows = connection.client.query(&connection.statements.read_page, &parameters).await?;
    let read = ReadPage::of(&rows, &pull.recipient)?;
    let page = queue::pull(&read, &limits, read.now, pull)?;
    let mut items = Vec::with_capacity(page.items.len());
    for item in page.items {
        shared.figures.delivered(read.now.as_ms().saturating_sub(item.arrival.as_ms()));
        let item = with_payload(item).ok_or(PostgresError::Corrupted("an item without its payload"))?;
        items.push(item);
    }
    let page = Page { items, next: page.next, remaining: page.remaining };
    Ok(shared.clock.page_outside(page))
}
