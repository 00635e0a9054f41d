//! What only this store has: durability across restarts, counts in deep queues, backpressure, and
//! errors for files that it cannot open.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use redb::{Database, TableDefinition};
use relay_core::testing::ManualClock;
use relay_core::{
    Ack, Chunk, Envelope, ItemId, Kind, Limits, MessageId, Pull, Recipient, Relay, Seq, Swept, Usage,
};
use relay_store_redb::{OpenError, Options, RedbRelay};
use tokio::runtime::Runtime;

/// Enough items for three full blocks and a partial one.
const DEEP: u64 = 1700;

struct Fixture {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    limits: Limits,
    runtime: Runtime,
}

impl Fixture {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        Self { directory, clock: Arc::default(), limits: Limits::default(), runtime }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("store")
    }

    fn open(&self) -> RedbRelay {
        open(&self.path(), self.limits.clone(), Arc::clone(&self.clock)).unwrap()
    }

    /// Pushes items of one byte each to queue `a`, many at a time.
    fn fill(&self, relay: &RedbRelay, numbers: std::ops::Range<u64>) {
        let numbers: Vec<u64> = numbers.collect();
        for numbers in numbers.chunks(1000) {
            let pushes = numbers.iter().map(|number| relay.push(envelope("a", *number, "x")));
            for outcome in self.runtime.block_on(futures_util::future::join_all(pushes)) {
                assert!(outcome.unwrap().is_stored());
            }
        }
    }

    fn ack(&self, relay: &RedbRelay, numbers: impl Iterator<Item = u64>) {
        let ack = Ack::new(recipient("a"), numbers.map(id).collect()).unwrap();
        let count = ack.items().len() as u64;
        assert_eq!(self.runtime.block_on(relay.ack(ack)).unwrap().deleted, count);
    }

    /// Pages through queue `a`, and checks the number of remaining items of each page.
    fn page_through(&self, relay: &RedbRelay) -> Vec<u64> {
        let (mut after, mut numbers, mut announced) = (None, Vec::new(), Vec::new());
        loop {
            let pull = Pull { recipient: recipient("a"), after, items_max: None };
            let page = self.runtime.block_on(relay.pull(pull)).unwrap();
            numbers.extend(page.items.iter().map(|item| number_of(item.message_id)));
            announced.push(numbers.len() as u64 + page.remaining);
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        let total = numbers.len() as u64;
        assert!(announced.iter().all(|announced| *announced == total), "{announced:?} should all be {total}");
        numbers
    }
}

fn open(path: &Path, limits: Limits, clock: Arc<ManualClock>) -> Result<RedbRelay, OpenError> {
    RedbRelay::open(path, limits, clock, Options::default())
}

fn recipient(name: &str) -> Recipient {
    Recipient::parse(name).unwrap()
}

fn id(number: u64) -> ItemId {
    let message_id = MessageId::from_bytes(u128::from(number).to_be_bytes());
    ItemId { message_id, chunk_index: 0 }
}

fn number_of(message_id: MessageId) -> u64 {
    u64::try_from(u128::from_be_bytes(*message_id.as_bytes())).unwrap()
}

fn envelope(to: &str, number: u64, payload: &'static str) -> Envelope {
    Envelope {
        recipient: recipient(to),
        message_id: id(number).message_id,
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 1,
        sent_ms: number,
        ttl_ms: None,
        payload: Bytes::from_static(payload.as_bytes()),
    }
}

#[test]
fn remaining_is_exact_in_a_deep_queue_with_holes() {
    let fixture = Fixture::new();
    let relay = fixture.open();
    fixture.fill(&relay, 0..DEEP);
    assert_eq!(fixture.page_through(&relay), (0..DEEP).collect::<Vec<_>>());
    // Holes in full blocks and in the partial one, and one block that is removed completely.
    let is_hole = |number: &u64| number.is_multiple_of(7) || (512..1024).contains(number);
    fixture.ack(&relay, (0..DEEP).filter(is_hole));
    let left: Vec<u64> = (0..DEEP).filter(|number| !is_hole(number)).collect();
    assert_eq!(fixture.page_through(&relay), left);
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    fixture.ack(&relay, left.into_iter());
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}

#[test]
fn a_deep_expired_front_is_neither_shown_nor_counted() {
    let mut fixture = Fixture::new();
    fixture.limits.ttl_ms = 1000;
    let relay = fixture.open();
    fixture.fill(&relay, 0..DEEP - 100);
    fixture.clock.advance_ms(500);
    fixture.fill(&relay, DEEP - 100..DEEP);
    fixture.ack(&relay, (0..DEEP).filter(|number| number.is_multiple_of(3)));
    fixture.clock.advance_ms(500);
    let left: Vec<u64> = (DEEP - 100..DEEP).filter(|number| !number.is_multiple_of(3)).collect();
    assert_eq!(fixture.page_through(&relay), left);
    let stored = fixture.runtime.block_on(relay.push(envelope("a", 5000, "x"))).unwrap();
    let items = left.len() as u64 + 1;
    assert_eq!(stored.usage(), Usage { items, bytes: items });
    let swept = fixture.runtime.block_on(relay.sweep()).unwrap();
    let expired = (0..DEEP - 100).filter(|number| !number.is_multiple_of(3)).count() as u64;
    assert_eq!(swept, Swept { items: expired, forgotten: 0 });
    assert_eq!(fixture.page_through(&relay).len() as u64, items);
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}

#[test]
fn a_restart_keeps_the_dedup_window_and_arrival_numbers() {
    let fixture = Fixture::new();
    let relay = fixture.open();
    fixture.fill(&relay, 0..3);
    fixture.ack(&relay, 0..3);
    drop(relay);
    let relay = fixture.open();
    // The store remembers acked items, and a new item comes after every old cursor.
    let repeated = fixture.runtime.block_on(relay.push(envelope("a", 1, "x"))).unwrap();
    assert!(!repeated.is_stored());
    fixture.fill(&relay, 3..4);
    let pull = Pull { recipient: recipient("a"), after: Some(Seq::new(3)), items_max: None };
    assert_eq!(fixture.runtime.block_on(relay.pull(pull)).unwrap().items.len(), 1);
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}

#[test]
fn a_store_in_use_does_not_open() {
    let fixture = Fixture::new();
    let _open = fixture.open();
    let error = open(&fixture.path(), Limits::default(), Arc::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
}

#[test]
fn another_format_and_a_corrupt_index_do_not_open() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let file = fixture.path().join("relay.redb");
    let db = Database::create(&file).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("index_format", 9).unwrap();
    tx.commit().unwrap();
    drop(db);
    let error = open(&fixture.path(), Limits::default(), Arc::default()).unwrap_err();
    assert!(
        error.to_string().contains("has format 9, and this program reads formats 1 to 2 only"),
        "{error}"
    );
    std::fs::write(&file, "this is no database").unwrap();
    let error = open(&fixture.path(), Limits::default(), Arc::default()).unwrap_err();
    assert!(error.to_string().contains("cannot be opened"), "{error}");
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_access_the_directory() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    drop(fixture.open());
    let mode = std::fs::metadata(fixture.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn pushes_beyond_the_backlog_are_rejected_at_once() {
    let fixture = Fixture::new();
    let options = Options { waiting_jobs_max: 1, ..Options::default() };
    let clock: Arc<ManualClock> = Arc::default();
    let relay = RedbRelay::open(&fixture.path(), Limits::default(), clock, options).unwrap();
    let outcomes = fixture.runtime.block_on(async {
        let pushes = (0..200).map(|number| relay.push(envelope("a", number, "x")));
        futures_util::future::join_all(pushes).await
    });
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let rejected = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(relay_core::Error::Overloaded { .. })))
        .count();
    assert!(stored > 0 && rejected > 0, "{stored} stored, {rejected} rejected");
    assert_eq!(stored + rejected, 200);
    assert_eq!(fixture.page_through(&relay).len(), stored);
}

#[test]
fn a_close_does_not_wait_for_a_sweep() {
    let mut fixture = Fixture::new();
    fixture.limits.ttl_ms = 1000;
    let relay = fixture.open();
    fixture.fill(&relay, 0..20_000);
    fixture.clock.advance_ms(1000);
    // The sweep is requested but not awaited. The store closes while most of the work remains.
    assert!(relay.sweep().now_or_never().is_none());
    drop(relay);
    let relay = fixture.open();
    let swept = fixture.runtime.block_on(relay.sweep()).unwrap();
    assert!(swept.items > 10_000, "the close waited for the sweep: only {} items were left", swept.items);
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}
