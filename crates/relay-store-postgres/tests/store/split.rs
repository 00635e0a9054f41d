//! A database is split into two, as docs/scale-out.md says.

use std::num::NonZeroU64;

use relay_core::{Ack, Item, Page, Pull, Relay as _, Seq};
use relay_store_postgres::testing::{Server, execute};
use relay_store_postgres::{Assigned, Options, PostgresError, PostgresRelay, ShardOptions, Slots, set_slots};

use super::shards::refused;
use super::support::{
    database, dsn, is_left_out, name, name_in, new_store, open, pull_all, push, two_shards, until, verify,
};

/// Queues in all parts of the slots, with five items each, of which the first is acked.
fn fill(relay: &PostgresRelay) -> Vec<String> {
    let names: Vec<String> = (0..60).map(|number| name_in(0..=255, number)).collect();
    for name_of_queue in &names {
        for message in 0..5 {
            assert!(push(relay, name_of_queue, message).unwrap().is_stored());
        }
        let first = pull_all(relay, name_of_queue)[0].id();
        pollster::block_on(relay.ack(Ack::new(name(name_of_queue), vec![first]).unwrap())).unwrap();
    }
    names
}

/// Two shards: the first has the slots up to 127, and the second one the rest.
fn split(options: &Options, other: String) -> Options {
    let shard = |dsn, slots| ShardOptions { dsn, slots: Slots::parse(slots).unwrap() };
    let shards = vec![shard(dsn(options).to_owned(), "0-127"), shard(other, "128-255")];
    Options { shards, ..options.clone() }
}

fn count(dsn: &str, table: &str) -> u64 {
    execute(dsn, &format!("SELECT count(*) FROM relay.{table}")).unwrap().parse().unwrap()
}

fn seqs(items: &[Item<bytes::Bytes>]) -> Vec<(Seq, relay_core::ItemId)> {
    items.iter().map(|item| (item.seq, item.id())).collect()
}

#[test]
fn a_split_keeps_every_item_its_order_and_cursors() {
    if is_left_out() {
        return;
    }
    let primary = Server::start("").unwrap();
    let before = new_store(&primary);
    let standby = primary.standby("s1", "").unwrap();
    let relay = open(&before);
    let names = fill(&relay);
    let items: Vec<_> = names.iter().map(|name| seqs(&pull_all(&relay, name))).collect();
    drop(relay);
    until("the standby has everything", || {
        let at = |server: &Server, what| server.execute(&format!("SELECT {what}()")).unwrap();
        at(&primary, "pg_current_wal_lsn") == at(&standby, "pg_last_wal_replay_lsn")
    });
    standby.promote().unwrap();
    let database = dsn(&before).rsplit('=').next().unwrap();
    let after = split(&before, standby.dsn(database));
    assert!(
        refused(&after).contains("belongs to slots 0-255, but storage.postgres of this relay gives it 0-127")
    );

    let done = set_slots(&after).unwrap();
    let expected =
        |to: &str, queues_removed| Assigned { from: Some("0-255".into()), to: to.into(), queues_removed };
    let (here, there) = (done[1].queues_removed, done[0].queues_removed);
    assert_eq!(done, [expected("0-127", there), expected("128-255", here)]);
    assert!(here > 10 && there > 10 && here + there == names.len() as u64, "{done:?}");
    assert!(
        refused(&before)
            .contains("belongs to slots 0-127, but storage.postgres of this relay gives it 0-255")
    );
    for (shard, queues) in after.shards.iter().zip([here, there]) {
        let counts = ["queue", "item", "acked"].map(|table| count(&shard.dsn, table));
        assert_eq!(counts, [queues, 4 * queues, queues]);
    }
    let relay = open(&after);
    for (name_of_queue, items) in names.iter().zip(items) {
        check_queue(&relay, name_of_queue, &items);
    }
    assert_eq!(verify(&after), Vec::<String>::new());
    // Once more, it changes nothing.
    let again = set_slots(&after).unwrap();
    assert!(again.iter().all(|shard| shard.from.as_ref() == Some(&shard.to) && shard.queues_removed == 0));
}

fn check_queue(relay: &PostgresRelay, recipient: &str, items: &[(Seq, relay_core::ItemId)]) {
    assert_eq!(seqs(&pull_all(relay, recipient)), items);
    // A cursor of before.
    let pull = Pull { recipient: name(recipient), after: Some(items[1].0), items_max: NonZeroU64::new(9) };
    let Page { items: rest, .. } = pollster::block_on(relay.pull(pull)).unwrap();
    assert_eq!(seqs(&rest), items[2..]);
    assert!(!push(relay, recipient, 0).unwrap().is_stored(), "it was acked a moment ago");
    assert!(push(relay, recipient, 9).unwrap().is_stored());
    let last = pull_all(relay, recipient).last().unwrap().seq;
    assert!(last > items[3].0);
}

#[test]
fn queues_that_were_not_copied_are_not_removed() {
    let Some((server, before)) = database() else { return };
    let relay = open(&before);
    let names = fill(&relay);
    let foreign = name_in(128..=255, 0);
    assert!(push(&relay, &foreign, 100).unwrap().is_stored());
    let rows = || ["queue", "item", "acked"].map(|table| count(dsn(&before), table));
    let all = rows();

    let empty = split(&before, server.create_store().unwrap().shards.remove(0).dsn);
    let refused = set_slots(&empty).unwrap_err().to_string();
    assert!(refused.starts_with("shard 1: ") && refused.contains("nothing was removed"), "{refused}");
    let same = set_slots(&split(&before, dsn(&before).to_owned())).unwrap_err().to_string();
    assert!(same.contains("two shards are the same database"), "{same}");
    assert_eq!(rows(), all);
    // Also if only the second database would lose some: then the first one stays as it is.
    let mut second = split(&before, empty.shards[1].dsn.clone());
    second.shards.reverse();
    assert!(set_slots(&second).unwrap_err().to_string().starts_with("shard 2: "));
    assert_eq!(execute(&second.shards[0].dsn, "SELECT slots IS NULL FROM relay.meta").unwrap(), "t");
    assert!(push(&relay, &names[0], 200).unwrap().is_stored(), "the old map is still the one");

    // A copy of which one queue has got another item since.
    drop(relay);
    let copied = dsn(&before).rsplit('=').next().unwrap();
    let copy = format!("CREATE DATABASE copied TEMPLATE {copied}");
    until("the relay has left the database", || server.execute(&copy).is_ok());
    assert!(push(&open(&before), &foreign, 101).unwrap().is_stored());
    let stale = split(&before, server.dsn("copied"));
    let error = set_slots(&stale).unwrap_err();
    let PostgresError::InShard { number: 1, error } = error else { panic!("{error}") };
    assert!(matches!(*error, PostgresError::NotCopied { queues: 1 }), "{error}");

    // The same if the command was interrupted before, and the first database has its slots already.
    execute(dsn(&before), "UPDATE relay.meta SET slots = '0-127'").unwrap();
    let error = set_slots(&stale).unwrap_err().to_string();
    assert!(error.contains("queues of other slots (1)"), "{error}");
    assert_eq!(rows()[0], all[0]);
    // With a copy that has everything, it goes on.
    let copy = format!("CREATE DATABASE complete TEMPLATE {copied}");
    until("all have left the database", || server.execute(&copy).is_ok());
    let complete = split(&before, server.dsn("complete"));
    execute(&complete.shards[1].dsn, "UPDATE relay.meta SET slots = '0-255'").unwrap();
    let done = set_slots(&complete).unwrap();
    assert!(done.iter().all(|shard| shard.queues_removed > 10), "{done:?}");
    assert_eq!(verify(&complete), Vec::<String>::new());
    assert!(pull_all(&open(&complete), &foreign).len() >= 5);
}

#[test]
fn queues_that_the_new_holder_has_forgotten_are_not_missed() {
    let Some((server, before)) = database() else { return };
    let relay = open(&before);
    fill(&relay);
    drop(relay);
    let copied = dsn(&before).rsplit('=').next().unwrap();
    let copy = format!("CREATE DATABASE copied TEMPLATE {copied}");
    until("the relay has left the database", || server.execute(&copy).is_ok());
    let after = split(&before, server.dsn("copied"));
    let sweep = "SET search_path = relay; UPDATE meta SET seq_floor = (SELECT max(last_seq) FROM queue);
        DELETE FROM item; DELETE FROM acked; DELETE FROM queue";
    execute(&after.shards[1].dsn, sweep).unwrap();
    assert!(set_slots(&after).unwrap()[0].queues_removed > 10);
}

#[test]
fn slots_of_a_database_that_is_not_listed_are_not_given_away() {
    let Some((server, _)) = database() else { return };
    let options = two_shards(&server, &server);
    drop(open(&options));
    let mut alone = options.clone();
    alone.shards.truncate(1);
    alone.shards[0].slots = Slots::all();
    let error = set_slots(&alone).unwrap_err().to_string();
    assert!(error.contains("belong to a database that is not among these"), "{error}");
    drop(open(&options));
}

/// A relay that is in the middle of a transaction holds the change up, and not the other way round.
#[test]
fn slots_change_between_transactions_only() {
    let Some((server, _)) = database() else { return };
    let options = two_shards(&server, &server);
    drop(open(&options));
    let mut swapped = options.clone();
    swapped.shards[0].slots = options.shards[1].slots.clone();
    swapped.shards[1].slots = options.shards[0].slots.clone();
    std::thread::scope(|scope| {
        let first = &options.shards[0].dsn;
        let key = "('05000000-0000-0000-0000-000000000000', 'x', 0, 0, 1, 1)";
        let write = format!("BEGIN; INSERT INTO relay.queue VALUES {key}; SELECT pg_sleep(2); COMMIT");
        let writer = scope.spawn(move || execute(first, &write));
        until("it has begun", || {
            let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            server.execute(sleeping).unwrap() == "1"
        });
        let error = set_slots(&swapped).unwrap_err().to_string();
        assert!(error.contains("queues of other slots (1) are not in the databases"), "it was seen: {error}");
        writer.join().unwrap().unwrap();
    });
    assert_eq!(count(&options.shards[0].dsn, "queue"), 1);
}
