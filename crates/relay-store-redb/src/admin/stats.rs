//! Statistics of a store: what it holds, and how much disk space it uses.

use std::ops::ControlFlow;

use relay_core::{Queued as _, Recipient, Timestamp, Usage};

use crate::Contents;
use crate::RedbRelay;
use crate::admin::{scan, verify};
use crate::error::{StoreError, caught};
use crate::format::record::Owner;
use crate::format::{self, ItemRow, Key, ParsedKey};
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
    /// The items that have expired, or were acked as a long front, and are not removed yet.
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
        let (time, mut first_items, mut next_deadline) = (self.shared.clock.read(), Vec::new(), None);
        for rows in scan::queues(txn)? {
            let rows = rows?;
            let found = first_live(&rows, time.now);
            match found.and_then(|found| Ok((found, first_deadline(&rows, time.now)?))) {
                Ok(((expired, item), deadline)) => {
                    stats.expired = stats.expired.plus(expired);
                    next_deadline = next_deadline.into_iter().chain(deadline).min();
                    first_items.extend(item.map(|item| (rows.queue, item)));
                }
                Err(StoreError::Corrupted(_)) => {}
                Err(error) => return Err(error),
            }
        }
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

/// The items of a queue that are not removed yet although they have expired or were acked, and the
/// row of its first live item.
fn first_live(rows: &QueueRows<'_>, now: Timestamp) -> Result<(Usage, Option<ItemRow>), StoreError> {
    let (front, mut first) = (rows.front(now)?, None);
    rows.scan(front.live_from, &mut |item| {
        first = Some(item).filter(|item| item.is_live(now));
        if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let hidden = rows.row.floor.map_or(Usage::ZERO, |floor| floor.left);
    Ok((front.expired.plus(hidden), first))
}

/// When the next live item of a queue expires: the first one of those that expire in order, or one
/// that expires before an item in front of it.
fn first_deadline(rows: &QueueRows<'_>, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    if let Some(items) = rows.row.inline() {
        return Ok(items.iter().filter(|item| item.is_live(now)).map(|item| item.deadline).min());
    }
    let (mut first, visible_from) = (None, rows.row.visible_from());
    rows.scan(rows.front(now)?.live_from, &mut |item| {
        first = Some(item.deadline).filter(|_| !item.is_early());
        if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let (from, to) = (Key::early_end(rows.queue, now), Key::rows_end(rows.queue));
    for row in rows.view.range(&from, &to)? {
        if let ParsedKey::Early(_, deadline, seq) = row?.0.parse()?
            && seq >= visible_from
        {
            return Ok(first.into_iter().chain([deadline]).min());
        }
    }
    Ok(first)
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
