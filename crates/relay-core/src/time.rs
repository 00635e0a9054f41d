//! Points in time, the clock that tells them, and the time of a store. Nothing here reads the
//! machine's clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// So far the machine's clock may be from the time of a store, and is followed: whoever keeps
/// clocks right moves them by less, and the time of day that a country takes for its own moves by
/// as much. An hour late or early is nothing to a message that lives for days.
const TRUSTED_MS: u64 = 60 * 60 * 1000;

/// So far ahead it is followed while it has not agreed with the store since that was opened: a
/// relay that was down over a weekend, or a week of holidays, finds that so much time is over. It
/// is half of the two weeks that messages live, so that a clock that is wrong by no more than this
/// lets none of them expire that came lately.
const TRUSTED_AT_START_MS: u64 = 7 * 24 * TRUSTED_MS;

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Tells what time it is. A relay is handed one, so that tests can move it by hand.
pub trait Clock: Send + Sync + 'static {
    /// The time of day. It may be wrong, and be set, also back.
    fn now(&self) -> Timestamp;

    /// How many milliseconds have passed since some moment, which is the same for as long as this
    /// clock exists. It goes on with the time that passes, also while the machine sleeps if it can
    /// tell, and never runs backwards, however [`Clock::now`] is set.
    fn elapsed_ms(&self) -> u64;
}

/// The time of a store, by which its items expire. It follows the machine's clock, unless that is
/// far from it: then it goes on with the time that passes, so that a clock that is wrong costs
/// nobody his mail, and lets none live for ever once it is right.
///
/// It never runs backwards, and stands still for an hour at most: while the clock, which was set
/// back by no more than that, catches up.
pub struct StoreClock {
    clock: Arc<dyn Clock>,
    /// How far the time of the store is ahead of [`Clock::elapsed_ms`].
    ahead_ms: AtomicI64,
    /// The latest time that was told.
    latest_ms: AtomicU64,
    /// Whether the machine's clock was followed since the start.
    has_agreed: AtomicBool,
}

/// The time of a store and that of the machine's clock, at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The time of the store.
    pub now: Timestamp,
    /// What the machine's clock shows.
    pub wall: Timestamp,
}

impl StoreClock {
    /// The time of a store that knows none, or has nothing to lose: it begins with what the
    /// machine's clock shows.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self::from(clock, now, true)
    }

    /// The time of a store that has come to `known` when it was last written. If `trust_clock`, it
    /// begins with what the machine's clock shows, however much later that is.
    pub fn resume(clock: Arc<dyn Clock>, known: Timestamp, trust_clock: bool) -> Self {
        let wall = clock.now();
        if trust_clock && wall >= known {
            Self::from(clock, wall, true)
        } else {
            Self::from(clock, known, false)
        }
    }

    fn from(clock: Arc<dyn Clock>, now: Timestamp, has_agreed: bool) -> Self {
        let ahead_ms = difference_ms(now.as_ms(), clock.elapsed_ms());
        Self {
            clock,
            ahead_ms: AtomicI64::new(ahead_ms),
            latest_ms: AtomicU64::new(now.as_ms()),
            has_agreed: AtomicBool::new(has_agreed),
        }
    }

    /// The time of the store.
    pub fn now(&self) -> Timestamp {
        self.read().now
    }

    /// The time of the store, and what the machine's clock shows.
    pub fn read(&self) -> Reading {
        // In this order: should the thread rest in between, the clock seems to be slow, and nothing
        // is early.
        let wall_ms = self.clock.now().as_ms();
        let elapsed_ms = self.clock.elapsed_ms();
        let ahead_ms = self.ahead_ms.load(Ordering::Acquire);
        let passed_ms = elapsed_ms.saturating_add_signed(ahead_ms);
        let now_ms = passed_ms.max(self.latest_ms.load(Ordering::Relaxed));
        let is_followed = self.is_trusted(difference_ms(wall_ms, now_ms));
        if is_followed {
            self.has_agreed.store(true, Ordering::Relaxed);
            let follow_ms = difference_ms(wall_ms, elapsed_ms);
            if follow_ms != ahead_ms {
                // Who was faster has seen more than what this goes by.
                let _: Result<i64, i64> =
                    self.ahead_ms.compare_exchange(ahead_ms, follow_ms, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
        let now_ms = if is_followed { wall_ms } else { passed_ms };
        let now_ms = self.latest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms);
        Reading { now: Timestamp::from_ms(now_ms), wall: Timestamp::from_ms(wall_ms) }
    }

    /// Whether a clock is followed that is so far ahead.
    fn is_trusted(&self, offset_ms: i64) -> bool {
        let ahead_ms_max =
            if self.has_agreed.load(Ordering::Relaxed) { TRUSTED_MS } else { TRUSTED_AT_START_MS };
        let bound_ms = if offset_ms < 0 { TRUSTED_MS } else { ahead_ms_max };
        offset_ms.unsigned_abs() <= bound_ms
    }
}

impl fmt::Debug for StoreClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreClock").field("latest_ms", &self.latest_ms).finish_non_exhaustive()
    }
}

impl Reading {
    /// How far the machine's clock is ahead of the time of the store, in milliseconds.
    pub const fn offset_ms(self) -> i64 {
        difference_ms(self.wall.as_ms(), self.now.as_ms())
    }

    /// Whether the machine's clock is so far from the time of the store that it is not followed.
    pub const fn disagrees(self) -> bool {
        self.offset_ms().unsigned_abs() > TRUSTED_MS
    }

    /// A time of the store as it is told to others, who go by clocks like that of the machine.
    #[must_use]
    pub const fn outside(self, time: Timestamp) -> Timestamp {
        if self.disagrees() { time.shifted_ms(self.offset_ms()) } else { time }
    }

    /// A time that others have told, as time of the store.
    #[must_use]
    pub const fn inside(self, time: Timestamp) -> Timestamp {
        if self.disagrees() { time.shifted_ms(self.offset_ms().saturating_neg()) } else { time }
    }
}

impl Timestamp {
    /// The time `ms` milliseconds after the Unix epoch.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The time `ms` milliseconds later; the end of time when that cannot be counted.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The time `ms` milliseconds later, or earlier; the nearest there is when that cannot be
    /// counted.
    const fn shifted_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add_signed(ms))
    }
}

/// How much larger `a` is than `b`; the nearest there is when that cannot be counted.
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

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    /// 14 November 2023.
    const START_MS: u64 = 1_700_000_000_000;
    const START: Timestamp = Timestamp::from_ms(START_MS);
    /// 1 January 2200.
    const FAR_MS: u64 = 7_258_118_400_000;

    /// A clock moved by hand.
    struct Hands {
        wall_ms: AtomicU64,
        elapsed_ms: AtomicU64,
    }

    impl Hands {
        fn new() -> Self {
            Self { wall_ms: AtomicU64::new(START_MS), elapsed_ms: AtomicU64::new(0) }
        }

        fn set(&self, time: Timestamp) {
            self.wall_ms.store(time.as_ms(), Ordering::Relaxed);
        }

        fn advance_ms(&self, ms: u64) {
            self.elapsed_ms.fetch_add(ms, Ordering::Relaxed);
            self.wall_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            at(self.wall_ms.load(Ordering::Relaxed))
        }

        fn elapsed_ms(&self) -> u64 {
            self.elapsed_ms.load(Ordering::Relaxed)
        }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn new() -> (Arc<Hands>, StoreClock) {
        let clock = Arc::new(Hands::new());
        let store = StoreClock::new(clock.clone());
        (clock, store)
    }

    /// A store that was last written at the start, while the machine shows `wall_ms`.
    fn resumed(wall_ms: u64, trust_clock: bool) -> (Arc<Hands>, StoreClock) {
        let clock = Arc::new(Hands::new());
        clock.set(at(wall_ms));
        let store = StoreClock::resume(clock.clone(), START, trust_clock);
        (clock, store)
    }

    #[test]
    fn it_follows_a_clock_that_is_moved_a_little() {
        let (clock, store) = new();
        for (wall_ms, now_ms) in
            [(0, 0), (5, 5), (HOUR_MS + 5, HOUR_MS + 5), (5, HOUR_MS + 5), (HOUR_MS + 6, HOUR_MS + 6)]
        {
            clock.set(at(START_MS + wall_ms));
            assert_eq!(store.now(), at(START_MS + now_ms), "{wall_ms}");
        }
    }

    #[test]
    fn it_stands_still_until_a_clock_that_was_set_back_a_little_has_caught_up() {
        let (clock, store) = new();
        clock.set(at(START_MS - HOUR_MS));
        for (by_ms, now_ms) in [(HOUR_MS - 1, 0), (1, 0), (7, 7)] {
            clock.advance_ms(by_ms);
            assert_eq!(store.now(), at(START_MS + now_ms));
        }
    }

    #[test]
    fn it_never_stands_still_for_longer_than_an_hour() {
        let (clock, store) = new();
        for _ in 0..5 {
            clock.set(at(clock.now().as_ms() - HOUR_MS * 9 / 10));
            store.now();
        }
        clock.advance_ms(HOUR_MS);
        assert!(store.now() > START);
    }

    #[test]
    fn a_jump_by_more_is_not_followed_and_heals_when_it_is_taken_back() {
        for wall_ms in [START_MS + HOUR_MS + 1, START_MS + 2 * DAY_MS, FAR_MS, START_MS - HOUR_MS - 1, 0] {
            let (clock, store) = new();
            clock.set(at(wall_ms));
            let reading = store.read();
            assert_eq!((reading.now, reading.wall), (START, at(wall_ms)));
            assert!(reading.disagrees());
            clock.advance_ms(9 * DAY_MS);
            assert_eq!(store.now(), at(START_MS + 9 * DAY_MS), "it goes on with the time that passes");
            clock.set(at(START_MS + 9 * DAY_MS + 3));
            let reading = store.read();
            assert!(reading.now == reading.wall && !reading.disagrees());
        }
    }

    #[test]
    fn a_week_is_believed_at_a_start_and_an_hour_from_then_on() {
        let (clock, store) = resumed(START_MS + 7 * DAY_MS, false);
        assert_eq!(store.now(), clock.now());
        clock.set(at(clock.now().as_ms() + DAY_MS));
        assert_eq!(store.now(), at(START_MS + 7 * DAY_MS));

        let (clock, store) = resumed(START_MS + 7 * DAY_MS + 1, false);
        assert_eq!(store.now(), START);
        clock.set(at(START_MS + 7 * DAY_MS));
        assert_eq!(store.now(), clock.now(), "it has not agreed before");
    }

    #[test]
    fn a_start_with_a_wrong_clock_waits_for_the_right_one() {
        for wrong_ms in [0, START_MS - 2 * HOUR_MS, FAR_MS] {
            let (clock, store) = resumed(wrong_ms, false);
            assert_eq!(store.now(), START);
            clock.advance_ms(5_000);
            assert_eq!(store.now(), at(START_MS + 5_000));
            // It was off for two days.
            clock.set(at(START_MS + 2 * DAY_MS));
            assert_eq!(store.now(), clock.now());
        }
    }

    #[test]
    fn who_says_that_the_clock_is_right_is_believed() {
        let (clock, store) = resumed(FAR_MS, true);
        assert_eq!(store.now(), clock.now());
        let (_, store) = resumed(START_MS - DAY_MS, true);
        assert_eq!(store.now(), START, "but time does not run backwards");
    }

    #[test]
    fn others_are_told_times_by_the_clock_of_the_machine() {
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
        assert_eq!((reading.outside(at(5)), reading.inside(at(5))), (at(5), at(5)), "as long as it follows");
    }

    #[test]
    fn the_ends_of_time_are_no_end() {
        for wall_ms in [0, u64::MAX] {
            let clock = Arc::new(Hands::new());
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
