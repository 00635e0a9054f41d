//! Replays records: applies to the tables what the journal says was done. What cannot be applied, because of damage, is reported
//! and passed over, so that it takes nothing else with it.

use relay_journal::Frame;

use crate::error::StoreError;
use crate::payload;
use crate::record::{self, Forgotten, ItemRecord, Removed, kind};
use crate::tables::Tables;

/// Makes the changes of one batch of records. Adds to `findings` what could not be applied.
pub(crate) fn replay(
    tables: &mut Tables<'_>,
    frames: &[Frame],
    findings: &mut Vec<String>,
) -> Result<(), StoreError> {
    for frame in frames {
        let numbers = tables.savepoint();
        match apply(tables, frame) {
            Ok(()) => {}
            Err(StoreError::Damaged(what)) => {
                tables.rollback(numbers);
                let at = frame.location;
                findings.push(format!("segment {} at {}: not applied: {what}", at.segment, at.offset));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn apply(tables: &mut Tables<'_>, frame: &Frame) -> Result<(), StoreError> {
    match frame.kind {
        kind::PUSHED => {
            let found = ItemRecord::parse(&frame.body)?;
            tables.add_item(found.queue, || found.recipient(), found.row(frame.location)?)
        }
        kind::PUSHED_ASIDE => {
            let (found, location) = payload::parse_record(&frame.body)?;
            tables.add_item(found.queue, || found.recipient(), found.row(location)?)
        }
        kind::MOVED => {
            let found = ItemRecord::parse(&frame.body)?;
            tables.move_item(found.queue, found.seq, None, frame.location).map(drop)
        }
        kind::REMOVED => remove(tables, &Removed::parse(&frame.body)?),
        kind::FORGOTTEN => {
            let Forgotten { now, first, last } = Forgotten::parse(&frame.body)?;
            tables.forget(&first, &last, now).map(drop)
        }
        kind::DROPPED => tables.drop_if_forgettable(record::parse_dropped(&frame.body)?).map(drop),
        _ => Err(StoreError::Damaged("an unknown kind of record")),
    }
}

fn remove(tables: &mut Tables<'_>, removed: &Removed) -> Result<(), StoreError> {
    let queue = removed.queue;
    for &(seq, until) in &removed.items {
        let taken =
            tables.take_item(queue, seq)?.ok_or(StoreError::Damaged("an item to remove is not there"))?;
        if let Some(until) = until {
            tables.remember(queue, taken.id, until, removed.slot_ms)?;
        }
    }
    tables.settle(queue)
}
