//! The clocks of the load generator and the benchmark. No rule of the relay depends on them.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// The time of a monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a stopwatch for measurements")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, for tokens.
#[expect(clippy::disallowed_methods, reason = "a token says when it was signed")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The CPU time that the calling thread has used so far.
pub fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
