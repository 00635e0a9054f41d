//! A clock that only tests move.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::{Clock, Timestamp};

/// A clock that stands still until a test moves it, forwards or backwards.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    elapsed_ms: AtomicU64,
}

impl ManualClock {
    /// Where every manual clock starts: 14 November 2023, 22:13:20 UTC.
    pub const START: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    /// A clock that shows [`ManualClock::START`].
    pub const fn new() -> Self {
        Self { wall_ms: AtomicU64::new(Self::START.as_ms()), elapsed_ms: AtomicU64::new(0) }
    }

    /// Advances the wall clock and the elapsed time.
    pub fn advance_ms(&self, ms: u64) {
        self.elapsed_ms.fetch_add(ms, Ordering::SeqCst);
        self.set(self.now().plus_ms(ms));
    }

    /// Sets the wall clock, possibly back. The elapsed time stays.
    pub fn set(&self, time: Timestamp) {
        self.wall_ms.store(time.as_ms(), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.wall_ms.load(Ordering::SeqCst))
    }

    fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms.load(Ordering::SeqCst)
    }
}
