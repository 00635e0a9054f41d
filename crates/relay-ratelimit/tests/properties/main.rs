//! Tests properties of any policy and any schedule of requests, on one thread.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod bounds;
mod model;
mod schedule;

use std::time::Duration;

use proptest::prelude::*;
use relay_ratelimit::{Connection, Decision, Level, Refusal, Reservation};

use crate::model::{Model, ModelConnection, ModelDecision, ModelReservation};
use crate::schedule::{
    ENDPOINT_NAMES, Event, Numbers, Op, Subject, events, numbers, positive, requests, without_bans,
};

/// The waiting requests, with the reservations of the limiter and of the model.
type Waiting = Vec<(u8, Reservation, ModelReservation)>;

/// Compares both decisions on one request, and adds a request that waits to `waiting`.
fn check_both(
    subject: &Subject,
    model: &mut Model,
    waiting: &mut Waiting,
    (key, endpoint, now): (u8, Option<usize>, Duration),
) -> Result<(), TestCaseError> {
    let expected = model.check(key, endpoint, now);
    match (subject.check(key, endpoint, now), expected) {
        (Decision::Allowed(_), ModelDecision::Passes) => {}
        (Decision::Refused(refusal), ModelDecision::Refused(expected)) => {
            prop_assert_eq!(refusal, expected, "at {:?}", now);
        }
        (Decision::Wait(wait), ModelDecision::Waits { after, reservation }) => {
            prop_assert_eq!(wait.after, after, "at {:?}", now);
            waiting.push((key, wait.reservation, reservation));
        }
        (decision, expected) => prop_assert!(false, "{:?} and not {:?} at {:?}", decision, expected, now),
    }
    Ok(())
}

fn connected(connection: Connection) -> ModelConnection {
    match connection {
        Connection::Serve => ModelConnection::Serve,
        Connection::RefuseOnce(refusal) => ModelConnection::Refuse(refusal),
        Connection::Drop { .. } => ModelConnection::Drop,
    }
}

/// The level that one more request of the last endpoint finds, if it passes at once.
fn level_after(subject: &Subject, last: &Event, endpoint: Option<usize>, now: Duration) -> Option<Level> {
    match subject.check(last.key, endpoint, now) {
        Decision::Allowed(level) => Some(level),
        Decision::Wait(_) | Decision::Refused(_) => None,
    }
}

proptest! {
    #[test]
    fn a_naive_model_agrees(numbers in numbers(5), events in events(8)) {
        let subject = Subject::new(&numbers);
        let mut model = Model::new(numbers);
        let mut waiting = Waiting::new();
        let mut now = Duration::ZERO;
        for Event { step, key, op } in events {
            now += step;
            match op {
                Op::Request { endpoint, times } => for _ in 0..times {
                    check_both(&subject, &mut model, &mut waiting, (key, endpoint, now))?;
                },
                Op::Connect { times } => for _ in 0..times {
                    let connection = connected(subject.limiter.connection(&key, now));
                    prop_assert_eq!(connection, model.connection(key, now), "at {:?}", now);
                },
                Op::Charge { bytes } => {
                    subject.limiter.charge_bytes(&key, bytes, now);
                    model.charge(key, bytes, now);
                }
                Op::Leave { which } => if !waiting.is_empty() {
                    let (key, reservation, model_reservation) = waiting.swap_remove(which % waiting.len());
                    subject.limiter.give_back(&key, reservation, now);
                    model.give_back(key, &model_reservation, now);
                },
            }
            prop_assert_eq!(subject.limiter.tracked(), model.tracked());
        }
    }

    #[test]
    fn retry_after_is_exact(numbers in without_bans(), requests in requests()) {
        let (endpoint, last) = (requests.last().unwrap().endpoint(), requests.last().unwrap().clone());
        let retry = |early: Duration| {
            let (subject, now) = Subject::after(&numbers, &requests);
            // After the schedule, requests continue until one is refused.
            let refusal = (0..1_000_000).find_map(|_| match subject.check(last.key, endpoint, now) {
                Decision::Refused(Refusal { retry_after, .. }) => Some(retry_after),
                Decision::Allowed(_) | Decision::Wait(_) => None,
            });
            refusal.map(|retry_after| {
                level_after(&subject, &last, endpoint, now + retry_after - early).is_some()
            })
        };
        // At most a million requests can wait here.
        prop_assume!(u128::from(numbers.rate_max()) * numbers.max_wait.as_nanos() < 100_000_000_000_000);
        prop_assert_eq!(retry(Duration::ZERO), Some(true), "passes after retry_after");
        prop_assert_eq!(retry(Duration::from_nanos(1)), Some(false), "does not pass earlier");
    }

    #[test]
    fn remaining_requests_pass_at_once(numbers in without_bans(), requests in requests()) {
        let (endpoint, last) = (requests.last().unwrap().endpoint(), requests.last().unwrap().clone());
        let (subject, now) = Subject::after(&numbers, &requests);
        if let Some(level) = level_after(&subject, &last, endpoint, now) {
            prop_assert!(level.remaining < numbers.burst && level.reset > Duration::ZERO);
            let more = (0..).take_while(|_| level_after(&subject, &last, endpoint, now).is_some());
            prop_assert_eq!(more.count(), level.remaining as usize);
        }
    }

    #[test]
    fn remaining_requests_pass_when_spread_until_the_reset(numbers in without_bans(), requests in requests()) {
        let (endpoint, last) = (requests.last().unwrap().endpoint(), requests.last().unwrap().clone());
        let (subject, mut now) = Subject::after(&numbers, &requests);
        if let Some(level) = level_after(&subject, &last, endpoint, now) {
            if level.remaining == 0 {
                let early = now + level.reset - Duration::from_nanos(1);
                let (again, _) = Subject::after(&numbers, &requests);
                prop_assert!(level_after(&again, &last, endpoint, now).is_some());
                prop_assert!(level_after(&again, &last, endpoint, early).is_none(), "not before the reset");
            }
            for _ in 0..level.remaining.max(1) {
                now += level.reset / level.remaining.max(1);
                prop_assert!(level_after(&subject, &last, endpoint, now).is_some());
            }
        }
    }

    #[test]
    fn a_flood_keeps_bans_and_respects_the_bound(
        numbers in numbers(12),
        banned in 1..6_u8,
        flood in proptest::collection::vec((10..=255_u8, 0..1_000_000_u64), 1..300),
    ) {
        // Half of the space is for bans.
        let banned = banned.min(numbers.keys as u8 / 2);
        let numbers = Numbers {
            ban: Duration::from_secs(3600), max_wait: Duration::ZERO, per_second: 1, ban_threshold: 1, ..numbers
        };
        let subject = Subject::new(&numbers);
        for second in [0, 1] {
            for key in 0..banned {
                for _ in 0..numbers.burst + 5 {
                    let _ = subject.check(key, None, Duration::from_secs(second));
                }
            }
        }
        let began = Duration::from_secs(1);
        let mut now = began;
        for (key, step) in flood {
            now += Duration::from_nanos(step);
            let _ = subject.check(key, None, now);
            prop_assert!(subject.limiter.tracked() <= numbers.keys);
        }
        for key in 0..banned {
            let refusal = subject.limiter.is_banned(&key, now);
            prop_assert_eq!(refusal.map(|refusal| refusal.retry_after), Some(numbers.ban - (now - began)));
        }
    }
}
