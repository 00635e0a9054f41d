//! One queue: its owner, its name, its row, the rows of its items, and the records that these lead
//! to.

use std::ops::ControlFlow;

use relay_core::verify::{Findings, InspectQueue, Names, recount_queue};
use relay_core::{ItemId, ItemStatus, Recipient, Seq, Timestamp, Usage};
use relay_journal::{Frame, ReadError};

use crate::admin::verify::{Counted, contain};
use crate::error::StoreError;
use crate::format::Change;
use crate::format::record::Owner;
use crate::format::{
    self, APART_FROM_ITEMS, BLOCK_ITEMS, End, Ends, ItemRow, Items, Key, ParsedKey, Positions,
    SPILLED_UNTIL_ITEMS,
};
use crate::io::payload;
use crate::txn::read::Reading;
use crate::version::queue_reader::QueueRows;

/// How many bytes of records are read together, unless one alone is longer, and of how many items.
const READ_TOGETHER_BYTES: u64 = 4 * 1024 * 1024;
const READ_TOGETHER_ITEMS: usize = 256;

/// The most that is listed of one queue, so that it does not hide others.
const FINDINGS_MAX: usize = 100;

pub(super) fn check(
    reading: &Reading<'_>,
    rows: &QueueRows<'_>,
    counted: &mut Counted,
    now: &dyn Fn() -> Timestamp,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let (queue, name) = (rows.queue, format!("queue number {}", rows.queue));
    let mut wrong = Findings::new(FINDINGS_MAX);
    let owner = check_owner(rows, &mut wrong)?;
    let mut walk = Walk::new(reading, rows, owner.as_ref(), counted);
    contain(&name, &mut wrong, &mut |wrong| walk.run(rows, wrong))?;
    let blocks = walk.blocks;
    contain(&name, &mut wrong, &mut |wrong| check_blocks(rows, &blocks, wrong))?;
    let mut acked = 0;
    contain(&name, &mut wrong, &mut |wrong| check_acked(rows, now, &mut acked, wrong))?;
    contain(&name, &mut wrong, &mut |wrong| check_due(rows, wrong))?;
    contain(&name, &mut wrong, &mut |wrong| {
        recount_queue(queue, &Shown { rows, acked, due: due(rows)? }, wrong)
    })?;
    findings.absorb(wrong);
    Ok(())
}

/// Whose queue it is, if that can be read. His name must lead to it.
fn check_owner(rows: &QueueRows<'_>, wrong: &mut Findings) -> Result<Option<Recipient>, StoreError> {
    let (view, queue) = (rows.view, rows.queue);
    let owner = match view.owner(queue) {
        Err(StoreError::Corrupted(what)) => {
            wrong.add(format!("queue number {queue}: it cannot be told whose it is: {what}"));
            return Ok(None);
        }
        owner => owner?,
    };
    match view.queue_number(&owner) {
        Ok(Some(named)) if named == queue => {}
        Ok(_) => wrong.add(format!("queue number {queue}: the name of its owner does not lead to it")),
        Err(StoreError::Corrupted(what)) => wrong.add(format!("queue number {queue}: {what}")),
        Err(error) => return Err(error),
    }
    Ok(Some(owner))
}

/// When the sweep looks at it, if that is when its first item expires.
fn due(rows: &QueueRows<'_>) -> Result<Option<Timestamp>, StoreError> {
    let Some(ends) = rows.row.ends else { return Ok(None) };
    let deadline = ends.first.deadline;
    Ok(rows.view.get(&Key::due(deadline, rows.queue))?.map(|_| deadline))
}

/// One that holds nothing is looked at when its last acked name is over.
fn check_due(rows: &QueueRows<'_>, wrong: &mut Findings) -> Result<(), StoreError> {
    let due = rows.row.due().filter(|_| rows.row.ends.is_none());
    if let Some(due) = due
        && rows.view.get(&Key::due(due, rows.queue))?.is_none()
    {
        wrong.add(format!("queue number {}: the sweep would never forget it", rows.queue));
    }
    Ok(())
}

/// Goes along the items, in order.
struct Walk<'a> {
    reading: &'a Reading<'a>,
    queue: u64,
    owner: Option<&'a Recipient>,
    counted: &'a mut Counted,
    first: Option<End>,
    last: Option<End>,
    items: u64,
    is_spilled: bool,
    last_place: Option<u64>,
    is_in_place: bool,
    /// What is in each block that has something.
    blocks: Vec<(u64, Usage)>,
    /// Whose records are read next.
    page: Vec<ItemRow>,
    page_bytes: u64,
}

impl<'a> Walk<'a> {
    fn new(
        reading: &'a Reading<'a>,
        rows: &QueueRows<'_>,
        owner: Option<&'a Recipient>,
        counted: &'a mut Counted,
    ) -> Self {
        Self {
            reading,
            queue: rows.queue,
            owner,
            counted,
            first: None,
            last: None,
            items: 0,
            is_spilled: rows.row.inline().is_none(),
            last_place: None,
            is_in_place: true,
            blocks: Vec::new(),
            page: Vec::new(),
            page_bytes: 0,
        }
    }

    fn run(&mut self, rows: &QueueRows<'_>, wrong: &mut Findings) -> Result<(), StoreError> {
        rows.scan(Seq::ZERO, &mut |item| {
            self.count(&item);
            self.take(item, wrong);
            ControlFlow::Continue(())
        })?;
        self.check_records(wrong);
        self.check_row(rows, wrong);
        Ok(())
    }

    fn count(&mut self, item: &ItemRow) {
        self.counted.note(item);
        self.items += 1;
        self.first.get_or_insert(item.as_end());
        self.last = Some(item.as_end());
        if !self.is_spilled {
            return;
        }
        self.is_in_place &= self.last_place.is_none_or(|last| last < item.position);
        self.last_place = Some(item.position);
        let (block, usage) = (item.position / BLOCK_ITEMS, Usage::of(item.payload_bytes));
        match self.blocks.last_mut() {
            Some((last, sum)) if *last == block => *sum = sum.plus(usage),
            _ => self.blocks.push((block, usage)),
        }
    }

    fn take(&mut self, item: ItemRow, wrong: &mut Findings) {
        let bytes = u64::from(item.location.length);
        if self.page.len() >= READ_TOGETHER_ITEMS || self.page_bytes + bytes > READ_TOGETHER_BYTES {
            self.check_records(wrong);
        }
        self.page_bytes += bytes;
        self.page.push(item);
    }

    /// Reads the records of some items, and so checks their checksums.
    fn check_records(&mut self, wrong: &mut Findings) {
        self.page_bytes = 0;
        let page = std::mem::take(&mut self.page);
        let locations: Vec<_> = page.iter().map(|row| row.location).collect();
        for (item, frame) in page.into_iter().zip(self.reading.journal.read(&locations)) {
            let seq = item.seq.as_u64();
            if let Err(what) = self.check_record(item, frame) {
                wrong.add(format!("queue number {}, item {seq}: {what}", self.queue));
            }
        }
    }

    fn check_record(&self, row: ItemRow, frame: Result<Frame, ReadError>) -> Result<(), String> {
        let frame = frame.map_err(|error| StoreError::from(error).to_string())?;
        // Without an owner there is nobody to compare it with.
        let Some(recipient) = self.owner else { return Ok(()) };
        let owner = Owner { queue: self.queue, recipient };
        let (deadline, payload_bytes) = (row.deadline, row.payload_bytes);
        let item = payload::item_of_frame(frame, owner, row, &mut None).map_err(|error| error.to_string())?;
        if item.body.len() as u64 != payload_bytes {
            return Err(format!("its payload has {} bytes", item.body.len()));
        }
        // It may be later: an item that damage has brought back holds those behind it.
        if deadline < item.deadline {
            return Err("it expires earlier than its record says".to_owned());
        }
        Ok(())
    }

    /// Compares what was found with what the row of the queue says.
    fn check_row(&self, rows: &QueueRows<'_>, wrong: &mut Findings) {
        let queue = self.queue;
        let ends = self.first.zip(self.last).map(|(first, last)| Ends { first, last });
        if ends != rows.row.ends {
            wrong.add(format!("queue number {queue}: its ends are not where they are noted"));
        }
        let is_right = match rows.row.items {
            Items::Inline(_) => self.items <= APART_FROM_ITEMS as u64,
            Items::Spilled(_) => self.items > SPILLED_UNTIL_ITEMS,
        };
        if !is_right {
            wrong.add(format!("queue number {queue}: items have rows where they need none, or have none"));
        }
        if let Items::Spilled(Positions { next, .. }) = rows.row.items
            && (!self.is_in_place || self.last_place.is_some_and(|last| last >= next))
        {
            wrong.add(format!("queue number {queue}: positions are out of order"));
        }
    }
}

/// Checks the counts of the blocks. Of a queue whose items are in its row there are none, which is
/// seen where rows are.
fn check_blocks(
    rows: &QueueRows<'_>,
    counted: &[(u64, Usage)],
    wrong: &mut Findings,
) -> Result<(), StoreError> {
    let Items::Spilled(Positions { next, open_block }) = rows.row.items else { return Ok(()) };
    let mut noted = Vec::new();
    for block in rows.view.range(&Key::block(rows.queue, 0), &Key::block(rows.queue, u64::MAX))? {
        let (key, value) = block?;
        if let ParsedKey::Block(_, block) = key.parse()? {
            noted.push((block, format::decode_usage(&value.bytes()?)?));
        }
    }
    noted.extend((!open_block.is_empty()).then_some((next / BLOCK_ITEMS, open_block)));
    if noted != counted {
        wrong.add(format!("queue number {}: its blocks are not counted right", rows.queue));
    }
    Ok(())
}

/// Counts the acked names, each of which must be found as such, and the last one be there. Where
/// none was ever remembered, none is looked for: one that is there all the same is seen where rows
/// are.
fn check_acked(
    rows: &QueueRows<'_>,
    now: &dyn Fn() -> Timestamp,
    acked: &mut u64,
    wrong: &mut Findings,
) -> Result<(), StoreError> {
    let (view, queue) = (rows.view, rows.queue);
    let has_names = rows.row.remembers_until > Timestamp::default();
    let slots = if has_names { view.acked.all_slots() } else { Vec::new() };
    let mut is_last_there = false;
    for slot in slots {
        let (from, to) = (Key::acked_of(slot, queue), Key::acked_of(slot, queue.saturating_add(1)));
        for name in view.range(&from, &to)? {
            let (key, value) = name?;
            let ParsedKey::Acked(.., id) = key.parse()? else { continue };
            *acked += 1;
            let until = format::decode_until(&value.bytes()?)?;
            is_last_there |= until == rows.row.remembers_until;
            let found = view.read_acked(queue, id)?;
            // One that is over may be forgotten by now.
            let is_found = found == Some((key, until)) || until <= now();
            if rows.find(id)?.is_some() || !is_found {
                wrong.add(format!("queue number {queue}: an acked name is not found as such"));
            }
        }
    }
    if !is_last_there && rows.row.remembers_until > now() {
        wrong.add(format!("queue number {queue}: the last acked name that it remembers is missing"));
    }
    Ok(())
}

/// The queue as relay-core looks at it. It is found by its number: its name may be damaged.
struct Shown<'a> {
    rows: &'a QueueRows<'a>,
    acked: u64,
    due: Option<Timestamp>,
}

impl InspectQueue for Shown<'_> {
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
}

impl Counted {
    fn note(&mut self, item: &ItemRow) {
        self.seqs.note(item.seq);
        self.largest.seq = self.largest.seq.max(item.seq);
        let segment = item.location.segment;
        let left = self.segments.entry(segment).or_default();
        *left = left.plus(Change::removed(item.location));
        if *left == Change::default() {
            self.segments.remove(&segment);
        }
    }
}
