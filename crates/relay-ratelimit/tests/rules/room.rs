//! Tests which key a full limiter forgets.

use std::time::Duration;

use crate::script::{Script, check};
use crate::{strict, with_tracked_keys_max};

const BAN: Duration = Duration::from_secs(10);

#[test]
fn the_idlest_key_is_forgotten_first() {
    // A new key has its full burst; a tracked key does not.
    check(
        with_tracked_keys_max(2, strict(Duration::ZERO)),
        "0 a - -> ok
         1 b - -> ok
         2 a - -> all 998
         3 c - -> ok
         4 a - -> all 996
         5 b - -> ok
         6 a - -> all 994
         7 c - -> ok",
    );
}

#[test]
fn an_earlier_time_does_not_make_a_key_idle_for_longer() {
    check(
        with_tracked_keys_max(2, strict(Duration::ZERO)),
        "0 b - -> ok
         5 a - -> ok
         6 b - -> all 994
         4 b - -> all 996
         7 c - -> ok
         8 b - -> all 992",
    );
}

#[test]
fn a_key_whose_ban_has_ended_is_as_idle_as_it_was() {
    check(
        with_tracked_keys_max(2, strict(BAN)),
        "0 a - 2x -> *
         1000 a - 4x -> *
         1000 a - -> ban all 10000
         1001 b - -> ok
         1002 c - -> ok
         11000 c - -> ok
         11001 d - -> ok
         11002 c - -> all 998",
    );
}

#[test]
fn a_banned_key_is_kept_until_its_ban_ends() {
    check(
        with_tracked_keys_max(2, strict(BAN)),
        "0 a - 2x -> *
         1000 a - 4x -> *
         1000 a - -> ban all 10000
         1001 b - -> ok
         1002 c - -> ok
         1003 d - -> ok
         10000 a - -> ban all 1000
         11000 e - -> ok
         11001 f - -> ok
         11002 a - -> ok",
    );
}

#[test]
fn a_key_with_a_banned_endpoint_is_kept_too() {
    let mut policy = with_tracked_keys_max(2, strict(BAN));
    policy.per_second = crate::positive(10);
    check(
        policy,
        "0 a pull 2x -> *
         1000 a pull 8x -> *
         1000 a pull -> ban pull 10000
         1001 b - -> ok
         1002 c - -> ok
         10000 a pull -> ban pull 1000",
    );
}

#[test]
fn bans_take_half_of_the_space_and_the_one_that_ends_soonest_leaves() {
    check(
        with_tracked_keys_max(4, strict(BAN)),
        "0 a - 2x -> *
         0 b - 2x -> *
         0 c - 2x -> *
         1000 a - 5x -> *
         2000 b - 5x -> *
         3000 c - 5x -> *
         3001 a banned -> 7999
         3001 d - -> ok
         3002 e - -> ok
         3003 a banned -> no
         3003 b banned -> 8997
         3003 c banned -> 9997
         3004 f - -> ok
         3004 e - -> all 998
         3004 b banned -> 8996",
    );
}

#[test]
fn a_limiter_full_of_bans_has_space_for_every_new_key() {
    let mut script = Script::new(with_tracked_keys_max(20, strict(BAN)));
    for key in 0..20 {
        script.run(&format!("0 k{key} - 2x -> *"));
    }
    for key in 0..20 {
        script.run(&format!("1000 k{key} - 5x -> *\n1000 k{key} banned -> 10000"));
    }
    for key in 0..100 {
        script.run(&format!("1001 n{key} - -> ok\n1001 n{key} - -> all 1000"));
        assert_eq!(script.limiter.tracked(), 20);
    }
}
