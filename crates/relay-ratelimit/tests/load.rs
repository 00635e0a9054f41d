//! Tests the bounds with many threads and many keys. `benches/check.rs` measures the speed.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use relay_ratelimit::{Decision, Key, Limiter, Policy};

fn positive(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

#[test]
fn many_threads_on_one_key_pass_no_more_than_one_thread() {
    const THREADS: u64 = 8;
    const STEPS: u64 = 20_000;
    const MAX_WAIT: Duration = Duration::from_millis(300);
    let mut policy = Policy::new(positive(40), positive(200));
    let push = policy.add_endpoint("push", positive(100));
    policy.ban = Duration::ZERO;
    policy.max_wait = MAX_WAIT;
    let limiter = Limiter::new(policy);
    let (passed, pushed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (limiter, passed, pushed) = (&limiter, &passed, &pushed);
            scope.spawn(move || {
                // Two seconds in steps of 100 microseconds; each thread sees a slightly different
                // time.
                for step in 0..=STEPS {
                    let endpoint = (step % 2 == 0).then_some(push);
                    let now = Duration::from_micros((step * 100 + thread).min(STEPS * 100));
                    match limiter.check(&"key", endpoint, now) {
                        Decision::Refused(_) => continue,
                        // Every third waiting request is given back at once.
                        Decision::Wait(wait) if step % 3 == 0 => {
                            limiter.give_back(&"key", wait.reservation, now);
                            continue;
                        }
                        Decision::Wait(wait) => assert!(wait.after <= MAX_WAIT),
                        Decision::Allowed(_) => {}
                    }
                    passed.fetch_add(1, Ordering::Relaxed);
                    pushed.fetch_add(u64::from(endpoint.is_some()), Ordering::Relaxed);
                }
            });
        }
    });
    let (passed, pushed) = (passed.into_inner(), pushed.into_inner());
    // Two seconds and twice the longest wait.
    assert!(passed <= 40 + 200 * 2 + 120 + 1, "{passed} passed");
    assert!(pushed <= 40 + 100 * 2 + 60 + 1, "{pushed} pushes passed");
    assert!(passed >= 40, "at least the burst");
}

#[test]
fn a_flood_of_keys_respects_the_bound() {
    const BOUND: usize = 1000;
    let mut policy = Policy::new(positive(40), positive(20));
    policy.add_endpoint("push", positive(10));
    policy.tracked_keys_max = NonZeroUsize::new(BOUND).unwrap();
    let limiter = Limiter::new(policy);
    for key in 0..200_000_u64 {
        assert!(matches!(limiter.check(&key, None, Duration::from_micros(key)), Decision::Allowed(_)));
        assert_eq!(limiter.tracked(), BOUND.min(key as usize + 1));
    }
}

/// A hundred hosts per network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum HostOrNetwork {
    Host(u64),
    Network(u64),
}

impl Key for HostOrNetwork {
    fn parent(&self) -> Option<Self> {
        match self {
            Self::Host(host) => Some(Self::Network(host / 100)),
            Self::Network(_) => None,
        }
    }
}

#[test]
fn a_flood_against_a_limiter_full_of_bans_is_bounded_and_finds_space() {
    const BOUND: u64 = 10_000;
    let mut policy = Policy::new(positive(1), positive(1));
    policy.max_wait = Duration::ZERO;
    policy.ban_threshold = positive(1);
    policy.tracked_keys_max = NonZeroUsize::new(BOUND as usize).unwrap();
    let limiter = Limiter::new(policy);
    // Fifteen banned hosts per network, so that no ban climbs.
    let hosts: Vec<_> =
        (0..BOUND).map(|number| HostOrNetwork::Host(number / 15 * 100 + number % 15)).collect();
    for second in [0, 0, 1, 1, 1, 1, 1] {
        for host in &hosts {
            let _ = limiter.check(host, None, Duration::from_secs(second));
        }
    }
    let now = Duration::from_secs(1);
    assert!(hosts.iter().all(|host| limiter.is_banned(host, now).is_some()));
    let now = Duration::from_secs(2);
    // This would take minutes if each new key had to search the bans.
    let newcomers = (0..200_000).map(|number| HostOrNetwork::Host(1_000_000 + number));
    let passed = newcomers.filter(|key| matches!(limiter.check(key, None, now), Decision::Allowed(_)));
    assert_eq!(passed.count(), 200_000);
    assert_eq!(limiter.tracked(), BOUND as usize);
    let banned = hosts.iter().filter(|host| limiter.is_banned(host, now).is_some());
    assert_eq!(banned.count(), BOUND as usize / 2);
}

#[test]
fn concurrent_bans_of_networks_forget_their_keys() {
    let mut policy = Policy::new(positive(1), positive(1));
    policy.ban_threshold = positive(1);
    policy.ban = Duration::from_secs(3600);
    let limiter = Limiter::new(policy);
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let limiter = &limiter;
            scope.spawn(move || {
                for second in 0..4 {
                    for turn in 0..6 * 1600_u64 {
                        // Sixteen hosts of each of a hundred networks, in a different order on
                        // each thread.
                        let number = turn * (2 * thread + 1) % 1600;
                        let host = HostOrNetwork::Host(number / 16 * 100 + number % 16);
                        let now = Duration::from_secs(second);
                        let _ = limiter.check(&host, None, now);
                        let _ = limiter.connection(&host, now);
                    }
                }
            });
        }
    });
    let now = Duration::from_secs(3);
    for network in 0..100 {
        let newcomer = limiter.is_banned(&HostOrNetwork::Host(network * 100 + 99), now);
        assert!(newcomer.is_some(), "network {network}");
    }
    assert!(limiter.tracked() <= 8 * 16, "{} tracked keys of banned networks", limiter.tracked());
}
