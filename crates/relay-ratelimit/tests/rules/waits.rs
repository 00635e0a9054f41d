//! Tests waits: how long a request waits, and who gets a reservation that a client gives back.

use std::time::Duration;

use relay_ratelimit::{Decision, Limiter, Reservation};

use crate::script::check;
use crate::{policy, positive, strict, with_max_wait};

#[test]
fn a_request_waits_for_its_token_up_to_the_longest_wait() {
    check(
        with_max_wait(200, policy()),
        "0 a - 3x -> ok
         0 a - -> wait 100
         0 a - -> wait 200
         0 a - 100x -> all 300
         50 a - -> all 250
         100 a - -> wait 200
         100 a - -> all 300
         300 a - -> wait 100
         700 a - 3x -> ok",
    );
}

#[test]
fn without_waits_a_request_is_refused_at_once() {
    check(
        with_max_wait(0, policy()),
        "0 a - 3x -> ok
         0 a - -> all 100",
    );
}

#[test]
fn requests_wait_in_order_of_arrival() {
    check(
        with_max_wait(1000, policy()),
        "0 a - 3x -> ok
         0 a - -> wait 100
         10 a - -> wait 190
         99 a - -> wait 201
         100 a - -> wait 300
         250 a - -> wait 250
         250 b - -> ok",
    );
}

#[test]
fn a_wait_for_one_endpoint_does_not_delay_the_others() {
    let mut policy = with_max_wait(1000, policy());
    policy.per_second = positive(1000);
    check(
        policy,
        "0 a push 3x -> ok
         10 a push -> wait 190
         10 a push -> wait 390
         10 a - -> ok
         20 a pull 3x -> ok
         20 a push -> wait 580",
    );
}

#[test]
fn a_request_waits_for_the_later_of_its_two_tokens() {
    check(
        with_max_wait(300, policy()),
        "0 a push 3x -> ok
         0 a push -> wait 200
         0 a - 2x -> *
         0 a pull -> all 400
         0 a push -> push 400
         100 a pull -> wait 300",
    );
}

#[test]
fn a_returned_reservation_goes_to_a_later_request() {
    check(
        with_max_wait(200, policy()),
        "0 a - 3x -> ok
         0 a - -> wait 100
         0 a - -> wait 200
         50 a - -> all 250
         50 a first-leaves -> ok
         50 a - -> wait 150
         50 a - -> all 250",
    );
}

#[test]
fn a_reservation_is_returned_to_both_buckets() {
    let mut policy = with_max_wait(1000, policy());
    policy.per_second = positive(5);
    check(
        policy,
        "0 a push 3x -> ok
         0 a push -> wait 200
         0 a push -> wait 400
         0 a last-leaves -> ok
         0 a first-leaves -> ok
         0 a push -> wait 200
         0 a - -> wait 400",
    );
}

#[test]
fn a_reservation_is_returned_once() {
    check(
        with_max_wait(200, policy()),
        "0 a - 3x -> ok
         0 a - -> wait 100
         0 a - -> wait 200
         50 a first-leaves -> ok
         50 a - -> wait 150
         60 a last-leaves -> ok
         60 a - -> all 240",
    );
}

#[test]
fn a_reservation_whose_time_has_come_stays_taken() {
    check(
        with_max_wait(200, policy()),
        "0 a - 3x -> ok
         0 a - 2x -> *
         100 a first-leaves -> ok
         100 a - -> wait 200
         199 a last-leaves -> ok
         199 a - -> wait 101",
    );
}

#[test]
fn a_token_that_was_available_at_once_stays_taken() {
    check(
        with_max_wait(1000, policy()),
        "0 a pull 3x -> ok
         300 a pull -> wait 200
         300 a first-leaves -> ok
         300 a pull -> wait 200
         300 a - -> ok
         300 a - -> wait 100",
    );
}

#[test]
fn returning_reservations_again_and_again_accumulates_none() {
    // Without the rule, a client that leaves just before its time and returns at the end would
    // gain ten reservations per second.
    let mut policy = with_max_wait(10_000, policy());
    policy.ban = Duration::ZERO;
    let limiter = Limiter::new(policy);
    let mut held: Vec<(Duration, Reservation)> = Vec::new();
    for now in (0..1000).map(|step| Duration::from_millis(100 * step)) {
        let soon = now + Duration::from_millis(100);
        let (leaving, staying) = held.drain(..).partition::<Vec<_>, _>(|(passes, _)| *passes <= soon);
        held = staying;
        for (_, reservation) in leaving {
            limiter.give_back(&(), reservation, now);
        }
        loop {
            match limiter.check(&(), None, now) {
                Decision::Allowed(_) => {}
                Decision::Wait(wait) => held.push((now + wait.after, wait.reservation)),
                Decision::Refused(_) => break,
            }
        }
        assert!(held.len() <= 3 + 2 * 100 + 1, "{} reservations at {now:?}", held.len());
    }
}

#[test]
fn no_request_waits_for_the_end_of_a_ban() {
    check(
        with_max_wait(1000, strict(Duration::from_millis(2500))),
        "0 a - -> ok
         0 a - -> wait 1000
         0 a - -> all 2000
         1000 a - -> wait 1000
         1000 a - 3x -> all 2000
         1000 a - -> ban all 2500
         3000 a - -> ban all 500
         3500 a - -> ok",
    );
}

#[test]
fn no_request_waits_longer_than_an_hour() {
    let mut policy = strict(Duration::ZERO);
    policy.max_wait = Duration::MAX;
    check(
        policy,
        "0 a - -> ok
         0 a - 3599x -> *
         0 a - -> wait 3600000
         0 a - -> all 3601000",
    );
}
