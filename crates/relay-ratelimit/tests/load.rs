//! Many threads and many keys. Promises bounds, not speed; `benches/check.rs` measures that.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use relay_ratelimit::{Decision, Limiter, Policy};

fn positive(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

#[test]
fn many_threads_on_one_key_pass_no_more_than_one() {
    const THREADS: u64 = 8;
    const STEPS: u64 = 20_000;
    let mut policy = Policy::new(positive(40), positive(200));
    let push = policy.add_endpoint("push", positive(100));
    policy.ban = Duration::ZERO;
    let limiter = Limiter::new(policy);
    let (passed, pushed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (limiter, passed, pushed) = (&limiter, &passed, &pushed);
            scope.spawn(move || {
                // Two seconds in steps of 100 microseconds; each thread sees a slightly different time.
                for step in 0..=STEPS {
                    let endpoint = (step % 2 == 0).then_some(push);
                    let now = Duration::from_micros((step * 100 + thread).min(STEPS * 100));
                    if limiter.check(&"key", endpoint, now) == Decision::Allowed {
                        passed.fetch_add(1, Ordering::Relaxed);
                        pushed.fetch_add(u64::from(endpoint.is_some()), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (passed, pushed) = (passed.into_inner(), pushed.into_inner());
    assert!(passed <= 40 + 200 * 2, "{passed} passed");
    assert!(pushed <= 40 + 100 * 2, "{pushed} pushes passed");
    assert!(passed >= 40, "the burst at least, whatever the threads' order");
}

#[test]
fn a_flood_of_keys_leaves_no_more_than_the_bound() {
    const BOUND: usize = 1000;
    let mut policy = Policy::new(positive(40), positive(20));
    policy.add_endpoint("push", positive(10));
    policy.tracked_keys_max = NonZeroUsize::new(BOUND).unwrap();
    let limiter = Limiter::new(policy);
    for key in 0..200_000_u64 {
        assert_eq!(limiter.check(&key, None, Duration::from_micros(key)), Decision::Allowed);
        assert_eq!(limiter.tracked(), BOUND.min(key as usize + 1));
    }
}

#[test]
fn a_flood_against_a_table_full_of_bans_is_bounded_too() {
    const BOUND: u64 = 10_000;
    let mut policy = Policy::new(positive(1), positive(1));
    policy.ban_threshold = positive(1);
    policy.tracked_keys_max = NonZeroUsize::new(BOUND as usize).unwrap();
    let limiter = Limiter::new(policy);
    for key in 0..BOUND {
        let _ = limiter.check(&key, None, Duration::ZERO);
        let _ = limiter.check(&key, None, Duration::ZERO);
    }
    // Would take minutes if each newcomer had to look through the bans.
    let passed = (BOUND..BOUND + 200_000)
        .filter(|key| limiter.check(key, None, Duration::from_secs(1)) == Decision::Allowed)
        .count();
    assert_eq!(passed, 1, "newcomers share one overflow");
    assert_eq!(limiter.tracked(), BOUND as usize);
}
