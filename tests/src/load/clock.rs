//! The stopwatch of load and benchmarks, and the CPU time of a thread. No rule of the relay hangs
//! on either.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The time by a clock that never runs back.
#[expect(clippy::disallowed_methods, reason = "a stopwatch for measurements")]
pub fn now() -> Instant {
    Instant::now()
}

/// The CPU time that the calling thread has used so far.
pub fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
