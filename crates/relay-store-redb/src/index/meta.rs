//! The single numbers that the index stores about itself: how they are written, and its format.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableError, WriteTransaction};
use relay_journal::Position;

use crate::error::StoreError;
use crate::format::{self, Counters, LiveCount};
use crate::naming::{FORMAT_HASHED, FORMAT_PLAIN, KeyId, Naming};

/// Which build wrote an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A build from before the first release.
    Earlier,
    /// A build that writes the format of this number; 0 if the index contains no number.
    Numbered(u64),
}

/// Reads the format of an index.
fn format(db: &Database) -> Result<Format, StoreError> {
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

/// What an index says about itself before anything else is read.
pub(crate) struct Head {
    pub(crate) format: Format,
    pub(crate) naming: Naming,
    /// Whether a queue ever had a number.
    pub(crate) had_queues: bool,
}

/// Reads the head of an index.
pub(super) fn head(db: &Database) -> Result<Head, StoreError> {
    let format = format(db)?;
    let Format::Numbered(number @ (FORMAT_PLAIN | FORMAT_HASHED)) = format else {
        return Ok(Head { format, naming: Naming::Plain, had_queues: true });
    };
    let meta = db.begin_read()?.open_table(format::META)?;
    let key = meta.get(format::META_RECIPIENTS_KEY)?.map(|key| KeyId::from_number(key.value()));
    let naming = match (number, key) {
        (FORMAT_PLAIN, None) => Naming::Plain,
        (FORMAT_HASHED, Some(id)) => Naming::Hashed(id),
        _ => return Err(StoreError::Corrupted("the index has no key id of its format")),
    };
    let had_queues = meta.get(format::META_LAST_QUEUE)?.is_some_and(|last| last.value() > 0);
    Ok(Head { format, naming, had_queues })
}

/// Creates the table, in an index whose rows have `rows_bytes` bytes.
pub(super) fn begin(tx: &WriteTransaction, naming: Naming, rows_bytes: u64) -> Result<(), StoreError> {
    set_naming(tx, naming)?;
    tx.open_table(format::META)?.insert(format::META_ROWS_BYTES, rows_bytes)?;
    Ok(())
}

/// Writes how recipients are named, and the format that follows from it. The checksum of the
/// numbers contains it.
pub(super) fn set_naming(tx: &WriteTransaction, naming: Naming) -> Result<(), StoreError> {
    let mut meta = tx.open_table(format::META)?;
    meta.insert(format::META_FORMAT, naming.format())?;
    match naming {
        Naming::Plain => meta.remove(format::META_RECIPIENTS_KEY)?,
        Naming::Hashed(id) => meta.insert(format::META_RECIPIENTS_KEY, id.as_number())?,
    };
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
    naming: Naming,
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
    let checksum = format::meta_checksum(naming, numbers, position, blobs_through, segments);
    meta.insert(format::META_CHECKSUM, checksum)?;
    drop(meta);
    Ok(tx.commit()?)
}
