//! Tests bans: which seconds count, which bucket is banned, and when the ban ends.

use std::time::Duration;

use crate::script::{Script, check};
use crate::{policy, positive, strict, with_max_wait, without_bans};

#[test]
fn the_first_excess_request_of_the_threshold_second_starts_the_ban() {
    check(
        policy(),
        "0 a - 3x -> ok
         0 a - -> all 100
         1000..4000 a - 41x -> *
         4000 a - 3x -> ok
         4000 a - 37x -> all 100
         4000 a - -> ban all 100000
         54000 a - -> ban all 50000",
    );
}

#[test]
fn up_to_four_times_the_rate_no_key_is_banned() {
    check(
        policy(),
        "0..600000 a - 40x -> *
         600000 a banned -> no",
    );
}

#[test]
fn a_second_counts_only_a_second_after_the_first_refusal() {
    let mut policy = policy();
    policy.ban_threshold = positive(1);
    check(
        policy,
        "500 a - 1000x -> *
         1000 a - 1000x -> *
         1999 a - 1000x -> *
         1999 a banned -> no
         2000 a - 40x -> *
         2000 a banned -> no
         2000 a - -> ban all 100000",
    );
}

#[test]
fn bursts_without_recent_refusals_never_start_a_ban() {
    let mut policy = policy();
    policy.ban_threshold = positive(1);
    check(
        policy,
        "0 a - 1000x -> *
         11000 a - 1000x -> *
         22000 a - 1000x -> *
         22999 a banned -> no
         32000 a - 1000x -> *
         32000 a banned -> 100000",
    );
}

#[test]
fn seconds_are_counted_within_a_minute() {
    let until = |ms| {
        format!(
            "0 a - 4x -> *
             1000..4000 a - 41x -> *
             4000..{ms} a - 4x -> *
             {ms} a - 41x -> *"
        )
    };
    check(policy(), &format!("{}\n60000 a banned -> 100000", until(60_000)));
    check(policy(), &format!("{}\n61000 a banned -> no", until(61_000)));
}

#[test]
fn a_threshold_of_more_than_a_minute_is_a_minute() {
    let mut policy = policy();
    policy.ban_threshold = positive(u32::MAX);
    check(
        policy,
        "0 a - 4x -> *
         1000..60000 a - 41x -> *
         60000 a - 40x -> *
         60000 a - -> ban all 100000",
    );
}

#[test]
fn requests_that_wait_count_too() {
    let mut policy = with_max_wait(100, policy());
    policy.ban_threshold = positive(1);
    check(
        policy,
        "0 a - 5x -> *
         1000 a - 3x -> ok
         1000 a - -> wait 100
         1000 a - 36x -> all 200
         1000 a - -> ban all 100000",
    );
}

#[test]
fn requests_during_a_ban_do_not_extend_it_and_the_count_restarts() {
    check(
        policy(),
        "0 a - 4x -> *
         1000..4000 a - 41x -> *
         4000 a - 40x -> *
         4000 a - -> ban all 100000
         5000..103000 a - 1000x -> *
         103999 a - 50x -> ban all 1
         104000 a - 3x -> ok
         104000 a - 1000x -> all 100
         105000..108000 a - 1000x -> *
         108000 a - 40x -> *
         108000 a - -> ban all 100000",
    );
}

#[test]
fn a_ban_of_zero_turns_bans_off() {
    check(
        without_bans(policy()),
        "0 a - 3x -> ok
         0 a - 1000x -> all 100
         1000..200000 a - 1000x -> *
         200000 a - 3x -> ok",
    );
}

#[test]
fn the_ban_of_an_endpoint_affects_nothing_else() {
    check(
        policy(),
        "0 a pull 4x -> *
         1000..4000 a pull 9x -> *
         4000 a pull 8x -> *
         4000 a pull -> ban pull 100000
         5000 a pull 50x -> ban pull 99000
         5000 a push 3x -> ok
         5000 a pull 50x -> ban pull 99000
         5000 a - 3x -> all 100
         5000 a banned -> no
         5000 a connect -> serve
         5000 b pull -> ok
         5100 a - -> ok",
    );
}

#[test]
fn a_flood_of_one_endpoint_bans_only_that_endpoint() {
    // Another client with the same address sends a little too much at the same time, so the shared
    // bucket refuses too.
    let mut script = Script::new(policy());
    for second in 0..100 {
        script.run(&format!("{0} a pull 500x -> *\n{0} a - 5x -> *\n{0} a banned -> no", second * 1000));
    }
    script.run("99000 a pull -> ban pull 5000");
}

#[test]
fn the_ban_of_the_shared_bucket_refuses_everything_of_its_key() {
    check(
        policy(),
        "0 a - 4x -> *
         1000..5000 a - 41x -> *
         5000 a push -> ban all 99000
         5000 a pull -> ban all 99000
         5000 a - -> ban all 99000
         5000 a banned -> 99000
         5000 b push -> ok
         5000 b banned -> no
         104000 a banned -> no",
    );
}

#[test]
fn of_two_equally_empty_buckets_the_endpoints_is_named_and_banned() {
    let mut policy = policy();
    policy.per_second = positive(5);
    check(
        policy,
        "0 a push 3x -> ok
         0 a push -> push 200
         1000..4000 a push 21x -> *
         4000 a push 3x -> ok
         4000 a push 17x -> push 200
         4000 a push -> ban push 100000
         4200 a - -> ok
         4200 a - -> all 200",
    );
}

#[test]
fn a_refusal_names_the_banned_bucket_and_the_longer_wait_of_the_other() {
    let mut policy = strict(Duration::from_millis(50));
    policy.per_second = positive(10);
    check(
        policy,
        "0 a - 2x -> *
         1000 a pull -> ok
         1000 a - 39x -> all 100
         1000 a - -> ban all 100
         1001 a pull -> ban all 499
         1049 a pull -> ban all 451
         1050 a pull -> pull 450
         1100 a - -> ok",
    );
}
