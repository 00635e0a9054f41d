//! The state that the writer, the maintenance thread and readers share, and how to read it.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use relay_core::{ItemId, Limits, Page, Pull, Recipient, Seq, SharedLimits, Waiters, queue};
use relay_journal::{Location, ReadError};

use crate::engine::checkpoint_due::CheckpointDue;
use crate::error::{StoreError, caught};
use crate::format::ItemRow;
use crate::format::record::Owner;
use crate::io::clock::WatchedTime;
use crate::io::journals::Journals;
use crate::io::metrics::StoreMetrics;
use crate::io::payload;
use crate::io::pin::Pin;
use crate::io::space_monitor::SpaceMonitor;
use crate::io::throttle::IoThrottle;
use crate::memtable::queue_cache::QueueCache;
use crate::txn::read::ReadTxn;
use crate::txn::whole::WholeStore;
use crate::version::Version;
use crate::version::queue_reader::QueueRows;
use crate::version::read_ahead;
use crate::version::read_snapshot::{EXTRA_ROWS, ROWS_MAX, ReadSnapshot, Wanted};

/// A waiting writer checks its condition at this interval, even without a notification.
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How often a read of the whole store is tried. Reopening the index invalidates a read; that
/// happens once per second at most.
const READ_ATTEMPTS_MAX: usize = 3;

pub(crate) struct Shared {
    pub(crate) limits: SharedLimits,
    pub(crate) clock: WatchedTime,
    pub(crate) journal: Journals,
    pub(crate) throttle: Arc<IoThrottle>,
    pub(crate) space: SpaceMonitor,
    /// The maintenance thread rewrites or reads the index, so no checkpoint can begin.
    pub(crate) is_rewriting: AtomicBool,
    /// The writer waits for a checkpoint, and all writes wait for the writer.
    pub(super) is_writer_waiting: AtomicBool,
    /// The number of snapshots. While there are any, no file is removed.
    pub(crate) pins: Arc<AtomicUsize>,
    pub(crate) metrics: StoreMetrics,
    /// How often a pull has skipped a corrupt item.
    pub(crate) damaged_items: AtomicU64,
    /// How many expired items were removed for requests since the last sweep, which counts them.
    pub(crate) settled_items: AtomicU64,
    /// Who waits for arrivals. The writer wakes them.
    pub(crate) waiters: Waiters,
    version: RwLock<Version>,
    /// The error of the last checkpoint, if it failed.
    checkpoint_error: Mutex<Option<StoreError>>,
    checkpointed: Condvar,
}

/// Lets checkpoints begin again when it is dropped.
struct CheckpointPause<'a>(&'a Shared);

impl Drop for CheckpointPause<'_> {
    fn drop(&mut self) {
        self.0.is_rewriting.store(false, Ordering::Relaxed);
        self.0.checkpointed.notify_all();
    }
}

impl Shared {
    pub(crate) fn new(
        limits: Limits,
        clock: WatchedTime,
        journal: Journals,
        throttle: Arc<IoThrottle>,
        space: SpaceMonitor,
        version: Version,
    ) -> Self {
        Self {
            metrics: StoreMetrics::new(clock.now()),
            limits: SharedLimits::new(limits),
            clock,
            journal,
            throttle,
            space,
            is_rewriting: AtomicBool::new(false),
            is_writer_waiting: AtomicBool::new(false),
            pins: Arc::default(),
            damaged_items: AtomicU64::new(0),
            settled_items: AtomicU64::new(0),
            waiters: Waiters::new(),
            version: RwLock::new(version),
            checkpoint_error: Mutex::default(),
            checkpointed: Condvar::new(),
        }
    }

    // A poisoned version is still consistent: only whole, synced batches change it.
    pub(crate) fn version(&self) -> RwLockReadGuard<'_, Version> {
        self.version.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn version_mut(&self) -> RwLockWriteGuard<'_, Version> {
        self.version.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoint_error(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.checkpoint_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last checkpoint has failed.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.checkpoint_error().is_some()
    }

    /// Records the outcome of a checkpoint, and wakes the writer.
    pub(crate) fn note_checkpoint(&self, outcome: Result<(), StoreError>) {
        *self.checkpoint_error() = outcome.err();
        self.checkpointed.notify_all();
    }

    /// Waits while the maintenance thread writes the index and the changes since the last
    /// checkpoint are at their bound, in memory or for a restart to replay.
    ///
    /// # Errors
    /// The error of the last checkpoint, if it failed: then waiting would not help.
    pub(super) fn wait_for_capacity(&self, due: CheckpointDue) -> Result<(), StoreError> {
        let mut checkpoint_error = self.checkpoint_error();
        let outcome = loop {
            if !self.must_wait(due) {
                break Ok(());
            }
            if let Some(error) = &*checkpoint_error {
                break Err(error.clone());
            }
            if !self.is_writer_waiting.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    "writes wait for a checkpoint: the changes since the last one are at their bound"
                );
            }
            let waited = self.checkpointed.wait_timeout(checkpoint_error, RECHECK_INTERVAL);
            checkpoint_error = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        self.is_writer_waiting.store(false, Ordering::Relaxed);
        outcome
    }

    /// Runs `act` on the maintenance thread, and records that no checkpoint can begin meanwhile.
    pub(crate) fn while_no_checkpoint_begins<T>(&self, act: impl FnOnce() -> T) -> T {
        self.is_rewriting.store(true, Ordering::Relaxed);
        let _pause = CheckpointPause(self);
        act()
    }

    fn must_wait(&self, due: CheckpointDue) -> bool {
        let version = self.version();
        let is_index_busy = version.is_checkpointing() || self.is_rewriting.load(Ordering::Relaxed);
        is_index_busy && due.must_wait(&version)
    }

    /// Reads the pages of the index that the writer will need for a request.
    pub(crate) fn read_ahead(&self, recipient: &Recipient, items: &[ItemId]) {
        let (index_snapshot, acked) = {
            let version = self.version();
            (Arc::clone(version.index_snapshot()), Arc::clone(version.acked()))
        };
        // The writer meets and reports the same errors.
        drop(caught(|| read_ahead::read_ahead(&index_snapshot, &acked, recipient, items)));
    }

    /// Whether the queued item has this payload; `None` if the item is no longer queued.
    ///
    /// # Errors
    /// If the item is corrupt or the disk fails.
    pub(crate) fn has_payload(
        &self,
        recipient: &Recipient,
        id: ItemId,
        seq: Seq,
        payload: &[u8],
    ) -> Result<Option<bool>, StoreError> {
        let wanted = Wanted { from: seq, id: Some(id), rows_max: EXTRA_ROWS, may_skip_newer: false };
        let mut missing_location = None;
        loop {
            let found = self.look_up(recipient, wanted, |reading| {
                let Some(rows) = QueueRows::of_recipient(reading.view, recipient)? else { return Ok(None) };
                Ok(rows.read_item(seq)?.map(|item| (rows.queue, item)))
            });
            let Some((queue, item)) = found? else { return Ok(None) };
            if item.payload_bytes != payload.len() as u64 {
                return Ok(Some(false));
            }
            let frame = self.journal.read(&[item.location]).pop();
            match frame.ok_or(StoreError::Corrupted("the journal returned no frame"))? {
                // The item may have been moved or acked since the lookup.
                Err(ReadError::Gone) if missing_location != Some(item.location) => {
                    missing_location = Some(item.location);
                }
                frame => {
                    let owner = Owner { queue, recipient };
                    return Ok(Some(payload::of_frame(frame?, owner, seq, id)? == payload));
                }
            }
        }
    }

    /// Reads a page with its payloads. It skips an item whose record is corrupt or lost, so that
    /// the item does not hide the later ones.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`] if the writer should first remove expired items from the queue,
    /// and unless `is_settled` it has not.
    pub(crate) fn read_page(&self, pull: &Pull, is_settled: bool) -> Result<Page, StoreError> {
        let (mut pull, mut missing) = (pull.clone(), Vec::new());
        loop {
            let (queue, page) = self.find_page(&pull, is_settled)?;
            match self.fill(page, Owner { queue, recipient: &pull.recipient }, &mut missing)? {
                None => {}
                Some(page) if page.items.is_empty() && page.next.is_some() => {
                    pull.after = page.next;
                    missing.clear();
                }
                Some(page) => {
                    let reading = self.clock.read();
                    page.items.iter().for_each(|item| self.metrics.delivery(item.arrival, reading.now));
                    return Ok(page.outside(reading));
                }
            }
        }
    }

    /// The number of the queue, and the rows of a page of it.
    fn find_page(&self, pull: &Pull, is_settled: bool) -> Result<(u64, Page<ItemRow>), StoreError> {
        let limits = self.limits.load();
        let items_max = limits.page_items_max.min(pull.items_max.map_or(u64::MAX, NonZero::get));
        let rows_max = usize::try_from(items_max).unwrap_or(ROWS_MAX).min(ROWS_MAX) + EXTRA_ROWS;
        let wanted = Wanted {
            from: pull.after.map_or(Seq::ZERO, Seq::next),
            id: None,
            rows_max,
            may_skip_newer: true,
        };
        self.look_up(&pull.recipient, wanted, |reading| {
            let (cache, now) = (QueueCache::default(), self.clock.now());
            let reading = ReadTxn { view: reading.view.with_cache(&cache), journal: reading.journal };
            if !is_settled {
                reading.check_settled(&pull.recipient, now)?;
            }
            let page = queue::pull(&reading, &limits, now, pull)?;
            self.damaged_items.fetch_add(cache.skipped_items(), Ordering::Relaxed);
            // The cache has the number now. Without a queue, the page is empty.
            Ok((reading.view.queue_number(&pull.recipient)?.unwrap_or_default(), page))
        })
    }

    /// Runs `read` over a recipient's rows. It holds no lock during disk reads, unless `read` needs
    /// more rows than `wanted`.
    pub(crate) fn look_up<T>(
        &self,
        recipient: &Recipient,
        wanted: Wanted,
        read: impl Fn(&ReadTxn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let with = |rows_max, may_skip_newer| Wanted { rows_max, may_skip_newer, ..wanted };
        let tries = [wanted, with(wanted.rows_max, false), with(ROWS_MAX, false)];
        for wanted in tries.into_iter().skip(usize::from(!wanted.may_skip_newer)) {
            let Some(snapshot) = self.snapshot(recipient, wanted)? else { break };
            match read(&ReadTxn { view: snapshot.view(), journal: &self.journal }) {
                Err(StoreError::Beyond) => {}
                found => return found,
            }
        }
        let version = self.version();
        read(&ReadTxn { view: version.synced(), journal: &self.journal })
    }

    /// A snapshot of a recipient's rows; `None` if the queue changed its number meanwhile.
    fn snapshot(&self, recipient: &Recipient, wanted: Wanted) -> Result<Option<ReadSnapshot>, StoreError> {
        let (recent, index_snapshot) = {
            let version = self.version();
            (version.queue_in_memtables(recipient), Arc::clone(version.index_snapshot()))
        };
        let queue = recent.map_or_else(|| index_snapshot.queue_number(recipient), Ok)?;
        let now = self.clock.now();
        let version = self.version();
        let is_same = match version.queue_in_memtables(recipient) {
            Some(current) => current == queue,
            None => recent.is_none() && Arc::ptr_eq(version.index_snapshot(), &index_snapshot),
        };
        Ok(is_same.then(|| version.snapshot((recipient, queue), wanted, now)))
    }

    /// Reads the payloads of a page. Returns `None` if the caller must look the page up again,
    /// because a location is newly `missing`: its segment may have been removed after its items
    /// were acked or moved. If the row then still has the same location, the item is lost: the
    /// relay never removes a segment that a row refers to, and never moves an item to an old
    /// location.
    fn fill(
        &self,
        page: Page<ItemRow>,
        owner: Owner<'_>,
        missing: &mut Vec<Location>,
    ) -> Result<Option<Page>, ReadError> {
        let Page { items, next, remaining } = page;
        let locations: Vec<_> = items.iter().map(|row| row.location).collect();
        let mut filled = Vec::with_capacity(items.len());
        let (mut last_kind, mut skipped) = (None, 0);
        let missing_before = missing.len();
        for (row, frame) in items.into_iter().zip(self.journal.read(&locations)) {
            let location = row.location;
            match frame {
                Ok(frame) => match payload::item_of_frame(frame, owner, row, &mut last_kind) {
                    Ok(item) => {
                        filled.push(item);
                        continue;
                    }
                    Err(error) => tracing::error!(%error, "cannot read an item"),
                },
                Err(ReadError::Gone) if missing.contains(&location) => {
                    tracing::error!("cannot read an item: its file is missing");
                }
                Err(ReadError::Gone) => missing.push(location),
                Err(ReadError::Corrupted(damage)) => tracing::error!(%damage, "cannot read an item"),
                Err(error) => return Err(error),
            }
            skipped += 1;
        }
        if missing.len() > missing_before {
            return Ok(None);
        }
        self.damaged_items.fetch_add(skipped, Ordering::Relaxed);
        Ok(Some(Page { items: filled, next, remaining }))
    }

    /// A snapshot of the whole store.
    pub(crate) fn whole(&self) -> WholeStore {
        // The pin comes first, so that it protects every file that the snapshot refers to.
        let pin = Pin::new(&self.pins);
        let version = self.version();
        let (snapshot, segments) = (version.snapshot_all(), version.segments());
        WholeStore { snapshot, segments, numbers: version.numbers(), _pin: pin }
    }

    /// Reads the whole store. Repeats the read with a new snapshot if the result may be wrong.
    ///
    /// # Errors
    /// Those of `read` and [`WholeStore::checked`].
    pub(crate) fn read_whole<T>(
        &self,
        mut read: impl FnMut(&WholeStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut attempts = 0;
        loop {
            let whole = self.whole();
            let found = caught(|| read(&whole));
            attempts += 1;
            // Checked first: an invalidated read may also fail.
            match whole.checked(()) {
                Ok(()) => return found,
                Err(_) if attempts < READ_ATTEMPTS_MAX => {}
                Err(invalidated) => return Err(invalidated),
            }
        }
    }
}

#[cfg(test)]
#[path = "../tests/held_up.rs"]
mod tests;
