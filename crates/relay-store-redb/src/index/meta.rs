//! The single numbers that the index stores about itself: how they are written, and its format.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableError, WriteTransaction};
use relay_journal::Position;

use crate::error::StoreError;
use crate::format::{self, Counters, LiveCount};

/// Which build wrote an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A build from before the first release.
    Earlier,
    /// A build that writes the format of this number; 0 if the index contains no number.
    Numbered(u64),
}

/// Reads the format of an index.
pub(super) fn format(db: &Database) -> Result<Format, StoreError> {
    let meta = match db.begin_read()?.open_table(format::META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Format::Numbered(0)),
        Err(error) => return Err(error.into()),
    };
    if let Some(number) = meta.get(format::META_FORMAT)? {
        return Ok(Format::Numbered(number.value()));
    }
    for earlier in format::META_EARLIER_FORMATS {
        if meta.get(earlier)?.is_some() {
            return Ok(Format::Earlier);
        }
    }
    Ok(Format::Numbered(0))
}

/// Creates the table, in an index whose rows have `rows_bytes` bytes.
pub(super) fn begin(tx: &WriteTransaction, rows_bytes: u64) -> Result<(), StoreError> {
    let mut meta = tx.open_table(format::META)?;
    meta.insert(format::META_FORMAT, format::FORMAT)?;
    meta.insert(format::META_ROWS_BYTES, rows_bytes)?;
    Ok(())
}

/// Adds `growth_bytes` to the stored size of the rows, or to `counted` if none is stored. If
/// neither is known, the size stays unknown.
pub(super) fn add_rows_bytes(
    tx: &WriteTransaction,
    counted: Option<u64>,
    growth_bytes: i64,
) -> Result<(), StoreError> {
    let mut meta = tx.open_table(format::META)?;
    let stored = meta.get(format::META_ROWS_BYTES)?.map(|stored| stored.value());
    if let Some(bytes) = stored.or(counted) {
        meta.insert(format::META_ROWS_BYTES, bytes.saturating_add_signed(growth_bytes))?;
    }
    Ok(())
}

/// Writes the numbers of a checkpoint with their checksum, and commits. `position` is where a
/// replay begins; `None` if the journal is still empty.
pub(super) fn commit(
    tx: WriteTransaction,
    numbers: Counters,
    position: Option<Position>,
    blobs_through: u32,
    segments: &BTreeMap<u32, LiveCount>,
) -> Result<(), StoreError> {
    let mut meta = tx.open_table(format::META)?;
    meta.insert(format::META_LAST_SEQ, numbers.seq.as_u64())?;
    meta.insert(format::META_LAST_QUEUE, numbers.queue)?;
    meta.insert(format::META_TIME, numbers.time.as_ms())?;
    if let Some(position) = position {
        meta.insert(format::META_SEGMENT, u64::from(position.segment))?;
        meta.insert(format::META_OFFSET, u64::from(position.offset))?;
    }
    meta.insert(format::META_BLOBS_THROUGH, u64::from(blobs_through))?;
    let checksum = format::meta_checksum(numbers, position, blobs_through, segments);
    meta.insert(format::META_CHECKSUM, checksum)?;
    drop(meta);
    Ok(tx.commit()?)
}
