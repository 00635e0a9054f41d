//! A batch: the write transaction that the rules run over. What they decide goes to the tables at once, and to the journal as a
//! record of what was done.

use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{
    Due, DueItems, Forgotten, Front, Item, ItemId, Queued as _, ReadTx, Recipient, Seq, Timestamp, Trace,
    Usage, WriteTx,
};
use relay_journal::{Frame, Location, Mark};

use crate::aside::Ahead;
use crate::error::StoreError;
use crate::journals::Journals;
use crate::layer::{Layer, Numbers};
use crate::memo::Memo;
use crate::payload;
use crate::read::{Pending, Reading};
use crate::record::{self, Forgotten as NamesRecord, ItemRecord, Removed, kind};
use crate::schema::{ItemRow, Key, ParsedKey};
use crate::state::State;
use crate::tables::{Tables, is_over};

/// How many acked names a step of the sweep looks at for each that it may forget.
const SEEN_PER_FORGOTTEN: usize = 16;

/// One write transaction.
pub(crate) struct Batch<'s> {
    tables: Tables<'s>,
    records: relay_journal::Batch,
    journal: &'s Journals,
    /// What was done for the push that is decided next.
    pub(crate) ahead: Ahead,
    /// Payloads that cannot be read from the journal yet.
    pending: Vec<Pending>,
    /// Removals that follow each other, not recorded yet.
    removed: Removed,
    /// How long the slots are in which acked names are put.
    slot_ms: u64,
    marks: SweepMarks,
}

/// How far sweeps have come. Nothing can appear before these any more, since time does not run backwards, and what was there is a long
/// way of gravestones until the next checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepMarks {
    /// The first row that was due.
    due: Key,
    /// The first acked name whose time was not over.
    acked: Key,
    /// Where the sweep under way goes on with the acked names.
    acked_next: Key,
    /// The first acked name whose time is not over, of those that the sweep under way has seen.
    acked_left: Option<Key>,
}

impl Default for SweepMarks {
    fn default() -> Self {
        let (due, acked) = (Key::due_start(), Key::acked_start());
        Self { due, acked, acked_next: acked, acked_left: None }
    }
}

impl SweepMarks {
    /// When the slot begins before which there are no acked names.
    pub(crate) fn acked_from(&self) -> Timestamp {
        self.acked.slot()
    }
}

/// Where a request began.
pub(crate) struct Savepoint {
    numbers: Numbers,
    mark: Mark,
}

impl<'s> Batch<'s> {
    pub(crate) fn new(
        state: &'s State,
        memo: &'s Memo,
        records: relay_journal::Batch,
        journal: &'s Journals,
        slot_ms: u64,
        marks: SweepMarks,
    ) -> Self {
        Self {
            tables: Tables::new(state, memo),
            records,
            journal,
            ahead: Ahead::Nothing,
            pending: Vec::new(),
            removed: Removed::default(),
            slot_ms,
            marks,
        }
    }

    /// How far the sweep has come, once its step is done.
    pub(crate) fn marks(&self) -> SweepMarks {
        self.marks
    }

    /// What was decided, and the records of it.
    pub(crate) fn finish(self) -> (Layer, relay_journal::Batch) {
        debug_assert!(self.removed.items.is_empty(), "every request ends by noting the usage");
        (self.tables.layer, self.records)
    }

    /// From here on, [`Batch::rollback`] takes back.
    pub(crate) fn savepoint(&mut self) -> Savepoint {
        Savepoint { numbers: self.tables.savepoint(), mark: self.records.mark() }
    }

    /// Takes back what a request has done.
    pub(crate) fn rollback(&mut self, to: Savepoint) {
        self.removed.items.clear();
        self.tables.rollback(to.numbers);
        self.records.rewind(to.mark);
    }

    /// Copies the item of a record to the end of the journal, if it still lies where the record was found.
    pub(crate) fn move_item(&mut self, frame: &Frame) -> Result<(), StoreError> {
        let found = ItemRecord::parse(&frame.body)?;
        let mark = self.records.mark();
        let to = self.records.append(kind::MOVED, &[], frame.body.clone());
        if !self.tables.move_item(&found, Some(frame.location), to)? {
            self.records.rewind(mark);
        }
        Ok(())
    }

    fn reading(&self) -> Reading<'_> {
        Reading { view: self.tables.view(), journal: self.journal, pending: &self.pending }
    }

    fn queue_of(&self, recipient: &Recipient) -> Result<u64, StoreError> {
        self.tables.view().name(recipient)?.ok_or(StoreError::Damaged("a queue to change is not there"))
    }

    /// Records the removals. A replay settles the queue after each such record, so this does.
    fn record_removed(&mut self) -> Result<(), StoreError> {
        if self.removed.items.is_empty() {
            return Ok(());
        }
        let removed = std::mem::take(&mut self.removed);
        self.records.append(kind::REMOVED, &removed.encode(), Bytes::new());
        self.tables.settle(removed.queue)
    }

    fn drop_if_forgettable(&mut self, queue: u64) -> Result<(), StoreError> {
        if self.tables.drop_if_forgettable(queue)? {
            self.records.append(kind::DROPPED, &record::dropped(queue), Bytes::new());
        }
        Ok(())
    }

    fn add_item(
        &mut self,
        queue: u64,
        recipient: &Recipient,
        item: &Item<Bytes>,
        location: Location,
    ) -> Result<(), StoreError> {
        self.tables.add_item(queue, || Ok(recipient.clone()), ItemRow::new(item, location))
    }

    /// The due items of one queue, from its front.
    fn due_of(&self, queue: u64, now: Timestamp, max: usize) -> Result<Vec<Due>, StoreError> {
        let Some(rows) = self.tables.rows(queue)? else { return Ok(Vec::new()) };
        let owner = self.tables.view().owner(queue)?;
        if self.tables.view().name(&owner)? != Some(queue) {
            return Err(StoreError::Damaged("a queue has lost its name"));
        }
        let mut due = Vec::new();
        rows.scan(rows.row.ends.map_or(Seq::ZERO, |ends| ends.first.seq), &mut |found| {
            if found.is_live(now) || due.len() >= max {
                return ControlFlow::Break(());
            }
            let ItemRow { id, seq, payload_bytes, .. } = found;
            due.push(Due { recipient: owner.clone(), id, seq, payload_bytes });
            ControlFlow::Continue(())
        })?;
        Ok(due)
    }
}

impl ReadTx for Batch<'_> {
    type Error = StoreError;
    type Item = ItemRow;

    fn usage(&self, recipient: &Recipient) -> Result<Usage, StoreError> {
        self.reading().usage(recipient)
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<Trace>, StoreError> {
        self.reading().locate(recipient, id)
    }

    fn scan(
        &self,
        recipient: &Recipient,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.reading().scan(recipient, from, visit)
    }

    fn last_deadline(&self, recipient: &Recipient) -> Result<Option<Timestamp>, StoreError> {
        self.reading().last_deadline(recipient)
    }

    fn has_payload(&self, recipient: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, StoreError> {
        match self.ahead {
            Ahead::Compared(known, is_same) if known == seq => Ok(is_same),
            _ => self.reading().has_payload(recipient, seq, payload),
        }
    }

    fn items_from(&self, recipient: &Recipient, from: Seq) -> Result<u64, StoreError> {
        self.reading().items_from(recipient, from)
    }

    fn front(&self, recipient: &Recipient, now: Timestamp) -> Result<Front, StoreError> {
        self.reading().front(recipient, now)
    }
}

impl WriteTx for Batch<'_> {
    fn next_seq(&mut self) -> Result<Seq, StoreError> {
        Ok(self.tables.next_seq())
    }

    fn insert(&mut self, recipient: &Recipient, item: Item<Bytes>) -> Result<(), StoreError> {
        self.record_removed()?;
        let queue = match self.tables.find(recipient)? {
            Some((queue, _)) => queue,
            None => self.tables.next_queue(),
        };
        self.pending.push((item.seq, item.body.clone()));
        if let Ahead::Written(location) = std::mem::take(&mut self.ahead) {
            let record = payload::record(queue, recipient, &item, location);
            self.records.append(kind::PUSHED_ASIDE, &record, Bytes::new());
            return self.add_item(queue, recipient, &item, location);
        }
        let head = record::item_head(queue, recipient, &item);
        let location = self.records.append(kind::PUSHED, &head, item.body.clone());
        self.add_item(queue, recipient, &item, location)
    }

    fn remove(&mut self, recipient: &Recipient, id: ItemId, seq: Seq) -> Result<(), StoreError> {
        let queue = self.queue_of(recipient)?;
        if self.removed.queue != queue {
            self.record_removed()?;
            self.removed.queue = queue;
        }
        let taken = self.tables.take_item(queue, seq)?;
        if taken.is_none_or(|taken| taken.id != id) {
            return Err(StoreError::Damaged("an item to remove is not there"));
        }
        self.removed.items.push((seq, None));
        Ok(())
    }

    fn remember_acked(
        &mut self,
        recipient: &Recipient,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let queue = self.queue_of(recipient)?;
        match self.removed.items.last_mut() {
            Some(last) if self.removed.queue == queue => {
                last.1 = Some(until);
                self.removed.slot_ms = self.slot_ms;
            }
            _ => return Err(StoreError::Damaged("only what was just removed can be remembered")),
        }
        self.tables.remember(queue, id, until, self.slot_ms)
    }

    fn set_usage(&mut self, recipient: &Recipient, usage: Usage) -> Result<(), StoreError> {
        let Some((queue, row)) = self.tables.find(recipient)? else {
            return Err(StoreError::Damaged("a queue to change is not there"));
        };
        // The tables count on their own, since a replay has nobody who tells them.
        if row.usage != usage {
            return Err(StoreError::Damaged("a queue's usage is not what it should be"));
        }
        self.record_removed()?;
        self.drop_if_forgettable(queue)
    }

    fn due(&mut self, now: Timestamp, max: usize) -> Result<DueItems, StoreError> {
        let mut found = DueItems { items: Vec::new(), more: false };
        let mut first = None;
        for row in self.tables.view().range(&self.marks.due, &Key::due_end(now))? {
            let key = row?.0;
            first.get_or_insert(key);
            let room = max.saturating_sub(found.items.len());
            if room == 0 {
                found.more = true;
                break;
            }
            let Ok(ParsedKey::Due(_, queue)) = key.parse() else { continue };
            match self.due_of(queue, now, room) {
                Ok(due) => {
                    found.more |= due.len() >= room;
                    found.items.extend(due);
                }
                // It must not keep the sweep from all others.
                Err(StoreError::Damaged(what)) => tracing::error!(what, "the sweep passes a queue over"),
                Err(error) => return Err(error),
            }
        }
        self.marks.due = first.unwrap_or(self.marks.due);
        Ok(found)
    }

    /// The names that are over lie in slots that have begun. The last of these, or two, hold some that are not over.
    fn forget_acked(&mut self, now: Timestamp, max: usize) -> Result<Forgotten, StoreError> {
        let end = Key::acked_end(now);
        let mut marks = self.marks;
        let mut over = Vec::new();
        let mut more = false;
        for (seen, row) in self.tables.view().range(&marks.acked_next, &end)?.enumerate() {
            let (key, value) = row?;
            if over.len() >= max || seen >= max.saturating_mul(SEEN_PER_FORGOTTEN) {
                (marks.acked_next, more) = (key, true);
                break;
            }
            if is_over(&value, now)? {
                over.push(key);
            } else {
                marks.acked_left.get_or_insert(key);
            }
        }
        if !more {
            marks.acked = marks.acked_left.take().unwrap_or(end);
            marks.acked_next = marks.acked;
        }
        if let (Some(&first), Some(&last)) = (over.first(), over.last()) {
            self.records.append(kind::FORGOTTEN, &NamesRecord { now, first, last }.encode(), Bytes::new());
            for queue in self.tables.forget(&first, &last, now, |_| true)? {
                match self.drop_if_forgettable(queue) {
                    Err(StoreError::Damaged(what)) => {
                        tracing::error!(what, "a queue that holds nothing stays");
                    }
                    dropped => dropped?,
                }
            }
        }
        self.marks = marks;
        Ok(Forgotten { names: over.len(), more })
    }
}
