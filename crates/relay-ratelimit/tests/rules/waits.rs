//! The line: who waits how long, and what becomes of a place that is given back.

use std::time::Duration;

use relay_ratelimit::{Decision, Limiter, Reservation};

use crate::script::check;
use crate::{policy, positive, strict, waiting};

#[test]
fn a_request_waits_for_its_token_and_is_refused_beyond_the_longest_wait() {
    check(
        waiting(200, policy()),
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
        waiting(0, policy()),
        "0 a - 3x -> ok
         0 a - -> all 100",
    );
}

#[test]
fn the_line_is_in_order_of_arrival() {
    check(
        waiting(1000, policy()),
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
fn who_waits_for_an_endpoint_does_not_hold_up_the_others() {
    let mut policy = waiting(1000, policy());
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
        waiting(300, policy()),
        "0 a push 3x -> ok
         0 a push -> wait 200
         0 a - 2x -> *
         0 a pull -> all 400
         0 a push -> push 400
         100 a pull -> wait 300",
    );
}

#[test]
fn a_place_that_is_given_back_goes_to_who_comes_later() {
    check(
        waiting(200, policy()),
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
fn a_place_is_given_back_in_both_lines() {
    let mut policy = waiting(1000, policy());
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
fn a_place_is_given_back_once() {
    check(
        waiting(200, policy()),
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
fn a_place_whose_turn_has_come_stays_taken() {
    check(
        waiting(200, policy()),
        "0 a - 3x -> ok
         0 a - 2x -> *
         100 a first-leaves -> ok
         100 a - -> wait 200
         199 a last-leaves -> ok
         199 a - -> wait 101",
    );
}

#[test]
fn a_token_that_was_there_at_once_stays_taken() {
    check(
        waiting(1000, policy()),
        "0 a pull 3x -> ok
         300 a pull -> wait 200
         300 a first-leaves -> ok
         300 a pull -> wait 200
         300 a - -> ok
         300 a - -> wait 100",
    );
}

#[test]
fn giving_places_back_again_and_again_saves_nothing_up() {
    // Whoever leaves just before it is its turn, and comes again at the end, would hold ten places
    // more each second.
    let mut policy = waiting(10_000, policy());
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
        assert!(held.len() <= 3 + 2 * 100 + 1, "{} places at {now:?}", held.len());
    }
}

#[test]
fn a_ban_is_not_waited_for_however_short_it_is() {
    check(
        waiting(1000, strict(Duration::from_millis(2500))),
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
fn nobody_waits_longer_than_an_hour() {
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
