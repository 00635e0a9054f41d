//! Tests bans of networks.

use std::time::Duration;

use relay_ratelimit::{Key, Limiter};

use crate::script::Script;
use crate::{policy, positive, strict, with_tracked_keys_max};

const BAN: Duration = Duration::from_secs(10);

/// Bans a key of [`strict`], by excess in the second at `ms`.
fn ban(script: &mut Script, key: &str, ms: u64) {
    script.run(&format!("{} {key} - 2x -> *\n{ms} {key} - 5x -> *", ms - 1000));
    script.run(&format!("{ms} {key} banned -> 10000"));
}

#[test]
fn sixteen_banned_children_become_one_ban_until_the_latest_end() {
    let mut script = Script::new(strict(BAN));
    for host in 0..15 {
        ban(&mut script, &format!("net/{host}"), 1000);
    }
    script.run("1000 net/other - -> ok");
    assert_eq!(script.limiter.tracked(), 16);
    ban(&mut script, "net/15", 2000);
    assert_eq!(script.limiter.tracked(), 1, "the ban of the network replaces those of its children");
    script.run(
        "2000 net/other - -> ban all 10000
         2000 net/new push -> ban all 10000
         2000 net/0 - -> ban all 10000
         2000 net/new banned -> 10000
         2000 elsewhere/0 - -> ok
         2000 net - -> ok
         11999 net/0 - -> ban all 1
         12000 net/0 - -> ok
         12000 net/0 banned -> no",
    );
    assert_eq!(script.limiter.tracked(), 4);
}

#[test]
fn children_whose_bans_have_ended_do_not_count() {
    let mut script = Script::new(strict(BAN));
    for host in 0..15 {
        ban(&mut script, &format!("net/{host}"), 1000);
    }
    ban(&mut script, "net/15", 11_000);
    script.run("11000 net/other - -> ok");
    for host in 0..14 {
        ban(&mut script, &format!("net/{host}"), 12_000);
    }
    script.run("12000 net/other - -> ok");
    ban(&mut script, "net/14", 13_000);
    script.run("13000 net/other - -> ban all 10000");
}

#[test]
fn a_child_that_is_banned_repeatedly_counts_once() {
    let mut script = Script::new(strict(BAN));
    for round in 0..20 {
        ban(&mut script, "net/0", 1000 + 12_000 * round);
    }
    script.run("229000 net/other - -> ok");
}

#[test]
fn bans_climb_to_the_wider_network() {
    let mut script = Script::new(strict(BAN));
    for subnet in 0..16 {
        script.run("1000 net/other/0 - 9x -> *\n1000 net/other/0 banned -> no");
        for host in 0..16 {
            ban(&mut script, &format!("net/{subnet}/{host}"), 1000);
        }
    }
    script.run(
        "1000 net/other/0 - -> ban all 10000
         1000 net/3/99 - -> ban all 10000
         1000 elsewhere/0/0 - -> ok
         11000 net/other/0 - -> ok",
    );
}

#[test]
fn bans_of_endpoints_do_not_climb() {
    let mut policy = policy();
    policy.ban_threshold = positive(1);
    let mut script = Script::new(policy);
    for host in 0..30 {
        script.run(&format!("0 net/{host} pull 4x -> *\n1000 net/{host} pull 9x -> *"));
        script.run(&format!("1000 net/{host} pull -> ban pull 100000"));
    }
    script.run("1000 net/other pull -> ok");
}

#[test]
fn connections_of_a_banned_network_share_its_answers() {
    let mut script = Script::new(strict(BAN));
    for host in 0..16 {
        ban(&mut script, &format!("net/{host}"), 1000);
    }
    script.run(
        "1000 net/0 connect 3x -> once 10000
         1000 net/new connect 2x -> once 10000
         1000 net/0 connect 100x -> shut
         1000 net/other connect 100x -> shut
         2000 net/0 connect -> once 9000
         2000 net/0 connect -> shut
         11000 net/0 connect -> serve",
    );
}

#[test]
fn one_network_never_fills_the_table() {
    let mut script = Script::new(with_tracked_keys_max(100, strict(BAN)));
    for subnet in 0..20 {
        for host in 0..20 {
            script.run(&format!("0 net/{subnet}/{host} - 2x -> *\n1000 net/{subnet}/{host} - 5x -> *"));
        }
    }
    assert!(script.limiter.tracked() <= 15, "{}", script.limiter.tracked());
    script.run("1000 net/99/0 - -> ban all 10000");
}

/// A key that is its own network, which violates the contract of [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Circle(u8);

impl Key for Circle {
    fn parent(&self) -> Option<Self> {
        Some(Self(self.0 % 32))
    }
}

#[test]
fn a_key_that_is_its_own_network_causes_no_endless_loop() {
    let limiter = Limiter::new(strict(BAN));
    for second in 0..2 {
        for key in 0..=255 {
            for _ in 0..5 {
                let _ = limiter.check(&Circle(key), None, Duration::from_secs(second));
                let _ = limiter.connection(&Circle(key), Duration::from_secs(second));
            }
        }
    }
}
