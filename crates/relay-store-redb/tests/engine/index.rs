//! The index of a closed store, opened with redb alone, so tests can read and change its rows.

use std::io;
use std::sync::Arc;

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use relay_disk::{Disk as _, DiskFile, SimDisk};

pub(crate) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
pub(crate) const NAMES: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(crate) const SEGMENTS: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("segments");

/// The first byte of the key of the row that holds the owner of a queue.
pub(crate) const OWNER: u8 = 0;

pub(crate) struct Index(redb::Database);

#[derive(Debug)]
struct IndexFile(Arc<dyn DiskFile>);

impl Index {
    pub(crate) fn open(disk: &SimDisk) -> Self {
        let file = IndexFile(disk.open("relay.redb").unwrap());
        Self(redb::Database::builder().create_with_backend(file).unwrap())
    }

    pub(crate) fn database(&self) -> &redb::Database {
        &self.0
    }

    pub(crate) fn write(&self, change: impl FnOnce(&WriteTransaction)) {
        let mut tx = self.0.begin_write().unwrap();
        tx.set_quick_repair(true);
        change(&tx);
        tx.commit().unwrap();
    }

    /// The keys and values of [`ROWS`], in order.
    pub(crate) fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.0.begin_read().unwrap().open_table(ROWS).unwrap();
        let rows = rows.iter().unwrap().map(Result::unwrap);
        rows.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
    }
}

/// Inserts a row with a correct checksum.
pub(crate) fn put_row(tx: &WriteTransaction, key: &[u8], value: &[u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(key), value);
    let value = [value, &checksum.to_le_bytes()].concat();
    tx.open_table(ROWS).unwrap().insert(key, value.as_slice()).unwrap();
}

/// Makes a recipient lead to a queue, with a correct checksum.
pub(crate) fn put_recipient(tx: &WriteTransaction, recipient: &str, queue: u64) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(recipient.as_bytes()), &queue.to_le_bytes());
    tx.open_table(NAMES).unwrap().insert(recipient, (queue, checksum)).unwrap();
}

/// Makes a recipient lead to a queue, and the queue belong to the recipient.
pub(crate) fn assign_queue(tx: &WriteTransaction, recipient: &str, queue: u64) {
    put_recipient(tx, recipient, queue);
    put_row(tx, &[&[OWNER][..], &queue.to_be_bytes()].concat(), recipient.as_bytes());
}

/// Stores the correct checksum over the tables [`META`] and [`SEGMENTS`].
pub(crate) fn update_meta_checksum(tx: &WriteTransaction) {
    let (mut meta, segments) = (tx.open_table(META).unwrap(), tx.open_table(SEGMENTS).unwrap());
    let names =
        ["last_seq", "last_queue", "time_ms", "journal_segment", "journal_offset", "payloads_through"];
    let mut numbers = names.map(|name| meta.get(name).unwrap().map_or(0, |number| number.value())).to_vec();
    for (segment, live) in segments.iter().unwrap().map(Result::unwrap) {
        let (items, bytes) = live.value();
        numbers.extend([u64::from(segment.value()), items, bytes]);
    }
    let checksum = numbers.iter().fold(0, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()));
    meta.insert("checksum", u64::from(checksum)).unwrap();
}

impl redb::StorageBackend for IndexFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(&[data], offset)
    }
}
