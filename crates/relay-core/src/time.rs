//! Points in time, and the clock that tells them. Nothing here reads the machine's clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Tells what time it is. A relay is handed one, so that tests can move it by hand.
///
/// A clock may step backwards; who must not go back with it remembers the latest value seen.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// A clock that never runs backwards, over one that may: when it is set back, time stands still until it has caught up. What was
/// expired stays so, for as long as this clock exists: a restart begins with the time that it finds.
pub struct SteadyClock {
    clock: Arc<dyn Clock>,
    latest_ms: AtomicU64,
}

impl SteadyClock {
    /// A steady view of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, latest_ms: AtomicU64::new(0) }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let now_ms = self.clock.now().as_ms();
        Timestamp::from_ms(self.latest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms))
    }
}

impl fmt::Debug for SteadyClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteadyClock").field("latest_ms", &self.latest_ms).finish_non_exhaustive()
    }
}

impl Timestamp {
    /// The time `ms` milliseconds after the Unix epoch.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The time `ms` milliseconds later; the end of time when that cannot be counted.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}
