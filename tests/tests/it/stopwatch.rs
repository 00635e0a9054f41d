//! Measures elapsed time. It is the only place where these tests read a clock.

use std::time::{Duration, Instant};

/// A running stopwatch.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "tests measure real time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    #[expect(clippy::disallowed_methods, reason = "tests measure real time")]
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
