//! Each rule of the limiter as a short script: who asks for what when, and what the answer is. Promises nothing about
//! threads or random orders; `properties.rs` and `load.rs` do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_ratelimit::{Decision, Endpoint, Limiter, Policy, Refusal};

/// Burst 3, 10 per second in all, 5 pushes, 2 pulls; a ban of 100 s after 4 refusals.
fn policy() -> Policy {
    let mut policy = Policy::new(positive(3), positive(10));
    policy.ban_threshold = positive(4);
    policy.ban = Duration::from_secs(100);
    policy
}

fn positive(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn room_for(keys: usize, mut policy: Policy) -> Policy {
    policy.tracked_keys_max = NonZeroUsize::new(keys).unwrap();
    policy
}

fn without_bans(mut policy: Policy) -> Policy {
    policy.ban = Duration::ZERO;
    policy
}

/// Runs lines of `<ms> <key> <push|pull|-> [<n>x] -> <ok | [ban] bucket wait>`, where `-` is no endpoint, `<n>x` repeats
/// the request, and the wait is in milliseconds.
fn check(mut policy: Policy, script: &str) {
    let endpoints = HashMap::from(["push", "pull"].map(|name| {
        let per_second = if name == "push" { 5 } else { 2 };
        (name, policy.add_endpoint(name, positive(per_second)))
    }));
    let limiter = Limiter::new(policy);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (asked, expected) = line.split_once(" -> ").unwrap();
        let words: Vec<_> = asked.split(' ').collect();
        let (&[ms, key, endpoint], repeat) = words.split_first_chunk().unwrap();
        let times = repeat.first().map_or(1, |times| times.trim_end_matches('x').parse().unwrap());
        for _ in 0..times {
            let now = Duration::from_millis(ms.parse().unwrap());
            let decision = limiter.check(&key.to_owned(), endpoints.get(endpoint).copied(), now);
            assert_eq!(in_words(decision), expected, "{line}");
        }
    }
}

fn in_words(decision: Decision) -> String {
    match decision {
        Decision::Allowed => "ok".to_owned(),
        Decision::Refused(Refusal { bucket, retry_after, banned, .. }) => {
            format!("{}{bucket} {}", if banned { "ban " } else { "" }, retry_after.as_millis())
        }
    }
}

#[test]
fn a_request_of_no_endpoint_draws_on_the_shared_bucket_alone() {
    check(
        policy(),
        "0 a - 3x -> ok
         0 a - -> all 100
         99 a - -> all 1
         100 a - -> ok
         100 a - -> all 100",
    );
}

#[test]
fn an_endpoint_draws_on_both() {
    check(
        policy(),
        "0 a push 2x -> ok
         0 a pull -> ok
         0 a - -> all 100
         100 a push -> ok
         100 a push -> push 100
         200 a - -> ok
         200 a push -> all 100
         300 a push -> ok
         300 a push -> push 100",
    );
}

#[test]
fn keys_do_not_know_each_other() {
    check(
        policy(),
        "0 a - 3x -> ok
         0 a - -> all 100
         0 b - 3x -> ok",
    );
}

#[test]
fn a_refusal_by_an_endpoint_does_not_drain_the_shared_bucket() {
    check(
        without_bans(policy()),
        "0 a pull 3x -> ok
         300 a pull 50x -> pull 200
         300 a - 3x -> ok",
    );
}

#[test]
fn a_refusal_by_the_shared_bucket_does_not_drain_the_endpoint() {
    check(
        without_bans(policy()),
        "0 a - 3x -> ok
         0 a pull 50x -> all 100
         300 a pull 3x -> ok",
    );
}

#[test]
fn of_two_empty_buckets_the_one_with_the_longer_wait_is_named() {
    check(
        policy(),
        "0 a push 3x -> ok
         0 a push -> push 200
         0 a pull -> all 100",
    );
}

#[test]
fn of_two_equally_empty_buckets_the_endpoint_is_named_and_banned() {
    let mut policy = policy();
    policy.per_second = positive(5);
    check(
        policy,
        "0 a push 3x -> ok
         0 a push 3x -> push 200
         0 a push -> ban push 100000
         200 a - -> ok
         200 a - -> all 200",
    );
}

#[test]
fn long_rest_fills_a_bucket_and_no_more() {
    check(
        policy(),
        "0 a - 3x -> ok
         86400000 a - 3x -> ok
         86400000 a - -> all 100",
    );
}

#[test]
fn an_earlier_time_finds_less_and_breaks_nothing() {
    check(
        without_bans(policy()),
        "1000 a - 3x -> ok
         1000 a - 50x -> all 100
         900 a - -> all 200
         0 a - -> all 1100
         1100 a - -> ok
         1100 a - -> all 100",
    );
}

#[test]
fn the_refusal_that_reaches_the_threshold_bans() {
    check(
        policy(),
        "0 a - 3x -> ok
         0 a - 3x -> all 100
         0 a - -> ban all 100000
         50000 a - -> ban all 50000",
    );
}

#[test]
fn refusals_during_a_ban_do_not_extend_it_and_the_count_starts_again() {
    check(
        policy(),
        "0 a - 3x -> ok
         0 a - 3x -> all 100
         0 a - -> ban all 100000
         99999 a - 50x -> ban all 1
         100000 a - 3x -> ok
         100000 a - 3x -> all 100
         100000 a - -> ban all 100000",
    );
}

#[test]
fn the_count_starts_again_even_after_a_ban_shorter_than_a_minute() {
    let mut policy = policy();
    policy.ban = Duration::from_secs(1);
    check(
        policy,
        "0 a - 3x -> ok
         0 a - 3x -> all 100
         0 a - -> ban all 1000
         1000 a - 3x -> ok
         1000 a - 3x -> all 100
         1000 a - -> ban all 1000",
    );
}

#[test]
fn a_ban_of_zero_is_none() {
    check(
        without_bans(policy()),
        "0 a - 3x -> ok
         0 a - 1000x -> all 100",
    );
}

#[test]
fn refusals_count_within_a_minute_of_the_first() {
    check(
        policy(),
        "0 a - 3x -> ok
         0 a - 3x -> all 100
         60000 a - 3x -> ok
         60000 a - 3x -> all 100
         60000 a - -> ban all 100000",
    );
    check(
        policy(),
        "0 a - 3x -> ok
         0 a - 3x -> all 100
         59999 a - 3x -> ok
         59999 a - -> ban all 100000",
    );
}

#[test]
fn the_ban_of_an_endpoint_touches_nothing_else() {
    check(
        policy(),
        "0 a pull 3x -> ok
         0 a pull 3x -> pull 500
         0 a pull -> ban pull 100000
         1000 a pull 50x -> ban pull 99000
         1000 a push 3x -> ok
         1000 a pull 50x -> ban pull 99000
         1000 a - 3x -> all 100
         1000 b pull -> ok
         1100 a - -> ok",
    );
}

#[test]
fn the_ban_of_the_shared_bucket_refuses_everything_of_its_key() {
    check(
        policy(),
        "0 a - 3x -> ok
         0 a - 3x -> all 100
         0 a - -> ban all 100000
         1000 a push -> ban all 99000
         1000 a pull -> ban all 99000
         1000 a - -> ban all 99000
         1000 b push -> ok",
    );
}

#[test]
fn a_refusal_by_two_buckets_counts_for_the_named_one() {
    check(
        policy(),
        "0 a push 3x -> ok
         0 a push 3x -> push 200
         0 a - 3x -> all 100
         0 a - -> ban all 100000",
    );
}

#[test]
fn a_flood_of_one_endpoint_loses_that_endpoint_only() {
    check(
        policy(),
        "0 a push 3x -> ok
         0 a push 3x -> push 200
         0 a push -> ban push 100000
         0 a push 1000x -> ban push 100000
         100 a pull -> ok",
    );
}

#[test]
fn a_ban_is_named_before_a_longer_wait_that_is_told_nevertheless() {
    let mut policy = Policy::new(positive(1), positive(10));
    policy.ban_threshold = positive(2);
    policy.ban = Duration::from_millis(50);
    check(
        policy,
        "0 a pull -> ok
         0 a - -> all 100
         0 a - -> ban all 100
         1 a pull -> ban all 499
         49 a pull -> ban all 451
         50 a pull -> pull 450
         51 a pull -> ban pull 449
         100 a - -> ok",
    );
}

#[test]
fn the_idlest_key_is_forgotten_first() {
    // A key that starts afresh has its full burst; one that was kept has not.
    check(
        without_bans(room_for(2, Policy::new(positive(1), positive(1)))),
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
fn an_earlier_time_does_not_make_a_key_idler() {
    check(
        without_bans(room_for(2, Policy::new(positive(1), positive(1)))),
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
    let mut policy = room_for(2, Policy::new(positive(1), positive(1)));
    policy.ban_threshold = positive(2);
    policy.ban = Duration::from_secs(10);
    check(
        policy,
        "0 a - -> ok
         0 a - -> all 1000
         0 a - -> ban all 10000
         1 b - -> ok
         2 c - -> ok
         10000 c - -> ok
         10001 d - -> ok
         10002 c - -> all 998",
    );
}

#[test]
fn a_banned_key_is_kept_until_its_ban_ends() {
    let mut policy = room_for(2, Policy::new(positive(1), positive(1)));
    policy.ban_threshold = positive(1);
    policy.ban = Duration::from_secs(10);
    check(
        policy,
        "0 a - -> ok
         0 a - -> ban all 10000
         1 b - -> ok
         2 c - -> ok
         3 d - -> ok
         9000 a - -> ban all 1000
         10000 e - -> ok
         10001 f - -> ok
         10002 a - -> ok",
    );
}

#[test]
fn newcomers_share_the_overflow_while_all_tracked_keys_are_banned() {
    let mut policy = room_for(1, Policy::new(positive(2), positive(1)));
    policy.ban_threshold = positive(1);
    policy.ban = Duration::from_secs(10);
    check(
        policy,
        "0 a - 2x -> ok
         0 a - -> ban all 10000
         1 b - -> ok
         1 c - -> ok
         1 d - 50x -> all 1000
         1 b push -> all 1000
         1001 b push -> ok
         9999 a - -> ban all 1
         10000 d - 2x -> ok
         10000 d - -> ban all 10000
         10000 a - 2x -> ok",
    );
}

#[test]
fn a_refusal_tells_the_quota_and_its_window() {
    for (burst, per_second, window_seconds) in [(40, 20, 2), (40, 10, 4), (41, 10, 5), (1, 20, 1), (7, 7, 1)]
    {
        let limiter = Limiter::new(Policy::new(positive(burst), positive(per_second)));
        let decision = (0..=burst).map(|_| limiter.check(&(), None, Duration::ZERO)).last();
        let Some(Decision::Refused(refusal)) = decision else { panic!("{burst} and one more do not pass") };
        assert_eq!((refusal.quota, refusal.window_seconds), (positive(burst), window_seconds));
    }
}

#[test]
fn an_endpoint_of_another_policy_is_no_endpoint() {
    let elsewhere: Endpoint = policy().add_endpoint("push", positive(1));
    let limiter = Limiter::new(policy());
    for _ in 0..3 {
        assert_eq!(limiter.check(&(), Some(elsewhere), Duration::ZERO), Decision::Allowed);
    }
    assert_eq!(in_words(limiter.check(&(), Some(elsewhere), Duration::ZERO)), "all 100");
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let Policy { ban_threshold, ban, tracked_keys_max, .. } = Policy::new(positive(40), positive(20));
    assert_eq!((ban_threshold.get(), ban.as_secs(), tracked_keys_max.get()), (20, 300, 100_000));
}

#[test]
fn debug_tells_no_key() {
    let limiter = Limiter::new(policy());
    let _ = limiter.check(&"203.0.113.9", None, Duration::ZERO);
    assert!(!format!("{limiter:?}").contains("203.0.113.9"));
}
