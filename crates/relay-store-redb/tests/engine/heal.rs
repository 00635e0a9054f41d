//! A failed read of the index costs its request at most, and everybody else two seconds: redb
//! refuses everything after one, until the index is opened anew.

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use relay_core::{Ack, Envelope, Error, Page, Pull, Recipient, Relay};
use relay_disk::Call;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{Stopwatch, World, envelope, id, small_options, within_bounds};

/// After so long everything is right again.
const HEALED_WITHIN: Duration = Duration::from_secs(2);

const QUEUES: u64 = 3_000;

/// What the disk does with reads of the index.
#[derive(Debug, Default)]
struct Reads {
    /// So many of the next ones fail.
    failing: AtomicU64,
    /// The next sync fails instead.
    is_sync_failing: AtomicBool,
    /// Those of requests that touch this fail.
    bad: Mutex<Option<Range<u64>>>,
    /// The last one of a request.
    last: Mutex<Option<Range<u64>>>,
    /// How often the index was opened.
    opened: AtomicUsize,
    /// The next one of [`READER`] of a file whose name begins so sends word, and waits.
    held: Mutex<Option<Held>>,
}

/// A file, who is told of its read, and what that waits for.
type Held = (&'static str, Sender<()>, Receiver<()>);

/// Who reads all of the store.
const READER: &str = "reader";

impl Reads {
    fn meet(&self, call: &Call<'_>) -> io::Result<()> {
        if matches!(call, Call::Open("relay.redb")) {
            self.opened.fetch_add(1, Ordering::SeqCst);
        }
        if matches!(call, Call::Sync("relay.redb")) && self.is_sync_failing.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("this sync is to fail"));
        }
        let Call::Read(name, range) = call else { return Ok(()) };
        if std::thread::current().name() == Some(READER) {
            let held = self.held.lock().unwrap().take_if(|(file, ..)| name.starts_with(*file));
            if let Some((_, beginning, told)) = held {
                beginning.send(()).unwrap();
                let _ = told.recv();
            }
            return Ok(());
        }
        if *name != "relay.redb" {
            return Ok(());
        }
        let is_failing =
            self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let touches = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
        // Where debug assertions are on, redb reads every page of an index that is opened, which
        // the maintenance thread does.
        let is_maintenance = std::thread::current().name() == Some("relay-maint");
        if !is_maintenance {
            *self.last.lock().unwrap() = Some(range.clone());
        }
        let is_bad = !is_maintenance && self.bad.lock().unwrap().as_ref().is_some_and(touches);
        if is_failing.is_ok() || is_bad {
            return Err(io::Error::other("this read is to fail"));
        }
        Ok(())
    }

    fn fail(&self, times: u64) {
        self.failing.store(times, Ordering::SeqCst);
    }

    fn have_failed(&self) -> bool {
        self.failing.load(Ordering::SeqCst) == 0
    }
}

/// A store of many queues with a cache of so many bytes, all of which is in the index, and which
/// has just been opened.
fn cold(cache_bytes: usize) -> (World, Arc<Reads>, RedbRelay) {
    // Nothing but a failure, a sweep or the end asks for a checkpoint.
    let options =
        Options { cache_bytes, checkpoint_rows: 1 << 20, checkpoint_bytes: 1 << 30, ..small_options() };
    let mut world = World::new().with_options(options);
    world.limits.ttl_ms = 100_000_000;
    let relay = world.open();
    for first in (0..QUEUES).step_by(500) {
        let pushes = (first..first + 500).map(|number| relay.push(to(number, number)));
        assert!(world.block_on(join_all(pushes)).iter().all(Result::is_ok));
    }
    drop(relay);
    let reads = Arc::new(Reads::default());
    let met = Arc::clone(&reads);
    let relay = world.open_hooked(move |call| met.meet(&call));
    (world, reads, relay)
}

fn name(queue: u64) -> Recipient {
    Recipient::parse(&format!("recipient {queue:05}")).unwrap()
}

fn to(queue: u64, number: u64) -> Envelope {
    Envelope { recipient: name(queue), ..envelope(0, number, 10) }
}

fn pull(world: &World, relay: &RedbRelay, queue: u64) -> Result<Page, Error> {
    world.block_on(relay.pull(Pull { recipient: name(queue), after: None, items_max: None }))
}

/// Pulls, pushes and acks here and there, and a sweep: the first one that fails. Each queue holds
/// what it did before.
fn everything(world: &World, relay: &RedbRelay, round: u64) -> Result<(), Error> {
    for queue in (round % 7..QUEUES).step_by(151) {
        assert_eq!(pull(world, relay, queue)?.items.len(), 1, "queue {queue}");
        for (queue, number) in [(queue, QUEUES + round), (QUEUES + queue, QUEUES + round)] {
            // What failed before may have been stored when it is repeated in another round.
            world.block_on(relay.push(to(queue, number)))?;
            world.block_on(relay.ack(Ack::new(name(queue), vec![id(number)]).unwrap()))?;
        }
    }
    world.block_on(relay.sweep()).map(drop)
}

/// Waits until everything is right, which is to be so within two seconds, and stays so.
fn expect_healed(world: &World, relay: &RedbRelay) {
    let since = Stopwatch::start();
    let mut outcome = everything(world, relay, 0);
    let mut round = 0;
    while outcome.is_err() && since.elapsed() < HEALED_WITHIN {
        round += 1;
        outcome = everything(world, relay, round);
    }
    assert!(outcome.is_ok(), "after {:?}: {outcome:?}", since.elapsed());
    everything(world, relay, round + 1).unwrap();
}

/// The read fails, and once more; then all that comes to the disk works.
fn heals(cache_bytes: usize, prepare: impl Fn(&World, &RedbRelay)) {
    // Twice is what a request sees; more is met while the index is opened anew.
    for times in [2, 3, 4] {
        let (world, reads, relay) = cold(cache_bytes);
        prepare(&world, &relay);
        reads.fail(times);
        let (mut queues, since) = ((0..QUEUES).cycle().step_by(7), Stopwatch::start());
        while !reads.have_failed() {
            assert!(since.elapsed() < HEALED_WITHIN, "nobody reads any more");
            drop(pull(&world, &relay, queues.next().unwrap()));
        }
        expect_healed(&world, &relay);
        drop(relay);
        assert_eq!(world.open().verify().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_read_that_fails_once_is_not_noticed() {
    within_bounds(|| {
        let (world, reads, relay) = cold(0);
        let opened = reads.opened.load(Ordering::SeqCst);
        for queue in 0..100 {
            reads.fail(1);
            assert_eq!(pull(&world, &relay, queue).unwrap().items.len(), 1);
            assert!(reads.have_failed());
        }
        assert_eq!(reads.opened.load(Ordering::SeqCst), opened);
        expect_healed(&world, &relay);
    });
}

#[test]
fn an_idle_store_without_a_cache_heals() {
    within_bounds(|| heals(0, |_, _| {}));
}

#[test]
fn an_idle_store_with_a_small_cache_heals() {
    within_bounds(|| heals(256 << 10, |_, _| {}));
}

#[test]
fn a_store_with_a_small_cache_and_changes_in_memory_heals() {
    within_bounds(|| heals(256 << 10, |world, relay| everything(world, relay, 99).unwrap()));
}

/// The ones that fail belong to a checkpoint and what comes behind it.
#[test]
fn a_store_that_writes_a_checkpoint_heals() {
    within_bounds(|| {
        for times in [2, 3, 4] {
            let (world, reads, relay) = cold(0);
            everything(&world, &relay, 99).unwrap();
            reads.fail(times);
            world.block_on(relay.snapshots().take()).unwrap_err();
            expect_healed(&world, &relay);
        }
    });
}

/// Nobody asks for anything meanwhile, and the one who asks then is answered.
#[test]
fn it_heals_while_nobody_asks_for_anything() {
    within_bounds(|| {
        let (world, reads, relay) = cold(0);
        let opened = reads.opened.load(Ordering::SeqCst);
        reads.fail(2);
        assert!(pull(&world, &relay, 5).is_err());
        let since = Stopwatch::start();
        while reads.opened.load(Ordering::SeqCst) == opened {
            assert!(since.elapsed() < HEALED_WITHIN, "nobody opens it anew");
            std::thread::yield_now();
        }
        expect_healed(&world, &relay);
    });
}

/// Who asks for what lies there fails, again and again. The others are answered in between.
#[test]
fn a_place_that_stays_bad_opens_the_index_anew_once_a_second_at_most() {
    within_bounds(|| {
        let (world, reads, relay) = cold(0);
        // The last page that a pull reads holds its row.
        pull(&world, &relay, 1).unwrap();
        reads.last.lock().unwrap().take();
        pull(&world, &relay, QUEUES / 2).unwrap();
        let bad = reads.last.lock().unwrap().take();
        assert!(bad.is_some());
        *reads.bad.lock().unwrap() = bad;
        let (opened, since) = (reads.opened.load(Ordering::SeqCst), Stopwatch::start());
        while since.elapsed() < Duration::from_secs(3) {
            assert!(pull(&world, &relay, QUEUES / 2).is_err());
            let asked = Stopwatch::start();
            while pull(&world, &relay, 1).is_err() {
                assert!(asked.elapsed() < HEALED_WITHIN, "the others are not answered any more");
            }
        }
        let reopened = reads.opened.load(Ordering::SeqCst) - opened;
        // Once more while the last one waited.
        assert!((1..=5).contains(&reopened), "{reopened} times");
        *reads.bad.lock().unwrap() = None;
        expect_healed(&world, &relay);
    });
}

/// Reads all of a store whose index is opened anew meanwhile. What is `file` is read for the first
/// time then.
fn read_meanwhile<T: Send>(
    cache_bytes: usize,
    file: &'static str,
    read: impl Fn(&RedbRelay) -> T + Sync,
) -> T {
    let (world, reads, relay) = cold(cache_bytes);
    if cache_bytes > 0 {
        // All of the index is in memory.
        drop(read(&relay));
    }
    let ((beginning, begun), (go_on, told)) = (channel(), channel());
    *reads.held.lock().unwrap() = Some((file, beginning, told));
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name(READER.to_owned());
        let reader = reader.spawn_scoped(scope, || read(&relay)).unwrap();
        begun.recv().unwrap();
        let opened = reads.opened.load(Ordering::SeqCst);
        // What a checkpoint fails with is no matter for who reads what is in memory.
        reads.is_sync_failing.store(true, Ordering::SeqCst);
        everything(&world, &relay, 1).unwrap();
        world.block_on(relay.snapshots().take()).unwrap_err();
        assert!(reads.opened.load(Ordering::SeqCst) > opened);
        expect_healed(&world, &relay);
        drop(go_on);
        reader.join().unwrap()
    })
}

/// It is read once more.
#[test]
fn what_is_read_whole_is_right_though_the_index_is_opened_anew_meanwhile() {
    within_bounds(|| {
        for (cache_bytes, file) in [(0, "relay.redb"), (1 << 24, "journal")] {
            let findings = read_meanwhile(cache_bytes, file, RedbRelay::verify).unwrap();
            assert_eq!(findings, Vec::<String>::new());
        }
        let contents = read_meanwhile(0, "relay.redb", RedbRelay::contents).unwrap();
        assert_eq!(contents.usage.items, QUEUES);
        let stats = read_meanwhile(0, "relay.redb", RedbRelay::stats).unwrap();
        assert_eq!(stats.contents.usage.items, QUEUES);
    });
}

/// What was handed out cannot be taken back, also where nothing else fails.
#[test]
fn an_export_fails_where_the_index_is_opened_anew_meanwhile() {
    within_bounds(|| {
        let export = |relay: &RedbRelay| relay.export(|_, _| ControlFlow::Continue(()));
        read_meanwhile(1 << 24, "journal", export).unwrap_err();
    });
}
