//! Tests requests that count by a name.

use std::time::Duration;

use relay_ratelimit::{CEILING_FACTOR, Decision, Limiter, NameLimiter, Policy, SHARED_BUCKET};

use crate::{policy, positive, strict, with_tracked_keys_max};

const OFFICE: u64 = 1;
const ALICE: u64 = 10;
const BOB: u64 = 11;

const HOUR: u64 = 3600;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Names with burst 3 and 10 per second, and two of them for each address.
fn two_names() -> NameLimiter {
    NameLimiter::new(policy(), &policy(), 2)
}

/// How many requests of a name pass at once.
fn passed(limiter: &NameLimiter, address: u64, name: u64, now: Duration) -> usize {
    let passes = |_: &usize| matches!(limiter.check(address, name, now), Some(Decision::Allowed(_)));
    (0..1000).take_while(passes).count()
}

fn is_known(limiter: &NameLimiter, address: u64, name: u64, now: Duration) -> bool {
    limiter.check(address, name, now).is_some()
}

#[test]
fn a_name_counts_by_itself_once_its_address_has_introduced_it() {
    let limiter = two_names();
    assert!(!is_known(&limiter, OFFICE, ALICE, at(0)));
    limiter.introduce(OFFICE, ALICE, at(0));
    assert_eq!(passed(&limiter, OFFICE, ALICE, at(0)), 3);
    assert!(!is_known(&limiter, OFFICE, BOB, at(0)), "another name");
    assert!(!is_known(&limiter, 2, ALICE, at(0)), "another address");
    let Some(Decision::Refused(refusal)) = limiter.check(OFFICE, ALICE, at(0)) else {
        panic!("the name has no tokens left")
    };
    assert_eq!((refusal.bucket, refusal.retry_after), ("name", Duration::from_millis(100)));
    limiter.introduce(OFFICE, BOB, at(0));
    assert_eq!(passed(&limiter, OFFICE, BOB, at(0)), 3, "one name does not disturb another");
}

#[test]
fn a_name_has_one_bucket_at_all_its_addresses() {
    let limiter = two_names();
    limiter.introduce(OFFICE, ALICE, at(0));
    limiter.introduce(2, ALICE, at(0));
    assert_eq!(passed(&limiter, OFFICE, ALICE, at(0)) + passed(&limiter, 2, ALICE, at(0)), 3);
}

#[test]
fn an_address_keeps_its_first_names_until_one_is_unused_for_an_hour() {
    let limiter = two_names();
    for name in [ALICE, BOB, 12] {
        limiter.introduce(OFFICE, name, at(0));
    }
    assert!(!is_known(&limiter, OFFICE, 12, at(0)));
    // Alice goes on, Bob does not.
    assert!(is_known(&limiter, OFFICE, ALICE, at(HOUR - 1)));
    limiter.introduce(OFFICE, 12, at(HOUR - 1));
    assert!(!is_known(&limiter, OFFICE, 12, at(HOUR - 1)));
    assert!(!is_known(&limiter, OFFICE, BOB, at(HOUR)));
    limiter.introduce(OFFICE, 12, at(HOUR));
    assert!(is_known(&limiter, OFFICE, 12, at(HOUR)) && is_known(&limiter, OFFICE, ALICE, at(HOUR)));
}

#[test]
fn all_names_of_an_address_have_a_ceiling_together() {
    let limiter = NameLimiter::new(policy(), &policy(), 1000);
    (0..1000).for_each(|name| limiter.introduce(OFFICE, name, at(0)));
    let once = |now| {
        let decisions = (0..1000).map(|name| limiter.check(OFFICE, name, now));
        decisions.filter(|decision| matches!(decision, Some(Decision::Allowed(_)))).count()
    };
    assert_eq!(once(at(0)), 3 * CEILING_FACTOR.get() as usize, "ten times the burst of the address");
    assert!(!is_known(&limiter, OFFICE, 0, at(0)), "further requests count by the address");
    assert_eq!(once(at(1)), 3 * CEILING_FACTOR.get() as usize, "the bucket never holds more");
    limiter.introduce(2, ALICE, at(1));
    assert_eq!(passed(&limiter, 2, ALICE, at(2)), 3, "another address has its own");
}

#[test]
fn a_withdrawn_name_counts_by_the_address_and_frees_its_place() {
    let limiter = two_names();
    limiter.introduce(OFFICE, ALICE, at(0));
    limiter.introduce(OFFICE, BOB, at(0));
    limiter.withdraw(OFFICE, ALICE);
    limiter.withdraw(2, ALICE);
    assert!(!is_known(&limiter, OFFICE, ALICE, at(0)));
    limiter.introduce(OFFICE, 12, at(0));
    assert!(is_known(&limiter, OFFICE, 12, at(0)) && is_known(&limiter, OFFICE, BOB, at(0)));
}

#[test]
fn without_places_no_name_is_known() {
    let limiter = NameLimiter::new(policy(), &policy(), 0);
    limiter.introduce(OFFICE, ALICE, at(0));
    assert!(!is_known(&limiter, OFFICE, ALICE, at(0)));
}

/// Eight addresses have space. A further one takes the place of the one that was used longest ago.
#[test]
fn the_table_of_addresses_is_bounded() {
    let limiter = NameLimiter::new(policy(), &with_tracked_keys_max(8, policy()), 2);
    for address in 0..20 {
        limiter.introduce(address, ALICE + address, at(address));
    }
    let known: Vec<u64> =
        (0..20).filter(|&address| is_known(&limiter, address, ALICE + address, at(20))).collect();
    assert_eq!(known, (12..20).collect::<Vec<_>>());
}

#[test]
fn a_wrong_proof_counts_like_a_refusal() {
    let mut policy = strict(at(100));
    policy.burst = positive(1000);
    let push = policy.add_endpoint("push", positive(1));
    let limiter = Limiter::new(policy);
    let is_banned =
        |now| matches!(limiter.check(&"a", Some(push), now), Decision::Refused(refusal) if refusal.banned);
    assert!(!limiter.count_refusal(&"a", push, at(0)), "a client of which nothing else is known");
    for second in 2..4 {
        for request in 1..=5 {
            if is_banned(at(second)) {
                assert_eq!(second, 3);
                return;
            }
            let began = limiter.count_refusal(&"a", push, at(second));
            assert_eq!(began, request == 5, "the fifth request of a second is beyond four times the rate");
        }
        assert!(is_banned(at(second)));
    }
}

#[test]
fn a_ban_and_a_debt_cannot_be_escaped_by_a_name() {
    let mut policy = strict(at(100));
    policy.bytes = Some(relay_ratelimit::ByteRate {
        per_second: std::num::NonZeroU64::MIN,
        burst: std::num::NonZeroU64::MIN,
    });
    let (pull, push) =
        (policy.add_endpoint("pull", positive(9)), policy.add_endpoint_with_debts("push", positive(9)));
    let limiter = Limiter::new(policy);
    let clear = |now| [pull, push].map(|endpoint| limiter.is_clear(&"a", endpoint, at(now)));
    assert_eq!(clear(0), [true, true]);
    limiter.charge_bytes(&"a", 11, at(0));
    assert_eq!((clear(0), clear(10)), ([true, false], [true, true]));
    for second in [20, 20, 22, 22, 22, 22, 22, 22] {
        let decision = limiter.check(&"a", None, at(second));
        if let Decision::Refused(refusal) = decision {
            assert_eq!(refusal.bucket, SHARED_BUCKET);
        }
    }
    assert_eq!(clear(22), [false, false]);
}

#[test]
fn a_reservation_of_a_name_is_given_back() {
    let mut names = Policy::new(positive(1), positive(1));
    names.max_wait = at(1);
    let limiter = NameLimiter::new(names, &policy(), 2);
    limiter.introduce(OFFICE, ALICE, at(0));
    let check = || limiter.check(OFFICE, ALICE, at(0)).unwrap();
    assert!(matches!(check(), Decision::Allowed(_)));
    let Decision::Wait(wait) = check() else { panic!("the second waits") };
    assert!(matches!(check(), Decision::Refused(_)));
    limiter.give_back(ALICE, wait.reservation, at(0));
    assert!(matches!(check(), Decision::Wait(_)));
}
