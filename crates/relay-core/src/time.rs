//! Points in time, the clock interface, and the clock of a store. This file never reads the
//! machine's clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// How far the machine's clock may be from the store's time while the store follows it.
///
/// Time synchronisation moves a clock by less, and daylight saving time by as much. An error of an
/// hour is harmless for messages that live for days.
const TRUSTED_MS: u64 = 60 * 60 * 1000;

/// How far ahead the machine's clock may be until the store has followed it once since the start.
///
/// A relay that was down for a week finds that much time elapsed. It is half of the default TTL of
/// two weeks. So a clock that is wrong by no more than this never expires a recent message.
const TRUSTED_AT_START_MS: u64 = 7 * 24 * TRUSTED_MS;

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// A source of time. The caller passes one to a relay, so that tests can control the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall-clock time. It may be wrong, and may be set forwards or back.
    fn now(&self) -> Timestamp;

    /// Milliseconds since a fixed moment in the life of this clock. They count elapsed time, if
    /// possible also while the machine sleeps. They never decrease, even if [`Clock::now`] is set.
    fn elapsed_ms(&self) -> u64;
}

/// The clock of a store, by which its items expire.
///
/// It follows the machine's clock while the two are close. Otherwise it advances with the elapsed
/// time. So a wrong clock neither expires items early nor keeps them for ever.
///
/// It never runs backwards. After the machine's clock is set back by up to an hour, the store's
/// clock stands still until the machine's clock catches up.
pub struct StoreClock {
    clock: Arc<dyn Clock>,
    /// How far the store's time is ahead of [`Clock::elapsed_ms`].
    ahead_ms: AtomicI64,
    /// The latest time that [`StoreClock::read`] returned.
    latest_ms: AtomicU64,
    /// Whether the store has followed the machine's clock since the start.
    has_agreed: AtomicBool,
}

/// The store's time and the machine's time at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The store's time.
    pub now: Timestamp,
    /// The machine's time.
    pub wall: Timestamp,
}

impl StoreClock {
    /// The clock of an empty store. It starts at the machine's time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self::start_at(clock, now, true)
    }

    /// The clock of a store that was last written at `known`. With `trust_clock`, it starts at the
    /// machine's time, however much later that is.
    pub fn resume(clock: Arc<dyn Clock>, known: Timestamp, trust_clock: bool) -> Self {
        let wall = clock.now();
        let is_trusted = trust_clock && wall >= known;
        Self::start_at(clock, if is_trusted { wall } else { known }, is_trusted)
    }

    fn start_at(clock: Arc<dyn Clock>, now: Timestamp, has_agreed: bool) -> Self {
        let ahead_ms = difference_ms(now.as_ms(), clock.elapsed_ms());
        Self {
            clock,
            ahead_ms: AtomicI64::new(ahead_ms),
            latest_ms: AtomicU64::new(now.as_ms()),
            has_agreed: AtomicBool::new(has_agreed),
        }
    }

    /// The store's time.
    pub fn now(&self) -> Timestamp {
        self.read().now
    }

    /// Reads the store's clock and the machine's clock.
    pub fn read(&self) -> Reading {
        // The order matters: if the thread pauses in between, the machine's clock seems slow, and
        // no item expires early.
        let wall_ms = self.clock.now().as_ms();
        let elapsed_ms = self.clock.elapsed_ms();
        let ahead_ms = self.ahead_ms.load(Ordering::Acquire);
        let advanced_ms = elapsed_ms.saturating_add_signed(ahead_ms);
        let now_ms = advanced_ms.max(self.latest_ms.load(Ordering::Relaxed));
        let is_followed = self.is_trusted(difference_ms(wall_ms, now_ms));
        if is_followed {
            self.has_agreed.store(true, Ordering::Relaxed);
            let follow_ms = difference_ms(wall_ms, elapsed_ms);
            if follow_ms != ahead_ms {
                // If this fails, another thread stored a value from a later reading.
                let _: Result<i64, i64> =
                    self.ahead_ms.compare_exchange(ahead_ms, follow_ms, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
        let now_ms = if is_followed { wall_ms } else { advanced_ms };
        let now_ms = self.latest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms);
        Reading { now: Timestamp::from_ms(now_ms), wall: Timestamp::from_ms(wall_ms) }
    }

    /// Whether the store follows a machine's clock that is `offset_ms` ahead.
    fn is_trusted(&self, offset_ms: i64) -> bool {
        let is_start = !self.has_agreed.load(Ordering::Relaxed);
        let max_ms = if is_start && offset_ms > 0 { TRUSTED_AT_START_MS } else { TRUSTED_MS };
        offset_ms.unsigned_abs() <= max_ms
    }
}

impl fmt::Debug for StoreClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreClock").field("latest_ms", &self.latest_ms).finish_non_exhaustive()
    }
}

impl Reading {
    /// How far the machine's time is ahead of the store's time, in milliseconds.
    pub const fn offset_ms(self) -> i64 {
        difference_ms(self.wall.as_ms(), self.now.as_ms())
    }

    /// Whether the machine's time is too far from the store's time to be followed.
    pub const fn disagrees(self) -> bool {
        self.offset_ms().unsigned_abs() > TRUSTED_MS
    }

    /// Converts store time to machine time, for clients, whose clocks are like the machine's.
    #[must_use]
    pub const fn outside(self, time: Timestamp) -> Timestamp {
        if self.disagrees() { time.shifted_ms(self.offset_ms()) } else { time }
    }

    /// Converts machine time, such as that of an import, to store time.
    #[must_use]
    pub const fn inside(self, time: Timestamp) -> Timestamp {
        if self.disagrees() { time.shifted_ms(self.offset_ms().saturating_neg()) } else { time }
    }
}

impl Timestamp {
    /// Creates the time from milliseconds since the Unix epoch.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The time `ms` milliseconds later. It saturates.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The time `ms` milliseconds later, or earlier if negative. It saturates.
    const fn shifted_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add_signed(ms))
    }
}

/// `a - b`. It saturates.
const fn difference_ms(a: u64, b: u64) -> i64 {
    match a.checked_signed_diff(b) {
        Some(difference) => difference,
        None if a > b => i64::MAX,
        None => i64::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    const START: Timestamp = ManualClock::START;
    const START_MS: u64 = START.as_ms();
    /// 1 January 2200.
    const FAR_MS: u64 = 7_258_118_400_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn new() -> (Arc<ManualClock>, StoreClock) {
        let clock = Arc::new(ManualClock::new());
        let store = StoreClock::new(clock.clone());
        (clock, store)
    }

    /// A store that was last written at `START`, while the machine's clock shows `wall_ms`.
    fn resumed(wall_ms: u64, trust_clock: bool) -> (Arc<ManualClock>, StoreClock) {
        let clock = Arc::new(ManualClock::new());
        clock.set(at(wall_ms));
        let store = StoreClock::resume(clock.clone(), START, trust_clock);
        (clock, store)
    }

    #[test]
    fn a_small_step_of_the_machine_clock_is_followed() {
        let (clock, store) = new();
        for (wall_ms, now_ms) in
            [(0, 0), (5, 5), (HOUR_MS + 5, HOUR_MS + 5), (5, HOUR_MS + 5), (HOUR_MS + 6, HOUR_MS + 6)]
        {
            clock.set(at(START_MS + wall_ms));
            assert_eq!(store.now(), at(START_MS + now_ms), "{wall_ms}");
        }
    }

    #[test]
    fn it_stands_still_until_a_clock_that_was_set_back_catches_up() {
        let (clock, store) = new();
        clock.set(at(START_MS - HOUR_MS));
        for (by_ms, now_ms) in [(HOUR_MS - 1, 0), (1, 0), (7, 7)] {
            clock.advance_ms(by_ms);
            assert_eq!(store.now(), at(START_MS + now_ms));
        }
    }

    #[test]
    fn it_stands_still_for_an_hour_at_most() {
        let (clock, store) = new();
        for _ in 0..5 {
            clock.set(at(clock.now().as_ms() - HOUR_MS * 9 / 10));
            store.now();
        }
        clock.advance_ms(HOUR_MS);
        assert!(store.now() > START);
    }

    #[test]
    fn a_large_jump_is_not_followed_until_it_is_corrected() {
        for wall_ms in [START_MS + HOUR_MS + 1, START_MS + 2 * DAY_MS, FAR_MS, START_MS - HOUR_MS - 1, 0] {
            let (clock, store) = new();
            clock.set(at(wall_ms));
            let reading = store.read();
            assert_eq!((reading.now, reading.wall), (START, at(wall_ms)));
            assert!(reading.disagrees());
            clock.advance_ms(9 * DAY_MS);
            assert_eq!(store.now(), at(START_MS + 9 * DAY_MS), "it advances with the elapsed time");
            clock.set(at(START_MS + 9 * DAY_MS + 3));
            let reading = store.read();
            assert!(reading.now == reading.wall && !reading.disagrees());
        }
    }

    #[test]
    fn a_week_is_trusted_at_a_start_and_an_hour_afterwards() {
        let (clock, store) = resumed(START_MS + 7 * DAY_MS, false);
        assert_eq!(store.now(), clock.now());
        clock.set(at(clock.now().as_ms() + DAY_MS));
        assert_eq!(store.now(), at(START_MS + 7 * DAY_MS));

        let (clock, store) = resumed(START_MS + 7 * DAY_MS + 1, false);
        assert_eq!(store.now(), START);
        clock.set(at(START_MS + 7 * DAY_MS));
        assert_eq!(store.now(), clock.now(), "it has not followed the clock before");
    }

    #[test]
    fn a_start_with_a_wrong_clock_waits_for_the_correct_time() {
        for wrong_ms in [0, START_MS - 2 * HOUR_MS, FAR_MS] {
            let (clock, store) = resumed(wrong_ms, false);
            assert_eq!(store.now(), START);
            clock.advance_ms(5_000);
            assert_eq!(store.now(), at(START_MS + 5_000));
            // The machine was off for two days.
            clock.set(at(START_MS + 2 * DAY_MS));
            assert_eq!(store.now(), clock.now());
        }
    }

    #[test]
    fn trust_clock_accepts_any_later_time() {
        let (clock, store) = resumed(FAR_MS, true);
        assert_eq!(store.now(), clock.now());
        let (_, store) = resumed(START_MS - DAY_MS, true);
        assert_eq!(store.now(), START, "time never runs backwards");
    }

    #[test]
    fn outside_and_inside_convert_to_and_from_machine_time() {
        let (clock, store) = new();
        clock.set(at(START_MS + HOUR_MS + 1));
        let reading = store.read();
        assert_eq!(reading.outside(at(START_MS + 5)), at(START_MS + HOUR_MS + 6));
        assert_eq!(reading.inside(at(START_MS + HOUR_MS + 6)), at(START_MS + 5));
        clock.set(at(START_MS - HOUR_MS - 1));
        let reading = store.read();
        assert_eq!((reading.outside(at(5)), reading.inside(at(5))), (at(0), at(HOUR_MS + 6)));
        clock.set(at(START_MS - HOUR_MS));
        let reading = store.read();
        assert_eq!(
            (reading.outside(at(5)), reading.inside(at(5))),
            (at(5), at(5)),
            "no conversion while it follows the clock"
        );
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        for wall_ms in [0, u64::MAX] {
            let clock = Arc::new(ManualClock::new());
            clock.set(at(wall_ms));
            assert_eq!(StoreClock::resume(clock.clone(), at(5), false).now(), at(5));
            let store = StoreClock::new(clock.clone());
            let before = store.now();
            clock.set(at(u64::MAX - wall_ms));
            let reading = store.read();
            assert!(reading.now >= before && reading.disagrees());
            assert!(reading.outside(reading.now) >= at(0));
        }
    }
}
