//! A client that waits on one relay gets what is pushed to another one.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use relay_core::Relay as _;
use relay_store_postgres::Options;

use super::support::{database, messages, name, now, open, push};

#[test]
fn a_push_to_another_relay_wakes_soon_and_in_any_case_at_the_next_look() {
    let Some((server, options)) = database() else { return };
    let (here, there) = (open(&options), open(&options));
    // The connections for hints are made in the background.
    thread::sleep(Duration::from_secs(1));
    let mut delays: Vec<Duration> = (0..40_u128)
        .map(|number| {
            let recipient = format!("waiter{number}");
            let mut waiter = here.waiter(&name(&recipient)).unwrap().unwrap();
            assert!(messages(&here, &recipient).is_empty());
            let (sender, woken) = mpsc::channel();
            thread::scope(|scope| {
                scope.spawn(move || {
                    pollster::block_on(waiter.woken());
                    sender.send(now()).unwrap();
                });
                assert!(push(&there, &recipient, number).unwrap().is_stored());
                let pushed = now();
                woken.recv_timeout(Duration::from_secs(20)).unwrap().saturating_duration_since(pushed)
            })
        })
        .collect();
    delays.sort_unstable();
    assert!(delays[20] < Duration::from_millis(25), "{delays:?}");
    drop((here, there));

    // Hints are lost: nobody may listen.
    let options = Options { poll_interval: Duration::from_millis(200), ..options };
    server.execute("SELECT 1").unwrap();
    let (here, there) = (open(&options), open(&options));
    thread::sleep(Duration::from_millis(500));
    let listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SET synchronous_commit = off%' OR query LIKE 'NOTIFY%'";
    server.execute(listeners).unwrap();
    let mut waiter = here.waiter(&name("late")).unwrap().unwrap();
    assert!(push(&there, "late", 1).unwrap().is_stored());
    // Nobody sends a hint later.
    drop(there);
    let (sender, woken) = mpsc::channel();
    thread::spawn(move || {
        pollster::block_on(waiter.woken());
        sender.send(()).unwrap();
    });
    woken.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(messages(&here, "late"), [1]);
}
