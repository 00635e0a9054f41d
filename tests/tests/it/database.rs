//! The relay as processes on a database of their own.

use std::path::Path;

use relay_store_postgres::testing::Server;
use relay_tests::Process;
use relay_tests::process::ProcessOutput;

/// A server with an empty database, and how relays on it are configured.
pub(crate) struct Database {
    pub(crate) server: Server,
    /// Empty if there are shards.
    pub(crate) dsn: String,
    /// Several databases, as a list in TOML.
    pub(crate) shards: String,
    /// The path of the key file.
    pub(crate) key: String,
    /// Whether a new store holds hashed recipients.
    hash: &'static str,
}

impl Database {
    /// A database whose relays have their key file in `directory`. It has no tables.
    pub(crate) fn new(directory: &Path, is_hashed: bool) -> Self {
        let server = Server::start("").unwrap();
        let dsn = server.create_database().unwrap();
        let key = directory.join("relay.key").to_str().unwrap().to_owned();
        let hash = if is_hashed { "true" } else { "false" };
        Self { server, dsn, shards: "[]".to_owned(), key, hash }
    }

    /// Several databases with these slots in place of the one.
    pub(crate) fn set_shards(&mut self, shards: &[(&str, &str)]) {
        let shards = shards.iter().map(|(dsn, slots)| format!("{{ dsn = {dsn:?}, slots = {slots:?} }}"));
        self.shards = format!("[{}]", shards.collect::<Vec<_>>().join(", "));
        self.dsn.clear();
    }

    pub(crate) fn environment(&self) -> [(&str, &str); 8] {
        [
            ("RELAY__STORAGE__KIND", "postgres"),
            ("RELAY__STORAGE__POSTGRES__DSN", &self.dsn),
            ("RELAY__STORAGE__POSTGRES__SHARDS", &self.shards),
            ("RELAY__STORAGE__POSTGRES__TLS", "off"),
            ("RELAY__STORAGE__POSTGRES__DURABILITY", "single"),
            ("RELAY__PRIVACY__KEY_PATH", &self.key),
            ("RELAY__PRIVACY__HASH_RECIPIENTS", self.hash),
            ("RELAY__RATE_LIMIT__ENABLED", "false"),
        ]
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> ProcessOutput {
        Process::run(crate::PROGRAM, arguments, &self.environment()).unwrap()
    }

    /// The standard output of a command that must succeed.
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        ended.stdout
    }
}
