//! Tests of what happens between threads, and of keys without space.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::thread;

use super::*;

/// Twenty hosts to a network; the neighbourhood is the host's last digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Host(u64);

impl Key for Host {
    fn parent(&self) -> Option<Self> {
        (self.0 < 1000).then(|| Self(1000 + self.0 / 20))
    }

    fn neighbourhood(&self) -> u64 {
        self.0 % 10
    }
}

/// One token, one per second, no waits, and a ban after one second of excess.
fn policy(tracked_keys_max: usize, ban: Duration) -> Policy {
    let mut policy = Policy::new(NonZeroU32::MIN, NonZeroU32::MIN);
    policy.max_wait = Duration::ZERO;
    policy.tracked_keys_max = NonZeroUsize::new(tracked_keys_max).unwrap();
    policy.ban_threshold = NonZeroU32::MIN;
    policy.ban = ban;
    policy
}

fn passes(decision: &Decision) -> bool {
    matches!(decision, Decision::Allowed(_))
}

#[test]
fn two_first_requests_of_a_key_share_one_entry() {
    let limiter = Limiter::new(policy(9, Duration::ZERO));
    // As if both threads had found the key unknown before either added it.
    let check_new = || {
        limiter.with_new(&1_u8, &limiter.rules(), 0, |entry, owner| {
            entry.check(&limiter.rules(), owner, None, 0)
        })
    };
    assert!(passes(&check_new()));
    assert!(!passes(&check_new()));
    assert_eq!(limiter.tracked(), 1);
}

/// A limiter for one key, which stays banned and tracked.
fn full_limiter(max_wait: Duration) -> Limiter<Host> {
    let mut policy = policy(1, Duration::from_secs(1000));
    policy.max_wait = max_wait;
    let mut limiter = Limiter::new(policy);
    limiter.roster = Mutex::new(Roster::new(usize::MAX));
    for second in [0, 0, 0, 0, 1, 1, 1, 1, 1] {
        let _ = limiter.check(&Host(0), None, Duration::from_secs(second));
    }
    assert!(limiter.is_banned(&Host(0), Duration::from_secs(1)).is_some());
    limiter
}

#[test]
fn keys_without_space_share_a_limit_with_their_neighbourhood_and_are_never_banned() {
    let limiter = full_limiter(Duration::ZERO);
    for second in 1..100 {
        let now = Duration::from_secs(second);
        let passed = (100..200).filter(|&host| passes(&limiter.check(&Host(host), None, now)));
        assert_eq!(passed.count(), 10, "one for each of ten neighbourhoods");
        let served = (100..200).filter(|&host| limiter.connection(&Host(host), now) == Connection::Serve);
        assert_eq!(served.count(), 40);
    }
    assert!((100..200).all(|host| limiter.is_banned(&Host(host), Duration::from_secs(99)).is_none()));
    assert_eq!(limiter.tracked(), 1);
}

#[test]
fn a_reservation_in_the_overflow_is_given_back_there() {
    let limiter = full_limiter(Duration::from_secs(1));
    let check = |host| limiter.check(&Host(host), None, Duration::from_secs(1));
    assert!(passes(&check(100)));
    let Decision::Wait(wait) = check(100) else { panic!("the second waits for a second") };
    assert!(matches!(check(110), Decision::Refused(_)));
    limiter.give_back(&Host(100), wait.reservation, Duration::from_secs(1));
    assert!(matches!(check(110), Decision::Wait(_)));
}

#[test]
fn roster_and_entries_agree_after_concurrent_evictions() {
    let limiter = Limiter::new(policy(50, Duration::from_millis(50)));
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let limiter = &limiter;
            scope.spawn(move || {
                for step in 0..20_000_u64 {
                    // Sixty keys for a limit of fifty, in a different order on each thread.
                    let key = Host((step * (thread + 1) + step / 60) % 60);
                    let now = Duration::from_millis(step);
                    let _ = limiter.check(&key, None, now);
                    let _ = limiter.connection(&key, now);
                    assert!(limiter.tracked() <= 50);
                }
            });
        }
    });
    let mut roster = lock(&limiter.roster);
    assert_eq!(roster.len(), limiter.entries.len());
    let forget = |key: &Host, _| {
        assert!(limiter.entries.remove(key).is_some(), "each key of the roster has an entry");
        KeyStatus::Idle
    };
    while roster.evict(u64::MAX, forget) != Eviction::None {}
    assert!(limiter.entries.is_empty(), "each entry has its key in the roster");
}
