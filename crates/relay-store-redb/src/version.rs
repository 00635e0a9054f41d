//! The version of the store: the active and the sealed memtable, the index snapshot below them, and
//! the position in the journal that they reflect.

mod coverage;
pub(crate) mod queue_reader;
pub(crate) mod read_ahead;
pub(crate) mod read_snapshot;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use relay_core::{Recipient, Seq, Timestamp};
use relay_journal::{Location, Position};

use crate::error::StoreError;
use crate::format::record::{ItemRecord, Owner};
use crate::format::{self, Counters, Key, LiveChange, LiveCount};
use crate::index::snapshot::IndexSnapshot;
use crate::memtable::dedup_filter::DedupFilter;
use crate::memtable::{Memtable, SealedMemtable};
use crate::version::coverage::Coverage;
use crate::version::queue_reader::QueueRows;
use crate::version::read_snapshot::{ReadSnapshot, Wanted};
use crate::version::view::ReadView;

/// The numbers skipped after corruption: more than the records of one replay can have used.
const NUMBERS_SKIPPED: u64 = 1 << 24;

/// The current state of the store: everything that is synced to the journal, and nothing else.
pub(crate) struct Version {
    /// Changes since `sealed`.
    active: Memtable,
    /// The changes that the current checkpoint writes.
    sealed: Option<Arc<SealedMemtable>>,
    index_snapshot: Arc<IndexSnapshot>,
    /// Contains every acked item id of the memtables and the index, and possibly those of a failed
    /// batch.
    acked: Arc<DedupFilter>,
    /// The end of the records in the journal that `active` reflects.
    position: Position,
    blobs: BlobProgress,
}

/// How far payload files are decided: those up to `through` have rows, or never will.
#[derive(Clone, Copy, Debug, Default)]
struct BlobProgress {
    through: u32,
    /// The bytes of payload files decided since the last checkpoint began.
    bytes: u64,
}

impl Version {
    /// The content of an index. Its acked item ids are unknown at first: see
    /// [`DedupFilter::add_unknown`].
    pub(crate) fn open(index_snapshot: Arc<IndexSnapshot>, position: Position) -> Result<Self, StoreError> {
        let acked = Arc::new(DedupFilter::default());
        for slot in index_snapshot.acked_slots()? {
            acked.add_unknown(slot);
        }
        Ok(Self {
            active: Memtable::new(index_snapshot.numbers),
            sealed: None,
            acked,
            position,
            blobs: BlobProgress { through: index_snapshot.blobs_through, bytes: 0 },
            index_snapshot,
        })
    }

    pub(crate) const fn numbers(&self) -> Counters {
        self.active.numbers
    }

    /// The numbers assigned before the active memtable began.
    fn numbers_below(&self) -> Counters {
        self.sealed.as_ref().map_or(self.index_snapshot.numbers, |sealed| sealed.memtable.numbers)
    }

    fn sealed_memtable(&self) -> Option<&Memtable> {
        self.sealed.as_ref().map(|sealed| &sealed.memtable)
    }

    /// The memtables, the newest first.
    fn memtables(&self) -> impl DoubleEndedIterator<Item = &Memtable> {
        [Some(&self.active), self.sealed_memtable()].into_iter().flatten()
    }

    /// A view of all synced changes.
    pub(crate) fn synced(&self) -> ReadView<'_> {
        self.view(None)
    }

    /// A view of all synced changes, with a batch on top.
    pub(crate) fn view<'a>(&'a self, batch: Option<&'a Memtable>) -> ReadView<'a> {
        let memtables = [batch, Some(&self.active), self.sealed_memtable()];
        ReadView::new(memtables, &self.index_snapshot, &self.acked)
    }

    /// The entry of a recipient in the memtables: the number of its queue, or a tombstone.
    pub(crate) fn queue_in_memtables(&self, recipient: &Recipient) -> Option<Option<u64>> {
        self.memtables().find_map(|memtable| memtable.recipients.get(recipient)).copied()
    }

    /// A snapshot of a queue, to be read soon after `now` without holding on to the version.
    pub(crate) fn snapshot(
        &self,
        queue: (&Recipient, Option<u64>),
        wanted: Wanted,
        now: Timestamp,
    ) -> ReadSnapshot {
        let older = self.numbers_below().seq;
        let (memtable, coverage) =
            read_snapshot::excerpt(&self.active, older, &self.acked, queue, wanted, now);
        self.snapshot_with(memtable, coverage)
    }

    /// A snapshot of everything, to be read without holding on to the version.
    pub(crate) fn snapshot_all(&self) -> ReadSnapshot {
        self.snapshot_with(self.active.clone(), None)
    }

    fn snapshot_with(&self, memtable: Memtable, coverage: Option<Coverage>) -> ReadSnapshot {
        ReadSnapshot {
            memtable,
            coverage,
            sealed: self.sealed.clone(),
            index_snapshot: Arc::clone(&self.index_snapshot),
            acked: Arc::clone(&self.acked),
        }
    }

    /// Publishes what was replayed on top of the index, up to `position` of the journal.
    pub(crate) fn resume(&mut self, replayed: Memtable, position: Position) {
        self.active = replayed;
        self.position = position;
    }

    /// Installs an index with the same rows and an earlier time.
    pub(crate) fn set_back(&mut self, index_snapshot: Arc<IndexSnapshot>) {
        self.active.numbers.time = index_snapshot.numbers.time;
        self.index_snapshot = index_snapshot;
    }

    /// Publishes a batch that ends at `position` of the journal.
    pub(crate) fn publish(&mut self, batch: Memtable, position: Position) {
        let below = self.numbers_below();
        self.active.absorb(batch, below);
        self.position = position;
    }

    /// Records that the payload files up to `through` are decided. The newly decided ones take
    /// `bytes`.
    pub(crate) fn note_blobs(&mut self, through: u32, bytes: u64) {
        self.blobs.through = self.blobs.through.max(through);
        self.blobs.bytes = self.blobs.bytes.saturating_add(bytes);
    }

    /// The payload files up to this number are decided.
    pub(crate) const fn blobs_through(&self) -> u32 {
        self.blobs.through
    }

    /// The bytes of payload files decided since the last checkpoint began.
    pub(crate) const fn blob_bytes(&self) -> u64 {
        self.blobs.bytes
    }

    /// Skips numbers. Records that used the last ones may be lost, and none may be assigned twice.
    pub(crate) fn skip_numbers(&mut self) {
        let Counters { seq, queue, time } = self.active.numbers;
        let seq = Seq::new(seq.as_u64().saturating_add(NUMBERS_SKIPPED));
        self.active.numbers = Counters { seq, queue: queue.saturating_add(NUMBERS_SKIPPED), time };
    }

    /// Assigns no arrival number up to `seq` from now on.
    pub(crate) fn reserve_seqs(&mut self, seq: Seq) {
        self.active.numbers.seq = self.active.numbers.seq.max(seq);
    }

    /// Records that the store has reached this time.
    pub(crate) fn note_time(&mut self, now: Timestamp) {
        self.active.numbers.time = self.active.numbers.time.max(now);
    }

    /// Whether there is an item, expired or not.
    pub(crate) fn has_items(&self) -> bool {
        let segments = self.index_snapshot.segments.values();
        let indexed = segments.fold(0, |sum: u64, live| sum.saturating_add(live.items));
        indexed.saturating_add_signed(self.change().items) > 0
    }

    /// Whether the memtables contain a row that is due for the sweep.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let range = (Key::due_start(), Key::due_end(now));
        self.memtables().any(|memtable| memtable.rows.range(&range.0, &range.1).any(|(_, row)| row.is_some()))
    }

    /// The weight, in rows, of what the next checkpoint will write.
    pub(crate) fn waiting_rows(&self) -> usize {
        self.active.weight()
    }

    /// The bytes of the journal that a replay would read, if all segments but the current one are
    /// full ones of `segment_bytes`.
    pub(crate) fn replay_bytes(&self, segment_bytes: u64) -> u64 {
        let from = self.sealed.as_ref().map_or(self.index_snapshot.position, |sealed| Some(sealed.position));
        // A store without a position began with the first segment.
        let from = from.unwrap_or(Position { segment: 1, offset: 0 });
        let segments = u64::from(self.position.segment.saturating_sub(from.segment));
        (segments * segment_bytes + u64::from(self.position.offset)).saturating_sub(u64::from(from.offset))
    }

    pub(crate) const fn is_checkpointing(&self) -> bool {
        self.sealed.is_some()
    }

    /// Returns what the next checkpoint has to write, or `None` if nothing has changed.
    pub(crate) fn seal(&mut self) -> Option<Arc<SealedMemtable>> {
        let blobs_through = self.blobs.through;
        let has_changed = !self.active.is_empty()
            || blobs_through != self.index_snapshot.blobs_through
            || self.active.numbers != self.numbers_below();
        if self.sealed.is_none() && has_changed {
            self.blobs.bytes = 0;
            let next = self.active.next();
            let memtable = std::mem::replace(&mut self.active, next);
            self.sealed = Some(Arc::new(SealedMemtable { memtable, position: self.position, blobs_through }));
        }
        self.sealed.clone()
    }

    /// Installs a new index snapshot: after a checkpoint, or after a reopening because one failed,
    /// which may be in the index all the same. If the index contains the sealed memtable, that is
    /// removed, or it would count twice. Returns what the caller should drop without the lock.
    pub(crate) fn install(
        &mut self,
        index_snapshot: Arc<IndexSnapshot>,
    ) -> (Option<Arc<SealedMemtable>>, Arc<IndexSnapshot>) {
        let written = self.sealed.take_if(|sealed| index_snapshot.holds(sealed));
        (written, std::mem::replace(&mut self.index_snapshot, index_snapshot))
    }

    /// Whether the item of this record is live, and this is its current record.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub(crate) fn is_live_at(&self, record: &ItemRecord<'_>, location: Location) -> Result<bool, StoreError> {
        let (view, queue) = (self.synced(), record.queue);
        let Some(rows) = QueueRows::of(view, queue)? else { return Ok(false) };
        let item = rows.read_item(record.seq)?.filter(|item| item.location == location);
        let Some(item) = item else { return Ok(false) };
        Ok(record.is_of(Owner { queue, recipient: &view.owner(queue)? }, item.seq, item.id))
    }

    pub(crate) fn index_snapshot(&self) -> &Arc<IndexSnapshot> {
        &self.index_snapshot
    }

    pub(crate) const fn acked(&self) -> &Arc<DedupFilter> {
        &self.acked
    }

    pub(crate) const fn position(&self) -> Position {
        self.position
    }

    /// The changes of segments in each memtable, the oldest first. That order matters: counts
    /// saturate at zero.
    fn segment_changes(&self) -> impl Iterator<Item = &BTreeMap<u32, LiveChange>> {
        self.memtables().rev().map(|memtable| &memtable.segments)
    }

    /// The change of the live frames of all segments together since the index was written.
    pub(crate) fn change(&self) -> LiveChange {
        let changes = self.segment_changes().flat_map(BTreeMap::values);
        changes.fold(LiveChange::default(), |sum, change| sum.plus(*change))
    }

    /// The live frames of a segment. `index_snapshot` is the one of this version.
    pub(crate) fn live(&self, index_snapshot: &IndexSnapshot, segment: u32) -> LiveCount {
        let indexed = index_snapshot.segments.get(&segment).copied().unwrap_or_default();
        let changes = self.segment_changes().filter_map(|changes| changes.get(&segment));
        changes.fold(indexed, |live, change| live.changed(*change))
    }

    /// The live frames of each segment, including payload files. These may be very many, so do not
    /// call this while requests are served.
    pub(crate) fn segments(&self) -> BTreeMap<u32, LiveCount> {
        self.changed_segments(BTreeMap::clone(&self.index_snapshot.segments))
    }

    /// The live frames of each segment of the main journal, which has few.
    pub(crate) fn main_segments(&self) -> BTreeMap<u32, LiveCount> {
        let all = self.changed_segments(format::main_segments(&self.index_snapshot.segments).collect());
        format::main_segments(&all).collect()
    }

    fn changed_segments(&self, mut segments: BTreeMap<u32, LiveCount>) -> BTreeMap<u32, LiveCount> {
        for (segment, change) in self.segment_changes().flatten() {
            let live = segments.entry(*segment).or_default();
            *live = live.changed(*change);
        }
        segments
    }
}
