//! Tests other policies for a limiter that has keys already.

use std::time::Duration;

use relay_ratelimit::{Decision, NameLimiter, PairLimiter, Policy};

use crate::script::Script;
use crate::{policy, positive, strict, with_max_wait};

/// A policy of this burst and rate, without waits.
fn rate(burst: u32, per_second: u32) -> Policy {
    let mut policy = policy();
    (policy.burst, policy.per_second) = (positive(burst), positive(per_second));
    policy
}

#[test]
fn what_is_spent_stays_spent_at_another_rate() {
    let mut script = Script::new(rate(3, 10));
    script.run(
        "7000 a - 3x -> ok
         7000 a - -> all 100",
    );
    script.set(rate(3, 2), 7000);
    script.run("7000 a - -> all 500");
    script.set(rate(5, 10), 7000);
    script.run(
        "7000 a - 2x -> ok
         7000 a - -> all 100
         7000 b - 5x -> ok",
    );
    script.set(rate(1, 10), 7000);
    script.run(
        "7000 b - -> all 100
         7100 b - -> ok
         7100 c - -> ok
         7100 c - -> all 100",
    );
}

#[test]
fn the_same_policy_changes_nothing() {
    let mut script = Script::new(rate(3, 7));
    script.run("1 a - 3x -> ok");
    // With a time that is earlier than the last request.
    script.set(rate(3, 7), 0);
    script.run("1 a - -> all 142");
}

#[test]
fn a_request_owes_no_more_than_the_new_policy_lets_it_wait() {
    let mut script = Script::new(with_max_wait(1000, rate(3, 10)));
    script.run(
        "0 a - 3x -> ok
         0 a - 10x -> *
         0 a - -> all 1100",
    );
    script.set(with_max_wait(1000, rate(3, 1)), 0);
    script.run(
        "0 a - -> all 2000
         1000 a - -> wait 1000",
    );
}

#[test]
fn no_ban_lasts_longer_than_it_may_under_the_new_policy() {
    let mut script = Script::new(strict(Duration::from_secs(1000)));
    script.run(
        "0 a - 5x -> *
         1000 a - 5x -> *
         1000 a banned -> 1000000
         0 net/host - 5x -> *
         1000 net/host - 5x -> *",
    );
    script.set(strict(Duration::from_secs(2000)), 1000);
    script.run("1000 a banned -> 1000000");
    script.set(strict(Duration::from_secs(10)), 5000);
    script.run(
        "5000 a banned -> 10000
         15000 a banned -> no",
    );
    script.set(strict(Duration::ZERO), 6000);
    script.run("6000 net/host banned -> no");
}

#[test]
fn the_ban_of_a_network_is_shortened_as_well() {
    let mut script = Script::new(strict(Duration::from_secs(1000)));
    let flood = |script: &mut Script, second: u32| {
        for host in 0..16 {
            for at in [second, second + 1] {
                script.run(&format!("{at}000 net/{host} - 5x -> *"));
            }
        }
    };
    flood(&mut script, 0);
    script.run("2000 net/other banned -> 999000");
    script.set(strict(Duration::from_secs(10)), 2000);
    script.run(
        "2000 net/other banned -> 10000
         12000 net/other banned -> no",
    );
    // The list of bans still works.
    flood(&mut script, 20);
    script.run("22000 net/other banned -> 9000");
}

#[test]
fn debts_of_bytes_stay_the_same_bytes() {
    use relay_ratelimit::ByteRate;
    use std::num::NonZeroU64;

    let with_bytes = |per_second: u64| {
        let [per_second, burst] = [per_second, 10].map(|n| NonZeroU64::new(n).unwrap());
        let mut policy = policy();
        policy.bytes = Some(ByteRate { per_second, burst });
        policy
    };
    let mut script = Script::new(with_bytes(10));
    script.run(
        "0 a bytes=20 -> ok
         0 a upload -> bytes 1000",
    );
    script.set(with_bytes(5), 0);
    script.run("0 a upload -> bytes 2000");
    script.set(policy(), 0);
    script.run("0 a upload -> ok");
    script.set(with_bytes(5), 0);
    script.run("0 b upload -> ok");
}

#[test]
fn names_and_recipients_change_their_limits() {
    let at = Duration::from_secs(7);
    let names = NameLimiter::new(policy(), &policy(), 1);
    let passed = |name| {
        let passes = |_: &usize| matches!(names.check(1, name, at), Some(Decision::Allowed(_)));
        (0..1000).take_while(passes).count()
    };
    names.introduce(1, 10, at);
    names.introduce(1, 11, at);
    assert_eq!((passed(10), passed(11)), (3, 0));
    names.set_policy(rate(5, 10), &policy(), 2, at);
    names.introduce(1, 11, at);
    assert_eq!((passed(10), passed(11)), (2, 5));
    names.set_policy(rate(5, 10), &rate(1, 1), 2, at);
    names.introduce(1, 12, at);
    assert_eq!(passed(12), 0, "the ceiling of the address is ten, which are spent");

    let pairs = PairLimiter::new(positive(2), positive(10), std::num::NonZeroUsize::new(100).unwrap());
    let passed = |sender| (0..100).filter(|_| pairs.check(1, sender, at).is_ok()).count();
    assert_eq!(passed(7), 5);
    pairs.set_rate(positive(2), positive(20), at);
    assert_eq!((passed(7), passed(8)), (5, 10));
}
