//! Measures the cost of one decision: for a hot key, among many known keys, in a flood of new
//! keys, for a connection, beside a banned network, and for a pair.

use std::cell::Cell;
use std::hint::black_box;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use relay_ratelimit::{Endpoint, Key, Limiter, PairLimiter, Policy};

const KEYS: u64 = 100_000;

/// A key of the size of an address, in two nested networks.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Address {
    bits: u128,
    width: u8,
}

impl Key for Address {
    fn parent(&self) -> Option<Self> {
        let width = self.width.checked_sub(8).filter(|&width| width >= 112)?;
        Some(Self { bits: self.bits >> (128 - width), width })
    }
}

fn positive(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("the rates of this bench are positive")
}

/// The relay's default policy.
fn limiter<K: Key>(tracked_keys_max: u64) -> (Limiter<K>, Endpoint) {
    let mut policy = Policy::new(positive(40), positive(20));
    let push = policy.add_endpoint("push", positive(10));
    policy.add_endpoint("pull", positive(5));
    policy.add_endpoint("ack", positive(10));
    policy.tracked_keys_max = usize::try_from(tracked_keys_max)
        .ok()
        .and_then(NonZeroUsize::new)
        .expect("the bound is positive and small");
    (Limiter::new(policy), push)
}

/// A limiter that is full with the keys from 0 to [`KEYS`].
fn full() -> (Limiter<u128>, Endpoint) {
    let (limiter, push) = limiter(KEYS);
    for key in 0..KEYS {
        let _ = limiter.check(&u128::from(key), Some(push), Duration::ZERO);
    }
    (limiter, push)
}

fn hot_key(c: &mut Criterion) {
    for (name, step) in [("hot key, allowed", 1000), ("hot key, refused", 0)] {
        let (limiter, push) = limiter::<u64>(1);
        let mut now_ms = 0;
        c.bench_function(name, |b| {
            b.iter(|| {
                now_ms += step;
                limiter.check(black_box(&7), Some(push), Duration::from_millis(now_ms))
            });
        });
    }
}

fn known_keys(c: &mut Criterion) {
    let (limiter, push) = full();
    let mut turn = 0_u64;
    c.bench_function("100,000 known keys in turn", |b| {
        b.iter(|| {
            turn += 1;
            // An odd factor walks through all keys in a scattered order.
            let key = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS;
            limiter.check(&u128::from(key), Some(push), Duration::from_micros(turn))
        });
    });
}

fn new_keys(c: &mut Criterion) {
    let (limiter, push) = full();
    let mut key = KEYS;
    c.bench_function("flood of new keys at the bound", |b| {
        b.iter(|| {
            key += 1;
            limiter.check(&u128::from(key), Some(push), Duration::from_micros(key))
        });
    });
}

/// The most expensive check: every known key was used since the last new key, so the roster
/// corrects every stamp.
fn first_newcomer(c: &mut Criterion) {
    let (limiter, push) = full();
    let (now_us, newcomer) = (Cell::new(0_u64), Cell::new(KEYS));
    let check = |key: u64| {
        now_us.update(|now_us| now_us + 1);
        limiter.check(&u128::from(key), Some(push), Duration::from_micros(now_us.get()))
    };
    c.bench_function("newcomer after every key was used", |b| {
        let use_all = || {
            for key in newcomer.get() - KEYS..newcomer.get() {
                let _ = check(key);
            }
        };
        b.iter_batched(use_all, |()| check(newcomer.replace(newcomer.get() + 1)), BatchSize::PerIteration);
    });
}

fn connections(c: &mut Criterion) {
    for (name, step) in [("connection, served", 1000), ("connection, dropped", 0)] {
        let (limiter, _) = limiter::<u64>(1);
        let mut now_ms = 0;
        c.bench_function(name, |b| {
            b.iter(|| {
                now_ms += step;
                limiter.connection(black_box(&7), Duration::from_millis(now_ms))
            });
        });
    }
}

/// A key of a banned network, and one beside it.
fn banned_network(c: &mut Criterion) {
    let (limiter, push) = limiter(KEYS);
    let address = |bits| Address { bits, width: 128 };
    for ms in 0..30_000 {
        for host in 0..16 {
            let _ = limiter.check(&address(host), None, Duration::from_millis(ms));
        }
    }
    for (name, host) in [("key of a banned network", 77), ("key beside a banned network", 77_777_777)] {
        let mut now_us = 30_000_000;
        assert_eq!(limiter.is_banned(&address(host), Duration::from_micros(now_us)).is_some(), host == 77);
        c.bench_function(name, |b| {
            b.iter(|| {
                now_us += 1;
                limiter.check(black_box(&address(host)), Some(push), Duration::from_micros(now_us))
            });
        });
    }
}

fn pairs(c: &mut Criterion) {
    let tracked_max = usize::try_from(KEYS).ok().and_then(NonZeroUsize::new).expect("the bound is positive");
    let limiter = PairLimiter::new(positive(10), positive(20), tracked_max);
    let mut turn = 0_u64;
    c.bench_function("pairs of 100,000 recipients", |b| {
        b.iter(|| {
            turn += 1;
            let recipient = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS;
            limiter.check(recipient, turn % 7, Duration::from_micros(turn))
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = hot_key, known_keys, new_keys, first_newcomer, connections, banned_network, pairs
}
criterion_main!(benches);
