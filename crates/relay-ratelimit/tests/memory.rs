//! Measures the memory under a flood of addresses, in a process of its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_ratelimit::{Decision, Key, Limiter, Policy};

/// The relay's default.
const TRACKED_MAX: usize = 100_000;

/// How much more memory the allocator may use after the table is full.
const SLACK_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes of memory of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A network of addresses. It has the size of the relay's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Network {
    first_bits: [u8; 16],
    width: u8,
}

impl Key for Network {}

/// An address in the network with this number, of a provider with very many networks.
fn address(number: u64) -> Network {
    Network { first_bits: (0x2001_0db8 << 96 | u128::from(number) << 64).to_be_bytes(), width: 64 }
}

#[test]
fn ten_million_addresses_take_no_more_memory_than_the_tracked_ones() {
    #[expect(clippy::disallowed_methods, reason = "the switch of the slow tests is an environment variable")]
    let is_slow = std::env::var_os("RUN_SLOW_TESTS").is_some();
    let addresses: u64 = if is_slow { 10_000_000 } else { 1_000_000 };
    let positive = |number| NonZeroU32::new(number).unwrap();
    let mut policy = Policy::new(positive(40), positive(20));
    let push = policy.add_endpoint("push", positive(10));
    policy.add_endpoint("pull", positive(5));
    policy.add_endpoint("ack", positive(10));
    policy.tracked_keys_max = NonZeroUsize::new(TRACKED_MAX).unwrap();
    let limiter = Limiter::new(policy);
    let before = resident_bytes();
    let mut full = 0;
    for number in 0..addresses {
        let decision = limiter.check(&address(number), Some(push), Duration::from_micros(number));
        assert!(matches!(decision, Decision::Allowed(_)));
        if number == 2 * TRACKED_MAX as u64 {
            full = resident_bytes();
        }
    }
    let end = resident_bytes();
    println!("{} bytes for {TRACKED_MAX} addresses, of {addresses}", full.saturating_sub(before));
    assert_eq!(limiter.tracked(), TRACKED_MAX);
    assert!(end <= full + SLACK_BYTES, "{full} bytes when the table was full, {end} at the end");
}
