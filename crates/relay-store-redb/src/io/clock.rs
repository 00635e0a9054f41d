//! The time of the store, and whoever runs it hears of it when the machine's clock is far from
//! that. It decides nothing: relay-core does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relay_core::{Clock, Reading, StoreClock, Timestamp};

/// While a store holds something, it is written down at least this often what time it has come to:
/// a start goes on from there.
pub(crate) const NOTE_AFTER_MS: u64 = 60 * 60 * 1000;

/// The time of the store.
#[derive(Debug)]
pub(crate) struct WatchedTime {
    time: StoreClock,
    /// The operator knows of it.
    was_off: AtomicBool,
}

impl WatchedTime {
    /// Of a store that has come to `known`; `None` when there is nothing in it that could be lost.
    pub(crate) fn begin(clock: Arc<dyn Clock>, known: Option<Timestamp>, trust_clock: bool) -> Self {
        let time = match known {
            Some(known) => StoreClock::resume(clock, known, trust_clock),
            None => StoreClock::new(clock),
        };
        let time = Self { time, was_off: AtomicBool::new(false) };
        // The operator hears of it at the start.
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
            tell(reading);
        }
        reading
    }
}

#[cold]
fn tell(reading: Reading) {
    let hours = reading.offset_ms().unsigned_abs() / (60 * 60 * 1000);
    if !reading.disagrees() {
        tracing::info!("the machine's clock agrees with the time of the store again");
    } else if reading.offset_ms() > 0 {
        tracing::warn!(
            hours,
            "the machine's clock is ahead of the time of the store, and is not believed: no message expires by it. The store goes on with \
             the time that passes until the clock is put right. If the clock is right, start the relay again; if this is told once \
             more then, do so with storage.trust_clock = true, by which all expires that is due"
        );
    } else {
        tracing::warn!(
            hours,
            "the machine's clock is behind the time of the store, and is not believed: no message lives longer by it. The store goes on \
             with the time that passes until the clock is put right. If the clock is right, nothing needs to be done: the store takes \
             its time when it is started and holds nothing"
        );
    }
}
