//! Tests that a flood costs the relay little, and that users beside it do not notice it.

use std::thread;
use std::time::Duration;

use relay_tests::{Process, at_length};

use super::flood::{Attacker, FloodCounts, HEALTH, PULL, STATS};
use super::people::Crowd;
use super::{ShippedRelay, TIMEOUT};
use crate::stopwatch::Stopwatch;

const PER_SECOND: u32 = 10_000;
const CONNECTIONS: usize = 50;

/// The share of one processor that a flood may take, beyond what the users take. Optimised code
/// takes half as much as this unoptimised build.
const COST_MAX: f64 = 0.5;

/// Runs `act`. Returns its result and the share of one processor that the relay used meanwhile.
fn cost<T>(process: &Process, act: impl FnOnce() -> T) -> (T, f64) {
    let (before, watch) = (process.cpu_time().unwrap(), Stopwatch::start());
    let result = act();
    let (time, wall) = (process.cpu_time().unwrap() - before, watch.elapsed());
    (result, time.as_secs_f64() / wall.as_secs_f64())
}

/// Floods from its own address until the address is slowed, refused, and banned for a while.
fn flood(relay: &ShippedRelay, host: u8, users_share: f64, flood: impl FnOnce(&Attacker) -> FloodCounts) {
    let address = relay.process.base_url.strip_prefix("http://").unwrap().parse().unwrap();
    let attacker = Attacker { relay: address, source: [127, 0, 0, host].into(), per_second: PER_SECOND };
    let (counts, total_share) = cost(&relay.process, || flood(&attacker));
    println!(
        "from {}: {:.1} % of a processor for {counts:?}, {:?}",
        attacker.source,
        100.0 * (total_share - users_share),
        relay.metrics()
    );
    assert!(total_share - users_share < COST_MAX, "{total_share} - {users_share}");
}

#[test]
fn a_flood_costs_little_and_users_do_not_notice_it() {
    let (threshold, time) = at_length((10, Duration::from_secs(27)), (3, Duration::from_secs(10)));
    let relay = ShippedRelay::with(&format!("rate_limit.ban_threshold = {threshold}\n"));
    let crowd = Crowd::begin(&relay.process.base_url, 10);
    let ((), users_share) =
        cost(&relay.process, || thread::sleep(at_length(Duration::from_secs(8), Duration::from_secs(4))));
    println!("users alone: {:.1} % of a processor", 100.0 * users_share);
    // The rate limit may slow this flood so much that it is never banned.
    flood(&relay, 2, users_share, |attacker| attacker.over_kept_connections(PULL, CONNECTIONS, time));
    let bans_before = relay.bans();
    assert!(bans_before <= 1.0, "{bans_before}");
    flood(&relay, 3, users_share, |attacker| attacker.over_new_connections(time));
    let bans = relay.bans();
    assert_eq!(bans, bans_before + 1.0);
    // Requests that are only slowed down are no flood, and /health is never refused.
    let time = time / 5;
    flood(&relay, 4, users_share, |attacker| attacker.over_kept_connections(STATS, CONNECTIONS, time));
    flood(&relay, 5, users_share, |attacker| attacker.over_kept_connections(HEALTH, CONNECTIONS, time));
    assert_eq!(relay.bans(), bans);
    let crowd_stats = crowd.end();
    println!("users: {crowd_stats:?}");
    assert_eq!(
        (crowd_stats.refusals, crowd_stats.lost_pushes, crowd_stats.lost_pulls, crowd_stats.wrong_acks),
        (0, 0, 0, 0)
    );
    assert!(crowd_stats.longest_silence < TIMEOUT, "{:?}", crowd_stats.longest_silence);
}
