//! The environment of a test: a simulated disk, a clock, limits, options, and the store on them.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use relay_core::testing::ManualClock;
use relay_core::{
    Chunk, Envelope, Error, Item, ItemId, Kind, Limits, MessageId, Page, Pull, Recipient, Relay,
};
use relay_disk::{Call, Disk, HookedDisk, SimDisk, Survival};
use relay_journal::{Frame, Journal};
use relay_store_redb::{OpenError, Options, RedbRelay};
use tokio::runtime::Runtime;

/// The recipients that tests push to. Tests refer to them by index.
pub(crate) const QUEUES: [&str; 3] = ["queue-of-alice", "queue-of-bob", "queue-of-carol"];

/// How long a test may run before it counts as hanging.
const TEST_TIMEOUT: Duration = Duration::from_secs(240);

/// How long the store may fail requests after an I/O failure. The store retries a failed checkpoint
/// after a second, and until then rejects what does not fit in memory. It also reopens a failed
/// index after a second. No test injects more than three failures in a row.
pub(crate) const OUTAGE_MAX: Duration = Duration::from_secs(5);

pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) limits: Limits,
    pub(crate) options: Options,
    pub(crate) runtime: Runtime,
}

impl World {
    /// An empty disk, and options so small that a few requests cause checkpoints and new segments.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let limits = Limits { ttl_ms: 1_000, dedup_window_ms: 500, page_items_max: 7, ..Limits::default() };
        Self { disk: SimDisk::new(), clock: Arc::default(), limits, options: small_options(), runtime }
    }

    /// As [`World::new`], but payloads of 250 bytes and more become blobs.
    pub(crate) fn with_blobs() -> Self {
        Self::new().with_options(Options { blob_bytes: 250, segment_bytes: 1024, ..small_options() })
    }

    /// As this world, but on another disk.
    pub(crate) fn on(&self, disk: SimDisk) -> Self {
        Self { disk, clock: Arc::clone(&self.clock), limits: self.limits.clone(), ..Self::new() }
            .with_options(self.options.clone())
    }

    pub(crate) fn with_options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// A copy of this world as a crash at this moment would leave it.
    pub(crate) fn after_crash(&self, survival: Survival) -> Self {
        self.on(self.disk.after_crash(survival))
    }

    pub(crate) fn try_open(&self) -> Result<RedbRelay, OpenError> {
        self.open_on(Arc::new(self.disk.clone()))
    }

    pub(crate) fn open_on(&self, disk: Arc<dyn Disk>) -> Result<RedbRelay, OpenError> {
        let clock = Arc::clone(&self.clock);
        RedbRelay::open_on(disk, Path::new("/store"), self.limits.clone(), clock, self.options.clone())
    }

    pub(crate) fn open(&self) -> RedbRelay {
        self.try_open().unwrap()
    }

    /// Opens the store on its disk. `hook` runs before each call, and may fail it.
    pub(crate) fn open_hooked(
        &self,
        hook: impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> RedbRelay {
        self.open_on(Arc::new(HookedDisk::new(self.disk.clone(), hook))).unwrap()
    }

    /// Opens the store on its disk, whose syncs fail while the flag is set.
    pub(crate) fn open_with_failing_syncs(&self) -> (RedbRelay, Arc<AtomicBool>) {
        self.open_failing(|call| matches!(call, Call::Sync(_)))
    }

    /// Opens the store on its disk. While the flag is set, the calls that `fails` chooses fail.
    pub(crate) fn open_failing(
        &self,
        fails: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static,
    ) -> (RedbRelay, Arc<AtomicBool>) {
        let is_failing = Arc::new(AtomicBool::new(false));
        let is_set = Arc::clone(&is_failing);
        let relay = self.open_hooked(move |call| {
            let fails_now = is_set.load(Ordering::SeqCst) && fails(&call);
            if fails_now { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        });
        (relay, is_failing)
    }

    /// Opens the store on its disk, and collects copies of the disk: before each write and sync,
    /// as crashes at that moment would leave it. The number of a copy is the seed of its crash.
    pub(crate) fn open_with_crashes(
        &self,
        crashes: &'static [fn(u64) -> Survival],
    ) -> (RedbRelay, Arc<Mutex<Vec<SimDisk>>>) {
        let images = Arc::new(Mutex::new(Vec::new()));
        let (disk, taken) = (self.disk.clone(), Arc::clone(&images));
        let relay = self.open_hooked(move |call| {
            if matches!(call, Call::Write(_) | Call::Sync(_)) {
                let mut taken = taken.lock().unwrap();
                let seed = taken.len() as u64;
                taken.extend(crashes.iter().map(|crash| disk.after_crash(crash(seed))));
            }
            Ok(())
        });
        (relay, images)
    }

    /// Pushes new items in batches of up to 500.
    pub(crate) fn push_all(&self, relay: &RedbRelay, items: Vec<Envelope>) {
        for batch in items.chunks(500) {
            let outcomes = self.block_on(relay.push_all(batch.to_vec())).unwrap();
            assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().is_stored()));
        }
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The numbers and payloads of all items of a queue.
    pub(crate) fn pull_all(&self, relay: &RedbRelay, queue: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let items = self.pull_items(relay, queue)?;
        Ok(items.into_iter().map(|item| (number_of(item.message_id), item.body)).collect())
    }

    /// The numbers of all items of a queue.
    pub(crate) fn pull_numbers(&self, relay: &RedbRelay, queue: usize) -> Vec<u64> {
        self.pull_all(relay, queue).unwrap().into_iter().map(|(number, _)| number).collect()
    }

    /// All items of a queue, pulled page by page.
    pub(crate) fn pull_items(&self, relay: &RedbRelay, queue: usize) -> Result<Vec<Item<Bytes>>, Error> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let pull = Pull { recipient: recipient(queue), after, items_max: None };
            let page: Page = self.block_on(relay.pull(pull))?;
            found.extend(page.items);
            let Some(next) = page.next else { return Ok(found) };
            assert!(after < Some(next), "the cursor of a page does not advance");
            after = Some(next);
        }
    }

    /// All records of the journal, as relay-journal reads them.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.after_crash(Survival::All));
        let mut found = Vec::new();
        let segment_bytes = self.options.segment_bytes;
        let options = relay_journal::Options { segment_bytes, ..relay_journal::Options::default() };
        Journal::open(disk, options, None, |frames| {
            found.extend(frames.iter().cloned());
            Ok::<_, OpenError>(())
        })
        .unwrap();
        found
    }

    /// The file names of the blobs, in order.
    pub(crate) fn blob_files(&self) -> Vec<String> {
        self.segments().into_iter().filter(|name| name.starts_with("payload-")).collect()
    }

    /// The file names of the segments and blobs, in order.
    pub(crate) fn segments(&self) -> Vec<String> {
        let mut names = self.disk.list().unwrap();
        names.retain(|name| name.ends_with(".seg"));
        names.sort();
        names
    }
}

pub(crate) fn small_options() -> Options {
    Options {
        cache_bytes: 1024 * 1024,
        checkpoint_rows: 20,
        checkpoint_bytes: 8 * 1024,
        segment_bytes: 2 * 1024,
        ..Options::default()
    }
}

/// Measures real time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a store recovers from a failure in real time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::start().0.saturating_duration_since(self.0)
    }
}

/// Whether tests run with all cases.
pub(crate) fn run_slow_tests() -> bool {
    #[expect(clippy::disallowed_methods, reason = "an environment variable enables the slow tests")]
    std::env::var_os("RUN_SLOW_TESTS").is_some()
}

/// All of `0..count` when slow tests are on, else about `sample` of them, spread evenly.
pub(crate) fn positions(count: u64, sample: u64) -> impl Iterator<Item = u64> {
    let step = if run_slow_tests() { 1 } else { count.div_ceil(sample).max(1) };
    (0..count).step_by(usize::try_from(step).unwrap())
}

/// Runs a test on a separate thread, and fails if the test hangs.
pub(crate) fn with_timeout(test: impl FnOnce() + Send + 'static) {
    let (running, ended) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        test();
        drop(running);
    });
    assert_ne!(ended.recv_timeout(TEST_TIMEOUT), Err(mpsc::RecvTimeoutError::Timeout), "the test hangs");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Repeats a request until it succeeds. `None` if it keeps failing for [`OUTAGE_MAX`].
pub(crate) fn retry<T>(mut request: impl FnMut() -> Result<T, Error>) -> Option<T> {
    let since = Stopwatch::start();
    while since.elapsed() < OUTAGE_MAX {
        if let Ok(outcome) = request() {
            return Some(outcome);
        }
        std::thread::yield_now();
    }
    None
}

/// Pushes new items of `bytes` bytes each to the first queue, up to 500 at a time.
pub(crate) async fn push_many(relay: &RedbRelay, numbers: Range<u64>, bytes: usize) {
    for numbers in numbers.collect::<Vec<_>>().chunks(500) {
        let pushes = numbers.iter().map(|number| relay.push(envelope(0, *number, bytes)));
        assert!(join_all(pushes).await.into_iter().all(|outcome| outcome.unwrap().is_stored()));
    }
}

pub(crate) fn recipient(queue: usize) -> Recipient {
    Recipient::parse(QUEUES[queue]).unwrap()
}

pub(crate) fn id(number: u64) -> ItemId {
    ItemId { message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()), chunk_index: 0 }
}

pub(crate) fn number_of(message_id: MessageId) -> u64 {
    u64::try_from(u128::from_be_bytes(*message_id.as_bytes())).unwrap()
}

/// The payload of item `number`. No two items have the same.
pub(crate) fn payload(number: u64, bytes: usize) -> Bytes {
    let noise = (0_u64..).flat_map(|block| {
        (number + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(17)
            .wrapping_add(block * 0x1234_5679)
            .to_le_bytes()
    });
    noise.take(bytes).collect::<Vec<u8>>().into()
}

/// An item of 10 bytes with a TTL of its own.
pub(crate) fn short_lived(queue: usize, number: u64, ttl_ms: u64) -> Envelope {
    Envelope { ttl_ms: Some(ttl_ms), ..envelope(queue, number, 10) }
}

pub(crate) fn envelope(queue: usize, number: u64, bytes: usize) -> Envelope {
    Envelope {
        recipient: recipient(queue),
        message_id: id(number).message_id,
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: bytes as u64,
        sent_ms: number,
        ttl_ms: None,
        payload: payload(number, bytes),
    }
}
