//! The monotonic clock, for measuring. No other file reads a clock.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
