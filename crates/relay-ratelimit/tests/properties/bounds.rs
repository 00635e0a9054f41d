//! Tests the upper bounds in the crate's documentation, for any schedule and with clients that
//! hang up.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use relay_ratelimit::{Decision, Reservation};

use crate::schedule::{Event, Numbers, Op, Subject, events, requests, without_bans};

/// A request that passed or will pass.
#[derive(Debug, Clone, Copy)]
struct Passing {
    asked: Duration,
    passes: Duration,
    endpoint: Option<usize>,
}

/// The requests of one key.
struct KeyRequests {
    subject: Subject,
    passing: Vec<Passing>,
    /// Indices in `passing`.
    waiting: Vec<(usize, Reservation)>,
    /// Indices in `passing`.
    left: Vec<usize>,
}

impl KeyRequests {
    fn new(numbers: &Numbers) -> Self {
        Self { subject: Subject::new(numbers), passing: Vec::new(), waiting: Vec::new(), left: Vec::new() }
    }

    fn ask(&mut self, endpoint: Option<usize>, now: Duration) {
        let after = match self.subject.check(0, endpoint, now) {
            Decision::Refused(_) => return,
            Decision::Allowed(_) => Duration::ZERO,
            Decision::Wait(wait) => {
                self.waiting.push((self.passing.len(), wait.reservation));
                wait.after
            }
        };
        self.passing.push(Passing { asked: now, passes: now + after, endpoint });
    }

    fn leave(&mut self, which: usize, now: Duration) {
        self.waiting.retain(|&(at, _)| self.passing[at].passes > now);
        if !self.waiting.is_empty() {
            let (at, reservation) = self.waiting.swap_remove(which % self.waiting.len());
            self.subject.limiter.give_back(&0, reservation, now);
            self.left.push(at);
        }
    }

    /// The times of the requests that did not leave, per endpoint, and then of all.
    fn by_bucket(&self, time: impl Fn(&Passing) -> Duration) -> [Vec<Duration>; 3] {
        let mut times: [Vec<Duration>; 3] = Default::default();
        for (at, passing) in self.passing.iter().enumerate() {
            if !self.left.contains(&at) {
                passing.endpoint.into_iter().for_each(|endpoint| times[endpoint].push(time(passing)));
                times[2].push(time(passing));
            }
        }
        times
    }

    fn assert_within(&self, numbers: &Numbers, slack: Duration, more: u32) -> Result<(), TestCaseError> {
        let rates = numbers.endpoints.into_iter().chain([numbers.per_second]);
        let asked = self.by_bucket(|passing| passing.asked);
        let passes = self.by_bucket(|passing| passing.passes);
        for ((asked, passes), per_second) in asked.into_iter().zip(passes).zip(rates) {
            assert_within(asked, numbers.burst + more, per_second, slack)?;
            assert_within(passes, numbers.burst + more, per_second, slack)?;
        }
        Ok(())
    }
}

/// Between any two of these times, at most `burst + per_second * (length + slack)` requests pass.
fn assert_within(
    mut times: Vec<Duration>,
    burst: u32,
    per_second: u32,
    slack: Duration,
) -> Result<(), TestCaseError> {
    times.sort();
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            let count = (last - first + 1) as u128;
            let earned = u128::from(per_second) * (*to - *from + slack).as_nanos();
            prop_assert!(
                count * 1_000_000_000 <= u128::from(burst) * 1_000_000_000 + earned,
                "{count} passed between {from:?} and {to:?}"
            );
        }
    }
    Ok(())
}

fn small(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().take(60).collect()
}

proptest! {
    #[test]
    fn no_period_exceeds_the_bound(
        numbers in without_bans(),
        events in requests(),
        // Threads race after they read the clock, so a time may be this late.
        lateness in vec(prop_oneof![2 => Just(0), 1 => 0..3_000_000_000_u64], 100),
    ) {
        let mut key = KeyRequests::new(&numbers);
        let mut now = Duration::ZERO;
        for (Event { step, op, .. }, late) in small(events).into_iter().zip(lateness) {
            now += step;
            let time = now.saturating_sub(Duration::from_nanos(late));
            match op {
                Op::Request { endpoint, times } => (0..times).for_each(|_| key.ask(endpoint, time)),
                Op::Charge { bytes } => key.subject.limiter.charge_bytes(&0, bytes, time),
                Op::Connect { .. } | Op::Leave { .. } => {}
            }
        }
        key.assert_within(&numbers, numbers.max_wait, 0)?;
    }

    #[test]
    fn requests_that_wait_for_one_bucket_pass_at_its_rate(
        numbers in without_bans(),
        events in requests(),
    ) {
        let mut key = KeyRequests::new(&numbers);
        let mut now = Duration::ZERO;
        for Event { step, op, .. } in small(events) {
            now += step;
            if let Op::Request { times, .. } = op {
                (0..times).for_each(|_| key.ask(None, now));
            }
        }
        let [.., all] = key.by_bucket(|passing| passing.passes);
        assert_within(all, numbers.burst, numbers.per_second, Duration::from_nanos(1))?;
    }

    #[test]
    fn reservations_are_reused_at_most_once(numbers in without_bans(), events in events(1)) {
        let mut key = KeyRequests::new(&numbers);
        let mut now = Duration::ZERO;
        for Event { step, op, .. } in events.into_iter().take(100) {
            now += step;
            match op {
                Op::Request { endpoint, times } => (0..times).for_each(|_| key.ask(endpoint, now)),
                Op::Leave { which } => (0..10).for_each(|turn| key.leave(which + turn, now)),
                Op::Charge { .. } | Op::Connect { .. } => {}
            }
        }
        key.assert_within(&numbers, 2 * numbers.max_wait, 1)?;
    }

    #[test]
    fn requests_pass_in_order_of_arrival(numbers in without_bans(), events in events(1)) {
        let mut key = KeyRequests::new(&numbers);
        let mut now = Duration::ZERO;
        for Event { step, op, .. } in events.into_iter().take(100) {
            now += step;
            match op {
                Op::Request { times, .. } => (0..times).for_each(|_| key.ask(Some(0), now)),
                Op::Charge { bytes } => key.subject.limiter.charge_bytes(&0, bytes.min(1000), now),
                Op::Leave { .. } | Op::Connect { .. } => {}
            }
        }
        prop_assert!(key.passing.iter().map(|passing| passing.passes).is_sorted());
        prop_assert!(key.passing.iter().all(|passing| passing.passes - passing.asked <= numbers.max_wait));
    }
}
