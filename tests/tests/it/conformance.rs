//! Runs the conformance suite of stores through the socket: the wire format must not change what a
//! relay does.

use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use relay_core::testing::{Harness, ManualClock, Plan, conformance};
use relay_core::{
    Ack, AckOutcome, Chunk, Envelope, Error, Item, Kind, Limits, MemoryRelay, MessageId, Page, Pull,
    PushOutcome, QuotaKind, Rejection, Relay, Seq, Swept, Timestamp, Usage,
};
use relay_store_postgres::testing::{Server, execute, is_left_out};
use relay_store_postgres::{Admin, Options, PostgresRelay};
use relay_tests::{Client, Response};
use serde_json::{Value, json};

#[test]
fn a_relay_behind_the_socket_passes_the_conformance_suite() {
    conformance(&mut Http::over(InMemory)).unwrap();
}

#[test]
fn a_relay_over_postgresql_behind_the_socket_passes_the_conformance_suite() {
    if is_left_out() {
        return;
    }
    let server = Server::start("").unwrap();
    let options = server.create_store().unwrap();
    let admin = Admin::connect(&options).unwrap();
    conformance(&mut Http::over(InPostgres { options, admin, _server: server })).unwrap();
}

/// Where a relay keeps its queues.
trait Stores: Sync {
    type Store: Relay;
    /// The number of random sequences.
    const CASES: u32;

    fn open_empty(&self, limits: Limits, clock: Arc<ManualClock>) -> Self::Store;

    fn verify(&self, store: &Self::Store) -> Vec<String>;
}

struct InMemory;

impl Stores for InMemory {
    type Store = MemoryRelay;
    const CASES: u32 = 64;

    fn open_empty(&self, limits: Limits, clock: Arc<ManualClock>) -> MemoryRelay {
        MemoryRelay::new(limits, clock)
    }

    fn verify(&self, store: &MemoryRelay) -> Vec<String> {
        store.verify()
    }
}

struct InPostgres {
    options: Options,
    admin: Admin,
    _server: Server,
}

impl Stores for InPostgres {
    type Store = PostgresRelay;
    const CASES: u32 = 8;

    fn open_empty(&self, limits: Limits, clock: Arc<ManualClock>) -> PostgresRelay {
        execute(&self.options.shards[0].dsn, "TRUNCATE relay.queue, relay.item, relay.acked").unwrap();
        PostgresRelay::open_with_clock(self.options.clone(), limits, clock).unwrap()
    }

    fn verify(&self, _: &PostgresRelay) -> Vec<String> {
        self.admin.verify().unwrap()
    }
}

struct Http<S> {
    runtime: tokio::runtime::Runtime,
    stores: S,
}

impl<S> Http<S> {
    fn over(stores: S) -> Self {
        Self { runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(), stores }
    }
}

impl<S: Stores> Harness for Http<S> {
    type Relay = Remote<S::Store>;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> Self::Relay {
        let store = Arc::new(self.stores.open_empty(limits.clone(), clock));
        let server = relay_tests::Relay::with_store(Arc::clone(&store), |config| {
            config.relay.max_message_bytes = limits.message_bytes_max;
            config.relay.gc_interval_seconds = 1_000_000;
        });
        Remote { server, store, connections: Mutex::default(), cursors: Mutex::default() }
    }

    fn reopen(
        &mut self,
        relay: Self::Relay,
        _: Limits,
        _: Arc<ManualClock>,
    ) -> Result<Self::Relay, Self::Relay> {
        Err(relay)
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    fn sweep(&self, relay: &Self::Relay) -> Result<Swept, Error> {
        self.block_on(relay.store.sweep())
    }

    fn verify(&mut self, relay: &Self::Relay) -> Vec<String> {
        self.stores.verify(&relay.store)
    }

    fn plan(&self) -> Plan {
        Plan { cases: S::CASES, ..Plan::default() }
    }
}

/// A relay as a client sees it.
struct Remote<R> {
    server: relay_tests::Relay,
    store: Arc<R>,
    /// Idle connections.
    connections: Mutex<Vec<Client>>,
    /// Every cursor that the relay gave. The suite knows a cursor by its index here.
    cursors: Mutex<Vec<String>>,
}

impl<R: Relay> Relay for Remote<R> {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let body = json!({
            "recipient": envelope.recipient.as_str(),
            "message_id": envelope.message_id.to_string(),
            "ciphertext_b64": STANDARD.encode(&envelope.payload),
            // More than the relay allows means as long as it allows. With it, the response has the
            // deadline.
            "ttl_seconds": envelope.ttl_ms.map_or(u64::MAX, |ttl_ms| ttl_ms / 1000),
            "meta": {
                "kind": envelope.kind.as_str(),
                "total_len": envelope.total_len,
                "chunk_index": envelope.chunk.index(),
                "chunk_count": envelope.chunk.count(),
                "sent_ms": envelope.sent_ms,
            },
        });
        let response = self.post("/push", &body)?;
        let usage = Usage { items: number(&response["queue_len"]), bytes: number(&response["queue_bytes"]) };
        if response["stored"] == true {
            assert_eq!(response.get("duplicate"), None, "a stored item is no duplicate");
            let deadline = Timestamp::from_ms(number(&response["deadline_ms"]));
            return Ok(PushOutcome::Stored { usage, deadline });
        }
        assert_eq!(response["duplicate"], true, "an accepted push that is not stored is a duplicate");
        let deadline = response.get("deadline_ms").map(|deadline| Timestamp::from_ms(number(deadline)));
        Ok(PushOutcome::Duplicate { usage, conflict: response["conflict"] == true, deadline })
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        let cursor = pull.after.map(|after| self.cursor(after));
        let recipient = pull.recipient.as_str();
        let body =
            json!({"recipient": recipient, "cursor": cursor, "max": pull.items_max.map(NonZeroU64::get)});
        let response = self.post("/pull", &body)?;
        let next = response["next_cursor"].as_str().map(|cursor| {
            let mut cursors = self.cursors.lock().unwrap();
            cursors.push(cursor.to_owned());
            Seq::new(cursors.len() as u64 - 1)
        });
        let items = response["items"].as_array().unwrap();
        let items = items.iter().map(|item| read_item(recipient, item)).collect();
        Ok(Page { items, next, remaining: number(&response["remaining_estimate"]) })
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let entries = ack.items().iter();
        let entries: Vec<Value> = entries
            .map(|id| json!({"message_id": id.message_id.to_string(), "chunk_index": id.chunk_index}))
            .collect();
        let mut body = json!({"recipient": ack.recipient().as_str(), "ack": entries});
        let response = match ack.through() {
            Some(through) if through == Seq::new(u64::MAX) => {
                self.post("/purge", &json!({"recipient": ack.recipient().as_str()}))?
            }
            through => {
                body["ack_before"] = through.map(|through| self.cursor(through)).into();
                self.post("/ack", &body)?
            }
        };
        let (deleted, missing) = (number(&response["deleted"]), number(&response["missing"]));
        Ok(AckOutcome { deleted, missing, remaining: number(&response["remaining"]) })
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        unreachable!("a client cannot sweep; the harness does it")
    }
}

impl<R> Remote<R> {
    fn cursor(&self, seq: Seq) -> String {
        let index = usize::try_from(seq.as_u64()).unwrap();
        self.cursors.lock().unwrap()[index].clone()
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let idle = self.connections.lock().unwrap().pop();
        let mut client = idle.map_or_else(|| self.server.connect(), Ok).map_err(Error::storage)?;
        let response = client.post(path, body).map_err(Error::storage)?;
        self.connections.lock().unwrap().push(client);
        if response.status == 200 { Ok(response.json()) } else { Err(read_error(&response)) }
    }
}

fn read_item(recipient: &str, item: &Value) -> Item<Bytes> {
    assert_eq!(item["recipient"], recipient);
    let meta = &item["meta"];
    let part = |name: &str| u32::try_from(number(&meta[name])).unwrap();
    let body = Bytes::from(STANDARD.decode(item["ciphertext_b64"].as_str().unwrap()).unwrap());
    Item {
        seq: Seq::ZERO,
        message_id: MessageId::parse(item["message_id"].as_str().unwrap()).unwrap(),
        chunk: Chunk::new(part("chunk_index"), part("chunk_count")).unwrap(),
        kind: Kind::parse(meta["kind"].as_str().unwrap()).unwrap(),
        total_len: number(&meta["total_len"]),
        sent_ms: number(&meta["sent_ms"]),
        arrival: Timestamp::from_ms(number(&item["arrival_ms"])),
        deadline: Timestamp::from_ms(number(&item["deadline_ms"])),
        payload_bytes: body.len() as u64,
        body,
    }
}

fn read_error(response: &Response) -> Error {
    let error = &response.json()["error"];
    let details = &error["details"];
    let limit = || number(&details["limit"]);
    match (response.status, error["code"].as_str().unwrap_or_default()) {
        (409, "quota_exceeded") => {
            let reason = if details["reason"] == "count" { QuotaKind::Count } else { QuotaKind::Bytes };
            let used = number(&details["used"]);
            Rejection::QuotaExceeded { reason, limit: limit(), used }.into()
        }
        (413, "message_too_large") => Rejection::MessageTooLarge { limit: limit() }.into(),
        (status, code) => {
            let body = String::from_utf8_lossy(&response.body);
            Error::storage(io::Error::other(format!("{status} {code}: {body}")))
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("expected a number, found {value}"))
}
