//! The only place in this crate that reads a clock. The clock is monotonic; nothing here depends on
//! the time of day.

use std::time::Duration;

use tokio::time::Instant;

/// The longest span, so that adding it to an instant does not overflow.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// The current instant.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The instant `span` after `since`, but at most 30 years after it.
pub(crate) fn after(since: Instant, span: Duration) -> Instant {
    since + span.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_span_does_not_overflow() {
        let now = now();
        assert_eq!(after(now, Duration::from_secs(1)), now + Duration::from_secs(1));
        assert!(after(after(now, Duration::MAX), Duration::MAX) > now);
    }
}
