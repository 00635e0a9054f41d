//! The time of the store. It logs when the machine's clock starts or stops to differ from it. The
//! rules are those of `StoreClock` in relay-core.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relay_core::{Clock, Reading, StoreClock, Timestamp};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// A store that is not empty saves its time at least this often. The next start continues from
/// there.
pub(crate) const NOTE_AFTER_MS: u64 = HOUR_MS;

/// The time of the store.
#[derive(Debug)]
pub(crate) struct WatchedTime {
    time: StoreClock,
    /// Whether the log reports a difference.
    was_off: AtomicBool,
}

impl WatchedTime {
    /// Continues from `known`, the last time of the store. `None` for an empty store.
    pub(crate) fn begin(clock: Arc<dyn Clock>, known: Option<Timestamp>, trust_clock: bool) -> Self {
        let time = match known {
            Some(known) => StoreClock::resume(clock, known, trust_clock),
            None => StoreClock::new(clock),
        };
        let time = Self { time, was_off: AtomicBool::new(false) };
        // Logs a difference at the start, not only with the first request.
        time.read();
        time
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.read().now
    }

    pub(crate) fn read(&self) -> Reading {
        let reading = self.time.read();
        let is_off = reading.disagrees();
        if self.was_off.load(Ordering::Relaxed) != is_off
            && self.was_off.swap(is_off, Ordering::Relaxed) != is_off
        {
            log(reading);
        }
        reading
    }
}

#[cold]
fn log(reading: Reading) {
    let hours = reading.offset_ms().unsigned_abs() / HOUR_MS;
    if !reading.disagrees() {
        tracing::info!("the machine's clock agrees with the time of the store again");
    } else if reading.offset_ms() > 0 {
        tracing::warn!(
            hours,
            "the machine's clock is ahead of the time of the store, and is not trusted: no message expires by it. The store adds \
             the time that passes, until the clock is corrected. If the clock is right, restart the relay; if this warning appears \
             again, restart it with storage.trust_clock = true, and everything that is due expires"
        );
    } else {
        tracing::warn!(
            hours,
            "the machine's clock is behind the time of the store, and is not trusted: no message lives longer by it. The store adds \
             the time that passes, until the clock is corrected. If the clock is right, do nothing: the store uses it after the \
             next start with an empty store"
        );
    }
}
