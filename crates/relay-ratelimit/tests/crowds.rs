//! Simulates realistic clients over minutes: honest ones are delayed but never banned, and floods
//! are banned. `rules` tests single requests.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use relay_ratelimit::{Connection, Decision, Endpoint, Limiter, Policy};

const MINUTE_MS: u64 = 60_000;

fn positive(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// The relay's defaults, with the lowest ban threshold.
fn limiter(max_wait: Duration) -> (Limiter<u8>, Endpoint, Endpoint) {
    let mut policy = Policy::new(positive(40), positive(20));
    let push = policy.add_endpoint("push", positive(10));
    let pull = policy.add_endpoint("pull", positive(5));
    policy.max_wait = max_wait;
    policy.ban_threshold = NonZeroU32::MIN;
    (Limiter::new(policy), push, pull)
}

/// How many polls of each client were answered. Each client polls once a second, repeats a refused
/// poll three times after 200 ms, and ignores `retry_after`.
fn polls_answered(max_wait: Duration, clients: usize, minutes: u64) -> Vec<u64> {
    const REPEATS: u32 = 3;
    let (limiter, _, pull) = limiter(max_wait);
    let mut answered = vec![0; clients];
    let mut due = BinaryHeap::new();
    for client in 0..clients {
        for second in 0..60 * minutes {
            // Each client polls at a different time, and not quite every second.
            due.push(Reverse((second * 1003 + client as u64 * 170, client, REPEATS)));
        }
    }
    while let Some(Reverse((ms, client, repeats))) = due.pop() {
        match limiter.check(&0, Some(pull), Duration::from_millis(ms)) {
            Decision::Allowed(_) | Decision::Wait(_) => *answered.get_mut(client).unwrap() += 1,
            Decision::Refused(refusal) => {
                assert!(!refusal.banned, "banned after {ms} ms");
                if repeats > 0 {
                    due.push(Reverse((ms + 200, client, repeats - 1)));
                }
            }
        }
    }
    answered
}

#[test]
fn six_clients_of_one_address_that_poll_every_second_are_delayed_but_never_banned() {
    for max_wait in [Duration::ZERO, Duration::from_secs(2)] {
        let answered = polls_answered(max_wait, 6, 60);
        let all: u64 = answered.iter().sum();
        assert!(all >= 59 * 60 * 5, "nearly all that the rate allows in an hour: {answered:?}");
        assert!(answered.iter().all(|&answered| answered >= 1000), "some for each client: {answered:?}");
    }
}

#[test]
fn a_message_of_64_chunks_at_once_never_starts_a_ban() {
    for max_wait in [Duration::ZERO, Duration::from_secs(2)] {
        // The client repeats the refused chunks, soon or after a long time.
        for patience in [Duration::from_millis(200), Duration::from_secs(10)] {
            let (limiter, push, _) = limiter(max_wait);
            let mut now = Duration::ZERO;
            let mut left = 64;
            while left > 0 {
                let refused = (0..left).filter(|_| match limiter.check(&0, Some(push), now) {
                    Decision::Refused(refusal) => {
                        assert!(!refusal.banned, "after {now:?}");
                        true
                    }
                    Decision::Allowed(_) | Decision::Wait(_) => false,
                });
                left = refused.count();
                now += patience.max(Duration::from_secs(1));
            }
        }
        let (limiter, push, _) = limiter(max_wait);
        for message in 0..1000 {
            for _ in 0..64 {
                let decision = limiter.check(&0, Some(push), Duration::from_secs(12 * message));
                assert!(!matches!(decision, Decision::Refused(refusal) if refusal.banned));
            }
        }
    }
}

#[test]
fn a_flood_is_banned_once_it_lasts_for_the_threshold() {
    let policy = Policy::new(positive(40), positive(20));
    let limiter = Limiter::new(policy);
    let ban_began = (0..MINUTE_MS).find(|&ms| {
        let decision = limiter.check(&0_u8, None, Duration::from_millis(ms));
        matches!(decision, Decision::Refused(refusal) if refusal.ban_began)
    });
    // The first refusal is in the first second, so seconds count from the third on.
    assert_eq!(ban_began, Some(21_000 + 80));
}

proptest! {
    #[test]
    fn clients_that_send_up_to_four_times_the_rate_are_never_banned(
        per_second in 1..30_u32,
        burst in 1..50_u32,
        max_wait_ms in prop_oneof![Just(0), 1..5_000_u64],
        // For each second, the milliseconds of its events and whether they are connections.
        seconds in vec(vec((0..1_000_u64, prop::bool::ANY), 0..120), 1..100),
    ) {
        let mut policy = Policy::new(positive(burst), positive(per_second));
        policy.max_wait = Duration::from_millis(max_wait_ms);
        policy.ban_threshold = NonZeroU32::MIN;
        let limiter = Limiter::new(policy);
        for (second, mut asked) in (0..).zip(seconds) {
            asked.truncate(4 * per_second as usize);
            asked.sort_unstable();
            for (ms, is_connection) in asked {
                let now = Duration::from_millis(second * 1000 + ms);
                if is_connection {
                    prop_assert!(!matches!(limiter.connection(&0_u8, now), Connection::RefuseOnce(_)));
                } else if let Decision::Refused(refusal) = limiter.check(&0, None, now) {
                    prop_assert!(!refusal.banned);
                }
            }
        }
    }
}
