//! Reads a store from end to end, queue by queue and in the order of arrival, and sums it up. It
//! changes nothing, shows the store as it was when it began, and holds nobody up but to copy what
//! is newer than the index.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{Front, Item, Queued as _, Recipient, Seq, Timestamp, Usage};

use crate::Contents;
use crate::RedbRelay;
use crate::admin::verify;
use crate::error::{StoreError, caught};
use crate::format::record::Owner;
use crate::format::{self, ItemRow};
use crate::io::files;
use crate::io::payload;
use crate::txn::read::Reading;
use crate::version::queue_reader::QueueRows;

/// What is read together, in items and in payload bytes, unless one item alone is larger.
const READ_ITEMS: usize = 256;
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// What a store holds and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// All of it.
    pub contents: Contents,
    /// What of it has expired and is not reclaimed yet.
    pub expired: Usage,
    /// When the live item arrived that has waited longest.
    pub oldest_arrival: Option<Timestamp>,
    /// When the next live item expires.
    pub next_deadline: Option<Timestamp>,
    /// The index.
    pub index: Files,
    /// The segments of the journal.
    pub journal: Files,
    /// Large payloads.
    pub payloads: Files,
}

/// Files of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// How many there are.
    pub files: u64,
    /// How long they are together.
    pub bytes: u64,
}

impl Stats {
    /// What all files take together.
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        self.index.bytes.saturating_add(self.journal.bytes).saturating_add(self.payloads.bytes)
    }
}

impl Files {
    const fn add(&mut self, bytes: u64) {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl RedbRelay {
    /// Shows every live item, queue by queue, each in the order of arrival, until `visit` breaks.
    /// Returns what could not be read, which is left out.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read at all.
    pub fn export(
        &self,
        mut visit: impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<Vec<String>, StoreError> {
        let whole = self.shared.whole();
        let reading = whole.reading(&self.shared.journal);
        let time = self.shared.clock.read();
        let mut visit = |recipient: &Recipient, mut item: Item<Bytes>| {
            (item.arrival, item.deadline) = (time.outside(item.arrival), time.outside(item.deadline));
            visit(recipient, item)
        };
        let lost = caught(|| {
            let mut lost = self.findings.clone();
            lost.extend(verify::find_damaged_rows(&reading)?);
            for rows in verify::queues(&reading)? {
                let rows = rows?;
                let queue = rows.queue;
                match export_queue(&reading, &rows, time.now, &mut lost, &mut visit) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => break,
                    Err(StoreError::Corrupted(what)) => lost.push(format!("queue number {queue}: {what}")),
                    Err(error) => return Err(error),
                }
            }
            Ok(lost)
        })?;
        whole.checked(lost)
    }

    /// What the store holds and what it takes. Reads the first item of each queue.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let mut stats = self.shared.read_whole(|whole| {
            let reading = whole.reading(&self.shared.journal);
            let mut stats = Stats { contents: verify::contents(&reading)?, ..Stats::default() };
            self.look_at_fronts(&reading, &mut stats)?;
            Ok(stats)
        })?;
        self.measure(&mut stats)?;
        Ok(stats)
    }

    fn look_at_fronts(&self, reading: &Reading<'_>, stats: &mut Stats) -> Result<(), StoreError> {
        let (time, mut first) = (self.shared.clock.read(), Vec::new());
        for rows in verify::queues(reading)? {
            let rows = rows?;
            match rows.front(time.now).and_then(|front| first_live(&rows, front)) {
                Ok((expired, item)) => {
                    stats.expired = stats.expired.plus(expired);
                    first.extend(item.map(|item| (rows.queue, item)));
                }
                Err(StoreError::Corrupted(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let next = first.iter().map(|(_, item)| item.deadline).min();
        stats.next_deadline = next.map(|deadline| time.outside(deadline));
        stats.oldest_arrival = oldest_arrival(reading, first).map(|arrival| time.outside(arrival));
        Ok(())
    }

    fn measure(&self, stats: &mut Stats) -> Result<(), StoreError> {
        for name in self.disk.list()? {
            let kind = match name.as_str() {
                files::INDEX_FILE => &mut stats.index,
                name if !name.ends_with(".seg") => continue,
                name if name.starts_with(format::PAYLOADS) => &mut stats.payloads,
                _ => &mut stats.journal,
            };
            kind.add(self.disk.open(&name)?.len()?);
        }
        Ok(())
    }
}

fn export_queue(
    reading: &Reading<'_>,
    rows: &QueueRows<'_>,
    now: Timestamp,
    lost: &mut Vec<String>,
    visit: &mut impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let queue = rows.queue;
    let owner = reading.view.owner(queue)?;
    let mut from = rows.front(now)?.live_from;
    loop {
        let page = read_rows(rows, from)?;
        let Some(last) = page.last() else { return Ok(ControlFlow::Continue(())) };
        from = last.seq.next();
        for (seq, item) in read_items(reading, Owner { queue, recipient: &owner }, page) {
            match item {
                Ok(item) if !item.is_live(now) => {}
                Ok(item) => {
                    if visit(&owner, item).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Err(error) => lost.push(format!("queue number {queue}, item {}: {error}", seq.as_u64())),
            }
        }
    }
}

/// As many rows of items as are read together, from `from` on; at least one if there is one.
fn read_rows(rows: &QueueRows<'_>, from: Seq) -> Result<Vec<ItemRow>, StoreError> {
    let (mut page, mut bytes) = (Vec::new(), 0_u64);
    rows.scan(from, &mut |item| {
        bytes = bytes.saturating_add(item.payload_bytes);
        page.push(item);
        if page.len() < READ_ITEMS && bytes < READ_BYTES {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(page)
}

fn read_items<'a>(
    reading: &Reading<'_>,
    owner: Owner<'a>,
    rows: Vec<ItemRow>,
) -> impl Iterator<Item = (Seq, Result<Item<Bytes>, StoreError>)> + use<'a> {
    let locations: Vec<_> = rows.iter().map(|row| row.location).collect();
    let frames = reading.journal.read(&locations);
    rows.into_iter().zip(frames).map(move |(row, frame)| {
        let seq = row.seq;
        let read = |frame| payload::item_of_frame(frame, owner, row, &mut None);
        (seq, frame.map_err(StoreError::from).and_then(read))
    })
}

/// What has expired, and the first item behind it.
fn first_live(rows: &QueueRows<'_>, front: Front) -> Result<(Usage, Option<ItemRow>), StoreError> {
    let mut first = None;
    rows.scan(front.live_from, &mut |item| {
        first = Some(item);
        ControlFlow::Break(())
    })?;
    Ok((front.expired, first))
}

/// When the first of these arrived. What cannot be read does not count.
fn oldest_arrival(reading: &Reading<'_>, items: Vec<(u64, ItemRow)>) -> Option<Timestamp> {
    let (told, untold): (Vec<_>, Vec<_>) = items.into_iter().partition(|(_, item)| item.blob.is_some());
    let told = told.iter().filter_map(|(_, item)| Some(item.blob.as_ref()?.arrival)).min();
    // In the order in which they lie, since what is read together costs less.
    let mut sorted = BTreeMap::new();
    for (queue, item) in untold {
        sorted.insert((item.location.segment, item.location.offset), (queue, item));
    }
    let (mut oldest, mut sorted) = (told, sorted.into_values().peekable());
    while sorted.peek().is_some() {
        let together: Vec<_> = sorted.by_ref().take(READ_ITEMS).collect();
        let locations: Vec<_> = together.iter().map(|(_, item)| item.location).collect();
        let found = together.into_iter().zip(reading.journal.read(&locations));
        let arrivals = found.filter_map(|((queue, item), frame)| {
            let owner = Owner { queue, recipient: &reading.view.owner(queue).ok()? };
            Some(payload::item_of_frame(frame.ok()?, owner, item, &mut None).ok()?.arrival)
        });
        oldest = oldest.into_iter().chain(arrivals).min();
    }
    oldest
}
