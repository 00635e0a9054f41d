//! Dates, ages and sizes for people.

use std::time::{Duration, UNIX_EPOCH};

use indicatif::{HumanBytes, HumanDuration};

/// The last second of the year 9999, the end of what RFC 3339 can say.
const SECONDS_MAX: u64 = 253_402_300_799;

/// A size, such as `1.20 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// A duration in its largest unit, such as `3 days`.
pub(super) fn duration(ms: u64) -> String {
    HumanDuration(Duration::from_millis(ms)).to_string()
}

/// A time in UTC by RFC 3339, such as `2026-12-01T11:22:03Z`.
pub(super) fn date(ms: u64) -> String {
    let seconds = ms / 1000;
    if seconds > SECONDS_MAX {
        return "after the year 9999".to_owned();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// A time, and how far it is from `now_ms`, such as `2026-12-01T11:22:03Z, 3 days ago`.
pub(super) fn date_and_age(ms: u64, now_ms: u64) -> String {
    let distance = duration(ms.abs_diff(now_ms));
    if ms > now_ms { format!("{}, in {distance}", date(ms)) } else { format!("{}, {distance} ago", date(ms)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_a_zone_and_an_age() {
        let day = 86_400_000;
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(1_795_894_805_728), "2026-11-28T19:40:05Z");
        assert_eq!(date_and_age(0, 3 * day), "1970-01-01T00:00:00Z, 3 days ago");
        assert_eq!(date_and_age(14 * day, 0), "1970-01-15T00:00:00Z, in 2 weeks");
        assert_eq!(date(SECONDS_MAX * 1000 + 999), "9999-12-31T23:59:59Z");
        assert_eq!(date_and_age(u64::MAX, 0).split(',').next(), Some("after the year 9999"));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((bytes(117), bytes(1 << 30)), ("117 B".to_owned(), "1.00 GiB".to_owned()));
    }
}
