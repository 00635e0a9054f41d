//! Writes a copy of an index with other recipients, and with the items where their records were
//! copied to. All other rows and numbers stay as they are, so nothing else changes for clients.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{Table, WriteTransaction};
use relay_core::Recipient;
use relay_disk::Disk;
use relay_journal::Position;

use crate::error::StoreError;
use crate::format::record::Owner;
use crate::format::{self, ItemRow, Items, Key, LiveCount, ParsedKey, QueueRow};
use crate::index::snapshot::IndexSnapshot;
use crate::index::write::RECIPIENT_VALUE_BYTES;
use crate::index::{Index, meta};
use crate::io::files::{INDEX_FILE, NEW_INDEX_FILE};
use crate::io::throttle::IoThrottle;
use crate::naming::Naming;

/// The most rows of items whose records are copied together.
const ITEM_ROWS: usize = 256;

/// Where records are copied to, and how recipients are named there.
pub(crate) trait Rename {
    /// The name of a recipient in the copy.
    fn recipient(&self, recipient: &Recipient) -> Recipient;

    /// Copies the records of items under another name. Returns the rows with the new locations.
    fn items(
        &mut self,
        owner: Owner<'_>,
        name: &Recipient,
        items: Vec<ItemRow>,
    ) -> Result<Vec<ItemRow>, StoreError>;

    /// Makes all records durable. Returns where they end, the last blob file, and the live records.
    fn finish(&mut self) -> Result<(Position, u32, BTreeMap<u32, LiveCount>), StoreError>;
}

struct Copying<'a, R> {
    from: &'a IndexSnapshot,
    rename: &'a mut R,
    /// Rows of spilled items, all of one queue, that were read and not written.
    items: Vec<ItemRow>,
    queue: u64,
    rows_bytes: u64,
}

/// Writes the rows of a snapshot to a disk as an index, and closes it. The caller syncs the
/// directory.
pub(crate) fn write<R: Rename>(
    disk: &Arc<dyn Disk>,
    cache_bytes: usize,
    naming: Naming,
    from: &IndexSnapshot,
    rename: &mut R,
) -> Result<(), StoreError> {
    let file = disk.create(NEW_INDEX_FILE)?;
    let throttle = Arc::new(IoThrottle::default());
    let new = Index::on(Arc::clone(disk), file, naming, cache_bytes, throttle)?;
    let tx = new.begin()?;
    let mut copying = Copying { from, rename, items: Vec::new(), queue: 0, rows_bytes: 0 };
    copying.rows(&tx)?;
    copying.recipients(&tx)?;
    let rows_bytes = copying.rows_bytes;
    let (position, blobs_through, segments) = rename.finish()?;
    meta::begin(&tx, naming, rows_bytes)?;
    let mut table = tx.open_table(format::SEGMENTS)?;
    for (segment, live) in &segments {
        table.insert(segment, (live.items, live.bytes))?;
    }
    drop(table);
    meta::commit(tx, naming, from.numbers, Some(position), blobs_through, &segments)?;
    new.store_density(rows_bytes)?;
    new.close()?;
    disk.open(NEW_INDEX_FILE)?.sync()?;
    Ok(disk.rename(NEW_INDEX_FILE, INDEX_FILE)?)
}

impl<R: Rename> Copying<'_, R> {
    fn rows(&mut self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = tx.open_table(format::ROWS)?;
        let mut last = Vec::new();
        for row in self.from.all_rows()? {
            let (key, value) = row?;
            // Over a corrupt page redb may walk in a circle.
            if key.value() <= last.as_slice() {
                return Err(StoreError::Corrupted("the index is out of order"));
            }
            last.clear();
            last.extend_from_slice(key.value());
            let key = Key::from_bytes(key.value())?;
            let value = IndexSnapshot::checked(&key, value.value())?;
            let parsed = key.parse()?;
            if let ParsedKey::Item(queue, seq) = parsed {
                if queue != self.queue || self.items.len() >= ITEM_ROWS {
                    self.flush(&mut table)?;
                }
                self.queue = queue;
                self.items.push(ItemRow::decode(seq, value)?);
            } else {
                let value = self.value(parsed, value)?;
                self.insert(&mut table, &key, &value)?;
            }
        }
        self.flush(&mut table)
    }

    /// The value of a row in the copy.
    fn value<'v>(&mut self, key: ParsedKey, value: &'v [u8]) -> Result<Cow<'v, [u8]>, StoreError> {
        match key {
            ParsedKey::Owner(_) => {
                let name = self.rename.recipient(&format::decode_owner(value)?);
                Ok(name.as_str().as_bytes().to_vec().into())
            }
            ParsedKey::Queue(queue) => {
                let mut row = QueueRow::decode(value)?;
                let Items::Inline(items) = &row.items else { return Ok(value.into()) };
                let items = self.copy(queue, items.iter().collect())?;
                row.items = Items::Inline(items.into_iter().collect());
                Ok(row.encode().into())
            }
            // No other row contains a recipient or a location.
            _ => Ok(value.into()),
        }
    }

    /// Writes the rows of spilled items.
    fn flush(&mut self, table: &mut Table<'_, &'static [u8], &'static [u8]>) -> Result<(), StoreError> {
        let items = std::mem::take(&mut self.items);
        for item in self.copy(self.queue, items)? {
            self.insert(table, &Key::item(self.queue, item.seq), &item.encode())?;
        }
        Ok(())
    }

    fn copy(&mut self, queue: u64, items: Vec<ItemRow>) -> Result<Vec<ItemRow>, StoreError> {
        if items.is_empty() {
            return Ok(items);
        }
        let stored =
            self.from.get(&Key::owner(queue))?.ok_or(StoreError::Corrupted("a queue without owner"))?;
        let recipient = format::decode_owner(&stored.bytes()?)?;
        let name = self.rename.recipient(&recipient);
        self.rename.items(Owner { queue, recipient: &recipient }, &name, items)
    }

    fn insert(
        &mut self,
        table: &mut Table<'_, &'static [u8], &'static [u8]>,
        key: &Key,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let value = IndexSnapshot::with_checksum(key, value);
        let key = key.bytes();
        self.rows_bytes += (key.len() + value.len()) as u64;
        table.insert(&*key, value.as_slice())?;
        Ok(())
    }

    fn recipients(&mut self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = tx.open_table(format::RECIPIENTS)?;
        let mut last = String::new();
        for row in self.from.recipients()? {
            let (name, value) = row?;
            if name.value() <= last.as_str() {
                return Err(StoreError::Corrupted("the names of the index are out of order"));
            }
            last.clear();
            last.push_str(name.value());
            let recipient = IndexSnapshot::parse_name(name.value())?;
            let queue = IndexSnapshot::checked_name(&recipient, value.value())?;
            let name = self.rename.recipient(&recipient);
            let name = name.as_str();
            table.insert(name, (queue, format::name_checksum(name, queue)))?;
            self.rows_bytes += (name.len() + RECIPIENT_VALUE_BYTES) as u64;
        }
        Ok(())
    }
}
