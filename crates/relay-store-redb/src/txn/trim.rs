//! Removes the expired front of a queue.

use std::sync::Arc;

use relay_core::{Seq, Usage};

use crate::error::StoreError;
use crate::format::packed_items::PackedItems;
use crate::format::record::FrontSum;
use crate::format::{Items, Key, LiveChange};
use crate::txn::queue_handle::OpenQueue;
use crate::txn::write::WriteTxn;

impl WriteTxn<'_> {
    /// Removes the items up to `through`, and their item ids, from their queue. With the `sum` of
    /// spilled items it touches none of their rows; otherwise it reads the items one by one.
    pub(crate) fn trim(
        &mut self,
        open: &mut OpenQueue,
        through: Seq,
        sum: Option<&FrontSum>,
    ) -> Result<(), StoreError> {
        match (&open.row.items, sum) {
            (Items::Inline(_), _) => self.trim_inline(open, through),
            (Items::Spilled(_), Some(sum)) => {
                // Items in front of the sum have a record of their own, which may be lost.
                if let Some(last) = sum.first.as_u64().checked_sub(1) {
                    self.remove_through(open, Seq::new(last))?;
                }
                // So few may be left that they are inline again.
                match open.row.items {
                    Items::Inline(_) => self.trim_inline(open, through),
                    Items::Spilled(_) => self.trim_spilled(open, through, sum)?,
                }
            }
            // The queue was inline when the record was made. The records that made it so are lost.
            (Items::Spilled(_), None) => self.remove_through(open, through)?,
        }
        Ok(())
    }

    fn trim_inline(&mut self, open: &mut OpenQueue, through: Seq) {
        let Some(items) = open.row.inline() else { return };
        let (removed, left): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.seq <= through);
        let items: PackedItems = left.into_iter().collect();
        let usage: Usage = removed.iter().map(|item| Usage::of(item.payload_bytes)).sum();
        let row = Arc::make_mut(&mut open.row);
        row.usage = row.usage.minus(usage);
        (row.ends, row.early_from) = (items.ends(), items.early_from());
        row.items = Items::Inline(items);
        for item in removed {
            self.count(item.location.segment, LiveChange::removed(item.location));
        }
        // The cache may have its front from a time when it was spilled, and it may spill again.
        self.cache.trim_front(open.number, through, usage);
    }

    /// Touches no row of an item. Rows in front of the first item are dead, and maintenance deletes
    /// them.
    fn trim_spilled(&mut self, open: &mut OpenQueue, through: Seq, sum: &FrontSum) -> Result<(), StoreError> {
        for (block, usage) in &sum.blocks {
            open.remove_from_block(*block, *usage);
        }
        let row = Arc::make_mut(&mut open.row);
        row.usage = row.usage.minus(sum.usage());
        let is_last_removed = row.ends.is_none_or(|ends| ends.last.seq <= through);
        if let Some(ends) = &mut row.ends {
            ends.first.seq = ends.first.seq.max(through.next());
        }
        for (segment, live) in &sum.segments {
            self.count(*segment, LiveChange::of(*live).negated());
        }
        self.put(Key::dead(open.number), Some(Vec::new()));
        self.cache.trim_front(open.number, through, sum.usage());
        self.update_blocks(open)?;
        if is_last_removed {
            return self.empty_spilled(open);
        }
        open.has_removed = true;
        self.update_ends(open)?;
        self.inline_if_few(open)
    }

    /// Reads and removes the items up to `through` one by one.
    pub(super) fn remove_through(&mut self, open: &mut OpenQueue, through: Seq) -> Result<(), StoreError> {
        for item in open.rows(self.view()).first_items(through, usize::MAX)? {
            self.remove_item(open, item.seq, Some(item))?;
        }
        Ok(())
    }
}
