//! Tests of the table of waiters: no wake-up is lost, whatever the order, and nothing is left when
//! a waiter goes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};

use relay_core::{Recipient, TooManyWaiters, Waiter, Waiters};

fn recipient(name: &str) -> Recipient {
    Recipient::parse(name).unwrap()
}

fn is_woken(waiter: &mut Waiter) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(waiter.woken()).poll(&mut cx).is_ready()
}

/// What a waiter and two pushers do, one step after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Register,
    Look,
    Sleep,
    Store(usize),
    Wake(usize),
}

/// All orders of these sequences that keep each sequence in order.
fn interleave(sequences: &[&[Step]]) -> Vec<Vec<Step>> {
    if sequences.iter().all(|sequence| sequence.is_empty()) {
        return vec![Vec::new()];
    }
    let mut orders = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let Some((first, rest)) = sequence.split_first() else { continue };
        let mut others = sequences.to_vec();
        others[index] = rest;
        for mut order in interleave(&others) {
            order.insert(0, *first);
            orders.push(order);
        }
    }
    orders
}

/// Whether the waiter sleeps for ever although an item is there.
fn is_lost(order: &[Step]) -> bool {
    let (waiters, alice) = (Waiters::new(), recipient("alice"));
    let (mut waiter, mut stored, mut found, mut sleeps) = (None, 0, false, false);
    for step in order {
        match step {
            Step::Register => waiter = Some(waiters.register(&alice).unwrap()),
            Step::Look => found = stored > 0,
            Step::Sleep => sleeps = !found && !waiter.as_mut().is_some_and(is_woken),
            Step::Store(_) => stored += 1,
            Step::Wake(_) => drop(waiters.wake(&alice)),
        }
    }
    sleeps && !waiter.as_mut().is_some_and(is_woken)
}

const PUSHES: [&[Step]; 2] = [&[Step::Store(0), Step::Wake(0)], &[Step::Store(1), Step::Wake(1)]];

#[test]
fn no_order_of_steps_loses_a_wake_up() {
    let [one, other] = PUSHES;
    let orders = interleave(&[&[Step::Register, Step::Look, Step::Sleep], one, other]);
    assert_eq!(orders.len(), 210);
    for order in &orders {
        assert!(!is_lost(order), "{order:?}");
    }
}

/// Shows that the test above can fail.
#[test]
fn a_waiter_that_looks_before_it_registers_or_a_store_that_wakes_too_early_can_lose_one() {
    let [one, _] = PUSHES;
    let late = interleave(&[&[Step::Look, Step::Register, Step::Sleep], one]);
    assert!(late.iter().any(|order| is_lost(order)));
    let early: &[Step] = &[Step::Wake(0), Step::Store(0)];
    let early = interleave(&[&[Step::Register, Step::Look, Step::Sleep], early]);
    assert!(early.iter().any(|order| is_lost(order)));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Sleeps until the waiter is woken. A lost wake-up hangs here, and the runner of the tests ends
/// it.
fn sleep(waiter: &mut Waiter) {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut cx = Context::from_waker(&waker);
    let mut woken = pin!(waiter.woken());
    while woken.as_mut().poll(&mut cx).is_pending() {
        thread::park();
    }
}

#[expect(clippy::disallowed_methods, reason = "the switch of the slow tests is an environment variable")]
fn races() -> u64 {
    if std::env::var_os("RUN_SLOW_TESTS").is_some() { 1_000_000 } else { 50_000 }
}

/// Two threads meet at each round: one stores the item of the round and wakes, the other one
/// registers, looks and sleeps. What is stored is a plain number, without any order of its own.
#[test]
fn a_million_races_of_two_threads_lose_no_wake_up() {
    let (waiters, alice) = (Waiters::new(), recipient("alice"));
    let (stored, awaited) = (AtomicU64::new(0), AtomicU64::new(0));
    let rounds = races();
    let slept = thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                let mut spins = 0_u32;
                while awaited.load(Ordering::Relaxed) < round {
                    spins += 1;
                    if spins.is_multiple_of(64) { thread::yield_now() } else { std::hint::spin_loop() }
                }
                // Moves the store over all steps of the waiter.
                (0..round % 97).for_each(|_| std::hint::spin_loop());
                stored.store(round, Ordering::Relaxed);
                waiters.wake(&alice);
            }
        });
        let mut slept = 0_u64;
        for round in 1..=rounds {
            awaited.store(round, Ordering::Relaxed);
            (0..round % 89).for_each(|_| std::hint::spin_loop());
            let mut waiter = waiters.register(&alice).unwrap();
            while stored.load(Ordering::Relaxed) < round {
                slept += 1;
                sleep(&mut waiter);
            }
        }
        slept
    });
    assert!(slept > 0 && waiters.is_idle());
}

#[test]
fn a_waiter_wakes_once_for_any_number_of_arrivals() {
    let waiters = Waiters::new();
    let mut waiter = waiters.register(&recipient("alice")).unwrap();
    assert!(!is_woken(&mut waiter));
    assert!(waiters.wake(&recipient("alice")) && waiters.wake(&recipient("alice")));
    assert!(is_woken(&mut waiter) && !is_woken(&mut waiter));
    assert!(waiters.wake(&recipient("alice")));
    assert!(is_woken(&mut waiter));
}

#[test]
fn a_wake_reaches_all_waiters_of_its_queue_and_no_other() {
    let waiters = Waiters::new();
    let mut of_alice = [0, 1].map(|_| waiters.register(&recipient("alice")).unwrap());
    let mut of_bob = waiters.register(&recipient("bob")).unwrap();
    assert!(waiters.wake(&recipient("alice")) && !waiters.wake(&recipient("carol")));
    assert!(of_alice.iter_mut().all(is_woken) && !is_woken(&mut of_bob));
}

#[test]
fn a_queue_has_eight_waiters_and_a_place_is_free_at_once() {
    let (waiters, alice) = (Waiters::new(), recipient("alice"));
    let mut eight: Vec<_> = (0..8).map(|_| waiters.register(&alice).unwrap()).collect();
    assert_eq!(waiters.register(&alice).unwrap_err(), TooManyWaiters { limit: 8 });
    assert_eq!(waiters.count(), 8, "a refusal counts nothing");
    let _of_bob = waiters.register(&recipient("bob")).unwrap();
    eight.pop();
    eight.push(waiters.register(&alice).unwrap());
    drop(eight);
    assert_eq!(waiters.count(), 1);
    assert!(!waiters.wake(&alice), "a waiter that has gone is not woken");
}

#[test]
fn a_queue_has_a_waiter_from_its_registration_to_its_end() {
    let (waiters, alice) = (Waiters::new(), recipient("alice"));
    let _of_bob = waiters.register(&recipient("bob")).unwrap();
    assert!(!waiters.has(&alice));
    let mut both = vec![waiters.register(&alice).unwrap(), waiters.register(&alice).unwrap()];
    for _ in 0..2 {
        assert!(waiters.has(&alice), "also after a wake");
        waiters.wake(&alice);
        both.pop();
    }
    assert!(!waiters.has(&alice));
}

/// A waker that uses the table when it is woken must not deadlock.
#[test]
fn a_waker_may_use_the_table() {
    struct Curious(Waiters, AtomicBool);

    impl Wake for Curious {
        fn wake(self: Arc<Self>) {
            drop(self.0.register(&recipient("alice")));
            self.1.store(true, Ordering::SeqCst);
        }
    }

    let waiters = Waiters::new();
    let mut waiter = waiters.register(&recipient("alice")).unwrap();
    let curious = Arc::new(Curious(waiters.clone(), AtomicBool::new(false)));
    let waker = Arc::clone(&curious).into();
    let polled = pin!(waiter.woken()).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    assert!(waiters.wake(&recipient("alice")));
    assert!(curious.1.load(Ordering::SeqCst));
}
