//! Relays as processes over several databases: one of them is lost, and one is split into two.

use std::path::Path;

use relay_store_postgres::testing::{Server, is_left_out};
use relay_tests::process::ADMIN_ADDRESS;
use relay_tests::{Client, Process, eventually, message_of, pull_body, push_body};

use crate::database::Database;
use crate::process::metrics::{admin_url, scrape, value};

const QUEUES: usize = 40;

/// A relay on these databases, with its log in the directory.
fn relay(database: &Database, directory: &Path) -> Process {
    let environment = [&database.environment()[..], &[(ADMIN_ADDRESS, "127.0.0.1:0")]].concat();
    let arguments = ["--address", "127.0.0.1:0"];
    Process::start_logging(crate::PROGRAM, &arguments, &environment, &directory.join("log")).unwrap()
}

/// The status of a push to each queue.
fn push_all(client: &mut Client, message: u128) -> Vec<u16> {
    let push = |queue| {
        let response = client.post("/push", &push_body(&format!("queue{queue}"), message, b"x")).unwrap();
        if response.status == 503 {
            assert_eq!((response.code().as_str(), response.header("retry-after")), ("not_ready", Some("1")));
        }
        response.status
    };
    (0..QUEUES).map(push).collect()
}

fn messages(client: &mut Client) -> Vec<Vec<u128>> {
    let queues = (0..QUEUES).map(|queue| client.pull_all(&format!("queue{queue}")).unwrap().unwrap());
    queues.map(|items| items.iter().map(|item| message_of(item).unwrap()).collect()).collect()
}

#[test]
fn without_one_database_the_queues_of_the_others_are_served() {
    if is_left_out() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut database = Database::new(directory.path(), true);
    let mut other = Server::start("").unwrap();
    let (first, second) = (database.dsn.clone(), other.create_database().unwrap());
    database.set_shards(&[(&first, "0-127"), (&second, "128-255")]);
    database.succeeds(&["migrate"]);
    let relay = relay(&database, directory.path());
    let admin = admin_url(&directory.path().join("log"));
    let mut client = relay.connect().unwrap();
    assert!(push_all(&mut client, 1).iter().all(|status| *status == 200));
    let available = || value(&scrape(&admin), "relay_database_available");
    eventually(|| (available() == Some(1.0)).then_some(())).unwrap();

    other.kill();
    eventually(|| (available() == Some(0.0)).then_some(())).expect("the metric shows the loss");
    assert_eq!(client.get("/ready").unwrap().status, 200, "the balancer keeps the relay");
    let statuses = push_all(&mut client, 2);
    let served = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(served > 5 && refused > 5 && served + refused == QUEUES, "{statuses:?}");
    for (queue, status) in statuses.iter().enumerate() {
        let pulled = client.post("/pull", &pull_body(&format!("queue{queue}"), None, None)).unwrap();
        assert_eq!(pulled.status, *status, "a pull is served where a push is");
    }
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    let line = log.lines().find(|line| line.contains("the database does not serve")).unwrap();
    assert!(line.contains("\"shard\":2"), "{line}");

    other.start_again().unwrap();
    eventually(|| (available() == Some(1.0)).then_some(())).expect("it heals");
    assert!(push_all(&mut client, 3).iter().all(|status| *status == 200));
    for (messages, status) in messages(&mut client).iter().zip(statuses) {
        assert_eq!(*messages, if status == 200 { vec![1, 2, 3] } else { vec![1, 3] });
    }
}

/// As docs/scale-out.md describes it.
#[test]
fn a_database_is_split_into_two() {
    if is_left_out() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut database = Database::new(directory.path(), true);
    database.succeeds(&["migrate"]);
    let mut before = relay(&database, directory.path());
    let mut client = before.connect().unwrap();
    for message in 1..4 {
        assert!(push_all(&mut client, message).iter().all(|status| *status == 200));
    }
    let page = client.post("/pull", &pull_body("queue0", None, Some(1))).unwrap().json();
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    let standby = database.server.standby("half", "").unwrap();
    before.signal("TERM").unwrap();
    assert_eq!(before.wait_a_while().unwrap().code(), Some(0));
    eventually(|| {
        let at = |server: &Server, what| server.execute(&format!("SELECT {what}()")).unwrap();
        let [written, replayed] =
            [at(&database.server, "pg_current_wal_lsn"), at(&standby, "pg_last_wal_replay_lsn")];
        (written == replayed).then_some(())
    })
    .expect("the standby has everything");
    standby.promote().unwrap();

    let first = database.dsn.clone();
    let second = standby.dsn(first.rsplit('=').next().unwrap());
    database.set_shards(&[(&first, "0-99"), (&second, "100-255")]);
    let refused = database.run(&["serve", "--address", "127.0.0.1:0"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains(": the database belongs to slots 0-255"), "{}", refused.stderr);
    let done = database.succeeds(&["migrate", "--set-slots"]);
    assert!(done.contains("shard 1: slots 0-99, before 0-255; ") && done.contains("shard 2: slots 100-255"));
    assert!(database.succeeds(&["verify"]).ends_with("; 0 findings\n"));

    let after = relay(&database, directory.path());
    let mut client = after.connect().unwrap();
    let page = client.post("/pull", &pull_body("queue0", Some(&cursor), None)).unwrap().json();
    let rest: Vec<u128> =
        page["items"].as_array().unwrap().iter().map(|item| message_of(item).unwrap()).collect();
    assert_eq!(rest, [2, 3], "a cursor of before goes on");
    assert!(push_all(&mut client, 4).iter().all(|status| *status == 200));
    assert_eq!(messages(&mut client), vec![vec![1, 2, 3, 4]; QUEUES]);
    let stats = database.succeeds(&["stats"]);
    assert!(stats.contains("queues                  40\n") && stats.contains("\nshard 2 "), "{stats}");
}
