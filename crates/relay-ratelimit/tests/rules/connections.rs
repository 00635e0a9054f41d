//! Tests which connections are served, answered once or dropped.

use std::time::Duration;

use crate::script::check;
use crate::{positive, strict, without_bans};

const BAN: Duration = Duration::from_secs(10);

#[test]
fn four_times_the_rate_of_connections_is_served() {
    check(
        without_bans(strict(BAN)),
        "0 a connect 4x -> serve
         0 a connect 100x -> drop
         0 b connect -> serve
         249 a connect -> drop
         250 a connect -> serve
         250 a connect -> drop
         9000 a connect 4x -> serve
         9000 a connect -> drop",
    );
}

#[test]
fn connections_take_no_tokens_from_requests() {
    check(
        strict(BAN),
        "0 a connect 4x -> serve
         0 a - -> ok
         0 a connect -> drop",
    );
}

#[test]
fn a_banned_key_gets_a_few_answers() {
    check(
        strict(BAN),
        "0 a - 2x -> *
         1000 a - 4x -> *
         1000 a - -> ban all 10000
         1500 a connect 5x -> once 9500
         1500 a connect 100x -> shut
         2000 a connect -> once 9000
         2000 a connect -> shut
         8000 a connect 5x -> once 3000
         8000 a connect -> shut
         11000 a connect 4x -> serve",
    );
}

#[test]
fn excess_connections_start_a_ban() {
    check(
        strict(BAN),
        "0 a connect 4x -> serve
         0 a connect -> drop
         1000 a connect 4x -> serve
         1000 a connect 4x -> drop
         1000 a connect -> once 10000
         1000 a connect 4x -> once 10000
         1000 a connect -> shut
         1000 a - -> ban all 10000",
    );
}

#[test]
fn dropped_connections_and_requests_count_together() {
    check(
        strict(BAN),
        "0 a - 2x -> *
         1000 a connect 4x -> serve
         1000 a connect 3x -> drop
         1000 a - -> ok
         1000 a - -> ban all 10000",
    );
}

#[test]
fn served_connections_never_start_a_ban() {
    let mut policy = strict(BAN);
    policy.per_second = positive(10);
    check(
        policy,
        "0 a - 2x -> *
         1000..60000 a connect 40x -> serve
         60000 a - 40x -> *
         60000 a banned -> no",
    );
}
