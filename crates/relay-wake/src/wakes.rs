//! Connects what notes arrivals with the task that calls the gateway.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use relay_core::{Clock, Recipient, WakeFigures};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::drops::{DropLog, Drops};
use crate::gateway::{Answer, Failure, Gateway, GatewayError};
use crate::options::Options;
use crate::signature::{self, WakeKey};
use crate::table::{Arrival, Call, Ended, Fate, Step, Table};

/// The pause after the first failed call of a wake. Each further one doubles it.
const BACKOFF_MIN_MS: u64 = 1_000;
const BACKOFF_MAX_MS: u64 = 60_000;

/// The longest sleep. Timers and clocks may disagree.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// The wakes of a relay.
pub struct Wakes {
    table: Mutex<Table>,
    /// Notified when a call may be due earlier than expected.
    earlier: Notify,
    clock: Arc<dyn Clock>,
    key: WakeKey,
    gateway: Gateway,
}

impl Wakes {
    /// Reads the authorities of the gateway. It connects only when there is something to tell.
    /// Blocks on disk.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, GatewayError> {
        Ok(Self {
            table: Mutex::new(Table::new(options.rules)),
            earlier: Notify::new(),
            clock,
            key: options.key.clone(),
            gateway: Gateway::new(options)?,
        })
    }

    /// Calls the gateway, for ever. `has_waiter` tells whether somebody waits in a queue.
    pub(crate) async fn run(&self, has_waiter: impl Fn(&Recipient) -> bool) {
        let (mut calls, mut log) = (FuturesUnordered::new(), DropLog::default());
        let mut last_failure = None;
        loop {
            let now_ms = self.clock.elapsed_ms();
            let step = self.table().next(now_ms, &has_waiter);
            let until_ms = match step {
                Step::Call(call) => {
                    calls.push(self.call(call));
                    continue;
                }
                Step::Again => {
                    yield_now().await;
                    continue;
                }
                Step::WaitUntil(until_ms) => until_ms,
                Step::Wait => u64::MAX,
            };
            let log_ms = self.log_drops(&mut log, last_failure.as_ref(), now_ms);
            let pause = Duration::from_millis(until_ms.min(log_ms).saturating_sub(now_ms)).min(SLEEP_MAX);
            tokio::select! {
                Some((call, answer)) = calls.next(), if !calls.is_empty() => {
                    last_failure = self.ended(&call, answer).or(last_failure);
                }
                () = self.earlier.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    pub(crate) fn note(&self, recipient: &Recipient, arrival: Arrival, waiting: Option<u64>) {
        let now_ms = self.clock.elapsed_ms();
        let is_earlier = self.table().note(recipient, arrival, waiting, now_ms);
        if is_earlier {
            self.earlier.notify_one();
        }
    }

    /// The arrivals that a client which acts now can see; `None` if there is nothing to settle.
    pub(crate) fn seen(&self, recipient: &Recipient) -> Option<u64> {
        self.table().seen(recipient)
    }

    pub(crate) fn pulled(&self, recipient: &Recipient, seen: u64) {
        self.table().pulled(recipient, seen, self.clock.elapsed_ms());
    }

    pub(crate) fn emptied(&self, recipient: &Recipient, seen: u64) {
        self.table().emptied(recipient, seen, self.clock.elapsed_ms());
    }

    pub(crate) fn figures(&self) -> WakeFigures {
        self.table().figures()
    }

    async fn call(&self, call: Call) -> (Call, Answer) {
        let body = signature::body(&self.key.hash(&call.recipient), call.waiting);
        let now = self.clock.now();
        let signature = self.key.sign(now, &body);
        let answer = self.gateway.call(body, &signature, now).await;
        (call, answer)
    }

    /// Reports the end of a call to the table. Returns why it failed.
    fn ended(&self, call: &Call, answer: Answer) -> Option<Failure> {
        let now_ms = self.clock.elapsed_ms();
        let mut table = self.table();
        let (ended, failure) = match answer {
            Answer::Accepted => (Ended::Sent, None),
            Answer::Refused(status) => (Ended::Refused, Some(Failure::Status(status))),
            Answer::Failed { reason, pause } => {
                if let Some(pause) = pause {
                    table.pause(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), now_ms);
                }
                (Ended::Failed { retry_after_ms: backoff_ms(call.attempts, fastrand::f64()) }, Some(reason))
            }
        };
        let fate = table.ended(&call.recipient, ended, now_ms);
        drop(table);
        if let (Some(Fate::WillRetry), Some(failure)) = (fate, &failure) {
            tracing::debug!(
                attempts = call.attempts + 1,
                ?failure,
                "call of the wake gateway failed; it will be repeated"
            );
        }
        failure
    }

    /// Logs dropped wakes, if it is time. Returns when it is time for the next line.
    fn log_drops(&self, log: &mut DropLog, last_failure: Option<&Failure>, now_ms: u64) -> u64 {
        let figures = self.table().figures();
        let totals = Drops { refused: figures.refused, failed: figures.failed, full: figures.full };
        if let Some(Drops { refused, failed, full }) = log.due(totals, now_ms) {
            let last_failure = last_failure.map(tracing::field::debug);
            tracing::warn!(
                refused,
                failed,
                full,
                last_failure,
                "dropped wakes; these clients are not woken until more items arrive"
            );
        }
        log.next_ms(totals).unwrap_or(u64::MAX)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table stays usable after a panic: at worst, a queue is not woken.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakes").finish_non_exhaustive()
    }
}

/// The pause after a failed call: twice as long each time, and shorter by a random part of up to a
/// half, so that queues that failed together do not return together.
fn backoff_ms(attempts: u32, random: f64) -> u64 {
    let longest = BACKOFF_MIN_MS.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX_MS);
    let half = longest / 2;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "below a minute"
    )]
    let part = (half as f64 * random) as u64;
    longest - part.min(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_vary() {
        for (attempts, longest) in [(0, 1_000), (1, 2_000), (5, 32_000), (6, 60_000), (u32::MAX, 60_000)] {
            assert_eq!(backoff_ms(attempts, 0.0), longest);
            assert!((longest / 2..=longest / 2 + 1).contains(&backoff_ms(attempts, 0.999_999)), "{attempts}");
        }
    }
}
