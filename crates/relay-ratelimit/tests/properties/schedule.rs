//! Random policies and schedules for these tests.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use relay_ratelimit::{ByteRate, Decision, Endpoint, Limiter, Policy};

/// Requests to the first endpoint wait for bytes.
pub(crate) const ENDPOINT_NAMES: [&str; 2] = ["push", "pull"];

/// A policy in plain numbers.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
    pub(crate) endpoints: [u32; 2],
    pub(crate) max_wait: Duration,
    pub(crate) ban_threshold: u32,
    pub(crate) ban: Duration,
    /// Bytes per second, and the burst.
    pub(crate) bytes: Option<(u64, u64)>,
    pub(crate) keys: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The time since the previous event.
    pub(crate) step: Duration,
    pub(crate) key: u8,
    pub(crate) op: Op,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Request {
        endpoint: Option<usize>,
        times: u32,
    },
    Connect {
        times: u32,
    },
    Charge {
        bytes: u64,
    },
    /// One of the waiting requests hangs up.
    Leave {
        which: usize,
    },
}

pub(crate) struct Subject {
    pub(crate) limiter: Limiter<u8>,
    endpoints: [Endpoint; 2],
}

impl Numbers {
    pub(crate) fn rate_max(&self) -> u32 {
        self.endpoints.into_iter().fold(self.per_second, u32::max)
    }
}

impl Event {
    pub(crate) fn endpoint(&self) -> Option<usize> {
        match self.op {
            Op::Request { endpoint, .. } => endpoint,
            _ => None,
        }
    }
}

impl Subject {
    pub(crate) fn new(numbers: &Numbers) -> Self {
        let mut policy = Policy::new(positive(numbers.burst), positive(numbers.per_second));
        policy.max_wait = numbers.max_wait;
        policy.ban_threshold = positive(numbers.ban_threshold);
        policy.ban = numbers.ban;
        policy.bytes = numbers.bytes.map(|(per_second, burst)| {
            let [per_second, burst] = [per_second, burst].map(|number| NonZeroU64::new(number).unwrap());
            ByteRate { per_second, burst }
        });
        policy.tracked_keys_max = NonZeroUsize::new(numbers.keys).unwrap();
        let [push, pull] = ENDPOINT_NAMES;
        let [push_rate, pull_rate] = numbers.endpoints.map(positive);
        let endpoints =
            [policy.add_endpoint_with_debts(push, push_rate), policy.add_endpoint(pull, pull_rate)];
        Self { limiter: Limiter::new(policy), endpoints }
    }

    pub(crate) fn check(&self, key: u8, endpoint: Option<usize>, now: Duration) -> Decision {
        self.limiter.check(&key, endpoint.map(|at| self.endpoints[at]), now)
    }

    /// A new subject after these events, and the time of the last one.
    pub(crate) fn after(numbers: &Numbers, events: &[Event]) -> (Self, Duration) {
        let subject = Self::new(numbers);
        let mut now = Duration::ZERO;
        for Event { step, key, op } in events {
            now += *step;
            match *op {
                Op::Request { endpoint, times } => {
                    for _ in 0..times {
                        let _ = subject.check(*key, endpoint, now);
                    }
                }
                Op::Charge { bytes } => subject.limiter.charge_bytes(key, bytes, now),
                Op::Connect { .. } | Op::Leave { .. } => {}
            }
        }
        (subject, now)
    }
}

pub(crate) fn positive(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn rates() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 1..4_u32, 3 => 1..30_u32, 1 => 1..=u32::MAX]
}

fn waits() -> impl Strategy<Value = Duration> {
    prop_oneof![2 => Just(0), 3 => 1..3_000_000_000_u64, 1 => 1..20_000_000_000_u64]
        .prop_map(Duration::from_nanos)
}

pub(crate) fn numbers(keys: usize) -> impl Strategy<Value = Numbers> {
    let bans = prop_oneof![Just(0), 1..3_000_u64, Just(300_000)].prop_map(Duration::from_millis);
    let bytes = prop::option::of((1..100_000_u64, 1..100_000_u64));
    (1..8_u32, rates(), [rates(), rates()], waits(), 1..5_u32, bans, bytes, 1..=keys).prop_map(
        |(burst, per_second, endpoints, max_wait, ban_threshold, ban, bytes, keys)| Numbers {
            burst,
            per_second,
            endpoints,
            max_wait,
            ban_threshold,
            ban,
            bytes,
            keys,
        },
    )
}

pub(crate) fn without_bans() -> impl Strategy<Value = Numbers> {
    numbers(1).prop_map(|numbers| Numbers { ban: Duration::ZERO, ..numbers })
}

pub(crate) fn steps() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => 1..50_000_000_u64,
        9 => 1..2_000_000_000_u64,
        1 => 1..70_000_000_000_u64,
        9 => 1..3_u64,
    ]
    .prop_map(Duration::from_nanos)
}

fn requests_of(endpoint: impl Strategy<Value = Option<usize>>) -> impl Strategy<Value = Op> {
    let times = prop_oneof![2 => 1..4_u32, 1 => 1..40_u32];
    (endpoint, times).prop_map(|(endpoint, times)| Op::Request { endpoint, times })
}

fn endpoints() -> impl Strategy<Value = Option<usize>> {
    prop::option::of(0..ENDPOINT_NAMES.len())
}

fn charges() -> impl Strategy<Value = Op> {
    prop_oneof![9 => 0..200_000_u64, 1 => 0..=u64::MAX].prop_map(|bytes| Op::Charge { bytes })
}

/// Any events, by up to `keys` keys.
pub(crate) fn events(keys: u8) -> impl Strategy<Value = Vec<Event>> {
    let op = prop_oneof![
        10 => requests_of(endpoints()),
        2 => (1..40_u32).prop_map(|times| Op::Connect { times }),
        1 => charges(),
        4 => (0..1000_usize).prop_map(|which| Op::Leave { which }),
    ];
    // Most events are of two keys, so that some keys are banned.
    let key = prop_oneof![2 => 0..2_u8, 1 => 0..keys];
    vec((steps(), key, op).prop_map(|(step, key, op)| Event { step, key, op }), 1..200)
}

/// Requests and bytes of one key; the last event is a request.
pub(crate) fn requests() -> impl Strategy<Value = Vec<Event>> {
    let event = |(step, op)| Event { step, key: 0, op };
    let op = prop_oneof![9 => requests_of(endpoints()), 1 => charges()];
    let last = (steps(), requests_of(endpoints())).prop_map(event);
    (vec((steps(), op).prop_map(event), 0..100), last).prop_map(|(mut events, last)| {
        events.push(last);
        events
    })
}
