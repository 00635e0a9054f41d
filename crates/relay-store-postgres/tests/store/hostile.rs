//! What one client does to its own queue does not stop the others.

use std::thread;
use std::time::Duration;

use relay_core::{Error, Relay as _};
use relay_store_postgres::Options;
use relay_store_postgres::testing::execute;

use super::support::{database, dsn, envelope, now, open, push, until, verify};

#[test]
fn a_locked_queue_does_not_stop_the_others() {
    let Some((server, options)) = database() else { return };
    let options = Options { lanes: 1, ..options };
    let relay = open(&options);
    assert!(push(&relay, "locked", 0).unwrap().is_stored());
    thread::scope(|scope| {
        let dsn = dsn(&options);
        scope.spawn(move || {
            execute(dsn, "BEGIN; SELECT FROM relay.queue FOR UPDATE; SELECT pg_sleep(4); COMMIT")
        });
        until("the queue is locked", || {
            let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            server.execute(sleeping).unwrap() == "1"
        });
        let begun = now();
        let relay = &relay;
        let to_locked: Vec<_> = (1..20)
            .map(|number| {
                thread::sleep(Duration::from_millis(1));
                scope.spawn(move || push(relay, "locked", number))
            })
            .collect();
        let mut slowest = Duration::ZERO;
        while now() - begun < Duration::from_secs(3) {
            let pushed = now();
            let name = format!("other{}", fastrand::u64(..));
            assert!(push(relay, &name, 1).unwrap().is_stored());
            slowest = slowest.max(now() - pushed);
            thread::sleep(Duration::from_millis(10));
        }
        assert!(slowest < Duration::from_millis(1_800), "{slowest:?}");
        for pushed in to_locked {
            assert!(pushed.join().unwrap().unwrap().is_stored(), "after the lock");
        }
    });
    assert_eq!(verify(&options), Vec::<String>::new());
}

#[test]
fn a_database_that_is_away_for_a_while_is_waited_for_and_memory_stays_bounded() {
    let Some((mut server, options)) = database() else { return };
    let options = Options { waiting_bytes_max: 16 << 20, ..options };
    let relay = open(&options);
    assert!(push(&relay, "alice", 1).unwrap().is_stored());
    server.kill();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let begun = now();
                while now() - begun < Duration::from_secs(4) {
                    let pushed = pollster::block_on(relay.push(envelope("alice", 2, &[7; 100_000])));
                    assert!(matches!(
                        pushed,
                        Err(Error::Storage(_) | Error::NotReady { .. } | Error::Overloaded { .. })
                    ));
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        until("the relay says so", || pollster::block_on(relay.ready()).is_err());
    });
    let waiting = relay.figures().waiting_bytes.unwrap();
    assert!(waiting <= 16 << 20, "{waiting}");
    server.start_again().unwrap();
    until("the relay is ready", || pollster::block_on(relay.ready()).is_ok());
    assert!(!push(&relay, "alice", 1).unwrap().is_stored());
    until("what waited is answered", || relay.figures().waiting_bytes == Some(0));
    assert_eq!(verify(&options), Vec::<String>::new());
}
