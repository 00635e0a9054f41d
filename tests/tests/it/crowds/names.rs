//! Clients that prove names: many behind one address do not disturb each other, and names that an
//! attacker mints give it no more than its address has.

use std::thread;
use std::time::Duration;

use relay_auth::{Locks, keygen};
use relay_ratelimit::CEILING_FACTOR;
use relay_tests::{Client, at_length, pull_body};

use super::people::Crowd;
use super::{ShippedRelay, TIMEOUT};
use crate::stopwatch::Stopwatch;

/// The defaults.
const RATE: f64 = 20.0;
const PULL_RATE: f64 = 5.0;
const BURST: f64 = 40.0;
const MAX_WAIT: f64 = 2.0;
const NAMES_PER_ADDRESS: usize = 64;

/// The connections of an attacker.
const CONNECTIONS: usize = 16;

#[test]
fn fifty_with_proofs_behind_one_address_are_never_refused() {
    let relay = ShippedRelay::with("");
    let time = at_length(Duration::from_secs(60), Duration::from_secs(20));
    let stats = Crowd::begin_with_proofs(&relay.process.base_url, 50).run_for(time);
    println!("fifty with proofs for {time:?}: {stats:?}, {:?}", relay.metrics());
    assert_eq!((stats.refusals, stats.lost_pulls, stats.lost_pushes, stats.wrong_acks), (0, 0, 0, 0));
    let least = 50 * (time.as_secs() - 3);
    assert!(stats.pulls >= least && stats.pushes >= least && stats.items >= least * 9 / 10, "{stats:?}");
    assert_eq!(relay.bans(), 0.0);
}

/// A new name for each request counts by the address.
#[test]
fn ten_thousand_minted_names_get_no_more_than_an_address() {
    let relay = ShippedRelay::with("");
    let (passed, seconds) = flood(&relay, |request| request % 10_000);
    println!("{passed} passed within {seconds} s");
    let address = BURST + PULL_RATE * (seconds + MAX_WAIT);
    assert!(passed as f64 <= address, "{passed} of {address}");
}

/// The names that an address may have give it ten times its rate, not each a rate of its own.
#[test]
fn as_many_names_as_an_address_may_have_stay_below_its_ceiling() {
    let relay = ShippedRelay::with("");
    let (passed, seconds) = flood(&relay, |request| request % NAMES_PER_ADDRESS);
    println!("{passed} passed within {seconds} s");
    let factor = f64::from(CEILING_FACTOR.get());
    let ceiling = factor * (BURST + RATE * seconds) + BURST + PULL_RATE * (seconds + MAX_WAIT);
    assert!(passed as f64 <= ceiling, "{passed} of {ceiling}");
    // New connections have a limit of their own, and in the end the address is banned for them.
    let address = BURST + PULL_RATE * (seconds + MAX_WAIT);
    assert!(passed as f64 > 2.0 * address, "the names count on their own: {passed}");
}

/// Pulls as fast as the relay answers, each with the name of its number and the proof for it.
/// Returns how many pulls passed, within how many seconds.
fn flood(relay: &ShippedRelay, name: impl Fn(usize) -> usize + Sync) -> (usize, f64) {
    let (time, watch) = (at_length(Duration::from_secs(30), Duration::from_secs(8)), Stopwatch::start());
    let run = |first: usize| {
        let requests = (first..).step_by(CONNECTIONS).take_while(|_| watch.elapsed() < time);
        requests.filter(|&request| pull(relay, name(request)) == Some(200)).count()
    };
    let run = &run;
    let passed = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(move || run(first))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    (passed, watch.elapsed().as_secs_f64())
}

/// The status of one pull on a connection of its own, unless the relay closes it.
fn pull(relay: &ShippedRelay, name: usize) -> Option<u16> {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&(name as u64).to_le_bytes());
    let (read, secret) = keygen::secret_lock(&secret);
    let name = Locks { read, send: None }.to_string();
    let body = pull_body(&name, None, None).to_string();
    let authorization = format!("Bearer {secret}");
    let headers = [("content-type", "application/json"), ("authorization", &*authorization)];
    let mut client = Client::connect_for(&relay.process.base_url, TIMEOUT).ok()?;
    client.post_bytes("/pull", &headers, body.as_bytes()).ok().map(|response| response.status)
}
