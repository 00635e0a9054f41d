//! A replay ends where the live store stands: after every random operation, what a store opened on
//! a copy of the disk shows is what the live one shows, and the suite holds that one to the model.

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

use crate::world::{Index, World, envelope, id, recipient, run_slow_tests, small_options, within_bounds};

/// A store on a disk in memory, which is compared with its own replay whenever the suite recounts
/// it.
struct Twins {
    world: World,
    latest: Timestamp,
}

/// Everything that can be seen of a store.
#[derive(Debug, PartialEq)]
struct Seen {
    pages: Vec<(Vec<Item<Bytes>>, u64)>,
    contents: Contents,
    findings: Vec<String>,
    last_arrival_number: Seq,
}

impl Twins {
    fn look(&self, relay: &RedbRelay) -> Seen {
        let mut pages = Vec::new();
        for name in RECIPIENTS {
            let mut after = None;
            loop {
                let pull = Pull { recipient: Recipient::parse(name).unwrap(), after, items_max: None };
                let page = self.world.block_on(relay.pull(pull)).unwrap();
                pages.push((page.items, page.remaining));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Seen {
            pages,
            contents: relay.contents().unwrap(),
            findings: relay.verify().unwrap(),
            last_arrival_number: relay.last_arrival_number(),
        }
    }
}

impl Harness for Twins {
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
        // The live store does not believe a clock that was set back; its twin has to be told the
        // latest time.
        self.latest = self.latest.max(self.world.clock.now());
        let clock = ManualClock::new();
        clock.set(self.latest);
        let twin = World { clock: Arc::new(clock), ..self.world.after_crash(Survival::All) };
        let (live, replayed) = (self.look(relay), self.look(&twin.open()));
        assert_eq!(live, replayed);
        live.findings
    }

    fn plan(&self) -> Plan {
        let cases = if run_slow_tests() { 48 } else { 12 };
        Plan { cases, regressions: None, ..Plan::default() }
    }
}

fn run(options: Options) {
    within_bounds(|| {
        let mut twins = Twins { world: World::new().with_options(options), latest: Timestamp::default() };
        run_operations(&mut twins).unwrap();
    });
}

#[test]
fn a_replay_over_many_checkpoints_ends_where_the_live_store_stands() {
    run(Options { checkpoint_rows: 8, checkpoint_bytes: 512, segment_bytes: 256, ..small_options() });
}

#[test]
fn a_replay_with_payloads_aside_ends_where_the_live_store_stands() {
    let options =
        Options { checkpoint_rows: 40, checkpoint_bytes: 2048, segment_bytes: 256, ..small_options() };
    run(Options { blob_bytes: 8, ..options });
}

#[test]
fn a_replay_of_everything_ends_where_the_live_store_stands() {
    run(Options { checkpoint_rows: 1_000_000, checkpoint_bytes: 1 << 40, ..small_options() });
}

/// More records than one thread replays alone.
const STORY_REQUESTS: u64 = 6_000;

/// What a recount finds after a replay, and all that the index holds once everything is written to
/// it.
fn index_after_replay(world: &World, replay_threads: usize) -> (Vec<String>, Vec<String>) {
    let options = Options { replay_threads, ..world.options.clone() };
    let twin = world.after_crash(Survival::All).with_options(options);
    let relay = twin.open();
    let findings = relay.verify().unwrap();
    drop(relay);
    let index = Index::open(&twin.disk);
    let tx = index.database().begin_read().unwrap();
    let tables = [
        rows::<&[u8], &[u8]>(&tx, "rows"),
        rows::<&str, (u64, u32)>(&tx, "names"),
        rows::<u32, (u64, u64)>(&tx, "segments"),
        rows::<&str, u64>(&tx, "meta"),
    ];
    (findings, tables.concat())
}

fn rows<K: Key + 'static, V: Value + 'static>(tx: &ReadTransaction, table: &str) -> Vec<String> {
    let table = tx.open_table(TableDefinition::<K, V>::new(table)).unwrap();
    let rows = table.iter().unwrap().map(Result::unwrap);
    rows.map(|(key, value)| format!("{:?}: {:?}", key.value(), value.value())).collect()
}

/// Flips a bit of a record.
fn damage(world: &World, frame: &Frame) {
    let Location { segment, offset, length } = frame.location;
    world
        .disk
        .edit(&format!("journal-{segment:010}.seg"), |bytes| bytes[(offset + length) as usize - 1] ^= 1);
}

/// What a crash leaves, with the index of a new store: a start replays all that there ever was.
fn without_index(world: &World) -> World {
    let (crashed, new) = (world.after_crash(Survival::All), World::new());
    drop(new.open());
    let index = new.disk.contents("relay.redb").unwrap();
    crashed.disk.edit("relay.redb", |bytes| *bytes = index);
    crashed
}

/// Pushes, acks and sweeps, of queues that are forgotten and come back under other numbers.
fn tell_a_long_story(world: &World, relay: &RedbRelay) {
    let mut queues = vec![VecDeque::new(); 40];
    for number in 0..STORY_REQUESTS {
        let chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        // Each has its time, and then none for long.
        let queue = usize::try_from((number / 40 + chance % 8) % 40).unwrap();
        let recipient = Recipient::parse(&format!("recipient {queue}")).unwrap();
        let known: &mut VecDeque<_> = &mut queues[queue];
        if chance >> 8 & 3 == 0 {
            let items = known.drain(..known.len().min(5)).collect::<Vec<_>>();
            if !items.is_empty() {
                world.block_on(relay.ack(Ack::new(recipient, items).unwrap())).unwrap();
            }
        } else {
            world.block_on(relay.push(Envelope { recipient, ..envelope(0, number, 8) })).unwrap();
            known.push_back(id(number));
        }
        world.clock.advance_ms(chance >> 16 & 3);
        if number % 100 == 0 {
            world.block_on(relay.sweep()).unwrap();
        }
    }
}

#[test]
fn several_threads_replay_as_one_does() {
    within_bounds(|| {
        // No space is given back, so that the journal has all of it.
        let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
        let relay = world.open();
        tell_a_long_story(&world, &relay);
        let crashed = without_index(&world);
        let frames = crashed.frames();
        let of_kind = |kind| frames.iter().filter(|frame| frame.kind == kind).count();
        // Pushed, removed, trimmed, dropped.
        let counts = [1, 3, 4, 5].map(of_kind);
        assert!(counts.iter().all(|count| *count > 30), "the story has enough of all kinds: {counts:?}");
        let (findings, rows) = index_after_replay(&crashed, 1);
        assert!(findings.is_empty() && rows.len() > 300, "{findings:?}, {} rows", rows.len());
        for threads in [2, 3, 100] {
            assert!(index_after_replay(&crashed, threads) == (vec![], rows.clone()), "{threads} threads");
        }
        // Of a record that is lost, others are left that cannot be applied. Whose a queue is that
        // should be gone is not the same then, nor how many bytes that takes.
        for frame in frames.iter().step_by(frames.len() / 30) {
            damage(&crashed, frame);
        }
        let rows_alone = |threads| {
            let (findings, mut rows) = index_after_replay(&crashed, threads);
            rows.retain(|row| !["\"recipient", "\"rows_bytes"].iter().any(|other| row.starts_with(other)));
            let not_applied: Vec<_> =
                findings.into_iter().filter(|finding| finding.contains("not applied")).collect();
            assert!(!not_applied.is_empty());
            (not_applied, rows)
        };
        assert!(rows_alone(3) == rows_alone(1));
    });
}

/// The queue of a recipient was forgotten, and a record without which that cannot be understood is
/// lost.
#[test]
fn a_queue_that_should_be_gone_takes_no_name_with_it() {
    let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
    let relay = world.open();
    world.block_on(relay.push(envelope(0, 1, 8))).unwrap();
    world.block_on(relay.ack(Ack::new(recipient(0), vec![id(1)]).unwrap())).unwrap();
    world.clock.advance_ms(world.limits.dedup_window_ms + 100);
    world.block_on(relay.sweep()).unwrap();
    world.block_on(relay.push(envelope(0, 2, 8))).unwrap();
    let crashed = without_index(&world);
    let frames = crashed.frames();
    let forgotten = frames.iter().find(|frame| frame.kind == 5).expect("the queue was forgotten");
    damage(&crashed, forgotten);
    let again = crashed.open();
    let findings = again.verify().unwrap();
    let is_back = "queue number 1: the name of its owner does not lead to it".to_owned();
    assert!(findings.contains(&is_back), "{findings:?}");
    crashed.block_on(again.sweep()).unwrap();
    let shown = crashed.pull_all(&again, 0).unwrap();
    assert_eq!(shown.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2]);
}

/// Of items that were acked together, the record of one is lost.
#[test]
fn an_item_that_is_lost_brings_back_none_that_was_acked_with_it() {
    // PackedItems, which lie in the row of their queue, and many.
    for items in [8, 60] {
        let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
        let relay = world.open();
        for number in 0..items {
            world.block_on(relay.push(envelope(0, number, 8))).unwrap();
        }
        let acked = world.block_on(relay.ack(Ack::new(recipient(0), (0..6).map(id).collect()).unwrap()));
        assert_eq!(acked.unwrap().deleted, 6);
        let crashed = world.after_crash(Survival::All);
        damage(&crashed, crashed.frames().first().unwrap());
        let again = crashed.open();
        assert!(
            again.verify().unwrap().iter().any(|finding| finding.contains("an item to remove is not there"))
        );
        let shown = crashed.pull_all(&again, 0).unwrap();
        assert_eq!(
            shown.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
            (6..items).collect::<Vec<_>>()
        );
        assert_eq!(again.contents().unwrap().usage.items, items - 6);
        // That it was acked is forgotten of the lost one alone.
        for number in 0..6 {
            let pushed = crashed.block_on(again.push(envelope(0, number, 8))).unwrap();
            assert_eq!(pushed.is_stored(), number == 0, "{number}");
        }
    }
}

/// Also one that has none yet, however few rows there are.
#[test]
fn a_long_journal_brings_a_checkpoint() {
    within_bounds(|| {
        let options = Options { checkpoint_rows: 1_000_000, checkpoint_bytes: 64 * 1024, ..small_options() };
        let world = World::new().with_options(options);
        let relay = world.open();
        for number in 0.. {
            world.block_on(relay.push(envelope(0, number, 4096))).unwrap();
            if relay.figures().checkpoint_us.is_some_and(|checkpoints| checkpoints.count() > 0) {
                return;
            }
            assert!(number < 1_000, "there is no checkpoint");
        }
    });
}

#[test]
fn a_start_tells_how_far_it_has_come() {
    let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
    let relay = world.open();
    for number in 0..20 {
        world.block_on(relay.push(envelope(0, number, 100))).unwrap();
    }
    let progress = OpenProgress::default();
    assert_eq!(progress.percent(), None);
    let options = Options { progress: Some(progress.clone()), ..Options::default() };
    let _again = world.after_crash(Survival::All).with_options(options).open();
    assert_eq!(progress.percent(), Some(100));
}
