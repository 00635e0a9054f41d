//! The machine's clocks. No other file reads the time of day; relay-http's `monotonic` and the
//! store's metrics and throttle read the elapsed time.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_core::{Clock, Timestamp};

/// The largest difference between the time of day and the elapsed time, from one reading to the
/// next, that is not a jump. Time synchronization makes smaller steps.
const JUMP: Duration = Duration::from_secs(60);

/// The machine's clock. It may jump or be wrong; stores handle that.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The machine's clock, with a log line when it jumps.
#[derive(Debug, Default)]
pub(crate) struct WatchedClock {
    last: Mutex<Option<Reading>>,
}

/// Both clocks at the same moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    time: Timestamp,
    elapsed_ms: u64,
}

/// The difference between the time of day and the elapsed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jump {
    Forward(Duration),
    Back(Duration),
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "all other code gets this clock")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn elapsed_ms(&self) -> u64 {
        elapsed_ms()
    }
}

/// The time since the machine started, including the time that it slept.
#[cfg(target_os = "linux")]
fn elapsed_ms() -> u64 {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ms = since.tv_sec.saturating_mul(1000).saturating_add(since.tv_nsec / 1_000_000);
    u64::try_from(ms).unwrap_or_default()
}

/// The time since the first call. The system decides whether it includes the time that the machine
/// slept.
#[cfg(not(target_os = "linux"))]
fn elapsed_ms() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "all other code gets this clock")]
    let now = Instant::now();
    let passed = now.saturating_duration_since(*BEGIN.get_or_init(|| now));
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

impl Clock for WatchedClock {
    fn now(&self) -> Timestamp {
        // If another thread checks for a jump, this one need not.
        let Ok(mut last) = self.last.try_lock() else { return SystemClock.now() };
        let reading = Reading::take();
        if let Some(jump) = last.replace(reading).and_then(|last| reading.jump_since(last)) {
            jump.log();
        }
        reading.time
    }

    fn elapsed_ms(&self) -> u64 {
        elapsed_ms()
    }
}

impl Reading {
    fn take() -> Self {
        Self { time: SystemClock.now(), elapsed_ms: elapsed_ms() }
    }

    fn jump_since(&self, last: Self) -> Option<Jump> {
        let expected = last.time.plus_ms(self.elapsed_ms.saturating_sub(last.elapsed_ms));
        let by = Duration::from_millis(self.time.as_ms().abs_diff(expected.as_ms()));
        let jump = if self.time > expected { Jump::Forward(by) } else { Jump::Back(by) };
        (by > JUMP).then_some(jump)
    }
}

impl Jump {
    fn log(self) {
        match self {
            Self::Forward(by) => tracing::warn!(
                seconds = by.as_secs(),
                "the clock went forward: the store follows up to an hour, and otherwise continues with elapsed time"
            ),
            Self::Back(by) => tracing::warn!(
                seconds = by.as_secs(),
                "the clock was set back: the store waits up to an hour for it, and otherwise continues with elapsed time"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// The jump when the time of day moves from one hour after the epoch to `time`, within
    /// `passed`.
    fn jump(time: Duration, passed: Duration) -> Option<Jump> {
        let last = Reading { time: Timestamp::from_ms(3_600_000), ..Reading::take() };
        let time = Timestamp::from_ms(u64::try_from(time.as_millis()).unwrap());
        let elapsed_ms = last.elapsed_ms + u64::try_from(passed.as_millis()).unwrap();
        Reading { time, elapsed_ms }.jump_since(last)
    }

    #[test]
    fn up_to_a_minute_is_no_jump() {
        for passed in [Duration::ZERO, Duration::from_millis(1), JUMP, 100 * HOUR] {
            assert_eq!(jump(HOUR + passed, passed), None);
            assert_eq!(jump(HOUR + passed + JUMP, passed), None);
            assert_eq!(jump(HOUR + passed - JUMP, passed), None);
        }
    }

    #[test]
    fn more_than_a_minute_is_a_jump() {
        let more = JUMP + Duration::from_millis(1);
        for passed in [Duration::ZERO, JUMP, 100 * HOUR] {
            assert_eq!(jump(HOUR + passed + more, passed), Some(Jump::Forward(more)));
            assert_eq!(jump(HOUR + passed - more, passed), Some(Jump::Back(more)));
        }
        assert_eq!(jump(4 * HOUR, Duration::ZERO), Some(Jump::Forward(3 * HOUR)));
        assert_eq!(jump(Duration::ZERO, HOUR), Some(Jump::Back(2 * HOUR)));
    }

    #[test]
    fn elapsed_time_grows() {
        let begin = SystemClock.elapsed_ms();
        std::thread::sleep(Duration::from_millis(5));
        assert!(SystemClock.elapsed_ms() >= begin + 4);
    }

    #[test]
    fn a_jump_is_logged_once() {
        let clock = WatchedClock::default();
        clock.now();
        let mut last = clock.last.lock().unwrap();
        let real = last.unwrap();
        *last = Some(Reading { time: Timestamp::from_ms(0), ..real });
        drop(last);
        assert!(clock.now() >= real.time);
        let after = clock.last.lock().unwrap().unwrap();
        assert_eq!(Reading::take().jump_since(after), None, "the clock compares with its last reading");
    }
}
