//! Replaces all recipients of a store by hashes, with a copy of the store that takes its place.
//!
//! The copy lies in the same directory, under other names (`io/staged.rs`): a volume may be mounted
//! there, and a rename must not leave its file system. Records change their length with their
//! recipient, so each live one is copied, and its row with it. All other rows stay as they are:
//! seqs, deadlines, acked item ids and the time of the store. So clients notice nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use relay_core::Recipient;
use relay_disk::Disk;
use relay_journal::{Batch, Frame, Journal, Location, Position, ReadError};

use crate::RedbRelay;
use crate::engine::blob_writer::open_blobs;
use crate::engine::snapshot::Snapshot;
use crate::error::{HashError, OpenError, StoreError, caught};
use crate::format::record::{self, ItemRecord, Owner, kind};
use crate::format::{self, ItemRow, LiveChange, LiveCount};
use crate::index::renaming::{self, Rename};
use crate::io::journals::Journals;
use crate::io::{files, payload, staged};
use crate::naming::{KeyId, Naming};
use crate::open;
use crate::options::Options;

/// The most bytes of records that are read at once, and written with one sync, unless a single
/// record is larger.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// How many bytes a hashed recipient may be longer than the plain one, in a record and in the rows.
const GROWTH_BYTES: u64 = 128;

impl RedbRelay {
    /// Replaces all recipients of the store by hashes, and closes it. `hash` gets a plain recipient
    /// and returns the hash by the key with this id. `copied` receives the number of items so far.
    /// Nobody may send requests meanwhile. After a crash at any moment, the store is the plain one
    /// or the hashed one. `path` is the directory, for error messages.
    ///
    /// The caller has written the key to its file, durably.
    ///
    /// # Errors
    /// [`HashError`], with a text for the operator.
    pub async fn hash_recipients(
        self,
        path: &Path,
        id: KeyId,
        hash: &(dyn Fn(&Recipient) -> Recipient + Sync),
        copied: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), HashError> {
        match self.naming() {
            Naming::Plain => {}
            Naming::Hashed(stored) if stored == id => return Ok(()),
            Naming::Hashed(stored) => return Err(HashError::OtherKey { stored, given: id }),
        }
        let snapshot = self.snapshots().take().await?;
        check_space(&snapshot, self.contents()?.usage.items)?;
        let disk = Arc::clone(&self.disk);
        let written = caught(|| write_copy(&snapshot, &self.shared.journal, id, hash, copied));
        let is_overtaken = snapshot.index_snapshot.is_invalidated();
        drop((snapshot, self));
        if let Err(error) = written.and_then(|()| if is_overtaken { Ok(()) } else { Ok(disk.sync()?) }) {
            // A later start removes what cannot be removed now.
            drop(staged::discard(&*disk));
            return Err(error.into());
        }
        if is_overtaken {
            drop(staged::discard(&*disk));
            return Err(HashError::Overtaken);
        }
        exchange(&disk, path)
    }
}

/// Checks that a copy fits on the disk.
fn check_space(snapshot: &Snapshot, items: u64) -> Result<(), HashError> {
    let records_bytes: u64 = snapshot.index_snapshot.segments.values().map(|live| live.bytes).sum();
    let rows_bytes = snapshot.index_bytes.saturating_mul(2);
    let growth_bytes = items.saturating_mul(GROWTH_BYTES);
    let needed_bytes = records_bytes.saturating_add(rows_bytes).saturating_add(growth_bytes);
    match snapshot.disk.free_bytes().map_err(StoreError::from)? {
        Some(free_bytes) if free_bytes < needed_bytes => Err(HashError::NoSpace { needed_bytes, free_bytes }),
        _ => Ok(()),
    }
}

/// Writes the staged files of the hashed store. Their names are not durable yet.
fn write_copy(
    snapshot: &Snapshot,
    source: &Journals,
    id: KeyId,
    hash: &(dyn Fn(&Recipient) -> Recipient + Sync),
    copied: &mut (dyn FnMut(u64) + Send),
) -> Result<(), StoreError> {
    staged::discard(&*snapshot.disk)?;
    let target: Arc<dyn Disk> = Arc::new(staged::StagedDisk(Arc::clone(&snapshot.disk)));
    let mut records = RecordCopy::begin(&target, source, hash, copied)?;
    let cache_bytes = Options::default().cache_bytes;
    renaming::write(&target, cache_bytes, Naming::Hashed(id), &snapshot.index_snapshot, &mut records)
}

/// Puts the staged files in the place of the store.
fn exchange(disk: &Arc<dyn Disk>, path: &Path) -> Result<(), HashError> {
    let installed = staged::install(&**disk, files::INDEX_FILE).and_then(|()| disk.sync());
    installed.map_err(|error| HashError::Exchange(error.into()))?;
    let options = Options { recipients: crate::RecipientNames::AsStored, ..Options::default() };
    // Opening the index finishes the exchange.
    match caught(|| Ok(open::open_index(disk, path, &options))) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(OpenError::Store { source, .. })) | Err(source) => Err(HashError::Exchange(source)),
        Ok(Err(_)) => Err(HashError::Exchange(StoreError::Corrupted("the hashed copy does not open"))),
    }
}

/// The records of the hashed store, while they are written.
struct RecordCopy<'a> {
    source: &'a Journals,
    hash: &'a (dyn Fn(&Recipient) -> Recipient + Sync),
    copied: &'a mut (dyn FnMut(u64) + Send),
    main: Journal,
    /// The records that are not written yet; `None` only while they are.
    batch: Option<Batch>,
    blobs: Journal,
    last_blob: u32,
    segments: BTreeMap<u32, LiveCount>,
    items: u64,
}

impl<'a> RecordCopy<'a> {
    /// The numbers of its segments follow those of the store, so that no file has the name of
    /// another one.
    fn begin(
        target: &Arc<dyn Disk>,
        source: &'a Journals,
        hash: &'a (dyn Fn(&Recipient) -> Recipient + Sync),
        copied: &'a mut (dyn FnMut(u64) + Send),
    ) -> Result<Self, StoreError> {
        let last = |reader: &relay_journal::Reader| reader.each_segment().last().map_or(0, |file| file.id);
        let options = relay_journal::Options {
            segment_bytes: Options::default().segment_bytes,
            ..relay_journal::Options::default()
        };
        let mut main = Journal::open_unread(Arc::clone(target), options, last(&source.main))?;
        let blobs = open_blobs(Arc::clone(target), last(&source.blobs))?;
        let mut batch = main.begin()?;
        // Even without items, a staged segment tells of the exchange, and a replay has a beginning.
        batch.append(kind::FILL, &[0], Bytes::new());
        let last_blob = last(&source.blobs);
        let (segments, items, batch) = (BTreeMap::new(), 0, Some(batch));
        Ok(Self { source, hash, copied, main, batch, blobs, last_blob, segments, items })
    }

    fn copy(
        &mut self,
        owner: Owner<'_>,
        name: &Recipient,
        row: &ItemRow,
        frame: Frame,
    ) -> Result<Location, StoreError> {
        let (seq, id) = (row.seq, row.id);
        if row.blob.is_some() {
            let payload = payload::of_frame(frame, owner, seq, id)?;
            let mut batch = self.blobs.begin()?;
            let own = batch.append(kind::BLOB, &payload::blob_head(name, id), payload);
            self.blobs.commit(batch)?;
            self.last_blob = own.segment;
            return format::blob_location(own).ok_or(StoreError::Corrupted("no blob number is left"));
        }
        let record = ItemRecord::parse_of(&frame.body, owner, seq, id)?;
        let (item, payload_bytes) = (record.item(&mut None)?, record.payload_bytes);
        let head = record::item_head(owner.queue, name, &item);
        let payload = record::payload_of(frame.body, payload_bytes);
        let batch = self.batch.as_mut().ok_or(StoreError::WriterEnded)?;
        Ok(batch.append(kind::MOVED, &head, payload))
    }

    /// Writes the batch if it is large enough.
    fn write(&mut self) -> Result<(), StoreError> {
        if self.batch.as_ref().is_some_and(|batch| batch.bytes() >= BATCH_BYTES) {
            if let Some(batch) = self.batch.take() {
                self.main.commit(batch)?;
            }
            self.batch = Some(self.main.begin()?);
        }
        Ok(())
    }
}

impl Rename for RecordCopy<'_> {
    fn recipient(&self, recipient: &Recipient) -> Recipient {
        (self.hash)(recipient)
    }

    fn items(
        &mut self,
        owner: Owner<'_>,
        name: &Recipient,
        mut items: Vec<ItemRow>,
    ) -> Result<Vec<ItemRow>, StoreError> {
        let mut rest = items.as_mut_slice();
        while !rest.is_empty() {
            let (part, others) = rest.split_at_mut(part_len(rest));
            let locations: Vec<_> = part.iter().map(|row| row.location).collect();
            for (row, frame) in part.iter_mut().zip(self.source.read(&locations)) {
                row.location = self.copy(owner, name, row, frame.map_err(read_error)?)?;
                let live = self.segments.entry(row.location.segment).or_default();
                *live = live.changed(LiveChange::added(row.location));
                self.write()?;
            }
            self.items += part.len() as u64;
            (self.copied)(self.items);
            rest = others;
        }
        Ok(items)
    }

    fn finish(&mut self) -> Result<(Position, u32, BTreeMap<u32, LiveCount>), StoreError> {
        if let Some(batch) = self.batch.take() {
            self.main.commit(batch)?;
        }
        Ok((self.main.end(), self.last_blob, std::mem::take(&mut self.segments)))
    }
}

fn read_error(error: ReadError) -> StoreError {
    match error {
        ReadError::Io(_) => error.into(),
        ReadError::Corrupted(_) | ReadError::Gone => StoreError::Corrupted("the record of an item"),
    }
}

/// How many of these items are read at once.
fn part_len(items: &[ItemRow]) -> usize {
    let mut bytes = 0;
    let fits = items.iter().take_while(|row| {
        bytes += u64::from(row.location.length);
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}
