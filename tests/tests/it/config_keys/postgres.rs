//! Tests of `[storage.postgres]`, on real servers.

use std::time::Duration;

use relay_store_postgres::testing::{Server, execute, is_left_out};
use relay_tests::{Process, Relay, push_body};
use serde_json::Value;

use super::{alice, connect, failure, quoted, relay};
use crate::PROGRAM;
use crate::tls::pki::Authority;

/// A server with a database that has tables, and a directory for files.
struct Database {
    server: Server,
    dsn: String,
    directory: tempfile::TempDir,
}

impl Database {
    fn new() -> Self {
        let server = Server::start("").unwrap();
        let dsn = server.create_store().unwrap().shards.remove(0).dsn;
        Self { server, dsn, directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        quoted(&path)
    }

    /// Calls `run` with the keys of a relay on this database, of which `changed` are different.
    fn with_keys<T>(&self, changed: &[(&str, &str)], run: impl FnOnce(&[(&str, &str)]) -> T) -> T {
        let (dsn, key) = (format!("{:?}", self.dsn), quoted(&self.directory.path().join("relay.key")));
        let mut keys = vec![
            ("storage.kind", "\"postgres\""),
            ("storage.postgres.dsn", dsn.as_str()),
            ("storage.postgres.tls", "\"off\""),
            ("storage.postgres.durability", "\"single\""),
            ("privacy.key_path", key.as_str()),
        ];
        keys.retain(|(key, _)| changed.iter().all(|(other, _)| other != key));
        keys.extend(changed);
        run(&keys)
    }

    fn relay(&self, changed: &[(&str, &str)]) -> Relay {
        self.with_keys(changed, relay)
    }

    fn failure(&self, changed: &[(&str, &str)]) -> String {
        self.with_keys(changed, failure).to_string()
    }

    /// The number of connections of relays.
    fn connections(&self) -> usize {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'relay'";
        self.server.execute(count).unwrap().parse().unwrap()
    }
}

fn push(relay: &Relay, recipient: &str, message: u128) -> Value {
    connect(relay).post("/push", &push_body(recipient, message, b"x")).unwrap().json()
}

#[test]
pub(super) fn dsn() {
    if is_left_out() {
        return;
    }
    let database = Database::new();
    let relays = [database.relay(&[]), database.relay(&[])];
    assert_eq!(push(&relays[0], "alice", 1)["stored"], true);
    assert_eq!(push(&relays[1], "alice", 1)["duplicate"], true);
    let pulled = connect(&relays[1]).post("/pull", &alice()).unwrap().json();
    assert_eq!(pulled["items"].as_array().unwrap().len(), 1);
    let names = database.server.execute("SELECT 1").unwrap();
    assert_eq!(names, "1");

    let variables = [("RELAY__STORAGE__POSTGRES__DSN", "postgres://relay:se-cret@db/relay")];
    let printed = Process::run(PROGRAM, &["check-config"], &variables).unwrap();
    assert!(printed.stdout.contains("\ndsn = \"postgres://relay@db/relay\"\n"), "{}", printed.stdout);
}

#[test]
pub(super) fn shards() {
    if is_left_out() {
        return;
    }
    let database = Database::new();
    let other = database.server.create_store().unwrap().shards.remove(0).dsn;
    let both = |slots: [&str; 2]| {
        let shards = [&database.dsn, &other].into_iter().zip(slots);
        let shards = shards.map(|(dsn, slots)| format!("{{ dsn = {dsn:?}, slots = {slots:?} }}"));
        format!("[{}]", shards.collect::<Vec<_>>().join(", "))
    };
    let half = both(["0-127", "128-255"]);
    let keys = |shards| [("storage.postgres.dsn", "\"\""), ("storage.postgres.shards", shards)];
    let relay = database.relay(&keys(&half));
    (0..60).for_each(|queue| assert_eq!(push(&relay, &format!("queue{queue}"), 1)["stored"], true));
    let [here, there] = [&database.dsn, &other].map(|dsn| {
        let count = "SELECT count(*) FROM relay.queue WHERE (get_byte(uuid_send(q), 0) < 128) = (SELECT slots = '0-127' FROM relay.meta)";
        execute(dsn, count).unwrap().parse::<u64>().unwrap()
    });
    assert!(here > 10 && there > 10 && here + there == 60, "{here} and {there}");
    let refused = database.failure(&keys(&both(["0-99", "100-255"])));
    assert!(refused.starts_with("shard 1: the database belongs to slots 0-127, but"), "{refused}");
}

#[test]
pub(super) fn password_path() {
    if is_left_out() {
        return;
    }
    let database = Database::new();
    database.server.execute("CREATE ROLE guarded SUPERUSER LOGIN PASSWORD 'pass word'").unwrap();
    database.server.configure_access("host all guarded 127.0.0.1/32 scram-sha-256").unwrap();
    let dsn = format!("{:?}", database.dsn.replace("user=relay", "user=guarded"));
    let (right, wrong) = (database.file("right", "pass word\r\nmore"), database.file("wrong", "password"));
    std::thread::sleep(Duration::from_millis(300));
    let keys = |path| [("storage.postgres.dsn", dsn.as_str()), ("storage.postgres.password_path", path)];
    let relay = database.relay(&keys(&right));
    assert_eq!(push(&relay, "alice", 1)["stored"], true);
    let refused = database.failure(&keys(&wrong));
    assert!(refused.contains("28P01") && !refused.contains("password:"), "{refused}");
    assert!(
        database.failure(&keys("\"/nowhere\"")).starts_with("storage.postgres.password_path: /nowhere: ")
    );
}

#[test]
pub(super) fn tls_and_ca_path() {
    if is_left_out() {
        return;
    }
    let (database, authority, other) = (Database::new(), Authority::new("db ca"), Authority::new("other ca"));
    let identity = authority.identity();
    database.server.add_file("server.crt", &identity.cert).unwrap();
    database.server.add_file("server.key", &identity.key).unwrap();
    database.server.configure("ssl = on").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let (right, wrong) =
        (database.file("ca.pem", &authority.pem()), database.file("other.pem", &other.pem()));
    let keys = |path| [("storage.postgres.tls", "\"verify-full\""), ("storage.postgres.ca_path", path)];
    let relay = database.relay(&keys(&right));
    assert_eq!(push(&relay, "alice", 1)["stored"], true);
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'relay'";
    assert_eq!(database.server.execute(encrypted).unwrap(), "t");
    let refused = database.failure(&keys(&wrong));
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    assert!(database.failure(&keys("\"/nowhere\"")).contains("authorities of the database's certificate"));
}

#[test]
pub(super) fn durability() {
    if is_left_out() {
        return;
    }
    let database = Database::new();
    let refused = database.failure(&[("storage.postgres.durability", "\"replicated\"")]);
    assert!(refused.contains("synchronous_standby_names is empty"), "{refused}");
    for durability in ["\"managed\"", "\"single\""] {
        let relay = database.relay(&[("storage.postgres.durability", durability)]);
        assert!(push(&relay, "alice", 1)["stored"].is_boolean());
    }
}

#[test]
pub(super) fn connections() {
    if is_left_out() {
        return;
    }
    let database = Database::new();
    let open = |writers: &str, readers: &str| {
        let keys =
            [("storage.postgres.write_connections", writers), ("storage.postgres.read_connections", readers)];
        let relay = database.relay(&keys);
        for queue in 0..60 {
            push(&relay, &format!("queue{queue}"), 1);
        }
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| (0..20).for_each(|_| drop(connect(&relay).post("/pull", &alice()))));
            }
        });
        database.connections()
    };
    let (few, more) = (open("2", "1"), open("9", "4"));
    // A monitor, and two for wakes. One of few writers, and one of many, is for large payloads.
    assert!(few <= 1 + 1 + 3 && more >= few + 5, "{few} and {more}");
}
