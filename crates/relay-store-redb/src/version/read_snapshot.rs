//! What a reader takes of the memtable that is still being changed: what that says of one queue, as
//! far as it is wanted, or all of it. The index and the memtable that a checkpoint writes do not
//! change, so the reader keeps them, and holds nobody up while it waits for the disk.

use std::sync::Arc;

use relay_core::{ItemId, Recipient, Seq};

use crate::format::Key;
use crate::index::snapshot::IndexSnapshot;
use crate::memtable::dedup_filter::DedupFilter;
use crate::memtable::rows::{RowChange, Rows};
use crate::memtable::{Memtable, SealedMemtable};
use crate::version::coverage::Coverage;
use crate::version::view::ReadView;

/// So many rows of a queue are copied at most, a quarter of a millisecond's work. A page and what
/// was acked within it are fewer.
pub(crate) const ROWS_MAX: usize = 4096;

/// And so many beside those that are asked for, at first: little of a page was acked as a rule.
pub(crate) const ROWS_BESIDE: usize = 64;

/// What a reader wants to know of a queue, beside its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The items from this one on.
    pub(crate) from: Seq,
    /// What is known of this name.
    pub(crate) id: Option<ItemId>,
    /// So many rows may be copied of the active memtable.
    pub(crate) rows_max: usize,
    /// None of them has to be if the items begin in an older memtable, and those of the active one
    /// have all come since: a page of a deep queue ends before them as a rule.
    pub(crate) is_of_older: bool,
}

/// A queue, as it was when it was looked up.
pub(crate) struct ReadSnapshot {
    memtable: Memtable,
    coverage: Option<Coverage>,
    sealed: Option<Arc<SealedMemtable>>,
    index_snapshot: Arc<IndexSnapshot>,
    acked: Arc<DedupFilter>,
}

impl ReadSnapshot {
    /// Takes what `active` says of the queue of `recipient`, if it has one.
    pub(crate) fn new(
        active: &Memtable,
        sealed: Option<Arc<SealedMemtable>>,
        index_snapshot: Arc<IndexSnapshot>,
        acked: Arc<DedupFilter>,
        (recipient, queue): (&Recipient, Option<u64>),
        wanted: Wanted,
    ) -> Self {
        let older = sealed.as_ref().map_or(index_snapshot.numbers.seq, |sealed| sealed.memtable.numbers.seq);
        let mut memtable = Memtable::new(active.numbers);
        memtable.recipients.insert(recipient.clone(), queue);
        let coverage = queue.and_then(|queue| copy(&active.rows, &mut memtable.rows, queue, older, wanted));
        if let (Some(queue), Some(id)) = (queue, wanted.id) {
            for slot in acked.slots_of(queue, id) {
                active.rows.copy(&Key::acked(slot, queue, id), &mut memtable.rows);
            }
        }
        Self { memtable, coverage, sealed, index_snapshot, acked }
    }

    /// Takes all that `active` says.
    pub(crate) fn whole(
        active: &Memtable,
        sealed: Option<Arc<SealedMemtable>>,
        index_snapshot: Arc<IndexSnapshot>,
        acked: Arc<DedupFilter>,
    ) -> Self {
        Self { memtable: active.clone(), coverage: None, sealed, index_snapshot, acked }
    }

    /// Whether the index was opened again meanwhile, so that its pages may have been reused.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.index_snapshot.is_overtaken()
    }

    pub(crate) fn view(&self) -> ReadView<'_> {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.memtable);
        let view = ReadView::new([None, Some(&self.memtable), sealed], &self.index_snapshot, &self.acked);
        match &self.coverage {
            Some(coverage) => view.within(coverage),
            None => view,
        }
    }
}

/// Copies the rows of a queue. `older` is the last arrival number that the memtables below may
/// have. Tells what is covered, if not all is.
fn copy(active: &Rows, snapshot: &mut Rows, queue: u64, older: Seq, wanted: Wanted) -> Option<Coverage> {
    let Wanted { from, id, mut rows_max, is_of_older } = wanted;
    let (start, end) = (Key::items_start(queue), Key::items_start(queue.saturating_add(1)));
    let row = active.queue(queue);
    if let Some(row) = row {
        snapshot.swap(RowChange::Queue(queue, Some(row.cloned())));
    }
    let first = row.flatten().and_then(|row| row.ends).map_or(Seq::ZERO, |ends| ends.first.seq);
    let (from, items_end) = (from.max(first), Key::items_end(queue));
    let is_enough = is_of_older
        && from <= older
        && active.first_item(&Key::item(queue, from), &items_end).is_some_and(|fresh| fresh > older);
    if is_enough {
        rows_max = 0;
    } else if !active.has_more_than(rows_max, &start, &end) {
        active.copy_range(&start, &end, rows_max, snapshot);
        return None;
    }
    let (from, names_end) = (Key::item(queue, from), Key::by_id_end(queue));
    let to = active.copy_range(&from, &items_end, rows_max, snapshot).unwrap_or(items_end);
    let first = Key::item(queue, first);
    active.copy(&first, snapshot);
    active.copy_range(&names_end, &end, usize::MAX, snapshot);
    if let Some(id) = id {
        active.copy(&Key::by_id(queue, id), snapshot);
        if let Some(seq) = active.traced(queue, id) {
            active.copy(&Key::item(queue, seq), snapshot);
        }
    }
    Some(Coverage { first, from, to, id })
}
