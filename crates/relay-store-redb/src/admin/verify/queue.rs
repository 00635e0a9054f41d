//! Checks one queue: its owner, its row, the rows of its items, and the records that they refer to.

use std::ops::ControlFlow;

use relay_core::verify::{Findings, InspectQueue, Names, recount_queue};
use relay_core::{ItemId, ItemStatus, Recipient, Seq, Timestamp, Usage};
use relay_journal::{Frame, ReadError};

use crate::admin::scan;
use crate::admin::verify::{Counted, run_check};
use crate::error::StoreError;
use crate::format::record::Owner;
use crate::format::{
    self, BLOCK_ITEMS, Ends, INLINE_AGAIN_ITEMS, ItemRow, Items, Key, LiveChange, ParsedKey, Positions,
    SPILL_FROM_ITEMS,
};
use crate::io::payload;
use crate::txn::read::ReadTxn;
use crate::version::queue_reader::QueueRows;

/// The most findings that are listed for one queue, so that it does not hide others.
const FINDINGS_MAX: usize = 100;

pub(super) fn check(
    txn: &ReadTxn<'_>,
    rows: &QueueRows<'_>,
    counted: &mut Counted<'_>,
    now: &dyn Fn() -> Timestamp,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let (queue, what) = (rows.queue, format!("queue number {}", rows.queue));
    let mut wrong = Findings::new(FINDINGS_MAX);
    let owner = check_owner(rows, &mut wrong)?;
    let mut items = ItemsCheck {
        txn,
        rows,
        owner: owner.as_ref(),
        counted,
        ends: None,
        items: 0,
        last_position: None,
        is_in_order: true,
        blocks: Vec::new(),
        early: Early::default(),
    };
    run_check(&what, &mut wrong, &mut |wrong| items.run(wrong))?;
    let (blocks, early) = (items.blocks, items.early);
    run_check(&what, &mut wrong, &mut |wrong| check_blocks(rows, &blocks, wrong))?;
    run_check(&what, &mut wrong, &mut |wrong| check_early(rows, &early, wrong))?;
    run_check(&what, &mut wrong, &mut |wrong| check_floor(rows, wrong))?;
    let mut acked = 0;
    run_check(&what, &mut wrong, &mut |wrong| check_acked(rows, now, &mut acked, wrong))?;
    run_check(&what, &mut wrong, &mut |wrong| check_due(rows, wrong))?;
    run_check(&what, &mut wrong, &mut |wrong| {
        recount_queue(queue, &InspectedQueue { rows, acked, due: due(rows)? }, wrong)
    })?;
    findings.absorb(wrong);
    Ok(())
}

/// Reads the owner, if it is readable, and checks that it leads back to the queue.
fn check_owner(rows: &QueueRows<'_>, wrong: &mut Findings) -> Result<Option<Recipient>, StoreError> {
    let (view, queue) = (rows.view, rows.queue);
    let owner = match view.owner(queue) {
        Err(StoreError::Corrupted(what)) => {
            wrong.add(format!("queue number {queue}: its owner is unknown: {what}"));
            return Ok(None);
        }
        owner => owner?,
    };
    match view.queue_number(&owner) {
        Ok(Some(found)) if found == queue => {}
        Ok(_) => wrong.add(format!("queue number {queue}: its owner does not lead to it")),
        Err(StoreError::Corrupted(what)) => wrong.add(format!("queue number {queue}: {what}")),
        Err(error) => return Err(error),
    }
    Ok(Some(owner))
}

/// When the sweep visits the queue, if that is because of its items.
fn due(rows: &QueueRows<'_>) -> Result<Option<Timestamp>, StoreError> {
    let Some(due) = rows.row.due().filter(|_| rows.row.ends.is_some()) else { return Ok(None) };
    Ok(rows.view.get(&Key::due(due, rows.queue))?.map(|_| due))
}

/// Checks that the sweep visits a queue without items when its last acked item id expires.
fn check_due(rows: &QueueRows<'_>, wrong: &mut Findings) -> Result<(), StoreError> {
    let due = rows.row.due().filter(|_| rows.row.ends.is_none());
    if let Some(due) = due
        && rows.view.get(&Key::due(due, rows.queue))?.is_none()
    {
        wrong.add(format!("queue number {}: the sweep would never forget it", rows.queue));
    }
    Ok(())
}

/// Checks all items of a queue, in arrival order.
struct ItemsCheck<'a, 'w> {
    txn: &'a ReadTxn<'a>,
    rows: &'a QueueRows<'a>,
    owner: Option<&'a Recipient>,
    counted: &'a mut Counted<'w>,
    ends: Option<Ends>,
    items: u64,
    last_position: Option<u64>,
    is_in_order: bool,
    /// The usage of each block that is not empty.
    blocks: Vec<(u64, Usage)>,
    early: Early,
}

/// The items that expire before one in front of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Early {
    usage: Usage,
    /// The sum of all deadlines and of all seqs, modulo 2^64.
    sums: (u64, u64),
    from: Option<Timestamp>,
}

impl Early {
    fn add(&mut self, deadline: Timestamp, seq: Seq, payload_bytes: u64) {
        self.usage = self.usage.plus(Usage::of(payload_bytes));
        self.sums.0 = self.sums.0.wrapping_add(deadline.as_ms());
        self.sums.1 = self.sums.1.wrapping_add(seq.as_u64());
        self.from = Some(self.from.map_or(deadline, |from| from.min(deadline)));
    }
}

impl ItemsCheck<'_, '_> {
    fn run(&mut self, wrong: &mut Findings) -> Result<(), StoreError> {
        let mut flow = ControlFlow::Continue(());
        scan::each_record(self.txn, self.rows, Seq::ZERO, &mut |row, frame| {
            flow = self.counted.next_item();
            self.count(&row);
            let seq = row.seq.as_u64();
            if let Err(what) = self.check_record(row, frame) {
                wrong.add(format!("queue number {}, item {seq}: {what}", self.rows.queue));
            }
            flow
        })?;
        if flow.is_break() {
            return Err(StoreError::Stopped);
        }
        self.check_row(wrong);
        Ok(())
    }

    fn count(&mut self, item: &ItemRow) {
        self.counted.add(item);
        self.items += 1;
        if item.is_early() {
            self.early.add(item.deadline, item.seq, item.payload_bytes);
        }
        let end = item.as_end();
        self.ends.get_or_insert(Ends { first: end, last: end }).last = end;
        if self.rows.row.inline().is_some() {
            return;
        }
        self.is_in_order &= self.last_position.is_none_or(|last| last < item.position);
        self.last_position = Some(item.position);
        let (block, usage) = (item.position / BLOCK_ITEMS, Usage::of(item.payload_bytes));
        match self.blocks.last_mut() {
            Some((last, sum)) if *last == block => *sum = sum.plus(usage),
            _ => self.blocks.push((block, usage)),
        }
    }

    fn check_record(&self, row: ItemRow, frame: Result<Frame, ReadError>) -> Result<(), String> {
        let frame = frame.map_err(|error| StoreError::from(error).to_string())?;
        // A record can only be compared with a known owner.
        let Some(recipient) = self.owner else { return Ok(()) };
        let owner = Owner { queue: self.rows.queue, recipient };
        let (deadline, payload_bytes) = (row.deadline, row.payload_bytes);
        let item = payload::item_of_frame(frame, owner, row, &mut None).map_err(|error| error.to_string())?;
        if item.body.len() as u64 != payload_bytes {
            return Err(format!("its payload has {} bytes, not {payload_bytes}", item.body.len()));
        }
        if deadline != item.deadline {
            return Err("it expires at another time than its record says".to_owned());
        }
        Ok(())
    }

    /// Compares the items with the row of the queue.
    fn check_row(&self, wrong: &mut Findings) {
        let row = &self.rows.row;
        let mut add = |what: &str| wrong.add(format!("queue number {}: {what}", self.rows.queue));
        if self.ends != row.ends {
            add("its first or last item is not the one in its row");
        }
        match row.items {
            Items::Inline(_) if self.items > SPILL_FROM_ITEMS as u64 => add("it has too many inline items"),
            Items::Spilled(_) if self.items <= INLINE_AGAIN_ITEMS && row.floor.is_none() => {
                add("it is spilled with too few items");
            }
            _ => {}
        }
        if let Items::Spilled(Positions { next, .. }) = row.items
            && (!self.is_in_order || self.last_position.is_some_and(|last| last >= next))
        {
            add("the positions of its items are out of order");
        }
    }
}

/// Checks the counts of the blocks. A queue with inline items has no blocks; the check of the rows
/// reports any that exist.
fn check_blocks(
    rows: &QueueRows<'_>,
    counted: &[(u64, Usage)],
    wrong: &mut Findings,
) -> Result<(), StoreError> {
    let Items::Spilled(Positions { next, open_block }) = rows.row.items else { return Ok(()) };
    let mut recorded = Vec::new();
    for block in rows.view.range(&Key::block(rows.queue, 0), &Key::block(rows.queue, u64::MAX))? {
        let (key, value) = block?;
        if let ParsedKey::Block(_, block) = key.parse()? {
            recorded.push((block, format::decode_usage(&value.bytes()?)?));
        }
    }
    recorded.extend((!open_block.is_empty()).then_some((next / BLOCK_ITEMS, open_block)));
    if recorded != counted {
        wrong.add(format!("queue number {}: its block counts are wrong", rows.queue));
    }
    Ok(())
}

/// Checks the rows of the items that expire before one in front of them, and when the first of them
/// does. Rows of items in front of the first one are dead.
fn check_early(rows: &QueueRows<'_>, counted: &Early, wrong: &mut Findings) -> Result<(), StoreError> {
    let (queue, early_from) = (rows.queue, rows.row.early_from);
    if rows.row.inline().is_none() {
        let mut recorded = Early::default();
        for row in rows.view.range(&Key::early_start(queue), &Key::rows_end(queue))? {
            let (key, value) = row?;
            if let ParsedKey::Early(_, deadline, seq) = key.parse()?
                && seq >= rows.first()
            {
                recorded.add(deadline, seq, format::decode_payload_bytes(&value.bytes()?)?);
            }
        }
        if recorded != *counted {
            wrong.add(format!("queue number {queue}: its rows of items that expire early are wrong"));
        }
    }
    if counted.from.is_some_and(|from| early_from.is_none_or(|early| early > from)) {
        wrong.add(format!("queue number {queue}: the sweep would miss items that expire early"));
    }
    Ok(())
}

/// Checks what is left of the floor, and that the writer finds it after a start.
fn check_floor(rows: &QueueRows<'_>, wrong: &mut Findings) -> Result<(), StoreError> {
    let Some(floor) = rows.row.floor else { return Ok(()) };
    let queue = rows.queue;
    if rows.view.get(&Key::floor(queue))?.is_none() {
        wrong.add(format!("queue number {queue}: the items below its floor would never be removed"));
    }
    if rows.counted_through(floor.through)? != floor.left {
        wrong.add(format!("queue number {queue}: what is left of its floor is not what its row says"));
    }
    Ok(())
}

/// Counts the acked item ids, and checks that lookups find each of them, and that the last one is
/// there. If the queue never remembered any, it looks for none; the check of the rows reports any
/// that exist.
fn check_acked(
    rows: &QueueRows<'_>,
    now: &dyn Fn() -> Timestamp,
    acked: &mut u64,
    wrong: &mut Findings,
) -> Result<(), StoreError> {
    let (view, queue) = (rows.view, rows.queue);
    let has_acked = rows.row.remembers_until > Timestamp::default();
    let slots = if has_acked { view.acked.all_slots() } else { Vec::new() };
    let mut has_last = false;
    for slot in slots {
        let (from, to) = (Key::acked_of(slot, queue), Key::acked_of(slot, queue.saturating_add(1)));
        for row in view.range(&from, &to)? {
            let (key, value) = row?;
            let ParsedKey::Acked(.., id) = key.parse()? else { continue };
            *acked += 1;
            let until = format::decode_until(&value.bytes()?)?;
            has_last |= until == rows.row.remembers_until;
            let found = view.read_acked(queue, id)?;
            // The sweep may have forgotten an expired one.
            let is_found = found == Some((key, until)) || until <= now();
            if rows.find(id)?.is_some() || !is_found {
                wrong.add(format!("queue number {queue}: an acked item id is not found as acked"));
            }
        }
    }
    // The last one may be below the floor.
    let is_below = rows.row.floor.is_some_and(|floor| floor.until == Some(rows.row.remembers_until));
    if !has_last && !is_below && rows.row.remembers_until > now() {
        wrong.add(format!("queue number {queue}: the last acked item id that it remembers is missing"));
    }
    Ok(())
}

/// A queue as relay-core checks it, found by its number because its recipient may be corrupt.
struct InspectedQueue<'a> {
    rows: &'a QueueRows<'a>,
    acked: u64,
    due: Option<Timestamp>,
}

impl InspectQueue for InspectedQueue<'_> {
    type Error = StoreError;
    type Item = ItemRow;

    fn usage(&self) -> Result<Usage, StoreError> {
        Ok(self.rows.row.usage)
    }

    fn scan(&self, visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.rows.scan(Seq::ZERO, visit)
    }

    fn locate(&self, id: ItemId) -> Result<Option<ItemStatus>, StoreError> {
        let found = self.rows.find(id)?;
        Ok(found.map(|ItemRow { seq, deadline, payload_bytes, .. }| ItemStatus::Queued {
            seq,
            deadline,
            payload_bytes,
        }))
    }

    fn names(&self) -> Result<Names, StoreError> {
        let (rows, acked) = (self.rows, self.acked);
        if let Some(items) = rows.row.inline() {
            return Ok(Names { queued: items.len() as u64, acked });
        }
        let has_dead = rows.view.get(&Key::dead(rows.queue))?.is_some();
        let mut queued = 0;
        for row in rows.view.range(&Key::items_end(rows.queue), &Key::by_id_end(rows.queue))? {
            let is_dead = has_dead && format::decode_seq(&row?.1.bytes()?)? < rows.first();
            queued += u64::from(!is_dead);
        }
        Ok(Names { queued, acked })
    }

    fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// [`check_due`] shows that the sweep finds it.
    fn is_left_to_sweep(&self) -> bool {
        self.rows.row.remembers_until > Timestamp::default()
    }
}

impl Counted<'_> {
    fn add(&mut self, item: &ItemRow) {
        self.seqs.note(item.seq);
        self.largest.seq = self.largest.seq.max(item.seq);
        let segment = item.location.segment;
        let left = self.segments.entry(segment).or_default();
        *left = left.plus(LiveChange::removed(item.location));
        if *left == LiveChange::default() {
            self.segments.remove(&segment);
        }
    }
}
