//! Recovery from a failed read of the index. redb rejects every call after one, until the store
//! reopens the index, within two seconds.

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

use crate::world::{Stopwatch, World, envelope, id, small_options, with_timeout};

/// How long the store may take to recover.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

const QUEUES: u64 = 3_000;

/// Failures and pauses of the disk, and what it observed.
#[derive(Debug, Default)]
struct DiskControl {
    /// How many of the next reads of the index fail.
    failing_reads: AtomicU64,
    /// Whether the next sync of the index fails.
    is_sync_failing: AtomicBool,
    /// Reads of the index by requests fail in this range of the file.
    bad_range: Mutex<Option<Range<u64>>>,
    /// The last read of the index by a request.
    last_read: Mutex<Option<Range<u64>>>,
    /// How often the index was opened.
    opened: AtomicUsize,
    paused: Mutex<Option<PausedRead>>,
}

/// The next read by the thread [`READER`] of a file with this prefix reports its start, and waits.
#[derive(Debug)]
struct PausedRead {
    prefix: &'static str,
    report_start: Sender<()>,
    resumed: Receiver<()>,
}

/// The name of the thread that reads all of the store.
const READER: &str = "reader";

impl DiskControl {
    fn before_call(&self, call: &Call<'_>) -> io::Result<()> {
        if matches!(call, Call::Open("relay.redb")) {
            self.opened.fetch_add(1, Ordering::SeqCst);
        }
        if matches!(call, Call::Sync("relay.redb")) && self.is_sync_failing.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("injected failure"));
        }
        let Call::Read(name, range) = call else { return Ok(()) };
        if std::thread::current().name() == Some(READER) {
            let paused = self.paused.lock().unwrap().take_if(|paused| name.starts_with(paused.prefix));
            if let Some(PausedRead { report_start, resumed, .. }) = paused {
                report_start.send(()).unwrap();
                let _ = resumed.recv();
            }
            return Ok(());
        }
        if *name != "relay.redb" {
            return Ok(());
        }
        let is_failing =
            self.failing_reads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let touches = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
        // The maintenance thread opens the index, and with debug assertions redb then reads every
        // page.
        let is_maintenance = std::thread::current().name() == Some("relay-maint");
        if !is_maintenance {
            *self.last_read.lock().unwrap() = Some(range.clone());
        }
        let is_bad = !is_maintenance && self.bad_range.lock().unwrap().as_ref().is_some_and(touches);
        if is_failing.is_ok() || is_bad {
            return Err(io::Error::other("injected failure"));
        }
        Ok(())
    }

    fn fail_reads(&self, times: u64) {
        self.failing_reads.store(times, Ordering::SeqCst);
    }

    fn all_reads_failed(&self) -> bool {
        self.failing_reads.load(Ordering::SeqCst) == 0
    }
}

/// A store of many queues that was just opened, with all items in the index.
fn cold(cache_bytes: usize) -> (World, Arc<DiskControl>, RedbRelay) {
    // Only a failure, a sweep or a close causes a checkpoint.
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
    let disk = Arc::new(DiskControl::default());
    let control = Arc::clone(&disk);
    let relay = world.open_hooked(move |call| control.before_call(&call));
    (world, disk, relay)
}

fn recipient(queue: u64) -> Recipient {
    Recipient::parse(&format!("recipient {queue:05}")).unwrap()
}

fn to(queue: u64, number: u64) -> Envelope {
    Envelope { recipient: recipient(queue), ..envelope(0, number, 10) }
}

fn pull(world: &World, relay: &RedbRelay, queue: u64) -> Result<Page, Error> {
    world.block_on(relay.pull(Pull { recipient: recipient(queue), after: None, items_max: None }))
}

/// Pulls, pushes and acks in some of the queues, and a sweep. Returns the first failure. The pushed
/// items are acked again.
fn use_store(world: &World, relay: &RedbRelay, round: u64) -> Result<(), Error> {
    for queue in (round % 7..QUEUES).step_by(151) {
        assert_eq!(pull(world, relay, queue)?.items.len(), 1, "queue {queue}");
        for (queue, number) in [(queue, QUEUES + round), (QUEUES + queue, QUEUES + round)] {
            // A push that failed in an earlier round may have been stored.
            world.block_on(relay.push(to(queue, number)))?;
            world.block_on(relay.ack(Ack::new(recipient(queue), vec![id(number)]).unwrap()))?;
        }
    }
    world.block_on(relay.sweep()).map(drop)
}

/// Checks that all requests succeed within two seconds, and continue to succeed.
fn expect_recovery(world: &World, relay: &RedbRelay) {
    let since = Stopwatch::start();
    let mut outcome = use_store(world, relay, 0);
    let mut round = 0;
    while outcome.is_err() && since.elapsed() < RECOVERY_MAX {
        round += 1;
        outcome = use_store(world, relay, round);
    }
    assert!(outcome.is_ok(), "after {:?}: {outcome:?}", since.elapsed());
    use_store(world, relay, round + 1).unwrap();
}

/// Fails some reads of the index, and checks that the store recovers.
fn fail_and_recover(cache_bytes: usize, prepare: impl Fn(&World, &RedbRelay)) {
    // The second failure in a row fails the request. More of them fail the reopening of the index.
    for times in [2, 3, 4] {
        let (world, disk, relay) = cold(cache_bytes);
        prepare(&world, &relay);
        disk.fail_reads(times);
        let (mut queues, since) = ((0..QUEUES).cycle().step_by(7), Stopwatch::start());
        while !disk.all_reads_failed() {
            assert!(since.elapsed() < RECOVERY_MAX, "the store reads nothing");
            drop(pull(&world, &relay, queues.next().unwrap()));
        }
        expect_recovery(&world, &relay);
        drop(relay);
        assert_eq!(world.open().verify().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_read_that_fails_once_fails_no_request() {
    with_timeout(|| {
        let (world, disk, relay) = cold(0);
        let opened = disk.opened.load(Ordering::SeqCst);
        for queue in 0..100 {
            disk.fail_reads(1);
            assert_eq!(pull(&world, &relay, queue).unwrap().items.len(), 1);
            assert!(disk.all_reads_failed());
        }
        assert_eq!(disk.opened.load(Ordering::SeqCst), opened);
        expect_recovery(&world, &relay);
    });
}

#[test]
fn an_idle_store_without_a_cache_recovers() {
    with_timeout(|| fail_and_recover(0, |_, _| {}));
}

#[test]
fn an_idle_store_with_a_small_cache_recovers() {
    with_timeout(|| fail_and_recover(256 << 10, |_, _| {}));
}

#[test]
fn a_store_with_a_small_cache_and_changes_in_memory_recovers() {
    with_timeout(|| fail_and_recover(256 << 10, |world, relay| use_store(world, relay, 99).unwrap()));
}

/// The failing reads belong to a checkpoint, and to the reopening of the index after it.
#[test]
fn a_store_that_writes_a_checkpoint_recovers() {
    with_timeout(|| {
        for times in [2, 3, 4] {
            let (world, disk, relay) = cold(0);
            use_store(&world, &relay, 99).unwrap();
            disk.fail_reads(times);
            world.block_on(relay.snapshots().take()).unwrap_err();
            expect_recovery(&world, &relay);
        }
    });
}

#[test]
fn a_store_recovers_without_requests() {
    with_timeout(|| {
        let (world, disk, relay) = cold(0);
        let opened = disk.opened.load(Ordering::SeqCst);
        disk.fail_reads(2);
        assert!(pull(&world, &relay, 5).is_err());
        let since = Stopwatch::start();
        while disk.opened.load(Ordering::SeqCst) == opened {
            assert!(since.elapsed() < RECOVERY_MAX, "the store does not reopen the index");
            std::thread::yield_now();
        }
        expect_recovery(&world, &relay);
    });
}

/// Requests that read the bad page keep failing. Others succeed in between.
#[test]
fn a_page_that_stays_unreadable_reopens_the_index_once_a_second_at_most() {
    with_timeout(|| {
        let (world, disk, relay) = cold(0);
        // The last page that a pull reads contains the row of its queue.
        pull(&world, &relay, 1).unwrap();
        disk.last_read.lock().unwrap().take();
        pull(&world, &relay, QUEUES / 2).unwrap();
        let bad_range = disk.last_read.lock().unwrap().take();
        assert!(bad_range.is_some());
        *disk.bad_range.lock().unwrap() = bad_range;
        let (opened, since) = (disk.opened.load(Ordering::SeqCst), Stopwatch::start());
        while since.elapsed() < Duration::from_secs(3) {
            assert!(pull(&world, &relay, QUEUES / 2).is_err());
            let waiting = Stopwatch::start();
            while pull(&world, &relay, 1).is_err() {
                assert!(waiting.elapsed() < RECOVERY_MAX, "other requests keep failing");
            }
        }
        let reopened = disk.opened.load(Ordering::SeqCst) - opened;
        // Once a second, and while the last request waited.
        assert!((1..=5).contains(&reopened), "{reopened} times");
        *disk.bad_range.lock().unwrap() = None;
        expect_recovery(&world, &relay);
    });
}

/// Reads all of a store while the store reopens its index. The reader pauses at its first read of a
/// file with this prefix until the index is open again.
fn read_during_reopen<T: Send>(
    cache_bytes: usize,
    prefix: &'static str,
    read: impl Fn(&RedbRelay) -> T + Sync,
) -> T {
    let (world, disk, relay) = cold(cache_bytes);
    if cache_bytes > 0 {
        // This brings all of the index into the cache.
        drop(read(&relay));
    }
    let ((report_start, read_started), (resume, resumed)) = (channel(), channel());
    *disk.paused.lock().unwrap() = Some(PausedRead { prefix, report_start, resumed });
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name(READER.to_owned());
        let reader = reader.spawn_scoped(scope, || read(&relay)).unwrap();
        read_started.recv().unwrap();
        let opened = disk.opened.load(Ordering::SeqCst);
        // A failed sync does not affect a reader of cached pages, as a failed read would.
        disk.is_sync_failing.store(true, Ordering::SeqCst);
        use_store(&world, &relay, 1).unwrap();
        world.block_on(relay.snapshots().take()).unwrap_err();
        assert!(disk.opened.load(Ordering::SeqCst) > opened);
        expect_recovery(&world, &relay);
        drop(resume);
        reader.join().unwrap()
    })
}

/// The store starts to read again.
#[test]
fn a_full_read_is_correct_when_the_index_is_reopened_meanwhile() {
    with_timeout(|| {
        for (cache_bytes, file) in [(0, "relay.redb"), (1 << 24, "journal")] {
            let findings = read_during_reopen(cache_bytes, file, RedbRelay::verify).unwrap();
            assert_eq!(findings, Vec::<String>::new());
        }
        let contents = read_during_reopen(0, "relay.redb", RedbRelay::contents).unwrap();
        assert_eq!(contents.usage.items, QUEUES);
        let stats = read_during_reopen(0, "relay.redb", RedbRelay::stats).unwrap();
        assert_eq!(stats.contents.usage.items, QUEUES);
    });
}

/// An export cannot start again, because it has already handed out items.
#[test]
fn an_export_fails_when_the_index_is_reopened_meanwhile() {
    with_timeout(|| {
        let export = |relay: &RedbRelay| relay.export(|_, _| ControlFlow::Continue(()));
        read_during_reopen(1 << 24, "journal", export).unwrap_err();
    });
}
