//! The version of the store: the memtables that are in memory, the index below them, and the place
//! in the journal that they have come to.

pub(crate) mod coverage;
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
use crate::format::{self, Change, Counters, Key, LiveCount};
use crate::index::snapshot::IndexSnapshot;
use crate::memtable::dedup_filter::DedupFilter;
use crate::memtable::{Memtable, SealedMemtable};
use crate::version::queue_reader::QueueRows;
use crate::version::read_snapshot::{ReadSnapshot, Wanted};
use crate::version::view::ReadView;

/// How many numbers are left out after damage: more than what a restart replays can have told.
const NUMBERS_SKIPPED: u64 = 1 << 24;

/// What is true: everything that is synced to the journal, and nothing else.
pub(crate) struct Version {
    /// What is newer than `sealed`.
    active: Memtable,
    /// What the checkpoint under way writes.
    sealed: Option<Arc<SealedMemtable>>,
    index_snapshot: Arc<IndexSnapshot>,
    /// Knows every acked name of the memtables and the base, and at times of a batch that has
    /// failed.
    acked: Arc<DedupFilter>,
    /// Where the journal goes on behind what `active` holds.
    position: Position,
    /// What is known of the payload files.
    payloads: BlobProgress,
}

/// How far the payload files are decided: those up to `through` are in the rows, or never will be.
#[derive(Clone, Copy, Debug, Default)]
struct BlobProgress {
    through: u32,
    /// The bytes of those since the last checkpoint began.
    bytes: u64,
}

impl Version {
    /// What an index holds. Which acked names that are is not known yet: see
    /// [`DedupFilter::add_unknown`].
    pub(crate) fn open(index_snapshot: Arc<IndexSnapshot>, position: Position) -> Result<Self, StoreError> {
        let payloads = BlobProgress { through: index_snapshot.payloads_through, bytes: 0 };
        let acked = Arc::new(DedupFilter::default());
        for slot in index_snapshot.acked_slots()? {
            acked.add_unknown(slot);
        }
        Ok(Self {
            active: Memtable::new(index_snapshot.numbers),
            sealed: None,
            index_snapshot,
            acked,
            position,
            payloads,
        })
    }

    pub(crate) const fn numbers(&self) -> Counters {
        self.active.numbers
    }

    /// The numbers that were given away before the active memtable began.
    fn numbers_below(&self) -> Counters {
        self.sealed.as_ref().map_or(self.index_snapshot.numbers, |sealed| sealed.memtable.numbers)
    }

    /// All of it, and nothing that is not synced.
    pub(crate) fn synced(&self) -> ReadView<'_> {
        self.view(None)
    }

    /// All of it, with a batch on top.
    pub(crate) fn view<'a>(&'a self, batch: Option<&'a Memtable>) -> ReadView<'a> {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.memtable);
        ReadView::new([batch, Some(&self.active), sealed], &self.index_snapshot, &self.acked)
    }

    /// What the memtables say of a recipient: the number of its queue, or that it has none.
    pub(crate) fn fresh_queue(&self, recipient: &Recipient) -> Option<Option<u64>> {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.memtable);
        [Some(&self.active), sealed]
            .into_iter()
            .flatten()
            .find_map(|memtable| memtable.recipients.get(recipient))
            .copied()
    }

    /// What is known of a queue, to be read without holding on to this.
    pub(crate) fn snapshot(&self, queue: (&Recipient, Option<u64>), wanted: Wanted) -> ReadSnapshot {
        let (sealed, index_snapshot, acked) =
            (self.sealed.clone(), Arc::clone(&self.index_snapshot), Arc::clone(&self.acked));
        ReadSnapshot::new(&self.active, sealed, index_snapshot, acked, queue, wanted)
    }

    /// All of it, to be read without holding on to this.
    pub(crate) fn whole(&self) -> ReadSnapshot {
        let (index_snapshot, acked) = (Arc::clone(&self.index_snapshot), Arc::clone(&self.acked));
        ReadSnapshot::whole(&self.active, self.sealed.clone(), index_snapshot, acked)
    }

    /// Makes visible what was replayed on top of the index, up to `position` of the journal.
    pub(crate) fn resume(&mut self, replayed: Memtable, position: Position) {
        self.active = replayed;
        self.position = position;
    }

    /// The index is `base` now, which says an earlier time.
    pub(crate) fn set_back(&mut self, index_snapshot: Arc<IndexSnapshot>) {
        self.active.numbers.time = index_snapshot.numbers.time;
        self.index_snapshot = index_snapshot;
    }

    /// Makes a batch visible, which ends at `position` of the journal.
    pub(crate) fn publish(&mut self, batch: Memtable, position: Position) {
        let below = self.numbers_below();
        self.active.absorb(batch, below);
        self.position = position;
    }

    /// Notes that the payload files up to this number are decided, of which the last ones take so
    /// many bytes.
    pub(crate) fn note_payloads(&mut self, through: u32, bytes: u64) {
        self.payloads.through = self.payloads.through.max(through);
        self.payloads.bytes = self.payloads.bytes.saturating_add(bytes);
    }

    /// Up to this number payload files are decided.
    pub(crate) const fn payloads_through(&self) -> u32 {
        self.payloads.through
    }

    /// How many bytes of payload files were decided since the last checkpoint began.
    pub(crate) const fn payload_bytes(&self) -> u64 {
        self.payloads.bytes
    }

    /// Leaves numbers out: records that told the last ones may be lost, and none may be given away
    /// twice.
    pub(crate) fn skip_numbers(&mut self) {
        let Counters { seq, queue, time } = self.active.numbers;
        let seq = Seq::new(seq.as_u64().saturating_add(NUMBERS_SKIPPED));
        self.active.numbers = Counters { seq, queue: queue.saturating_add(NUMBERS_SKIPPED), time };
    }

    /// Gives no arrival number up to `seq` away any more.
    pub(crate) fn raise_numbers(&mut self, seq: Seq) {
        self.active.numbers.seq = self.active.numbers.seq.max(seq);
    }

    /// Notes that the store has come to this time.
    pub(crate) fn note_time(&mut self, now: Timestamp) {
        self.active.numbers.time = self.active.numbers.time.max(now);
    }

    /// Whether there is an item, expired or not.
    pub(crate) fn has_items(&self) -> bool {
        let change = self.change().items;
        let known =
            self.index_snapshot.segments.values().fold(0, |sum: u64, live| sum.saturating_add(live.items));
        known.saturating_add_signed(change) > 0
    }

    /// Whether the memtables hold something that the sweep has to look at.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.memtable);
        let mut memtables = [Some(&self.active), sealed].into_iter().flatten();
        memtables.any(|memtable| {
            memtable.rows.range(&Key::due_start(), &Key::due_end(now)).any(|(_, row)| row.is_some())
        })
    }

    /// How much waits for the next checkpoint, in rows.
    pub(crate) fn waiting_rows(&self) -> usize {
        self.active.weight()
    }

    /// The bytes of the journal that a replay would read, as far as they lie in the current segment
    /// or full ones of `segment_bytes`.
    pub(crate) fn replay_bytes(&self, segment_bytes: u64) -> u64 {
        let from = self.sealed.as_ref().map_or(self.index_snapshot.position, |sealed| Some(sealed.position));
        // A store that has none yet began with the first segment.
        let from = from.unwrap_or(Position { segment: 1, offset: 0 });
        let segments = u64::from(self.position.segment.saturating_sub(from.segment));
        (segments * segment_bytes + u64::from(self.position.offset)).saturating_sub(u64::from(from.offset))
    }

    pub(crate) const fn is_checkpointing(&self) -> bool {
        self.sealed.is_some()
    }

    /// What the next checkpoint has to write; `None` when there is nothing.
    pub(crate) fn seal(&mut self) -> Option<Arc<SealedMemtable>> {
        let payloads_through = self.payloads.through;
        let is_news = !self.active.is_empty()
            || payloads_through != self.index_snapshot.payloads_through
            || self.active.numbers != self.numbers_below();
        if self.sealed.is_none() && is_news {
            self.payloads.bytes = 0;
            let next = self.active.next();
            let memtable = std::mem::replace(&mut self.active, next);
            self.sealed =
                Some(Arc::new(SealedMemtable { memtable, position: self.position, payloads_through }));
        }
        self.sealed.clone()
    }

    /// The index is `base` now: after a checkpoint, or opened anew after one that failed and may be
    /// in it all the same. The sealed memtable goes if it is in it, and must not be counted twice.
    /// Hands back what is not needed any more, to be dropped without the lock.
    pub(crate) fn install(
        &mut self,
        index_snapshot: Arc<IndexSnapshot>,
    ) -> (Option<Arc<SealedMemtable>>, Arc<IndexSnapshot>) {
        let written = self.sealed.take_if(|sealed| index_snapshot.holds(sealed));
        (written, std::mem::replace(&mut self.index_snapshot, index_snapshot))
    }

    /// Whether the item of this record is live, and its record is the one there.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(crate) fn lies_at(&self, found: &ItemRecord<'_>, location: Location) -> Result<bool, StoreError> {
        let (view, queue) = (self.synced(), found.queue);
        let Some(rows) = QueueRows::of(view, queue)? else { return Ok(false) };
        let Some(item) = rows.read_item(found.seq)? else { return Ok(false) };
        let is_its_record =
            |recipient| found.is_of(Owner { queue, recipient: &recipient }, item.seq, item.id);
        Ok(item.location == location && is_its_record(view.owner(queue)?))
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

    /// What came to and went from the live frames of all segments since the index was written.
    pub(crate) fn change(&self) -> Change {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.memtable.segments);
        let changes = sealed.into_iter().chain([&self.active.segments]).flat_map(BTreeMap::values);
        changes.fold(Change::default(), |sum, change| sum.plus(*change))
    }

    /// The live frames of a segment. `base` is the index that the version rests on.
    pub(crate) fn live(&self, index_snapshot: &IndexSnapshot, segment: u32) -> LiveCount {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.memtable.segments);
        let changes = sealed.into_iter().chain([&self.active.segments]);
        let known = index_snapshot.segments.get(&segment).copied().unwrap_or_default();
        changes.filter_map(|changes| changes.get(&segment)).fold(known, |live, change| live.changed(*change))
    }

    /// The live frames of each segment, payload files included: there may be very many, so nobody
    /// asks for this while requests come.
    pub(crate) fn segments(&self) -> BTreeMap<u32, LiveCount> {
        self.changed_segments(BTreeMap::clone(&self.index_snapshot.segments))
    }

    /// The same for the main journal alone, of which there are few.
    pub(crate) fn main_segments(&self) -> BTreeMap<u32, LiveCount> {
        let all = self.changed_segments(format::of_main(&self.index_snapshot.segments).collect());
        format::of_main(&all).collect()
    }

    fn changed_segments(&self, mut segments: BTreeMap<u32, LiveCount>) -> BTreeMap<u32, LiveCount> {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.memtable.segments);
        for (segment, change) in sealed.into_iter().chain([&self.active.segments]).flatten() {
            let live = segments.entry(*segment).or_default();
            *live = live.changed(*change);
        }
        segments
    }
}
