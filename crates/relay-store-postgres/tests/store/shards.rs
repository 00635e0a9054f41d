//! Several databases, each with a part of the queues.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use relay_core::{Error, Limits, Relay as _, Unavailable};
use relay_store_postgres::testing::{Server, execute};
use relay_store_postgres::{Admin, Options, PostgresRelay, RecipientNames, migrate};

use super::support::{
    MachineClock, database, dsn, envelope, is_left_out, messages, name, name_in, new_store, now, open, push,
    push_patiently, two_shards, until, verify, with_dsn,
};

/// Why a relay with these options does not start.
pub(crate) fn refused(options: &Options) -> String {
    let options = Options { open_patience: Duration::ZERO, ..options.clone() };
    PostgresRelay::open(options, Limits::default(), Arc::new(MachineClock)).unwrap_err().to_string()
}

fn is_not_ready<T: std::fmt::Debug>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::NotReady { .. }))
}

fn pulled(relay: &PostgresRelay, recipient: &str) -> Result<relay_core::Page, Error> {
    let pull = relay_core::Pull { recipient: name(recipient), after: None, items_max: None };
    pollster::block_on(relay.pull(pull))
}

#[test]
fn a_relay_with_an_old_map_writes_and_reads_nothing() {
    let Some((_server, options)) = database() else { return };
    let relay = open(&Options { patience: Duration::from_secs(1), ..options.clone() });
    let recipient = name_in(0..=255, 0);
    assert!(push(&relay, &recipient, 1).unwrap().is_stored());

    // Over the connection that it has, before it can know.
    let set = |slots: &str| {
        execute(dsn(&options), &format!("UPDATE relay.meta SET slots = {slots}")).unwrap();
    };
    set("'0-127'");
    assert!(push(&relay, &recipient, 2).is_err());
    let count = || execute(dsn(&options), "SELECT count(*) FROM relay.item").unwrap();
    assert_eq!(count(), "1", "nothing was written");

    until("the monitor sees it", || relay.unavailable() == Some(Unavailable::Database));
    let begun = now();
    assert!(is_not_ready(&push(&relay, &recipient, 2)) && is_not_ready(&pulled(&relay, &recipient)));
    assert!(now() - begun < Duration::from_millis(500), "refused at once");
    let expected = "the database belongs to slots 0-127, but storage.postgres of this relay gives it 0-255";
    assert!(refused(&options).starts_with(expected), "{}", refused(&options));
    assert!(Admin::connect(&options).unwrap_err().to_string().starts_with(expected));

    // A database whose slots are unknown is none that may be written to.
    set("NULL");
    thread::sleep(Duration::from_secs(2));
    assert!(push(&relay, &recipient, 2).is_err());
    assert_eq!(count(), "1");
    set("'0-255'");
    assert!(push_patiently(&relay, &recipient, 2), "it was not stored before");
    assert_eq!(messages(&relay, &recipient), [1, 2]);
}

#[test]
fn the_outage_of_one_database_is_one_of_its_queues() {
    if is_left_out() {
        return;
    }
    let [first, mut second] = [(); 2].map(|()| Server::start("").unwrap());
    let options = Options { patience: Duration::from_secs(2), ..two_shards(&first, &second) };
    let (here, there) = (open(&options), open(&options));
    let (kept, lost) = (name_in(0..=127, 1), name_in(128..=255, 1));
    for recipient in [&kept, &lost] {
        assert!(push(&here, recipient, 1).unwrap().is_stored());
    }
    until("both are measured", || here.figures().database.unwrap().is_available);

    second.kill();
    until("the loss is seen", || !here.figures().database.unwrap().is_available);
    until("also by the other relay", || !there.figures().database.unwrap().is_available);
    assert_eq!(here.unavailable(), None);
    assert!(pollster::block_on(here.ready()).is_ok());
    assert!(is_not_ready(&push(&here, &lost, 2)) && is_not_ready(&pulled(&here, &lost)));
    assert!(push(&here, &kept, 2).unwrap().is_stored());
    assert_eq!(messages(&there, &kept), [1, 2]);
    wakes(&here, &there, &kept, 3);
    let both = vec![envelope(&lost, 4, b"x"), envelope(&kept, 4, b"x"), envelope(&lost, 5, b"x")];
    let outcomes = pollster::block_on(here.push_all(both)).unwrap();
    assert!(is_not_ready(&outcomes[0]) && is_not_ready(&outcomes[2]), "{outcomes:?}");
    assert!(outcomes[1].as_ref().unwrap().is_stored());
    pollster::block_on(here.sweep()).unwrap();

    second.start_again().unwrap();
    assert!(push_patiently(&here, &lost, 2), "it was not stored before");
    assert_eq!(messages(&there, &lost), [1, 2]);
    until("all is well", || here.figures().database.unwrap().is_available);
    wakes(&here, &there, &lost, 3);
    assert_eq!(verify(&options), Vec::<String>::new());

    drop((first, second));
    until("nothing can be served", || here.unavailable() == Some(Unavailable::Database));
    assert!(is_not_ready(&pollster::block_on(here.ready())));
}

/// A push to one relay wakes who waits on another one.
fn wakes(here: &PostgresRelay, there: &PostgresRelay, recipient: &str, message: u128) {
    let mut waiter = here.waiter(&name(recipient)).unwrap().unwrap();
    assert!(here.has_waiter(&name(recipient)) && !there.has_waiter(&name(recipient)));
    let (sender, woken) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            pollster::block_on(waiter.woken());
            sender.send(()).unwrap();
        });
        assert!(push(there, recipient, message).unwrap().is_stored());
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
    });
}

#[test]
fn a_database_that_hangs_leaves_the_others_their_part_of_what_may_wait() {
    if is_left_out() {
        return;
    }
    let [first, second] = [(); 2].map(|()| Server::start("").unwrap());
    let options = Options { waiting_bytes_max: 16 << 20, lanes: 8, ..two_shards(&first, &second) };
    let relay = open(&options);
    let fine: Vec<String> = (0..20).map(|number| name_in(0..=127, number)).collect();
    assert!(push(&relay, &fine[0], 0).unwrap().is_stored());
    second.pause().unwrap();
    let (relay, begun) = (&relay, now());
    let is_over = || now() - begun > Duration::from_secs(6);
    thread::scope(|scope| {
        for sender in 0..128 {
            scope.spawn(move || {
                let recipient = name_in(128..=255, sender);
                while !is_over() {
                    let pushed = pollster::block_on(relay.push(envelope(&recipient, 1, &[7; 200_000])));
                    assert!(pushed.is_err(), "{pushed:?}");
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let mut most = 0;
        for number in 1.. {
            if is_over() {
                break;
            }
            let pushed =
                pollster::block_on(relay.push(envelope(&fine[number % 20], number as u128, &[7; 1_000])));
            assert!(pushed.as_ref().is_ok_and(relay_core::PushOutcome::is_stored), "{pushed:?}");
            most = most.max(relay.figures().waiting_bytes.unwrap());
            thread::sleep(Duration::from_millis(5));
        }
        let own = (4 << 20)..(8 << 20) + (64 << 10);
        assert!(own.contains(&most), "one half is that of the database that hangs: {most}");
    });
    second.resume().unwrap();
}

#[test]
fn a_new_database_takes_after_the_others_and_a_mix_is_refused() {
    let Some((server, alone)) = database() else { return };
    let key = |hash_new| RecipientNames { key_id: [7; 8], hash_new };
    let options = Options { recipients: key(true), ..two_shards(&server, &server) };
    let plain = Options { recipients: key(false), ..with_dsn(&alone, &options.shards[0].dsn) };
    drop(open(&plain));
    execute(&plain.shards[0].dsn, "UPDATE relay.meta SET slots = '0-127'").unwrap();
    assert!(!open(&options).is_hashed(), "as the first one");
    let is_hashed = "SELECT is_hashed, slots, compatible_from FROM relay.meta";
    assert_eq!(execute(&options.shards[1].dsn, is_hashed).unwrap(), "f|128-255|2");

    execute(&options.shards[1].dsn, "UPDATE relay.meta SET is_hashed = true").unwrap();
    assert!(refused(&options).contains("some of the databases hold hashed recipients and others plain ones"));
    execute(&options.shards[1].dsn, "UPDATE relay.meta SET key_id = '\\x01'").unwrap();
    assert!(refused(&options).starts_with("shard 2: the database is used by relays with another key"));

    let mut twice = options.clone();
    twice.shards[1].dsn = twice.shards[0].dsn.clone();
    assert!(refused(&twice).starts_with("shard 2: the database belongs to slots 0-127, but"));
    let gap = Options { shards: options.shards[..1].to_vec(), ..options.clone() };
    assert_eq!(
        refused(&gap),
        "storage.postgres.shards: slots 128-255 are in no shard; all from 0 to 255 must be"
    );
    let mut away = options;
    away.shards[1].dsn = "host=127.0.0.1 port=1 user=relay".to_owned();
    assert!(refused(&away).starts_with("shard 2: the database cannot be reached"), "{}", refused(&away));
}

#[test]
fn tables_of_schema_1_are_migrated_and_adopted() {
    if is_left_out() {
        return;
    }
    let server = Server::start("").unwrap();
    let options = with_dsn(&new_store(&server), &server.create_database().unwrap());
    let first = include_str!("../../src/schema/1_initial.sql");
    let create = format!("CREATE SCHEMA relay; SET search_path = relay; {first}");
    execute(dsn(&options), &create).unwrap();
    assert!(
        refused(&options).contains("they have schema 1, and this program needs 2; run `relay-bin migrate`")
    );
    let migrated = migrate(&options).unwrap();
    assert_eq!((migrated[0].from, migrated[0].to), (1, 2));

    let recipient = name_in(200..=255, 0);
    assert!(push(&open(&options), &recipient, 1).unwrap().is_stored());
    // All slots are what relays of schema 1 assume, so they may go on.
    let meta = || execute(dsn(&options), "SELECT slots, schema_version, compatible_from FROM relay.meta");
    assert_eq!(meta().unwrap(), "0-255|2|1");

    // A part of the queues cannot be adopted by the way.
    execute(dsn(&options), "UPDATE relay.meta SET slots = NULL").unwrap();
    let mut two = two_shards(&server, &server);
    two.shards[0].dsn = dsn(&options).to_owned();
    assert!(refused(&two).starts_with("shard 1: the database holds queues of other slots than 0-127"));
    assert_eq!(meta().unwrap(), "|2|1");
    assert_eq!(messages(&open(&options), &recipient), [1]);
}

#[test]
fn a_queue_in_the_wrong_database_is_found() {
    let Some((server, _)) = database() else { return };
    let options = two_shards(&server, &server);
    drop(open(&options));
    let queue = "INSERT INTO relay.queue VALUES ('ff000000-0000-0000-0000-000000000000', 'x', 0, 0, 1, 1)";
    execute(&options.shards[0].dsn, queue).unwrap();
    assert_eq!(verify(&options), ["shard 1: queue 0: its slot is 255, which the database does not have"]);
}
