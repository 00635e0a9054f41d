//! Arrivals on other relays. Each relay tells the others of the queues that it has pushed to, over
//! one connection that waits for no standby. Such hints may be lost, so a relay also looks after
//! all of its waiters with one statement at a time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use relay_core::{Recipient, Waiters};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::clock;
use crate::connect::{Connection, Connector};
use crate::convert::queue_key;
use crate::error::PostgresError;
use crate::monitor::Monitor;

/// Arrivals within this time share a hint.
const GATHER: Duration = Duration::from_millis(5);

/// How many queues one hint names, within the 8,000 bytes of a notification.
const HINT_QUEUES: usize = 450;

/// How many hints are sent at once. Further arrivals are found by looking.
const HINTS_MAX: usize = 8;

/// How many queues one statement looks at.
const LOOK_QUEUES: usize = 10_000;

const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

const LOOK: &str = "\
SELECT u.q, u.last_seq FROM unnest($1::uuid[]) AS k (q) JOIN queue u ON u.q = k.q WHERE u.items > 0";

/// The queues that others wait for, and those that others are to be told of.
pub(crate) struct Wakes {
    /// Tells the hints of this relay from those of others.
    node: String,
    awaited: Mutex<HashMap<u64, Awaited>>,
    arrivals: Mutex<Vec<u64>>,
    arrived: Notify,
    poll_interval: Duration,
}

/// A queue for which somebody waits.
struct Awaited {
    recipient: Recipient,
    /// As of the last look.
    last_seq: Option<i64>,
}

impl Wakes {
    pub(crate) fn new(poll_interval: Duration) -> Self {
        Self {
            node: format!("{:016x}", fastrand::u64(..)),
            awaited: Mutex::default(),
            arrivals: Mutex::default(),
            arrived: Notify::new(),
            poll_interval,
        }
    }

    /// Somebody begins to wait for arrivals in this queue.
    pub(crate) fn awaits(&self, recipient: &Recipient) {
        // Whoever waits anew has looked at the queue at another time than those before.
        let awaited = Awaited { recipient: recipient.clone(), last_seq: None };
        lock(&self.awaited).insert(short_key(queue_key(recipient)), awaited);
    }

    /// An item has arrived.
    pub(crate) fn note(&self, queue: Uuid) {
        let mut arrivals = lock(&self.arrivals);
        if arrivals.len() < HINT_QUEUES * HINTS_MAX {
            arrivals.push(short_key(queue));
            if arrivals.len() == 1 {
                self.arrived.notify_one();
            }
        }
    }

    /// Sends and receives hints, and looks after the waiters, for ever.
    pub(crate) async fn run(&self, connector: &Connector, monitor: &Monitor, waiters: &Waiters) {
        tokio::join!(
            self.exchange_hints(connector, monitor, waiters),
            self.look_after(connector, monitor, waiters)
        );
    }

    async fn exchange_hints(&self, connector: &Connector, monitor: &Monitor, waiters: &Waiters) {
        loop {
            if let Err(error) = self.hint(connector, monitor, waiters).await {
                tracing::debug!(%error, "lost the connection for hints");
            }
            sleep(RECONNECT_AFTER).await;
        }
    }

    /// Exchanges hints until the connection ends.
    async fn hint(
        &self,
        connector: &Connector,
        monitor: &Monitor,
        waiters: &Waiters,
    ) -> Result<(), PostgresError> {
        let (sender, mut received) = mpsc::unbounded_channel();
        let connection = connector.connect_with(Some(sender)).await?;
        let client = &connection.client;
        client.batch_execute("SET synchronous_commit = off; LISTEN relay_arrivals").await?;
        loop {
            tokio::select! {
                hint = received.recv() => match hint {
                    Some(hint) => self.hinted(&hint, waiters),
                    None => return Err(PostgresError::Connection("it was closed".to_owned())),
                },
                () = monitor.moved_from(&connection.server) => return Ok(()),
                () = self.arrived.notified() => {
                    sleep(GATHER).await;
                    self.send_hints(client).await?;
                }
            }
        }
    }

    async fn send_hints(&self, client: &Client) -> Result<(), PostgresError> {
        let mut keys = std::mem::take(&mut *lock(&self.arrivals));
        keys.sort_unstable();
        keys.dedup();
        let hints: Vec<String> = keys.chunks(HINT_QUEUES).map(|keys| self.hint_text(keys)).collect();
        let sent = join_all(hints.iter().map(|hint| {
            // The text is hexadecimal.
            let statement = format!("NOTIFY relay_arrivals, '{hint}'");
            async move { client.batch_execute(&statement).await }
        }));
        timeout(LOOK_TIMEOUT, sent)
            .await
            .map_err(|_| PostgresError::Timeout)?
            .into_iter()
            .collect::<Result<Vec<()>, _>>()?;
        Ok(())
    }

    /// The sender and the queues, in hexadecimal digits.
    fn hint_text(&self, keys: &[u64]) -> String {
        keys.iter().fold(self.node.clone(), |text, key| text + &format!("{key:016x}"))
    }

    fn hinted(&self, hint: &str, waiters: &Waiters) {
        if hint.starts_with(&self.node) {
            return;
        }
        let mut rest = hint.get(self.node.len()..).unwrap_or_default();
        while let Some((key, after)) = rest.split_at_checked(16) {
            rest = after;
            let Ok(key) = u64::from_str_radix(key, 16) else { return };
            let recipient = lock(&self.awaited).get(&key).map(|awaited| awaited.recipient.clone());
            if let Some(recipient) = recipient {
                waiters.wake(&recipient);
            }
        }
    }

    async fn look_after(&self, connector: &Connector, monitor: &Monitor, waiters: &Waiters) {
        let mut connection = None;
        loop {
            sleep(self.poll_interval).await;
            lock(&self.awaited).retain(|_, awaited| waiters.has(&awaited.recipient));
            if lock(&self.awaited).is_empty() {
                continue;
            }
            connection = connection.take().filter(|known: &Connection| monitor.is_primary(&known.server));
            let begun = clock::instant();
            match timeout(LOOK_TIMEOUT, self.look(connector, &mut connection, waiters)).await {
                Ok(Ok(())) => log_slow(begun),
                Ok(Err(_)) | Err(_) => connection = None,
            }
        }
    }

    async fn look(
        &self,
        connector: &Connector,
        connection: &mut Option<Connection>,
        waiters: &Waiters,
    ) -> Result<(), PostgresError> {
        let connected = connector.connect_again(connection.take()).await?;
        let connected = connection.insert(connected);
        let keys: Vec<Uuid> =
            lock(&self.awaited).values().map(|awaited| queue_key(&awaited.recipient)).collect();
        for keys in keys.chunks(LOOK_QUEUES) {
            for row in connected.client.query(LOOK, &[&keys]).await? {
                self.looked(row.try_get(0)?, row.try_get(1)?, waiters);
            }
        }
        Ok(())
    }

    /// A queue has items. Wakes its waiters if there may be some that they have not seen.
    fn looked(&self, queue: Uuid, last_seq: i64, waiters: &Waiters) {
        let mut awaited = lock(&self.awaited);
        let Some(entry) = awaited.get_mut(&short_key(queue)) else { return };
        if entry.last_seq.replace(last_seq) == Some(last_seq) {
            return;
        }
        let recipient = entry.recipient.clone();
        drop(awaited);
        waiters.wake(&recipient);
    }
}

fn log_slow(begun: Instant) {
    let duration = clock::instant() - begun;
    if duration > Duration::from_secs(1) {
        tracing::debug!(?duration, "looking for arrivals takes long");
    }
}

/// Half of a queue's key. If two queues share it, a waiter looks once too often.
const fn short_key(queue: Uuid) -> u64 {
    queue.as_u64_pair().0
}

/// The maps stay usable after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
