//! Tests which buckets a request uses, and what decisions report about them.

use std::time::Duration;

use relay_ratelimit::{Decision, Endpoint, Level, Limiter, Policy};

use crate::script::check;
use crate::{policy, positive, with_max_wait, without_bans};

#[test]
fn a_request_without_endpoint_uses_only_the_shared_bucket() {
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
fn a_request_to_an_endpoint_uses_both_buckets() {
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
fn keys_are_independent() {
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
fn long_rest_fills_a_bucket_and_no_more() {
    check(
        policy(),
        "0 a - 3x -> ok
         86400000 a - 3x -> ok
         86400000 a - -> all 100",
    );
}

#[test]
fn an_earlier_time_finds_fewer_tokens() {
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
fn a_refusal_contains_the_quota_and_its_window() {
    for (burst, per_second, window_seconds) in [(40, 20, 2), (40, 10, 4), (41, 10, 5), (1, 20, 1), (7, 7, 1)]
    {
        let limiter = Limiter::new(with_max_wait(0, Policy::new(positive(burst), positive(per_second))));
        let decision = (0..=burst).map(|_| limiter.check(&(), None, Duration::ZERO)).last();
        let Some(Decision::Refused(refusal)) = decision else { panic!("{burst} and one more do not pass") };
        assert_eq!((refusal.quota, refusal.window_seconds), (positive(burst), window_seconds));
    }
}

#[test]
fn the_reset_is_until_full_or_until_the_next_token() {
    check(
        policy(),
        "0 a left -> all 2 100
         0 a left -> all 1 200
         0 a left -> all 0 100
         150 a left -> all 0 50
         10000 a left -> all 2 100",
    );
}

#[test]
fn the_level_is_that_of_the_bucket_with_fewer_tokens() {
    let mut policy = with_max_wait(1000, policy());
    let push = policy.add_endpoint("push", positive(5));
    let limiter = Limiter::new(policy);
    let ask = |endpoint| match limiter.check(&(), endpoint, Duration::ZERO) {
        Decision::Allowed(level) => (level, 0),
        Decision::Wait(wait) => (wait.level, wait.after.as_millis()),
        Decision::Refused(refusal) => panic!("{refusal:?}"),
    };
    let level = |bucket, remaining, reset_ms, window_seconds| Level {
        bucket,
        remaining,
        reset: Duration::from_millis(reset_ms),
        quota: positive(3),
        window_seconds,
    };
    assert_eq!(ask(Some(push)), (level("push", 2, 200, 1), 0), "equal tokens: the later reset");
    assert_eq!(ask(None), (level("all", 1, 200, 1), 0));
    assert_eq!(ask(Some(push)), (level("all", 0, 100, 1), 0));
    assert_eq!(ask(Some(push)), (level("push", 0, 200, 1), 100), "equal in both: the endpoint's");
    assert_eq!(ask(Some(push)), (level("push", 0, 400, 1), 200));
}

#[test]
fn an_endpoint_of_another_policy_counts_as_no_endpoint() {
    let foreign: Endpoint = policy().add_endpoint("push", positive(1));
    let limiter = Limiter::new(policy());
    for _ in 0..3 {
        assert!(matches!(limiter.check(&(), Some(foreign), Duration::ZERO), Decision::Allowed(_)));
    }
    let decision = limiter.check(&(), Some(foreign), Duration::ZERO);
    assert!(matches!(decision, Decision::Refused(refusal) if refusal.bucket == "all"));
}

#[test]
fn the_defaults_match_the_specification() {
    let Policy { max_wait, ban_threshold, ban, bytes, tracked_keys_max, .. } =
        Policy::new(positive(40), positive(20));
    assert_eq!((ban_threshold.get(), ban.as_secs(), tracked_keys_max.get()), (20, 300, 100_000));
    assert_eq!((max_wait, bytes), (Duration::from_secs(2), None));
}

#[test]
fn debug_hides_the_keys() {
    let limiter = Limiter::new(policy());
    let _ = limiter.check(&"203.0.113.9", None, Duration::ZERO);
    assert!(!format!("{limiter:?}").contains("203.0.113.9"));
}
