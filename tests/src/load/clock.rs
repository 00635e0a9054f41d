//! The clocks of the load generator and the benchmark. No rule of the relay depends on them.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The time of a monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a stopwatch for measurements")]
pub fn now() -> Instant {
    Instant::now()
}

/// The CPU time that the calling thread has used so far.
pub fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
