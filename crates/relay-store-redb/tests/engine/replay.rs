//! A replay restores the state of the live store. After random operations, a store opened on a copy
//! of the disk shows the same as the live one, which the suite compares with the model.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, Value};
use relay_core::testing::operations::RECIPIENTS;
use relay_core::testing::{Harness, ManualClock, Plan, run_operations};
use relay_core::{Ack, Clock, Envelope, Item, Limits, Pull, Recipient, Relay, Seq, Timestamp};
use relay_disk::{SimDisk, Survival};
use relay_journal::{Frame, Location};
use relay_store_redb::{Contents, OpenProgress, Options, RedbRelay};

use crate::index::{Index, META, NAMES, ROWS, SEGMENTS};
use crate::world::{World, envelope, id, recipient, run_slow_tests, small_options, with_timeout};

/// A store on a simulated disk. Whenever the suite verifies it, it is compared with its replay.
struct ReplayHarness {
    world: World,
    /// The latest time that the clock has shown.
    latest: Timestamp,
}

/// Everything that a store shows.
#[derive(Debug, PartialEq)]
struct Observed {
    pages: Vec<(Vec<Item<Bytes>>, u64)>,
    contents: Contents,
    findings: Vec<String>,
    last_arrival_number: Seq,
}

impl ReplayHarness {
    fn observe(&self, relay: &RedbRelay) -> Observed {
        let mut pages = Vec::new();
        for recipient in RECIPIENTS {
            let mut after = None;
            loop {
                let pull = Pull { recipient: Recipient::parse(recipient).unwrap(), after, items_max: None };
                let page = self.world.block_on(relay.pull(pull)).unwrap();
                pages.push((page.items, page.remaining));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Observed {
            pages,
            contents: relay.contents().unwrap(),
            findings: relay.verify().unwrap(),
            last_arrival_number: relay.last_arrival_number(),
        }
    }
}

impl Harness for ReplayHarness {
    type Relay = RedbRelay;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> RedbRelay {
        self.world = World { limits, clock, ..self.world.on(SimDisk::new()) };
        self.latest = Timestamp::default();
        self.world.open()
    }

    fn reopen(
        &mut self,
        relay: RedbRelay,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<RedbRelay, RedbRelay> {
        drop(relay);
        self.world = World { limits, clock, ..self.world.on(self.world.disk.clone()) };
        Ok(self.world.open())
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.world.block_on(future)
    }

    fn verify(&mut self, relay: &RedbRelay) -> Vec<String> {
        // The live store ignores a clock that is set back, so its replay needs the latest time.
        self.latest = self.latest.max(self.world.clock.now());
        let clock = ManualClock::new();
        clock.set(self.latest);
        let replayed = World { clock: Arc::new(clock), ..self.world.after_crash(Survival::All) };
        let (live, replayed) = (self.observe(relay), self.observe(&replayed.open()));
        assert_eq!(live, replayed);
        live.findings
    }

    fn plan(&self) -> Plan {
        let cases = if run_slow_tests() { 48 } else { 12 };
        Plan { cases, regressions: None, ..Plan::default() }
    }
}

fn run(options: Options) {
    with_timeout(|| {
        let mut harness =
            ReplayHarness { world: World::new().with_options(options), latest: Timestamp::default() };
        run_operations(&mut harness).unwrap();
    });
}

#[test]
fn a_replay_over_many_checkpoints_equals_the_live_store() {
    run(Options { checkpoint_rows: 8, checkpoint_bytes: 512, segment_bytes: 256, ..small_options() });
}

#[test]
fn a_replay_with_blobs_equals_the_live_store() {
    let options =
        Options { checkpoint_rows: 40, checkpoint_bytes: 2048, segment_bytes: 256, ..small_options() };
    run(Options { blob_bytes: 8, ..options });
}

#[test]
fn a_replay_of_the_whole_journal_equals_the_live_store() {
    run(Options { checkpoint_rows: 1_000_000, checkpoint_bytes: 1 << 40, ..small_options() });
}

/// Enough requests that the store replays their records on several threads.
const STORY_REQUESTS: u64 = 6_000;

/// What `verify` finds after a replay, and all rows of the index after a checkpoint.
fn index_after_replay(world: &World, replay_threads: usize) -> (Vec<String>, Vec<String>) {
    let options = Options { replay_threads, ..world.options.clone() };
    let replayed = world.after_crash(Survival::All).with_options(options);
    let relay = replayed.open();
    let findings = relay.verify().unwrap();
    drop(relay);
    let index = Index::open(&replayed.disk);
    let tx = index.database().begin_read().unwrap();
    let tables =
        [format_rows(&tx, ROWS), format_rows(&tx, NAMES), format_rows(&tx, SEGMENTS), format_rows(&tx, META)];
    (findings, tables.concat())
}

fn format_rows<K: Key + 'static, V: Value + 'static>(
    tx: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Vec<String> {
    let table = tx.open_table(table).unwrap();
    let rows = table.iter().unwrap().map(Result::unwrap);
    rows.map(|(key, value)| format!("{:?}: {:?}", key.value(), value.value())).collect()
}

/// Flips a bit of a record.
fn corrupt(world: &World, frame: &Frame) {
    let Location { segment, offset, length } = frame.location;
    world
        .disk
        .edit(&format!("journal-{segment:010}.seg"), |bytes| bytes[(offset + length) as usize - 1] ^= 1);
}

/// The store after a crash, with the index of a new store: an open replays the whole journal.
fn without_index(world: &World) -> World {
    let (crashed, empty) = (world.after_crash(Survival::All), World::new());
    drop(empty.open());
    let index = empty.disk.contents("relay.redb").unwrap();
    crashed.disk.edit("relay.redb", |bytes| *bytes = index);
    crashed
}

/// Pushes, acks and sweeps. Queues are dropped, and created again with other numbers.
fn run_long_story(world: &World, relay: &RedbRelay) {
    let mut pushed = vec![VecDeque::new(); 40];
    for number in 0..STORY_REQUESTS {
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        // Each queue is used for some time, and then not for long.
        let queue = usize::try_from((number / 40 + random % 8) % 40).unwrap();
        let recipient = Recipient::parse(&format!("recipient {queue}")).unwrap();
        let pushed: &mut VecDeque<_> = &mut pushed[queue];
        if random >> 8 & 3 == 0 {
            let items = pushed.drain(..pushed.len().min(5)).collect::<Vec<_>>();
            if !items.is_empty() {
                world.block_on(relay.ack(Ack::new(recipient, items).unwrap())).unwrap();
            }
        } else {
            world.block_on(relay.push(Envelope { recipient, ..envelope(0, number, 8) })).unwrap();
            pushed.push_back(id(number));
        }
        world.clock.advance_ms(random >> 16 & 3);
        if number % 100 == 0 {
            world.block_on(relay.sweep()).unwrap();
        }
    }
}

#[test]
fn several_threads_replay_the_same_as_one() {
    with_timeout(|| {
        // The store frees no space, so the journal contains the whole story.
        let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
        let relay = world.open();
        run_long_story(&world, &relay);
        let crashed = without_index(&world);
        let frames = crashed.frames();
        let of_kind = |kind| frames.iter().filter(|frame| frame.kind == kind).count();
        // The kinds of records: pushed, removed, trimmed, dropped.
        let counts = [1, 3, 4, 5].map(of_kind);
        assert!(
            counts.iter().all(|count| *count > 30),
            "the story has too few records of a kind: {counts:?}"
        );
        let (findings, rows) = index_after_replay(&crashed, 1);
        assert!(findings.is_empty() && rows.len() > 300, "{findings:?}, {} rows", rows.len());
        for threads in [2, 3, 100] {
            assert!(index_after_replay(&crashed, threads) == (vec![], rows.clone()), "{threads} threads");
        }
        // Without a lost record, others cannot be applied. The owner of a queue that should be
        // dropped may then differ, and so may the bytes of its rows.
        for frame in frames.iter().step_by(frames.len() / 30) {
            corrupt(&crashed, frame);
        }
        let comparable = |threads| {
            let (findings, mut rows) = index_after_replay(&crashed, threads);
            rows.retain(|row| !["\"recipient", "\"rows_bytes"].iter().any(|prefix| row.starts_with(prefix)));
            let not_applied: Vec<_> =
                findings.into_iter().filter(|finding| finding.contains("not applied")).collect();
            assert!(!not_applied.is_empty());
            (not_applied, rows)
        };
        assert!(comparable(3) == comparable(1));
    });
}

/// The record that drops the old queue of a recipient is lost.
#[test]
fn a_queue_whose_drop_is_lost_does_not_take_the_recipient_from_the_new_queue() {
    let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
    let relay = world.open();
    world.block_on(relay.push(envelope(0, 1, 8))).unwrap();
    world.block_on(relay.ack(Ack::new(recipient(0), vec![id(1)]).unwrap())).unwrap();
    world.clock.advance_ms(world.limits.dedup_window_ms + 100);
    world.block_on(relay.sweep()).unwrap();
    world.block_on(relay.push(envelope(0, 2, 8))).unwrap();
    let crashed = without_index(&world);
    let frames = crashed.frames();
    let dropped = frames.iter().find(|frame| frame.kind == 5).expect("the queue was dropped");
    corrupt(&crashed, dropped);
    let reopened = crashed.open();
    let findings = reopened.verify().unwrap();
    let expected = "queue number 1: its owner does not lead to it".to_owned();
    assert!(findings.contains(&expected), "{findings:?}");
    crashed.block_on(reopened.sweep()).unwrap();
    assert_eq!(crashed.pull_numbers(&reopened, 0), [2]);
}

/// The record of one of several items is lost that were acked together.
#[test]
fn a_lost_push_brings_back_no_item_that_was_acked_with_it() {
    // Inline, and spilled.
    for items in [8, 60] {
        let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
        let relay = world.open();
        for number in 0..items {
            world.block_on(relay.push(envelope(0, number, 8))).unwrap();
        }
        let acked = world.block_on(relay.ack(Ack::new(recipient(0), (0..6).map(id).collect()).unwrap()));
        assert_eq!(acked.unwrap().deleted, 6);
        let crashed = world.after_crash(Survival::All);
        corrupt(&crashed, crashed.frames().first().unwrap());
        let reopened = crashed.open();
        assert!(
            reopened.verify().unwrap().iter().any(|finding| finding.contains("an item to remove is missing"))
        );
        assert_eq!(crashed.pull_numbers(&reopened, 0), (6..items).collect::<Vec<_>>());
        assert_eq!(reopened.contents().unwrap().usage.items, items - 6);
        // Only the lost item is not known as acked.
        for number in 0..6 {
            let pushed = crashed.block_on(reopened.push(envelope(0, number, 8))).unwrap();
            assert_eq!(pushed.is_stored(), number == 0, "{number}");
        }
    }
}

/// Also if there was no checkpoint before, and with few rows.
#[test]
fn a_long_journal_causes_a_checkpoint() {
    with_timeout(|| {
        let options = Options { checkpoint_rows: 1_000_000, checkpoint_bytes: 64 * 1024, ..small_options() };
        let world = World::new().with_options(options);
        let relay = world.open();
        for number in 0.. {
            world.block_on(relay.push(envelope(0, number, 4096))).unwrap();
            if relay.figures().checkpoint_us.is_some_and(|checkpoints| checkpoints.count() > 0) {
                return;
            }
            assert!(number < 1_000, "the store writes no checkpoint");
        }
    });
}

#[test]
fn an_open_reports_its_progress() {
    let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
    let relay = world.open();
    for number in 0..20 {
        world.block_on(relay.push(envelope(0, number, 100))).unwrap();
    }
    let progress = OpenProgress::default();
    assert_eq!(progress.percent(), None);
    let options = Options { progress: Some(progress.clone()), ..Options::default() };
    let _reopened = world.after_crash(Survival::All).with_options(options).open();
    assert_eq!(progress.percent(), Some(100));
}
