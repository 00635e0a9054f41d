//! What the writer, the maintenance thread and readers share.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use relay_core::{ItemId, Limits, Page, Pull, Recipient, Seq, queue};
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
use crate::txn::read::Reading;
use crate::txn::whole::Whole;
use crate::version::Version;
use crate::version::queue_reader::QueueRows;
use crate::version::read_ahead;
use crate::version::read_snapshot::{ROWS_BESIDE, ROWS_MAX, ReadSnapshot, Wanted};

/// How often a writer that waits for a checkpoint looks by itself, should it not be told.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The store is read whole once more when its index is opened anew meanwhile, so often: that is
/// done once a second at most.
const OVERTAKEN_MAX: usize = 3;

pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) clock: WatchedTime,
    pub(crate) journal: Journals,
    pub(crate) throttle: Arc<IoThrottle>,
    pub(crate) space: SpaceMonitor,
    /// No checkpoint can begin, as the maintenance thread writes the index anew or reads of it.
    pub(crate) is_rewriting: AtomicBool,
    /// The writer waits for a checkpoint, and so does everybody who wants something written.
    pub(crate) is_held_up: AtomicBool,
    /// How many snapshots there are: none of the files is taken away meanwhile.
    pub(crate) pins: Arc<AtomicUsize>,
    pub(crate) metrics: StoreMetrics,
    /// How often a pull has met an item that is damaged, and left it out.
    pub(crate) damaged_items: AtomicU64,
    version: RwLock<Version>,
    /// Why the last checkpoint failed, if it did.
    trouble: Mutex<Option<StoreError>>,
    checkpointed: Condvar,
}

/// Says, when it is dropped, that checkpoints can begin again.
struct ReadAccess<'a>(&'a Shared);

impl Drop for ReadAccess<'_> {
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
        let (trouble, checkpointed) = (Mutex::default(), Condvar::new());
        let (is_rewriting, metrics) = (AtomicBool::new(false), StoreMetrics::new(clock.now()));
        Self {
            limits,
            clock,
            journal,
            throttle,
            space,
            is_rewriting,
            is_held_up: AtomicBool::new(false),
            pins: Arc::default(),
            metrics,
            damaged_items: AtomicU64::new(0),
            version: RwLock::new(version),
            trouble,
            checkpointed,
        }
    }

    // A panic elsewhere leaves the version usable: it is changed by whole batches, and only behind
    // the journal.
    pub(crate) fn version(&self) -> RwLockReadGuard<'_, Version> {
        self.version.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn version_mut(&self) -> RwLockWriteGuard<'_, Version> {
        self.version.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last checkpoint has failed.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.trouble().is_some()
    }

    /// Tells how a checkpoint went.
    pub(crate) fn note_checkpoint(&self, outcome: Result<(), StoreError>) {
        *self.trouble() = outcome.err();
        self.checkpointed.notify_all();
    }

    /// Waits while the maintenance thread writes the index and so much has piled up behind it that
    /// it may be no more, in memory or for a restart to replay.
    ///
    /// # Errors
    /// Why checkpoints fail, when they do: then waiting would not help.
    pub(crate) fn wait_for_room(&self, due: CheckpointDue) -> Result<(), StoreError> {
        let mut trouble = self.trouble();
        let outcome = loop {
            if !self.is_full(due) {
                break Ok(());
            }
            if let Some(error) = &*trouble {
                break Err(error.clone());
            }
            if !self.is_held_up.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    "requests wait until the index is written: as much as may be in memory waits for that"
                );
            }
            trouble = match self.checkpointed.wait_timeout(trouble, LOOK_AGAIN) {
                Ok((trouble, _)) => trouble,
                Err(poisoned) => poisoned.into_inner().0,
            };
        };
        self.is_held_up.store(false, Ordering::Relaxed);
        outcome
    }

    /// Has the maintenance thread do something during which no checkpoint can begin.
    pub(crate) fn while_no_checkpoint_begins<T>(&self, act: impl FnOnce() -> T) -> T {
        self.is_rewriting.store(true, Ordering::Relaxed);
        // Also if it panics.
        let _over = ReadAccess(self);
        act()
    }

    fn is_full(&self, due: CheckpointDue) -> bool {
        let version = self.version();
        self.is_writing_index(&version) && due.piled_up(&version)
    }

    fn is_writing_index(&self, version: &Version) -> bool {
        version.is_checkpointing() || self.is_rewriting.load(Ordering::Relaxed)
    }

    /// Reads what the writer will look at for a request, while the index is not in memory.
    pub(crate) fn read_ahead(&self, recipient: &Recipient, items: &[ItemId]) {
        let (index_snapshot, acked) = {
            let version = self.version();
            (Arc::clone(version.index_snapshot()), Arc::clone(version.acked()))
        };
        // What goes wrong the writer meets as well, and tells.
        drop(caught(|| read_ahead::read_ahead(&index_snapshot, &acked, recipient, items)));
    }

    /// Whether the queued item has this payload; `None` when it is gone.
    ///
    /// # Errors
    /// When that cannot be told, since the item is damaged or the disk fails.
    pub(crate) fn has_payload(
        &self,
        recipient: &Recipient,
        id: ItemId,
        seq: Seq,
        payload: &[u8],
    ) -> Result<Option<bool>, StoreError> {
        let wanted = Wanted { from: seq, id: Some(id), rows_max: ROWS_BESIDE, is_of_older: false };
        let mut gone = None;
        loop {
            let found = self.look_up(recipient, wanted, |reading| {
                let rows = reading.view.queue(recipient)?;
                let rows = rows.map(|(queue, row)| QueueRows { view: reading.view, queue, row });
                let Some(rows) = rows else { return Ok(None) };
                Ok(rows.read_item(seq)?.map(|item| (rows.queue, item)))
            });
            let Some((queue, item)) = found? else { return Ok(None) };
            if item.payload_bytes != payload.len() as u64 {
                return Ok(Some(false));
            }
            let frame = self.journal.read(&[item.location]).pop();
            match frame.ok_or(StoreError::Corrupted("nothing was read"))? {
                // It may have been moved, or acked.
                Err(ReadError::Gone) if gone != Some(item.location) => gone = Some(item.location),
                frame => {
                    let owner = Owner { queue, recipient };
                    return Ok(Some(payload::of_frame(frame?, owner, seq, id)? == payload));
                }
            }
        }
    }

    /// Reads a page, with its payloads. An item whose record is damaged or lost is left out: it
    /// must not hide those behind it.
    pub(crate) fn read_page(&self, pull: &Pull) -> Result<Page, StoreError> {
        let (mut pull, mut gone) = (pull.clone(), Vec::new());
        loop {
            let (queue, page) = self.find_page(&pull)?;
            match self.fill(page, Owner { queue, recipient: &pull.recipient }, &mut gone)? {
                None => {}
                Some(page) if page.items.is_empty() && page.next.is_some() => {
                    pull.after = page.next;
                    gone.clear();
                }
                Some(page) => {
                    let reading = self.clock.read();
                    page.items.iter().for_each(|item| self.metrics.delivery(item.arrival, reading.now));
                    return Ok(page.outside(reading));
                }
            }
        }
    }

    /// The rows of a page, and the number of the queue that they are about.
    fn find_page(&self, pull: &Pull) -> Result<(u64, Page<ItemRow>), StoreError> {
        let items_max = self.limits.page_items_max.min(pull.items_max.map_or(u64::MAX, NonZero::get));
        let rows_max = usize::try_from(items_max).unwrap_or(ROWS_MAX).min(ROWS_MAX) + ROWS_BESIDE;
        let wanted =
            Wanted { from: pull.after.map_or(Seq::ZERO, Seq::next), id: None, rows_max, is_of_older: true };
        self.look_up(&pull.recipient, wanted, |reading| {
            let cache = QueueCache::default();
            let reading = Reading { view: reading.view.with_cache(&cache), journal: reading.journal };
            let page = queue::pull(&reading, &self.limits, self.clock.now(), pull)?;
            self.damaged_items.fetch_add(cache.passed_over(), Ordering::Relaxed);
            // The cache knows it by now. Where there is no queue, the page is empty.
            Ok((reading.view.queue_number(&pull.recipient)?.unwrap_or_default(), page))
        })
    }

    /// Reads what there is of a recipient. Nobody else waits while the disk reads, unless it is
    /// more than what is `wanted`.
    pub(crate) fn look_up<T>(
        &self,
        recipient: &Recipient,
        wanted: Wanted,
        read: impl Fn(&Reading<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let with = |rows_max, is_of_older| Wanted { rows_max, is_of_older, ..wanted };
        let tries = [wanted, with(wanted.rows_max, false), with(ROWS_MAX, false)];
        for wanted in tries.into_iter().skip(usize::from(!wanted.is_of_older)) {
            let Some(snapshot) = self.snapshot(recipient, wanted)? else { break };
            match read(&Reading { view: snapshot.view(), journal: &self.journal }) {
                Err(StoreError::Beyond) => {}
                found => return found,
            }
        }
        let version = self.version();
        read(&Reading { view: version.synced(), journal: &self.journal })
    }

    /// What is known of a recipient, if that can be found at once.
    fn snapshot(&self, recipient: &Recipient, wanted: Wanted) -> Result<Option<ReadSnapshot>, StoreError> {
        let (name, index_snapshot) = {
            let version = self.version();
            (version.fresh_queue(recipient), Arc::clone(version.index_snapshot()))
        };
        let queue = name.map_or_else(|| index_snapshot.queue_number(recipient), Ok)?;
        let version = self.version();
        // It may have got another number meanwhile, or lost it.
        let is_same = match version.fresh_queue(recipient) {
            Some(now) => now == queue,
            None => name.is_none() && Arc::ptr_eq(version.index_snapshot(), &index_snapshot),
        };
        Ok(is_same.then(|| version.snapshot((recipient, queue), wanted)))
    }

    /// Reads the payloads. `None` when the page has to be looked up again, since a segment of it is
    /// `gone` that was not before: it may have been removed once its items were acked or moved. An
    /// item that is at the same place then is lost, as no segment is removed that a row leads to,
    /// and nothing is moved to where it was.
    fn fill(
        &self,
        page: Page<ItemRow>,
        owner: Owner<'_>,
        gone: &mut Vec<Location>,
    ) -> Result<Option<Page>, ReadError> {
        let Page { items, next, remaining } = page;
        let locations: Vec<_> = items.iter().map(|row| row.location).collect();
        let mut filled = Vec::with_capacity(items.len());
        let (mut kind_before, mut damaged) = (None, 0);
        let known = gone.len();
        for (row, frame) in items.into_iter().zip(self.journal.read(&locations)) {
            let location = row.location;
            match frame {
                Ok(frame) => match payload::item_of_frame(frame, owner, row, &mut kind_before) {
                    Ok(item) => {
                        filled.push(item);
                        continue;
                    }
                    Err(error) => tracing::error!(%error, "an item cannot be read"),
                },
                Err(ReadError::Gone) if gone.contains(&location) => {
                    tracing::error!("an item cannot be read: its file is gone");
                }
                Err(ReadError::Gone) => gone.push(location),
                Err(ReadError::Damaged(damage)) => tracing::error!(%damage, "an item cannot be read"),
                Err(error) => return Err(error),
            }
            damaged += 1;
        }
        if gone.len() > known {
            return Ok(None);
        }
        self.damaged_items.fetch_add(damaged, Ordering::Relaxed);
        Ok(Some(Page { items: filled, next, remaining }))
    }
    /// The store as it is now.
    pub(crate) fn whole(&self) -> Whole {
        // Before anything is looked at that a file is needed for.
        let pin = Pin::new(&self.pins);
        let version = self.version();
        let (snapshot, segments) = (version.whole(), version.segments());
        Whole { snapshot, segments, numbers: version.numbers(), _pin: pin }
    }

    /// Reads the store as it is now; and once more, as it is by then, what may be wrong.
    ///
    /// # Errors
    /// Those of `read`, and [`Whole::checked`].
    pub(crate) fn read_whole<T>(
        &self,
        mut read: impl FnMut(&Whole) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut times = 0;
        loop {
            let whole = self.whole();
            let found = caught(|| read(&whole));
            times += 1;
            // An error may come of it too.
            match whole.checked(()) {
                Ok(()) => return found,
                Err(_) if times < OVERTAKEN_MAX => {}
                Err(overtaken) => return Err(overtaken),
            }
        }
    }
}

#[cfg(test)]
#[path = "../tests/held_up.rs"]
mod tests;
