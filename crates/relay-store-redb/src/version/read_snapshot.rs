//! What a reader keeps of a version to read without a lock: a copy of the active memtable, or an
//! excerpt about one queue. The index snapshot and the sealed memtable do not change, so the reader
//! shares them. It blocks nobody while it waits for the disk.

use std::sync::Arc;

use relay_core::{ItemId, Recipient, Seq, Timestamp};

use crate::format::Key;
use crate::index::snapshot::IndexSnapshot;
use crate::memtable::dedup_filter::DedupFilter;
use crate::memtable::rows::{RowChange, Rows};
use crate::memtable::{Memtable, SealedMemtable};
use crate::version::coverage::Coverage;
use crate::version::view::ReadView;

/// The most rows of a queue that are copied, a quarter of a millisecond's work. A page has fewer,
/// including the items that were acked within it.
pub(crate) const ROWS_MAX: usize = 4096;

/// A read takes place so long after its copy at most. A later one has to repeat the copy.
const EARLY_MS: u64 = 1_000;

/// The rows copied on the first try in addition to those of a page. Usually few items within a page
/// were acked.
pub(crate) const EXTRA_ROWS: usize = 64;

/// What a reader wants to know of a queue, in addition to its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The items from this one on.
    pub(crate) from: Seq,
    /// All about this item id.
    pub(crate) id: Option<ItemId>,
    /// The most rows to copy from the active memtable.
    pub(crate) rows_max: usize,
    /// Copy none if the items begin in older memtables, and those of the active one are all newer.
    /// A page of a deep queue usually ends before them.
    pub(crate) may_skip_newer: bool,
}

/// A version, or a part of it, at one moment.
pub(crate) struct ReadSnapshot {
    /// A copy of the active memtable, or of a part of it.
    pub(super) memtable: Memtable,
    /// Which part the copy contains, if not all of one queue.
    pub(super) coverage: Option<Coverage>,
    pub(super) sealed: Option<Arc<SealedMemtable>>,
    pub(super) index_snapshot: Arc<IndexSnapshot>,
    pub(super) acked: Arc<DedupFilter>,
}

impl ReadSnapshot {
    /// Whether the index was reopened in the meantime, so that its pages may have been reused.
    pub(crate) fn is_invalidated(&self) -> bool {
        self.index_snapshot.is_invalidated()
    }

    pub(crate) fn view(&self) -> ReadView<'_> {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.memtable);
        ReadView::new([None, Some(&self.memtable), sealed], &self.index_snapshot, &self.acked)
            .within(self.coverage.as_ref())
    }
}

/// Copies what `active` contains of the recipient's queue, if it has one. `older` is the last
/// arrival number that older memtables may contain. Nothing reads items that expire early and much
/// later than `now`.
pub(super) fn excerpt(
    active: &Memtable,
    older: Seq,
    acked: &DedupFilter,
    (recipient, queue): (&Recipient, Option<u64>),
    wanted: Wanted,
    now: Timestamp,
) -> (Memtable, Option<Coverage>) {
    let mut copy = Memtable::new(active.numbers);
    copy.recipients.insert(recipient.clone(), queue);
    let coverage =
        queue.and_then(|queue| copy_queue(&active.rows, &mut copy.rows, queue, older, wanted, now));
    if let (Some(queue), Some(id)) = (queue, wanted.id) {
        for slot in acked.slots_of(queue, id) {
            active.rows.copy(&Key::acked(slot, queue, id), &mut copy.rows);
        }
    }
    (copy, coverage)
}

/// Copies the rows of a queue. Returns what the copy covers, if that is not all of the queue.
fn copy_queue(
    active: &Rows,
    copy: &mut Rows,
    queue: u64,
    older: Seq,
    wanted: Wanted,
    now: Timestamp,
) -> Option<Coverage> {
    let Wanted { from, id, mut rows_max, may_skip_newer } = wanted;
    let (start, end) = (Key::items_start(queue), Key::rows_end(queue));
    let row = active.queue(queue);
    if let Some(row) = row {
        copy.swap(RowChange::Queue(queue, Some(row.cloned())));
    }
    let first = row.flatten().and_then(|row| row.ends).map_or(Seq::ZERO, |ends| ends.first.seq);
    let visible_from = row.flatten().map_or(first, |row| row.visible_from());
    let (from, items_end) = (from.max(visible_from), Key::items_end(queue));
    let skips_newer = may_skip_newer
        && from <= older
        && active.first_item(&Key::item(queue, from), &items_end).is_some_and(|seq| seq > older);
    if skips_newer {
        rows_max = 0;
    } else if !active.has_more_than(rows_max, &start, &end) {
        active.copy_range(&start, &end, rows_max, copy);
        return None;
    }
    let from = Key::item(queue, from);
    let to = active.copy_range(&from, &items_end, rows_max, copy).unwrap_or(items_end);
    let first = Key::item(queue, first);
    active.copy(&first, copy);
    let early_start = Key::early_start(queue);
    active.copy_range(&Key::by_id_end(queue), &early_start, usize::MAX, copy);
    let early_from = row.flatten().and_then(|row| row.early_from).unwrap_or_default();
    let early_from = Key::early(queue, early_from, Seq::ZERO);
    let early_end = Key::early_end(queue, now.plus_ms(EARLY_MS));
    let early_to = active.copy_range(&early_from, &early_end, ROWS_MAX, copy).unwrap_or(early_end);
    if let Some(id) = id {
        active.copy(&Key::by_id(queue, id), copy);
        if let Some(seq) = active.seq_of_id(queue, id) {
            active.copy(&Key::item(queue, seq), copy);
        }
    }
    Some(Coverage { first, from, to, id, early: (early_from, early_to) })
}
