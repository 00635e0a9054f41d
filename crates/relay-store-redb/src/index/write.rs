//! Writes the rows of a memtable to the tables of the index, and counts how much they grow.

use std::collections::BTreeMap;

use redb::WriteTransaction;

use crate::error::StoreError;
use crate::format::{self, Key, LiveCount};
use crate::index::snapshot::IndexSnapshot;
use crate::io::throttle::IoThrottle;
use crate::memtable::Memtable;

/// The length of a value in the table of recipients.
pub(super) const RECIPIENT_VALUE_BYTES: usize = 12;

/// Writes the rows and the recipients of a memtable that pass the filters. Returns by how many
/// bytes the keys and values of the index grow.
pub(super) fn write_memtable(
    tx: &WriteTransaction,
    throttle: &IoThrottle,
    memtable: &Memtable,
    row_filter: impl Fn(&Key) -> bool,
    recipient_filter: impl Fn(&str) -> bool,
) -> Result<i64, StoreError> {
    let mut growth_bytes = 0;
    let mut rows = tx.open_table(format::ROWS)?;
    for (key, value) in memtable.rows.in_order().filter(|(key, _)| row_filter(key)) {
        throttle.yield_core();
        let (key_bytes, value) =
            (key.bytes(), value.map(|value| IndexSnapshot::with_checksum(&key, &value.bytes())));
        let old = match &value {
            Some(value) => rows.insert(&*key_bytes, value.as_slice())?,
            None => rows.remove(&*key_bytes)?,
        };
        let (new_bytes, old_bytes) = (value.map(|value| value.len()), old.map(|old| old.value().len()));
        growth_bytes += growth(key_bytes.len(), new_bytes, old_bytes);
    }
    let mut recipients = tx.open_table(format::RECIPIENTS)?;
    for (recipient, queue) in &memtable.recipients {
        let name = recipient.as_str();
        if !recipient_filter(name) {
            continue;
        }
        throttle.yield_core();
        let old = match queue {
            Some(queue) => recipients.insert(name, (*queue, format::name_checksum(name, *queue)))?,
            None => recipients.remove(name)?,
        };
        let (new_bytes, old_bytes) =
            (queue.map(|_| RECIPIENT_VALUE_BYTES), old.map(|_| RECIPIENT_VALUE_BYTES));
        growth_bytes += growth(name.len(), new_bytes, old_bytes);
    }
    Ok(growth_bytes)
}

/// Removes rows. Returns by how many bytes the index grows, which is not positive.
pub(super) fn remove_rows(
    tx: &WriteTransaction,
    throttle: &IoThrottle,
    keys: &[Key],
) -> Result<i64, StoreError> {
    let (mut rows, mut growth_bytes) = (tx.open_table(format::ROWS)?, 0);
    for key in keys {
        throttle.yield_core();
        let key = key.bytes();
        let old = rows.remove(&*key)?;
        growth_bytes += growth(key.len(), None, old.map(|old| old.value().len()));
    }
    Ok(growth_bytes)
}

/// By how many bytes a row grows when its value changes its length. `None`: there is no row.
fn growth(key_bytes: usize, new_bytes: Option<usize>, old_bytes: Option<usize>) -> i64 {
    let row_bytes = |value_bytes: Option<usize>| value_bytes.map_or(0, |bytes| (key_bytes + bytes) as i64);
    row_bytes(new_bytes) - row_bytes(old_bytes)
}

/// Applies the changes of the memtable to the table of segments. Returns all segments after it.
pub(super) fn write_segments(
    tx: &WriteTransaction,
    mut segments: BTreeMap<u32, LiveCount>,
    memtable: &Memtable,
) -> Result<BTreeMap<u32, LiveCount>, StoreError> {
    let mut table = tx.open_table(format::SEGMENTS)?;
    for (segment, change) in &memtable.segments {
        let live = segments.remove(segment).unwrap_or_default().changed(*change);
        if live.items == 0 {
            table.remove(segment)?;
        } else {
            table.insert(segment, (live.items, live.bytes))?;
            segments.insert(*segment, live);
        }
    }
    Ok(segments)
}
