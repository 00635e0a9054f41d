//! Recounts a store: what relay-core asks of every one, and what only this one has. It reads every row and every record.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use relay_core::verify::Inspect;
use relay_core::{ItemId, Recipient, Seq, Timestamp, Trace, Usage};

use crate::Contents;
use crate::base::Live;
use crate::error::{StoreError, caught};
use crate::payload;
use crate::read::{QueueRows, Reading};
use crate::record::Owner;
use crate::schema::{
    self, APART_FROM_ITEMS, APART_UNTIL_ITEMS, BLOCK_ITEMS, Ends, ItemRow, Items, Key, ParsedKey, Places,
    QueueRow,
};
use crate::view::{Value, View};

/// How many bytes of records are read together, unless one alone is longer.
const READ_TOGETHER_BYTES: u64 = 4 * 1024 * 1024;

/// Lists what does not add up. `segments` is what is noted of the live frames of each segment.
pub(crate) fn recount(
    reading: &Reading<'_>,
    segments: &BTreeMap<u32, Live>,
) -> Result<Vec<String>, StoreError> {
    let mut findings = or_damage(|| find_damaged_rows(reading))?;
    findings.extend(or_damage(|| relay_core::verify::recount(reading))?);
    findings.extend(or_damage(|| check_queues(reading, segments))?);
    Ok(findings)
}

fn check_queues(reading: &Reading<'_>, segments: &BTreeMap<u32, Live>) -> Result<Vec<String>, StoreError> {
    let mut findings = Vec::new();
    let mut counted = BTreeMap::<u32, Live>::new();
    for rows in queues(reading)? {
        let rows = rows?;
        let queue = rows.queue;
        let items = items(&rows)?;
        for item in &items {
            let live = counted.entry(item.location.segment).or_default();
            live.items += 1;
            live.bytes += u64::from(item.location.length);
        }
        findings.extend(check_ends(&rows, &items));
        findings.extend(or_damage(|| check_acked(&rows))?);
        findings.extend(or_damage(|| check_layout(&rows, &items))?);
        findings.extend(or_damage(|| check_places(&rows, &items))?);
        let recipient = reading.view.owner(queue)?;
        findings.extend(check_records(reading, Owner { queue, recipient: &recipient }, &items));
    }
    let noted = segments.iter().filter(|(_, live)| live.items > 0 || live.bytes > 0);
    let noted: BTreeMap<_, _> = noted.map(|(segment, live)| (*segment, *live)).collect();
    if noted != counted {
        findings.push(format!("live frames of the segments: {noted:?} are noted, {counted:?} exist"));
    }
    Ok(findings)
}

/// What a check has found, or the damage that it could not get past, which must not keep the others from looking.
fn or_damage(check: impl FnOnce() -> Result<Vec<String>, StoreError>) -> Result<Vec<String>, StoreError> {
    match caught(check) {
        Err(error @ (StoreError::Damaged(_) | StoreError::Panicked)) => {
            Ok(vec![format!("not checked to the end: {error}")])
        }
        checked => checked,
    }
}

/// The sum over all queues.
pub(crate) fn contents(reading: &Reading<'_>) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    for rows in queues(reading)? {
        let row = rows?.row;
        contents.queues += 1;
        contents.usage = contents.usage.plus(row.usage);
        contents.acked += row.acked;
    }
    Ok(contents)
}

/// Damaged rows are passed over by all others, so they are looked for first.
pub(crate) fn find_damaged_rows(reading: &Reading<'_>) -> Result<Vec<String>, StoreError> {
    let mut findings = Vec::new();
    for row in reading.view.range(&Key::start(), &Key::end())? {
        let wrong = match row {
            Ok((key, value)) => value.bytes().and_then(|value| check_row(&key, &value)).err(),
            Err(error) => Some(error),
        };
        match wrong {
            None => {}
            Some(StoreError::Damaged(what)) => findings.push(format!("the index: {what}")),
            Some(error) => return Err(error),
        }
    }
    Ok(findings)
}

fn check_row(key: &Key, value: &[u8]) -> Result<(), StoreError> {
    match key.parse()? {
        ParsedKey::Owner(_) => schema::decode_owner(value).map(drop),
        ParsedKey::Queue(_) => QueueRow::decode(value).map(drop),
        ParsedKey::Item(_, seq) => ItemRow::decode(seq, value).map(drop),
        ParsedKey::Trace(..) => schema::decode_seq(value).map(drop),
        ParsedKey::Block(..) => schema::decode_usage(value).map(drop),
        ParsedKey::Acked(slot, ..) if schema::decode_until(value)? >= slot => Ok(()),
        ParsedKey::Acked(..) => Err(StoreError::Damaged("an acked name is over before its slot begins")),
        ParsedKey::Due(..) if value.is_empty() => Ok(()),
        ParsedKey::Due(..) => Err(StoreError::Damaged("a row has a value and needs none")),
    }
}

/// All queues whose row can be read.
pub(crate) fn queues<'a>(
    reading: &Reading<'a>,
) -> Result<impl Iterator<Item = Result<QueueRows<'a>, StoreError>> + use<'a>, StoreError> {
    let view = reading.view;
    let rows = view.range(&Key::queues_start(), &Key::queues_end())?;
    Ok(rows.filter_map(move |row| match row.and_then(|row| queue(view, &row)) {
        Err(StoreError::Damaged(_)) => None,
        queue => Some(queue),
    }))
}

fn queue<'a>(view: View<'a>, (key, value): &(Key, Value<'a>)) -> Result<QueueRows<'a>, StoreError> {
    Ok(QueueRows { view, queue: key.about(), row: value.queue()? })
}

fn items(rows: &QueueRows<'_>) -> Result<Vec<ItemRow>, StoreError> {
    let mut items = Vec::new();
    rows.scan(Seq::ZERO, &mut |row| {
        items.push(row);
        ControlFlow::Continue(())
    })?;
    Ok(items)
}

fn check_ends(rows: &QueueRows<'_>, items: &[ItemRow]) -> Option<String> {
    let wrong = Ends::of(items) != rows.row.ends;
    wrong.then(|| format!("queue number {}: its ends are not where they are noted", rows.queue))
}

/// Whether as many acked names are there as are noted, and each is found by its name.
fn check_acked(rows: &QueueRows<'_>) -> Result<Vec<String>, StoreError> {
    let (queue, acked) = (rows.queue, acked_of(rows)?);
    let mut wrong = Vec::new();
    if acked.len() as u64 != rows.row.acked {
        wrong.push(format!(
            "queue number {queue}: {} acked names are noted, {} exist",
            rows.row.acked,
            acked.len()
        ));
    }
    for (id, until) in acked {
        if rows.find(id)?.is_some()
            || rows.view.read_acked(queue, id)?.is_none_or(|(_, found)| found != until)
        {
            wrong.push(format!("queue number {queue}: an acked name is not found as such"));
        }
    }
    Ok(wrong)
}

/// The acked names of a queue, slot by slot.
fn acked_of(rows: &QueueRows<'_>) -> Result<Vec<(ItemId, Timestamp)>, StoreError> {
    let mut acked = Vec::new();
    for slot in rows.view.acked.all_slots() {
        let (from, to) = (Key::acked_of(slot, rows.queue), Key::acked_of(slot, rows.queue.saturating_add(1)));
        for name in rows.view.range(&from, &to)? {
            let (key, value) = name?;
            if let ParsedKey::Acked(.., id) = key.parse()? {
                acked.push((id, schema::decode_until(&value.bytes()?)?));
            }
        }
    }
    Ok(acked)
}

/// Checks the places of the items, and the counts of their blocks.
fn check_places(rows: &QueueRows<'_>, items: &[ItemRow]) -> Result<Vec<String>, StoreError> {
    let queue = rows.queue;
    let mut wrong = Vec::new();
    let mut counted = Vec::new();
    if let Items::Apart(places) = rows.row.items {
        let in_order = items.is_sorted_by(|a, b| a.place < b.place);
        if !in_order || items.last().is_some_and(|last| last.place >= places.next) {
            wrong.push(format!("queue number {queue}: places are out of order"));
        }
        for block in items.chunk_by(|a, b| a.place / BLOCK_ITEMS == b.place / BLOCK_ITEMS) {
            let usage = block.iter().map(|row| Usage::of(row.payload_bytes)).sum();
            counted.extend(block.first().map(|row| (row.place / BLOCK_ITEMS, usage)));
        }
    }
    if noted_blocks(rows)? != counted {
        wrong.push(format!("queue number {queue}: its blocks are not counted right"));
    }
    Ok(wrong)
}

fn noted_blocks(rows: &QueueRows<'_>) -> Result<Vec<(u64, Usage)>, StoreError> {
    let mut noted = Vec::new();
    for block in rows.view.range(&Key::block(rows.queue, 0), &Key::block(rows.queue, u64::MAX))? {
        let (key, value) = block?;
        if let ParsedKey::Block(_, block) = key.parse()? {
            noted.push((block, schema::decode_usage(&value.bytes()?)?));
        }
    }
    if let Items::Apart(Places { next, open_block }) = rows.row.items {
        noted.extend((!open_block.is_empty()).then_some((next / BLOCK_ITEMS, open_block)));
    }
    Ok(noted)
}

/// Reads the record of every item, and so checks its checksums.
fn check_records(reading: &Reading<'_>, owner: Owner<'_>, items: &[ItemRow]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut together_bytes = 0;
    let is_together = |_: &ItemRow, next: &ItemRow| {
        let bytes = u64::from(next.location.length);
        let fits = together_bytes + bytes <= READ_TOGETHER_BYTES;
        together_bytes = if fits { together_bytes + bytes } else { bytes };
        fits
    };
    for items in items.chunk_by(is_together) {
        let locations: Vec<_> = items.iter().map(|row| row.location).collect();
        for (item, frame) in items.iter().zip(reading.journal.read(&locations)) {
            let payload = frame
                .map_err(StoreError::from)
                .and_then(|frame| payload::of_frame(frame, owner, item.seq, item.id));
            let what = match payload {
                Ok(payload) if payload.len() as u64 == item.payload_bytes => continue,
                Ok(payload) => format!("its payload has {} bytes", payload.len()),
                Err(error) => error.to_string(),
            };
            wrong.push(format!("queue number {}, item {}: {what}", owner.queue, item.seq.as_u64()));
        }
    }
    wrong
}

/// The names that lead to items: those of the items in the row, or those that have rows.
fn names(rows: &QueueRows<'_>) -> Result<Vec<ItemId>, StoreError> {
    match rows.row.here() {
        Some(items) => Ok(items.iter().map(|item| item.id).collect()),
        None => named(rows),
    }
}

/// The names that have rows.
fn named(rows: &QueueRows<'_>) -> Result<Vec<ItemId>, StoreError> {
    let mut names = Vec::new();
    for row in rows.view.range(&Key::items_end(rows.queue), &Key::traces_end(rows.queue))? {
        if let ParsedKey::Trace(_, id) = row?.0.parse()? {
            names.push(id);
        }
    }
    Ok(names)
}

/// Whether the items have rows where they should, and only there.
fn check_layout(rows: &QueueRows<'_>, items: &[ItemRow]) -> Result<Vec<String>, StoreError> {
    let is_right = match rows.row.here() {
        Some(items) => {
            let apart = rows.view.range(&Key::items_start(rows.queue), &Key::traces_end(rows.queue))?.next();
            items.len() <= APART_FROM_ITEMS && apart.is_none()
        }
        None => items.len() as u64 > APART_UNTIL_ITEMS,
    };
    let wrong = || format!("queue number {}: items have rows where they need none, or have none", rows.queue);
    Ok((!is_right).then(wrong).into_iter().collect())
}

impl Inspect for Reading<'_> {
    fn recipients(&self) -> Result<Vec<Recipient>, StoreError> {
        queues(self)?.map(|rows| self.view.owner(rows?.queue)).collect()
    }

    fn traces(&self, recipient: &Recipient) -> Result<Vec<(ItemId, Trace)>, StoreError> {
        let Some((queue, row)) = self.view.queue(recipient)? else { return Ok(Vec::new()) };
        let rows = QueueRows { view: self.view, queue, row };
        let mut traces = Vec::new();
        for id in names(&rows)? {
            if let Some(ItemRow { seq, deadline, payload_bytes, .. }) = rows.find(id)? {
                traces.push((id, Trace::Queued { seq, deadline, payload_bytes }));
            }
        }
        traces.extend(acked_of(&rows)?.into_iter().map(|(id, until)| (id, Trace::Acked { until })));
        Ok(traces)
    }

    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, StoreError> {
        let mut expiry = Vec::new();
        for row in self.view.range(&Key::due_start(), &Key::acked_start())? {
            if let ParsedKey::Due(at, queue) = row?.0.parse()? {
                expiry.push((at, self.view.owner(queue)?));
            }
        }
        Ok(expiry)
    }

    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, StoreError> {
        let mut expiry = Vec::new();
        for row in self.view.range(&Key::acked_start(), &Key::end())? {
            let (key, value) = row?;
            if let ParsedKey::Acked(_, queue, id) = key.parse()? {
                expiry.push((schema::decode_until(&value.bytes()?)?, self.view.owner(queue)?, id));
            }
        }
        Ok(expiry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_stumbles_over_is_a_finding_and_the_rest_an_error() {
        assert_eq!(
            or_damage(|| panic!()).unwrap(),
            [format!("not checked to the end: {}", StoreError::Panicked)]
        );
        let damaged = or_damage(|| Err(StoreError::Damaged("a row"))).unwrap();
        assert!(damaged.len() == 1 && damaged[0].contains("a row"), "{damaged:?}");
        assert!(or_damage(|| Err(StoreError::Full)).is_err());
    }
}
