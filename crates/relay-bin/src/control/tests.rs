//! Tests of the socket itself: who is answered, with what, and what bounds it.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::{Arc, Weak};

use relay_core::Figures;
use relay_http::Unready;
use relay_store_redb::RedbRelay;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::protocol::REQUEST_BYTES_MAX;
use super::relay::COMMANDS_MAX;
use super::{Binding, ControlledRelay, ControlledStore, Ending, Facts};
use crate::config::RelayConfig;

/// A store without contents.
struct Store(Result<(), Unready>);

impl ControlledStore for Store {
    fn readiness(&self) -> Result<(), Unready> {
        self.0
    }

    fn is_open(&self) -> bool {
        !matches!(self.0, Err(Unready::Starting | Unready::Replaying { .. }))
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn redb(&self) -> Option<&RedbRelay> {
        None
    }
}

/// A relay with a socket in a temporary directory.
struct Relay {
    directory: tempfile::TempDir,
    relay: Arc<ControlledRelay>,
    ending: Ending,
    _store: Arc<dyn ControlledStore>,
}

impl Relay {
    fn start(readiness: Result<(), Unready>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn ControlledStore> = Arc::new(Store(readiness));
        let (relay, ending) = ControlledRelay::new(facts(Arc::downgrade(&store)));
        let (binding, socket) = Binding::new(directory.path().join("s"));
        binding.bind_in_locked_directory();
        drop(tokio::spawn(super::serve(socket, Arc::clone(&relay))));
        Self { directory, relay, ending, _store: store }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("s")
    }

    async fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.path()).await.unwrap())
    }

    /// The whole response to these bytes.
    async fn asked(&self, request: &[u8]) -> Vec<Value> {
        let mut stream = self.connect().await;
        // A relay that has seen enough does not read the rest.
        drop(stream.write_all(request).await);
        // What it has written arrives, although it may close the connection with an error then.
        let mut bytes = Vec::new();
        while let Ok(1..) = stream.read_buf(&mut bytes).await {}
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    async fn asked_for(&self, command: &str) -> Vec<Value> {
        self.asked(format!("{}\n", json!({"version": 1, "command": command})).as_bytes()).await
    }
}

fn facts(store: Weak<dyn ControlledStore>) -> Facts {
    Facts { config: RelayConfig::default(), base_url: "http://127.0.0.1:7000".to_owned(), store, log: None }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn code(response: &[Value]) -> &str {
    let [line] = response else { panic!("{response:?}") };
    line["error"]["code"].as_str().unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_relay_that_starts_says_so() {
    run(async {
        let relay = Relay::start(Err(Unready::Replaying { percent: 43 }));
        let [status] = relay.asked_for("status").await.try_into().unwrap();
        assert_eq!(status["done"]["state"], "starting");
        assert_eq!(status["done"]["replayed_percent"], 43);
        let backup = json!({"version": 1, "command": "backup", "directory": "/b", "with_key": false});
        let [refused] = relay.asked(format!("{backup}\n").as_bytes()).await.try_into().unwrap();
        let expected = json!({"code": "starting", "message": "the relay is starting, 43% replayed"});
        assert_eq!(refused["error"], expected);
        let [log] = relay.asked_for("log-level").await.try_into().unwrap();
        assert_eq!(log["error"]["code"], "no_log");
    });
}

#[test]
fn each_reason_not_to_be_ready_is_a_state() {
    run(async {
        for (readiness, state) in [
            (Ok(()), "ready"),
            (Err(Unready::Starting), "starting"),
            (Err(Unready::StorageFull), "full"),
            (Err(Unready::Database), "database"),
            (Err(Unready::Standby), "standby"),
            (Err(Unready::Draining), "draining"),
        ] {
            let [status] = Relay::start(readiness).asked_for("status").await.try_into().unwrap();
            assert_eq!(status["done"]["state"], state);
        }
    });
}

#[test]
fn what_is_no_request_is_refused_without_an_echo() {
    run(async {
        let relay = Relay::start(Ok(()));
        for request in ["secret\n", "{}\n", "[1]\n", r#"{"version":1}"#, "\n", "\u{0}\n"] {
            let response = relay.asked(format!("{request}\n").as_bytes()).await;
            assert_eq!(code(&response), "invalid_request", "{request}");
            assert!(!response[0].to_string().contains("secret"), "{response:?}");
        }
        let deep = "[".repeat(10_000) + "\n";
        assert_eq!(code(&relay.asked(deep.as_bytes()).await), "invalid_request");
        let backup = json!({"version": 1, "command": "backup", "directory": 1});
        assert_eq!(code(&relay.asked(format!("{backup}\n").as_bytes()).await), "invalid_request");
        let relative = json!({"version": 1, "command": "backup", "directory": "b", "with_key": false});
        assert_eq!(code(&relay.asked(format!("{relative}\n").as_bytes()).await), "invalid_request");
        assert_eq!(code(&relay.asked_for("secret").await), "unknown_command");
        let later = relay.asked(b"{\"version\":2,\"command\":\"status\"}\n").await;
        assert_eq!(code(&later), "version");
        let elsewhere = json!({"version": 1, "command": "backup", "directory": "/b", "with_key": false});
        assert_eq!(code(&relay.asked(format!("{elsewhere}\n").as_bytes()).await), "not_with_this_store");
    });
}

#[test]
fn a_request_has_a_longest_length() {
    run(async {
        let relay = Relay::start(Ok(()));
        let request = |bytes: usize| {
            let mut text = json!({"version": 1, "command": "status"}).to_string();
            text.push_str(&" ".repeat(bytes - 1 - text.len()));
            text + "\n"
        };
        assert_eq!(relay.asked(request(REQUEST_BYTES_MAX).as_bytes()).await[0]["done"]["state"], "ready");
        let endless = vec![b' '; REQUEST_BYTES_MAX + 1];
        assert_eq!(code(&relay.asked(&endless).await), "invalid_request");
    });
}

#[test]
fn the_number_of_commands_is_bounded() {
    run(async {
        let relay = Relay::start(Ok(()));
        let mut held = Vec::new();
        for _ in 0..COMMANDS_MAX {
            held.push(relay.connect().await);
        }
        // In this thread, the relay accepts when the test waits.
        while relay.relay.slots.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(code(&relay.asked_for("status").await), "busy");
        // A client that leaves makes room.
        drop(held.pop());
        drop(relay.relay.slots.acquire().await.unwrap());
        assert_eq!(relay.asked_for("status").await[0]["done"]["state"], "ready");
    });
}

#[test]
fn a_drain_reports_the_end_and_other_commands_end_before_the_store() {
    run(async {
        let relay = Relay::start(Ok(()));
        let mut drain = relay.connect().await;
        drain.write_all(b"{\"version\":1,\"command\":\"drain\"}\n").await.unwrap();
        relay.relay.drain_requested().await;
        let turn = relay.relay.whole_store_turn().await.unwrap();
        let mut waiting = relay.connect().await;
        let backup = json!({"version": 1, "command": "backup", "directory": "/b", "with_key": false});
        waiting.write_all(format!("{backup}\n").as_bytes()).await.unwrap();
        relay.ending.closing();
        let mut line = String::new();
        waiting.read_line(&mut line).await.unwrap();
        assert_eq!(code(&[line.parse().unwrap()]), "stopping");
        drop(turn);
        relay.ending.ended(&relay.relay, Err("the disk is gone".to_owned())).await;
        let mut line = String::new();
        drain.read_line(&mut line).await.unwrap();
        let expected = json!({"error": {"code": "failed", "message": "the disk is gone"}});
        assert_eq!(line.parse::<Value>().unwrap(), expected);
    });
}

fn bind(path: &Path) -> Option<super::Socket> {
    let (binding, mut socket) = Binding::new(path.to_owned());
    binding.bind_in_locked_directory();
    socket.try_recv().ok()
}

#[test]
fn only_sockets_are_replaced_and_only_the_own_one_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    std::fs::write(&path, "precious").unwrap();
    assert!(bind(&path).is_none());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();

    let first = bind(&path).unwrap();
    let second = bind(&path).expect("a socket is replaced");
    drop(first);
    assert!(path.symlink_metadata().unwrap().file_type().is_socket(), "that of the second");
    drop(second);
    assert!(!path.exists());
    assert!(bind(&directory.path().join("d".repeat(120))).is_none(), "too long");
}
