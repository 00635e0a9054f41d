//! Statistics of a store: what it holds, and how much disk space it uses.

use std::ops::ControlFlow;

use relay_core::{Recipient, Timestamp, Usage};

use crate::Contents;
use crate::RedbRelay;
use crate::admin::{scan, verify};
use crate::error::{StoreError, caught};
use crate::format::record::Owner;
use crate::format::{self, ItemRow};
use crate::io::{files, payload};
use crate::txn::read::ReadTxn;
use crate::version::queue_reader::QueueRows;

/// The number of items that are read at once.
const READ_ITEMS: usize = 256;

/// What a store holds, and the disk space that it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Everything that the store holds, including expired items.
    pub contents: Contents,
    /// The items that have expired and are not removed yet.
    pub expired: Usage,
    /// When the oldest live item arrived.
    pub oldest_arrival: Option<Timestamp>,
    /// When the next live item expires.
    pub next_deadline: Option<Timestamp>,
    /// The index.
    pub index: Files,
    /// The segments of the journal.
    pub journal: Files,
    /// The blobs, which hold large payloads.
    pub payloads: Files,
}

/// Files of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The number of files.
    pub files: u64,
    /// Their total length.
    pub bytes: u64,
}

impl Stats {
    /// The total length of all files.
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        self.index.bytes.saturating_add(self.journal.bytes).saturating_add(self.payloads.bytes)
    }
}

impl RedbRelay {
    /// Computes the statistics of the store. Reads the first item of each queue.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let mut stats = self.shared.read_whole(|store| {
            let txn = store.read_txn(&self.shared.journal);
            let mut stats = Stats { contents: verify::contents(&txn)?, ..Stats::default() };
            self.read_fronts(&txn, &mut stats)?;
            Ok(stats)
        })?;
        self.measure_files(&mut stats)?;
        Ok(stats)
    }

    /// Visits the recipient of each queue as the store names it, in no useful order. Skips those
    /// that cannot be read.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn each_recipient(&self, mut visit: impl FnMut(&Recipient)) -> Result<(), StoreError> {
        let store = self.shared.whole();
        let txn = store.read_txn(&self.shared.journal);
        caught(|| {
            for rows in scan::queues(&txn)? {
                match txn.view.owner(rows?.queue) {
                    Ok(recipient) => visit(&recipient),
                    Err(StoreError::Corrupted(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    fn read_fronts(&self, txn: &ReadTxn<'_>, stats: &mut Stats) -> Result<(), StoreError> {
        let (time, mut first_items) = (self.shared.clock.read(), Vec::new());
        for rows in scan::queues(txn)? {
            let rows = rows?;
            match first_live(&rows, time.now) {
                Ok((expired, item)) => {
                    stats.expired = stats.expired.plus(expired);
                    first_items.extend(item.map(|item| (rows.queue, item)));
                }
                Err(StoreError::Corrupted(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let next_deadline = first_items.iter().map(|(_, item)| item.deadline).min();
        stats.next_deadline = next_deadline.map(|deadline| time.outside(deadline));
        stats.oldest_arrival = oldest_arrival(txn, first_items).map(|arrival| time.outside(arrival));
        Ok(())
    }

    fn measure_files(&self, stats: &mut Stats) -> Result<(), StoreError> {
        for name in self.disk.list()? {
            let kind = match name.as_str() {
                files::INDEX_FILE => &mut stats.index,
                name if !name.ends_with(".seg") => continue,
                name if name.starts_with(format::BLOB_FILE_PREFIX) => &mut stats.payloads,
                _ => &mut stats.journal,
            };
            kind.files = kind.files.saturating_add(1);
            kind.bytes = kind.bytes.saturating_add(self.disk.open(&name)?.len()?);
        }
        Ok(())
    }
}

/// The expired items of a queue, and the row of its first live item.
fn first_live(rows: &QueueRows<'_>, now: Timestamp) -> Result<(Usage, Option<ItemRow>), StoreError> {
    let (front, mut first) = (rows.front(now)?, None);
    rows.scan(front.live_from, &mut |item| {
        first = Some(item);
        ControlFlow::Break(())
    })?;
    Ok((front.expired, first))
}

/// When the oldest of these items arrived. Items that cannot be read do not count. Each comes with
/// the number of its queue.
fn oldest_arrival(txn: &ReadTxn<'_>, items: Vec<(u64, ItemRow)>) -> Option<Timestamp> {
    let (blobs, mut others): (Vec<_>, Vec<_>) = items.into_iter().partition(|(_, item)| item.blob.is_some());
    let mut oldest = blobs.iter().filter_map(|(_, item)| Some(item.blob.as_ref()?.arrival)).min();
    // The journal reads neighbours together.
    others.sort_unstable_by_key(|(_, item)| (item.location.segment, item.location.offset));
    for chunk in others.chunks(READ_ITEMS) {
        let locations: Vec<_> = chunk.iter().map(|(_, item)| item.location).collect();
        let arrivals = chunk.iter().zip(txn.journal.read(&locations)).filter_map(|((queue, item), frame)| {
            let owner = Owner { queue: *queue, recipient: &txn.view.owner(*queue).ok()? };
            Some(payload::item_of_frame(frame.ok()?, owner, item.clone(), &mut None).ok()?.arrival)
        });
        oldest = oldest.into_iter().chain(arrivals).min();
    }
    oldest
}
