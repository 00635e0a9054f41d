//! Tests of work of the caller's own that takes tokens when there are some: it neither reserves nor
//! bans. And of items, which delay requests as bytes do.

use std::num::NonZeroU64;
use std::time::Duration;

use relay_ratelimit::{ByteRate, Decision, ITEMS_BUCKET, Limiter, NameLimiter, Policy};

use crate::{policy, positive};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn tokens_are_taken_only_if_all_buckets_have_one() {
    let mut policy = policy();
    let pull = policy.add_endpoint("pull", positive(2));
    let limiter = Limiter::new(policy);
    let take = |ms| limiter.try_take(&"a", Some(pull), at(ms));
    assert_eq!([take(0), take(0), take(0)], [Ok(()); 3], "the burst");
    assert_eq!(take(0), Err(at(500)), "two a second");
    assert_eq!([take(499), take(500), take(500)], [Err(at(1)), Ok(()), Err(at(500))]);
    assert_eq!(limiter.try_take(&"b", Some(pull), at(0)), Ok(()), "another key");
    // A refusal has taken nothing of the shared bucket.
    assert!(matches!(limiter.check(&"a", None, at(500)), Decision::Allowed(_)));
}

#[test]
fn no_number_of_attempts_bans_and_a_ban_refuses_them() {
    let mut policy = policy();
    policy.ban_threshold = positive(1);
    let pull = policy.add_endpoint("pull", positive(2));
    let limiter = Limiter::new(policy);
    for ms in 0..20_000 {
        _ = limiter.try_take(&"a", Some(pull), at(ms));
    }
    assert!(limiter.is_banned(&"a", at(20_000)).is_none());
    for ms in 20_000..24_000 {
        drop(limiter.check(&"a", None, at(ms)));
    }
    let ban = limiter.is_banned(&"a", at(24_000)).unwrap();
    assert_eq!(limiter.try_take(&"a", Some(pull), at(24_000)), Err(ban.retry_after));
}

#[test]
fn by_a_name_tokens_are_those_of_the_name_within_the_ceiling_of_its_address() {
    const OFFICE: u64 = 1;
    const ALICE: u64 = 2;
    let limiter = NameLimiter::new(Policy::new(positive(2), positive(1)), &policy(), 2);
    let take = |ms| limiter.try_take(OFFICE, ALICE, at(ms));
    assert_eq!(take(0), None, "not introduced");
    limiter.introduce(OFFICE, ALICE, at(0));
    assert_eq!([take(0), take(0)], [Some(Ok(())); 2]);
    assert_eq!([take(0), take(1000)], [Some(Err(at(1000))), Some(Ok(()))]);
    // Ten times the burst of the address, of which three are used; other names use up the rest.
    let others = NameLimiter::new(Policy::new(positive(100), positive(1)), &policy(), 2);
    others.introduce(OFFICE, ALICE, at(0));
    let taken = (0..100).take_while(|_| others.try_take(OFFICE, ALICE, at(0)) == Some(Ok(()))).count();
    assert_eq!(taken, 30);
    assert_eq!(others.try_take(OFFICE, ALICE, at(0)), None, "it counts by the address");
}

#[test]
fn items_delay_the_endpoint_that_waits_for_debts_and_the_longer_debt_counts() {
    let mut policy = policy();
    let rate = |per_second: u64, burst: u64| {
        let [per_second, burst] = [per_second, burst].map(|n| NonZeroU64::new(n).unwrap());
        Some(ByteRate { per_second, burst })
    };
    (policy.bytes, policy.items) = (rate(1000, 1000), rate(10, 20));
    let upload = policy.add_endpoint_with_debts("upload", positive(5));
    let push = policy.add_endpoint("push", positive(5));
    let limiter = Limiter::new(policy);
    limiter.charge_items(&"a", 20, at(0));
    assert!(matches!(limiter.check(&"a", Some(upload), at(0)), Decision::Allowed(_)), "the burst");
    limiter.charge_items(&"a", 5, at(0));
    limiter.charge_bytes(&"a", 1100, at(0));
    let Decision::Refused(refusal) = limiter.check(&"a", Some(upload), at(0)) else { panic!("it waits") };
    assert_eq!((refusal.bucket, refusal.retry_after, refusal.banned), (ITEMS_BUCKET, at(500), false));
    assert_eq!((refusal.quota.get(), refusal.window_seconds), (20, 2));
    assert!(!limiter.is_clear(&"a", upload, at(499)) && limiter.is_clear(&"a", upload, at(500)));
    assert!(matches!(limiter.check(&"a", Some(push), at(0)), Decision::Allowed(_)));
    assert!(matches!(limiter.check(&"b", Some(upload), at(0)), Decision::Allowed(_)));
}
