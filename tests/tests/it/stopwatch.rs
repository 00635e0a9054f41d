//! How long something took. The one place where these tests look at a clock.

use std::time::{Duration, Instant};

/// Started now.
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
