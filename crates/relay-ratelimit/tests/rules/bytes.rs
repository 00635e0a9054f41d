//! Tests how charged bytes delay requests.

use std::num::NonZeroU64;
use std::time::Duration;

use relay_ratelimit::{ByteRate, Decision, Limiter, Policy};

use crate::script::check;
use crate::{policy, positive, with_max_wait};

/// 1,000 bytes per second after the first 500, and a ban after one second of excess.
fn with_bytes(mut policy: Policy) -> Policy {
    let [per_second, burst] = [1000, 500].map(|n| NonZeroU64::new(n).unwrap());
    policy.bytes = Some(ByteRate { per_second, burst });
    policy.ban_threshold = positive(1);
    policy
}

#[test]
fn a_debt_delays_only_the_endpoint_that_waits_for_bytes() {
    check(
        with_bytes(policy()),
        "0 a bytes=500 -> ok
         0 a upload -> ok
         0 a bytes=300 -> ok
         0 a upload -> bytes 300
         0 a push -> ok
         0 b upload -> ok
         299 a upload -> bytes 1
         300 a upload -> ok",
    );
}

#[test]
fn a_request_waits_for_a_short_debt() {
    check(
        with_max_wait(200, with_bytes(policy())),
        "0 a bytes=600 -> ok
         0 a upload -> wait 100
         0 a bytes=100 -> ok
         0 a upload -> wait 200
         0 a bytes=1 -> ok
         0 a upload -> bytes 201",
    );
}

#[test]
fn a_debt_is_never_longer_than_a_minute() {
    check(
        with_bytes(policy()),
        "0 a bytes=18446744073709551615 -> ok
         0 a bytes=18446744073709551615 -> ok
         0 a upload -> bytes 60000
         60000 a upload -> ok",
    );
}

#[test]
fn requests_in_debt_take_tokens_and_a_debt_never_starts_a_ban() {
    check(
        with_bytes(policy()),
        "0 a bytes=99999999 -> ok
         0 a upload 3x -> bytes 60000
         0 a upload -> upload 60000
         1000 a upload 3x -> bytes 59000
         1000 a upload 20x -> upload 59000
         1000 a upload -> ban upload 100000",
    );
}

#[test]
fn without_a_byte_rate_bytes_delay_nothing() {
    check(
        policy(),
        "0 a bytes=99999999 -> ok
         0 a upload -> ok",
    );
}

#[test]
fn bytes_of_a_banned_key_do_not_change_its_ban() {
    check(
        with_bytes(policy()),
        "0 a - 4x -> *
         1000 a - 41x -> *
         1000 a bytes=99999999 -> ok
         1000 a upload -> ban all 100000",
    );
}

#[test]
fn a_refusal_for_bytes_contains_their_quota() {
    for (per_second, burst, quota, window_seconds) in
        [(1000, 500, 500, 1), (1000, 1001, 1001, 2), (1, u64::MAX, u32::MAX, u32::MAX)]
    {
        let mut policy = Policy::new(positive(3), positive(10));
        let [per_second, burst] = [per_second, burst].map(|n| NonZeroU64::new(n).unwrap());
        policy.bytes = Some(ByteRate { per_second, burst });
        let upload = policy.add_endpoint_with_debts("upload", positive(5));
        let limiter = Limiter::new(policy);
        limiter.charge_bytes(&(), burst.get(), Duration::ZERO);
        limiter.charge_bytes(&(), 10_000, Duration::ZERO);
        let decision = limiter.check(&(), Some(upload), Duration::ZERO);
        let Decision::Refused(refusal) = decision else { panic!("{decision:?}") };
        assert_eq!((refusal.bucket, refusal.quota.get()), ("bytes", quota));
        assert_eq!((refusal.window_seconds, refusal.banned), (window_seconds, false));
    }
}
