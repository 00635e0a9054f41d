//! What holds for any policy and any schedule of requests, on one thread.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod model;

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use relay_ratelimit::{Decision, Endpoint, Limiter, Policy, Refusal};

use crate::model::Model;

const ENDPOINT_NAMES: [&str; 2] = ["push", "pull"];

/// A policy in plain numbers.
#[derive(Debug, Clone)]
struct Numbers {
    burst: u32,
    per_second: u32,
    endpoints: [u32; 2],
    ban_threshold: u32,
    ban: Duration,
    keys: usize,
}

/// One request: how long after the one before, whose, and of which endpoint.
#[derive(Debug, Clone, Copy)]
struct Request {
    step: Duration,
    key: u8,
    endpoint: Option<usize>,
}

struct Subject {
    limiter: Limiter<u8>,
    endpoints: [Endpoint; 2],
}

impl Subject {
    fn new(numbers: &Numbers) -> Self {
        let mut policy = Policy::new(positive(numbers.burst), positive(numbers.per_second));
        policy.ban_threshold = positive(numbers.ban_threshold);
        policy.ban = numbers.ban;
        policy.tracked_keys_max = NonZeroUsize::new(numbers.keys).unwrap();
        let [push, pull] = ENDPOINT_NAMES;
        let [push_rate, pull_rate] = numbers.endpoints.map(positive);
        let endpoints = [policy.add_endpoint(push, push_rate), policy.add_endpoint(pull, pull_rate)];
        Self { limiter: Limiter::new(policy), endpoints }
    }

    fn check(&self, key: u8, endpoint: Option<usize>, now: Duration) -> Decision {
        self.limiter.check(&key, endpoint.map(|at| self.endpoints[at]), now)
    }

    /// A fresh subject after these requests, and the time of the last.
    fn after(numbers: &Numbers, requests: &[Request]) -> (Self, Duration) {
        let subject = Self::new(numbers);
        let mut now = Duration::ZERO;
        for request in requests {
            now += request.step;
            let _ = subject.check(request.key, request.endpoint, now);
        }
        (subject, now)
    }
}

fn positive(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn rates() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 1..4_u32, 3 => 1..30_u32, 1 => 1..=u32::MAX]
}

fn numbers(keys: usize) -> impl Strategy<Value = Numbers> {
    let bans = prop_oneof![Just(0), 1..3_000_u64, Just(300_000)].prop_map(Duration::from_millis);
    (1..8_u32, rates(), [rates(), rates()], 1..6_u32, bans, 1..=keys).prop_map(
        |(burst, per_second, endpoints, ban_threshold, ban, keys)| Numbers {
            burst,
            per_second,
            endpoints,
            ban_threshold,
            ban,
            keys,
        },
    )
}

fn without_bans() -> impl Strategy<Value = Numbers> {
    numbers(1).prop_map(|numbers| Numbers { ban: Duration::ZERO, ..numbers })
}

fn steps() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => 1..50_000_000_u64,
        3 => 1..2_000_000_000_u64,
        1 => 1..70_000_000_000_u64,
        9 => 1..3_u64,
    ]
    .prop_map(Duration::from_nanos)
}

fn requests(keys: u8) -> impl Strategy<Value = Vec<Request>> {
    let request = (steps(), 0..keys, prop::option::of(0..ENDPOINT_NAMES.len()))
        .prop_map(|(step, key, endpoint)| Request { step, key, endpoint });
    vec(request, 1..200)
}

/// No stretch between two of these times holds more than `burst + per_second * length`.
fn assert_within(mut passed: Vec<Duration>, burst: u32, per_second: u32) -> Result<(), TestCaseError> {
    passed.sort();
    for (first, from) in passed.iter().enumerate() {
        for (last, to) in passed.iter().enumerate().skip(first) {
            let count = (last - first + 1) as u128;
            let earned = u128::from(per_second) * (*to - *from).as_nanos();
            prop_assert!(
                count * 1_000_000_000 <= u128::from(burst) * 1_000_000_000 + earned,
                "{count} passed between {from:?} and {to:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_stretch_of_time_sees_too_much(
        numbers in numbers(1),
        requests in requests(1),
        // Threads read the clock and then race: a time may be handed in this much late.
        lateness in vec(prop_oneof![2 => Just(0), 1 => 0..3_000_000_000_u64], 200),
        at_once in 1..12_usize,
    ) {
        let subject = Subject::new(&numbers);
        let mut passed: [Vec<Duration>; 3] = Default::default();
        let mut now = Duration::ZERO;
        for (request, late) in requests.iter().zip(lateness) {
            now += request.step;
            let time = now.saturating_sub(Duration::from_nanos(late));
            for _ in 0..at_once {
                if subject.check(request.key, request.endpoint, time) == Decision::Allowed {
                    passed[2].push(time);
                    request.endpoint.into_iter().for_each(|at| passed[at].push(time));
                }
            }
        }
        for (passed, per_second) in passed.into_iter().zip(numbers.endpoints.into_iter().chain([numbers.per_second])) {
            assert_within(passed, numbers.burst, per_second)?;
        }
    }

    #[test]
    fn retry_after_is_honest(numbers in without_bans(), requests in requests(1)) {
        // The schedule is followed by a burst, so that it ends in a refusal.
        let last = *requests.last().unwrap();
        let burst = std::iter::repeat_n(Request { step: Duration::ZERO, ..last }, numbers.burst as usize);
        let requests: Vec<_> = requests.into_iter().chain(burst).collect();
        let retry = |early: Duration| {
            let (subject, now) = Subject::after(&numbers, &requests);
            match subject.check(last.key, last.endpoint, now) {
                Decision::Refused(Refusal { retry_after, .. }) => {
                    subject.check(last.key, last.endpoint, now + retry_after - early) == Decision::Allowed
                }
                Decision::Allowed => panic!("more than a burst passed at once"),
            }
        };
        prop_assert!(retry(Duration::ZERO), "passes when told");
        prop_assert!(!retry(Duration::from_nanos(1)), "and not before");
    }

    #[test]
    fn a_flood_forgets_no_ban_and_outgrows_no_bound(
        numbers in numbers(6),
        banned in 1..6_u8,
        flood in vec((10..=255_u8, 0..1_000_000_u64), 1..300),
    ) {
        let banned = banned.min(numbers.keys as u8);
        let numbers = Numbers { ban: Duration::from_secs(3600), per_second: 1, ..numbers };
        let subject = Subject::new(&numbers);
        for key in 0..banned {
            for _ in 0..numbers.burst + numbers.ban_threshold {
                let _ = subject.check(key, None, Duration::ZERO);
            }
        }
        let mut now = Duration::ZERO;
        for (key, step) in flood {
            now += Duration::from_nanos(step);
            let _ = subject.check(key, None, now);
            prop_assert!(subject.limiter.tracked() <= numbers.keys);
        }
        for key in 0..banned {
            let Decision::Refused(refusal) = subject.check(key, None, now) else { panic!("the ban was washed off") };
            prop_assert!(refusal.banned);
            prop_assert_eq!(refusal.retry_after, numbers.ban - now);
        }
    }

    #[test]
    fn a_naive_model_agrees(numbers in numbers(5), requests in requests(8)) {
        let subject = Subject::new(&numbers);
        let mut model = Model::new(numbers);
        let mut now = Duration::ZERO;
        for request in requests {
            now += request.step;
            let expected = model.check(request.key, request.endpoint, now);
            prop_assert_eq!(subject.check(request.key, request.endpoint, now), expected, "at {:?}", now);
            prop_assert_eq!(subject.limiter.tracked(), model.tracked());
        }
    }
}
