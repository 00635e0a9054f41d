//! What a flood costs the relay, and that the people beside it do not notice.

use std::thread;
use std::time::Duration;

use relay_tests::{Process, at_length};

use super::flood::{Attacker, HEALTH, PULL, STATS, Tried};
use super::people::Crowd;
use super::{PATIENCE, Shipped};
use crate::stopwatch::Stopwatch;

const PER_SECOND: u32 = 10_000;
const CONNECTIONS: usize = 50;

/// What part of one processor a flood may take, above what the people take. Optimised code takes
/// half of what this code does.
const COST_MAX: f64 = 0.5;

/// Runs `act`, and tells which part of one processor the relay took meanwhile.
fn cost<T>(process: &Process, act: impl FnOnce() -> T) -> (T, f64) {
    let (before, watch) = (process.cpu_time().unwrap(), Stopwatch::start());
    let result = act();
    let (time, wall) = (process.cpu_time().unwrap() - before, watch.elapsed());
    (result, time.as_secs_f64() / wall.as_secs_f64())
}

/// A flood of its own address: as long as it takes until that is slowed, refused, and then banned
/// for a while.
fn flood(relay: &Shipped, host: u8, alone: f64, flood: impl FnOnce(&Attacker) -> Tried) {
    let address = relay.process.base_url.strip_prefix("http://").unwrap().parse().unwrap();
    let attacker = Attacker { relay: address, source: [127, 0, 0, host].into(), per_second: PER_SECOND };
    let (tried, both) = cost(&relay.process, || flood(&attacker));
    println!(
        "from {}: {:.1} % of a processor for {tried:?}, {:?}",
        attacker.source,
        100.0 * (both - alone),
        relay.metrics()
    );
    assert!(both - alone < COST_MAX, "{both} - {alone}");
}

#[test]
fn a_flood_costs_little_and_the_people_beside_it_do_not_notice() {
    let (threshold, time) = at_length((10, Duration::from_secs(27)), (3, Duration::from_secs(10)));
    let relay = Shipped::with(&format!("rate_limit.ban_threshold = {threshold}\n"));
    let crowd = Crowd::begin(&relay.process.base_url, 10);
    let ((), alone) =
        cost(&relay.process, || thread::sleep(at_length(Duration::from_secs(8), Duration::from_secs(4))));
    println!("people alone: {:.1} % of a processor", 100.0 * alone);
    // Held back, it may come to ask so little that nothing of it is banned.
    flood(&relay, 2, alone, |attacker| attacker.over_kept_connections(PULL, CONNECTIONS, time));
    let of_kept = relay.bans();
    assert!(of_kept <= 1.0, "{of_kept}");
    flood(&relay, 3, alone, |attacker| attacker.over_new_connections(time));
    let bans = relay.bans();
    assert_eq!(bans, of_kept + 1.0);
    // What is only slowed down is no flood yet, and what is never refused neither.
    let time = time / 5;
    flood(&relay, 4, alone, |attacker| attacker.over_kept_connections(STATS, CONNECTIONS, time));
    flood(&relay, 5, alone, |attacker| attacker.over_kept_connections(HEALTH, CONNECTIONS, time));
    assert_eq!(relay.bans(), bans);
    let lives = crowd.end();
    println!("the people: {lives:?}");
    assert_eq!((lives.refusals, lives.lost_pushes, lives.lost_pulls, lives.wrong_acks), (0, 0, 0, 0));
    assert!(lives.longest_silence < PATIENCE, "{:?}", lives.longest_silence);
}
