//! Opens journals on a simulated disk, and represents batches as plain values.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use relay_disk::{Disk, SimDisk};
use relay_journal::{
    Frame, Journal, JournalError, Location, OpenError, Opened, Options, Position, ReadError, Reader,
};

/// Kind and body of each frame.
pub(crate) type Bodies = Vec<(u8, Vec<u8>)>;

/// A journal after opening.
pub(crate) struct Open {
    pub(crate) journal: Journal,
    pub(crate) opened: Opened,
    pub(crate) batches: Vec<Vec<Frame>>,
}

impl Open {
    pub(crate) fn bodies(&self) -> Vec<Bodies> {
        self.batches.iter().map(|batch| bodies(batch)).collect()
    }
}

pub(crate) const SEGMENT: &str = "journal-0000000001.seg";

pub(crate) fn try_open(
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    from: Option<Position>,
) -> Result<Open, OpenError<Infallible>> {
    let mut batches = Vec::new();
    let (journal, opened) =
        Journal::open(disk, Options { segment_bytes, ..Options::default() }, from, |batch| {
            batches.push(batch.to_vec());
            Ok(())
        })?;
    let frames: usize = batches.iter().map(Vec::len).sum();
    assert_eq!((opened.batches, opened.frames), (batches.len() as u64, frames as u64));
    Ok(Open { journal, opened, batches })
}

pub(crate) fn open_from(disk: &SimDisk, segment_bytes: u64, from: Option<Position>) -> Open {
    try_open(Arc::new(disk.clone()), segment_bytes, from).unwrap()
}

pub(crate) fn open(disk: &SimDisk, segment_bytes: u64) -> Open {
    open_from(disk, segment_bytes, None)
}

pub(crate) fn try_commit(journal: &mut Journal, bodies: &Bodies) -> Result<Vec<Location>, JournalError> {
    let mut batch = journal.begin()?;
    let append = |(kind, body): &(u8, Vec<u8>)| {
        let (head, tail) = body.split_at(body.len().min(3));
        batch.append(*kind, head, Bytes::copy_from_slice(tail))
    };
    let locations = bodies.iter().map(append).collect();
    let end = journal.commit(batch)?;
    assert_eq!(end, journal.end());
    Ok(locations)
}

pub(crate) fn commit(journal: &mut Journal, bodies: &Bodies) -> Vec<Location> {
    try_commit(journal, bodies).unwrap()
}

/// A batch of one frame of kind 1 for each text.
pub(crate) fn texts(texts: &[&str]) -> Bodies {
    texts.iter().map(|text| (1, text.as_bytes().to_vec())).collect()
}

pub(crate) fn bodies(batch: &[Frame]) -> Bodies {
    batch.iter().map(|frame| (frame.kind, frame.body.to_vec())).collect()
}

pub(crate) fn read_one(reader: &Reader, location: Location) -> Result<Frame, ReadError> {
    reader.read(&[location]).remove(0)
}

/// `full` if the environment variable RUN_SLOW_TESTS is set, else `short`.
#[expect(clippy::disallowed_methods, reason = "the environment decides how long tests may take")]
pub(crate) fn slow<T>(full: T, short: T) -> T {
    if std::env::var_os("RUN_SLOW_TESTS").is_some() { full } else { short }
}
