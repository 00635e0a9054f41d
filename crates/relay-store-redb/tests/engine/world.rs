//! A disk, a clock, rules, and the store on them. Nothing here knows what is being proven.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use relay_core::testing::ManualClock;
use relay_core::{
    Chunk, Envelope, Error, Item, ItemId, Kind, Limits, MessageId, Page, Pull, Recipient, Relay,
};
use relay_disk::{Call, Disk, DiskFile, HookedDisk, SimDisk, Survival};
use relay_journal::{Frame, Journal};
use relay_store_redb::{OpenError, Options, RedbRelay};
use tokio::runtime::Runtime;

/// The names of the queues. They are as long as recipients are, so that their rows can be told by
/// length.
pub(crate) const QUEUES: [&str; 3] = ["queue-of-alice", "queue-of-bob", "queue-of-carol"];

/// How long a test may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) limits: Limits,
    pub(crate) options: Options,
    pub(crate) runtime: Runtime,
}

impl World {
    /// An empty disk, and options so small that everything happens within a few requests.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let limits = Limits { ttl_ms: 1_000, dedup_window_ms: 500, page_items_max: 7, ..Limits::default() };
        Self { disk: SimDisk::new(), clock: Arc::default(), limits, options: small_options(), runtime }
    }

    /// The same, where payloads from 250 bytes on lie in files of their own.
    pub(crate) fn aside() -> Self {
        Self::new().with_options(Options { blob_bytes: 250, segment_bytes: 1024, ..small_options() })
    }

    /// The same world on another disk.
    pub(crate) fn on(&self, disk: SimDisk) -> Self {
        Self { disk, clock: Arc::clone(&self.clock), limits: self.limits.clone(), ..Self::new() }
            .with_options(self.options.clone())
    }

    pub(crate) fn with_options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// The world as a crash at this instant would leave it.
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

    /// Opens the store on its disk, each of whose calls `hook` is asked about first.
    pub(crate) fn open_hooked(
        &self,
        hook: impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> RedbRelay {
        self.open_on(Arc::new(HookedDisk::new(self.disk.clone(), hook))).unwrap()
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// All items of a queue: numbers and payloads.
    pub(crate) fn pull_all(&self, relay: &RedbRelay, queue: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let items = self.pull_items(relay, queue)?;
        Ok(items.into_iter().map(|item| (number_of(item.message_id), item.body)).collect())
    }

    /// The same, with all that is told of them, page by page.
    pub(crate) fn pull_items(&self, relay: &RedbRelay, queue: usize) -> Result<Vec<Item<Bytes>>, Error> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let pull = Pull { recipient: recipient(queue), after, items_max: None };
            let page: Page = self.block_on(relay.pull(pull))?;
            found.extend(page.items);
            let Some(next) = page.next else { return Ok(found) };
            assert!(after < Some(next), "a page must lead on");
            after = Some(next);
        }
    }

    /// All that is on the journal, read by nobody but the journal.
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

    /// The names of the payload files, in order.
    pub(crate) fn payload_files(&self) -> Vec<String> {
        self.segments().into_iter().filter(|name| name.starts_with("payload-")).collect()
    }

    /// The names of the files of the journal, payload files included, in order.
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

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a store takes to get over a failure is real time"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::start().0.saturating_duration_since(self.0)
    }
}

/// Whether tests run at full length.
pub(crate) fn run_slow_tests() -> bool {
    #[expect(clippy::disallowed_methods, reason = "the switch of the slow tests is an environment variable")]
    std::env::var_os("RUN_SLOW_TESTS").is_some()
}

/// Every one of `0..count` in a full run, and some `sample` of them, spread evenly, otherwise.
pub(crate) fn positions(count: u64, sample: u64) -> impl Iterator<Item = u64> {
    let step = if run_slow_tests() { 1 } else { count.div_ceil(sample).max(1) };
    (0..count).step_by(usize::try_from(step).unwrap())
}

/// Runs a test on a thread of its own, and fails when it hangs.
pub(crate) fn within_bounds(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        test();
        drop(done);
    });
    assert_ne!(ended.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Timeout), "the store hangs");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
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

/// What item `number` carries. No two have the same.
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

pub(crate) fn envelope(queue: usize, number: u64, bytes: usize) -> Envelope {
    Envelope {
        recipient: recipient(queue),
        message_id: id(number).message_id,
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: bytes as u64,
        sent_ms: number,
        payload: payload(number, bytes),
    }
}

/// The index of a store that nobody has open, as a database like any other.
pub(crate) struct Index(redb::Database);

#[derive(Debug)]
struct IndexFile(Arc<dyn DiskFile>);

impl Index {
    pub(crate) fn open(disk: &SimDisk) -> Self {
        let file = IndexFile(disk.open("relay.redb").unwrap());
        Self(redb::Database::builder().create_with_backend(file).unwrap())
    }

    pub(crate) fn database(&self) -> &redb::Database {
        &self.0
    }

    pub(crate) fn write(&self, change: impl FnOnce(&redb::WriteTransaction)) {
        let mut tx = self.0.begin_write().unwrap();
        tx.set_quick_repair(true);
        change(&tx);
        tx.commit().unwrap();
    }
}

impl redb::StorageBackend for IndexFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(&[data], offset)
    }
}
