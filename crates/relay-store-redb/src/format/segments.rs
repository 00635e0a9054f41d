//! Counters of segments, and what lives in them. The top bit of a number tells a payload file from a
//! segment of the main journal, so one index and one count of live frames serve both. No other file
//! looks at that bit.

use std::collections::BTreeMap;

use relay_journal::Location;

/// What the names of payload files begin with.
pub(crate) const PAYLOADS: &str = "payload";

/// Set in the numbers of payload files.
const PAYLOAD_BIT: u32 = 1 << 31;

/// The live frames of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveCount {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

/// What came to and went from the live frames of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) items: i64,
    pub(crate) bytes: i64,
}

impl LiveCount {
    pub(crate) fn changed(self, change: Change) -> Self {
        Self {
            items: self.items.saturating_add_signed(change.items),
            bytes: self.bytes.saturating_add_signed(change.bytes),
        }
    }
}

impl Change {
    /// So many more live frames.
    pub(crate) fn of(live: LiveCount) -> Self {
        let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
        Self { items: signed(live.items), bytes: signed(live.bytes) }
    }

    /// One more live frame.
    pub(crate) fn added(location: Location) -> Self {
        Self { items: 1, bytes: i64::from(location.length) }
    }

    /// One live frame less.
    pub(crate) fn removed(location: Location) -> Self {
        Self::added(location).negated()
    }

    pub(crate) fn negated(self) -> Self {
        Self { items: -self.items, bytes: -self.bytes }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
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
pub(crate) fn of_main(segments: &BTreeMap<u32, LiveCount>) -> impl Iterator<Item = (u32, LiveCount)> {
    segments.range(..PAYLOAD_BIT).map(|(segment, live)| (*segment, *live))
}

/// The number of the last payload file among these; 0 if there is none.
pub(crate) fn last_payload(segments: &BTreeMap<u32, LiveCount>) -> u32 {
    segments.range(PAYLOAD_BIT..).next_back().map_or(0, |(segment, _)| segment & !PAYLOAD_BIT)
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
        let live = LiveCount { items: 1, bytes: 10 };
        let segments = BTreeMap::from([(3, live), (9, live), (0x8000_0002, live)]);
        assert_eq!(of_main(&segments).map(|(segment, _)| segment).collect::<Vec<_>>(), [3, 9]);
        assert_eq!((last_payload(&segments), last_payload(&BTreeMap::new())), (2, 0));
    }
}
