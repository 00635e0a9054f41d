//! The one place of this crate that reads a clock: a monotonic one, for limits, time limits and the
//! uptime. What time of day it is, nobody here knows.

use std::time::Duration;

use tokio::time::Instant;

/// No wait is longer; it keeps sums within what an instant can hold.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// The current instant.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place; all others take the instant as a value"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The instant `span` after `since`, or 30 years after it, whichever comes first.
pub(crate) fn after(since: Instant, span: Duration) -> Instant {
    since + span.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_is_too_long() {
        let now = now();
        assert_eq!(after(now, Duration::from_secs(1)), now + Duration::from_secs(1));
        assert!(after(after(now, Duration::MAX), Duration::MAX) > now);
    }
}
