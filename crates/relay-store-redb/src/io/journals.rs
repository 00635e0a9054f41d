//! Both journals as one: the main one, which holds what the writer decided, and the payload files,
//! which hold large payloads that were written ahead of it. The top bit of a segment's number tells
//! which, so one index and one count of live frames serve both: see `format/segments.rs`.

use relay_journal::{Damage, Frame, Location, ReadError, Reader};

use crate::format::{is_payload, own_location};

/// What can be read beside those who write.
#[derive(Clone)]
pub(crate) struct Journals {
    pub(crate) main: Reader,
    /// One file for each payload.
    pub(crate) payloads: Reader,
}

impl Journals {
    /// Reads the frames at `locations`, of both journals, in that order. Each is whole and sound,
    /// or an error of its own.
    pub(crate) fn read(&self, locations: &[Location]) -> Vec<Result<Frame, ReadError>> {
        let (payloads, main): (Vec<_>, Vec<_>) =
            locations.iter().copied().partition(|location| is_payload(location.segment));
        if payloads.is_empty() {
            return self.main.read(&main);
        }
        let payloads: Vec<_> = payloads.into_iter().map(own_location).collect();
        let mut main = self.main.read(&main).into_iter();
        let mut payloads = self.payloads.read(&payloads).into_iter().map(|frame| frame.map_err(in_own_words));
        let next = |location: &Location| {
            if is_payload(location.segment) { payloads.next() } else { main.next() }
        };
        locations.iter().map(next).map(|frame| frame.unwrap_or(Err(ReadError::Gone))).collect()
    }
}

/// It speaks of segments; the operator looks for a file.
fn in_own_words(error: ReadError) -> ReadError {
    match error {
        ReadError::Damaged(damage) => ReadError::Damaged(Damage {
            what: "of the payload files: there is not what was written",
            ..damage
        }),
        error => error,
    }
}
