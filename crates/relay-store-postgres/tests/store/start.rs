//! What a relay asks of its database before it serves.

use std::sync::Arc;
use std::time::Duration;

use relay_core::{Limits, Relay as _};
use relay_store_postgres::testing::{Server, execute, options};
use relay_store_postgres::{Durability, Migrated, Options, PostgresRelay, RecipientNames, migrate};

use super::support::{MachineClock, database, dsn, is_left_out, until, with_dsn};

fn refused(options: &Options) -> String {
    let options = Options { open_patience: Duration::ZERO, ..options.clone() };
    PostgresRelay::open(options, Limits::default(), Arc::new(MachineClock)).unwrap_err().to_string()
}

#[test]
fn a_database_that_cannot_keep_the_promise_is_refused_with_the_reason() {
    if is_left_out() {
        return;
    }
    let server = Server::start("").unwrap();
    let bare = options(&server.create_database().unwrap());
    assert!(refused(&bare).ends_with("they do not exist; run `relay-bin migrate`"), "{}", refused(&bare));

    assert_eq!(migrate(&bare).unwrap(), [Migrated { from: 0, to: 2 }]);
    assert_eq!(migrate(&bare).unwrap(), [Migrated { from: 2, to: 2 }]);
    PostgresRelay::open(bare.clone(), Limits::default(), Arc::new(MachineClock)).unwrap();

    let replicated = Options { durability: Durability::Replicated, ..bare.clone() };
    assert!(refused(&replicated).contains("synchronous_standby_names is empty"));

    let other_key = RecipientNames { key_id: [1; 8], hash_new: true };
    assert!(refused(&Options { recipients: other_key, ..bare.clone() }).contains("another key"));

    execute(dsn(&bare), "UPDATE relay.meta SET schema_version = 9, compatible_from = 9").unwrap();
    assert!(refused(&bare).contains("they have schema 9, which programs for schema 2 cannot use"));
    execute(dsn(&bare), "UPDATE relay.meta SET compatible_from = 1").unwrap();
    PostgresRelay::open(bare.clone(), Limits::default(), Arc::new(MachineClock)).unwrap();
    execute(dsn(&bare), "UPDATE relay.meta SET schema_version = 1").unwrap();
    assert!(refused(&bare).contains("run `relay-bin migrate`"));
    execute(dsn(&bare), "UPDATE relay.meta SET schema_version = 2").unwrap();

    server.configure("default_transaction_read_only = on").unwrap();
    until("it accepts no writes", || server.execute("SHOW default_transaction_read_only").unwrap() == "on");
    assert!(refused(&bare).contains("accepts no writes"), "{}", refused(&bare));
    server.configure("default_transaction_read_only = off\nfsync = off").unwrap();
    until("it does not sync", || server.execute("SHOW fsync").unwrap() == "off");
    assert!(refused(&bare).contains("fsync or full_page_writes is off"));
    let managed = Options { durability: Durability::Managed, ..bare };
    PostgresRelay::open(managed, Limits::default(), Arc::new(MachineClock)).unwrap();
}

#[test]
fn errors_of_the_connection_repeat_no_password() {
    let Some((_server, options)) = database() else { return };
    let with_password = format!("{} password=se-cret", dsn(&options).replace("user=relay", "user=nobody"));
    for wrong in [
        with_password.as_str(),
        "host=127.0.0.1 port=1 password=se-cret",
        "host= password='se-cret",
        "host=a password=my se-cret=1",
        "postgres://a@b/c?password=x&se-cret=1",
    ] {
        let error = refused(&with_dsn(&options, wrong));
        assert!(!error.contains("se-cret"), "{error}");
    }
    assert!(!format!("{:?}", with_dsn(&options, &with_password)).contains("se-cret"));
}

#[test]
fn a_transaction_that_stays_open_is_measured() {
    let Some((_server, options)) = database() else { return };
    let relay = super::support::open(&options);
    let measured = || relay.figures().database.unwrap();
    until("the database is measured", || measured().bytes > 0);
    assert!(measured().is_available && measured().oldest_transaction_ms < 2_000, "{:?}", measured());
    std::thread::scope(|scope| {
        let held = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM relay.item; SELECT pg_sleep(5); COMMIT";
        let holder = scope.spawn(|| execute(dsn(&options), held));
        until("it is seen", || measured().oldest_transaction_ms > 2_000);
        holder.join().unwrap().unwrap();
    });
    until("it is gone", || measured().oldest_transaction_ms < 2_000);
}
