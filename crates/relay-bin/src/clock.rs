//! The machine's clocks. The one place where this workspace asks what time it is, and how much has
//! passed. It changes no time, and waits for none.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_core::{Clock, Timestamp};

/// The time of day may differ from the time that has passed by this much from one look to the next.
/// Who keeps clocks right moves them by less.
const JUMP: Duration = Duration::from_secs(60);

/// The machine's clock. It may be set, or wrong; the stores see to it that this does no harm.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The same, and the operator hears of it when it jumps.
#[derive(Debug, Default)]
pub(crate) struct WatchedClock {
    before: Mutex<Option<Reading>>,
}

/// Both clocks at once.
#[derive(Clone, Copy, Debug)]
struct Reading {
    time: Timestamp,
    elapsed_ms: u64,
}

/// By how much the time of day has moved beside the time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jump {
    Forward(Duration),
    Back(Duration),
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else is handed")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn elapsed_ms(&self) -> u64 {
        elapsed_ms()
    }
}

/// Since the machine was started. It counts the time that the machine slept.
#[cfg(target_os = "linux")]
fn elapsed_ms() -> u64 {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ms = since.tv_sec.saturating_mul(1000).saturating_add(since.tv_nsec / 1_000_000);
    u64::try_from(ms).unwrap_or_default()
}

/// Since it was first asked for. Whether it counts the time that the machine slept is the system's
/// affair.
#[cfg(not(target_os = "linux"))]
fn elapsed_ms() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the time of day is held against it")]
    let now = Instant::now();
    let passed = now.saturating_duration_since(*BEGIN.get_or_init(|| now));
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

impl Clock for WatchedClock {
    fn now(&self) -> Timestamp {
        // Who comes while another one looks is told the time and nothing else.
        let Ok(mut before) = self.before.try_lock() else { return SystemClock.now() };
        let reading = Reading::take();
        if let Some(jump) = before.replace(reading).and_then(|before| reading.jump_since(before)) {
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

    fn jump_since(&self, before: Self) -> Option<Jump> {
        let expected = before.time.plus_ms(self.elapsed_ms.saturating_sub(before.elapsed_ms));
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
                "the clock went forward: up to an hour the store follows it, and beyond that goes on with the time that passes"
            ),
            Self::Back(by) => tracing::warn!(
                seconds = by.as_secs(),
                "the clock was set back: up to an hour the store waits until it has caught up, and beyond that goes on with the time that passes"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// What is told when the time of day moves from one hour after the epoch to `time`, while
    /// `passed` goes by.
    fn jump(time: Duration, passed: Duration) -> Option<Jump> {
        let before = Reading { time: Timestamp::from_ms(3_600_000), ..Reading::take() };
        let time = Timestamp::from_ms(u64::try_from(time.as_millis()).unwrap());
        let elapsed_ms = before.elapsed_ms + u64::try_from(passed.as_millis()).unwrap();
        Reading { time, elapsed_ms }.jump_since(before)
    }

    #[test]
    fn a_clock_that_goes_as_time_does_has_not_jumped() {
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
    fn the_time_that_passes_goes_on() {
        let before = SystemClock.elapsed_ms();
        std::thread::sleep(Duration::from_millis(5));
        assert!(SystemClock.elapsed_ms() >= before + 4);
    }

    #[test]
    fn a_jump_is_told_once() {
        let clock = WatchedClock::default();
        clock.now();
        let mut before = clock.before.lock().unwrap();
        let real = before.unwrap();
        *before = Some(Reading { time: Timestamp::from_ms(0), ..real });
        drop(before);
        assert!(clock.now() >= real.time);
        let after = clock.before.lock().unwrap().unwrap();
        assert_eq!(Reading::take().jump_since(after), None, "what it has seen is where it goes on from");
    }
}
