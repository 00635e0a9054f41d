//! Both journals as one: the main one, which holds what the writer decided, and the payload files, which hold large payloads
//! that were written ahead of it. The top bit of a segment's number tells which, so one index and one count of live frames
//! serve both. Nothing outside of this file looks at that bit.

use std::collections::BTreeMap;

use relay_journal::{Damage, Frame, Location, ReadError, Reader};

use crate::index_snapshot::Live;

/// What the names of payload files begin with.
pub(crate) const PAYLOADS: &str = "payload";

/// Set in the numbers of payload files.
const PAYLOAD_BIT: u32 = 1 << 31;

/// What can be read beside those who write.
#[derive(Clone)]
pub(crate) struct Journals {
    pub(crate) main: Reader,
    /// One file for each payload.
    pub(crate) payloads: Reader,
}

impl Journals {
    /// Reads the frames at `locations`, of both journals, in that order. Each is whole and sound, or an error of its own.
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

/// Whether the number is that of a payload file.
pub(crate) const fn is_payload(segment: u32) -> bool {
    segment & PAYLOAD_BIT != 0
}

/// The number by which the index knows payload file `own`; `None` when numbers have run out.
pub(crate) fn payload_segment(own: u32) -> Option<u32> {
    (!is_payload(own)).then_some(own | PAYLOAD_BIT)
}

/// The same for a place in it.
pub(crate) fn payload_location(own: Location) -> Option<Location> {
    Some(Location { segment: payload_segment(own.segment)?, ..own })
}

/// What a place is called in its own journal.
pub(crate) const fn own_location(location: Location) -> Location {
    Location { segment: location.segment & !PAYLOAD_BIT, ..location }
}

/// What lives in the main journal alone.
pub(crate) fn of_main(segments: &BTreeMap<u32, Live>) -> impl Iterator<Item = (u32, Live)> {
    segments.range(..PAYLOAD_BIT).map(|(segment, live)| (*segment, *live))
}

/// The number of the last payload file among these; 0 if there is none.
pub(crate) fn last_payload(segments: &BTreeMap<u32, Live>) -> u32 {
    segments.range(PAYLOAD_BIT..).next_back().map_or(0, |(segment, _)| segment & !PAYLOAD_BIT)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_journals_are_told_apart_by_the_top_bit() {
        let own = Location { segment: 7, offset: 36, length: 100 };
        let noted = payload_location(own).unwrap();
        assert_eq!(noted, Location { segment: 0x8000_0007, ..own });
        assert!(is_payload(noted.segment) && !is_payload(own.segment));
        assert_eq!((own_location(noted), own_location(own)), (own, own));
        assert_eq!(payload_segment(u32::MAX >> 1), Some(u32::MAX));
        assert_eq!(payload_segment(1 << 31), None);
    }

    #[test]
    fn what_lives_is_told_apart_as_well() {
        let live = Live { items: 1, bytes: 10 };
        let segments = BTreeMap::from([(3, live), (9, live), (0x8000_0002, live)]);
        assert_eq!(of_main(&segments).map(|(segment, _)| segment).collect::<Vec<_>>(), [3, 9]);
        assert_eq!((last_payload(&segments), last_payload(&BTreeMap::new())), (2, 0));
    }
}
