//! Reads both journals as one: the main one with the writer's records, and the blob files with
//! payloads that were written ahead of it. `format/segments.rs` gives their segments one number
//! space.

use relay_journal::{Damage, Frame, Location, ReadError, Reader};

use crate::format::{is_blob, own_location};

/// The readers of both journals.
#[derive(Clone)]
pub(crate) struct Journals {
    pub(crate) main: Reader,
    /// One file for each blob.
    pub(crate) blobs: Reader,
}

impl Journals {
    /// Reads the frames at `locations` in either journal, in that order. Each frame has its own
    /// error.
    pub(crate) fn read(&self, locations: &[Location]) -> Vec<Result<Frame, ReadError>> {
        let (blobs, main): (Vec<_>, Vec<_>) =
            locations.iter().copied().partition(|location| is_blob(location.segment));
        if blobs.is_empty() {
            return self.main.read(&main);
        }
        let blobs: Vec<_> = blobs.into_iter().map(own_location).collect();
        let mut main = self.main.read(&main).into_iter();
        let mut blobs = self.blobs.read(&blobs).into_iter().map(|frame| frame.map_err(blob_error));
        let next = |location: &Location| if is_blob(location.segment) { blobs.next() } else { main.next() };
        locations.iter().map(next).map(|frame| frame.unwrap_or(Err(ReadError::Gone))).collect()
    }
}

/// Errors of a journal name a segment, but the operator looks for a blob file.
fn blob_error(error: ReadError) -> ReadError {
    match error {
        ReadError::Corrupted(damage) => ReadError::Corrupted(Damage {
            what: "the blob file of this number does not contain what was written",
            ..damage
        }),
        error => error,
    }
}
