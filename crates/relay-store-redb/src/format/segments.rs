//! Numbers of segments, and counts of their live frames. The top bit of a number distinguishes a
//! blob file from a segment of the main journal, so one table counts both. Only this file uses that
//! bit.

use std::collections::BTreeMap;

use relay_journal::Location;

/// The first part of the names of blob files.
pub(crate) const BLOB_FILE_PREFIX: &str = "payload";

/// Set in the numbers of blob files.
const BLOB_BIT: u32 = 1 << 31;

/// The live frames of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveCount {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

/// The change of a segment's live frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveChange {
    pub(crate) items: i64,
    pub(crate) bytes: i64,
}

impl LiveCount {
    pub(crate) fn changed(self, change: LiveChange) -> Self {
        Self {
            items: self.items.saturating_add_signed(change.items),
            bytes: self.bytes.saturating_add_signed(change.bytes),
        }
    }
}

impl LiveChange {
    /// The change when all these frames become live.
    pub(crate) fn of(live: LiveCount) -> Self {
        let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
        Self { items: signed(live.items), bytes: signed(live.bytes) }
    }

    /// One more live frame.
    pub(crate) fn added(location: Location) -> Self {
        Self { items: 1, bytes: i64::from(location.length) }
    }

    /// One less live frame.
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

/// Whether this is the number of a blob file.
pub(crate) const fn is_blob(segment: u32) -> bool {
    segment & BLOB_BIT != 0
}

/// The number of blob file `own` in the index; `None` when the numbers are used up.
pub(crate) fn blob_segment(own: u32) -> Option<u32> {
    (!is_blob(own)).then_some(own | BLOB_BIT)
}

/// The location in the index of a frame in a blob file.
pub(crate) fn blob_location(own: Location) -> Option<Location> {
    Some(Location { segment: blob_segment(own.segment)?, ..own })
}

/// The location in its own journal of a frame that the index refers to.
pub(crate) const fn own_location(location: Location) -> Location {
    Location { segment: location.segment & !BLOB_BIT, ..location }
}

/// Only the segments of the main journal.
pub(crate) fn main_segments(segments: &BTreeMap<u32, LiveCount>) -> impl Iterator<Item = (u32, LiveCount)> {
    segments.range(..BLOB_BIT).map(|(segment, live)| (*segment, *live))
}

/// The number of the last of these blob files; 0 if there is none.
pub(crate) fn last_blob(segments: &BTreeMap<u32, LiveCount>) -> u32 {
    segments.range(BLOB_BIT..).next_back().map_or(0, |(segment, _)| segment & !BLOB_BIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_bit_distinguishes_the_two_journals() {
        let own = Location { segment: 7, offset: 36, length: 100 };
        let in_index = blob_location(own).unwrap();
        assert_eq!(in_index, Location { segment: 0x8000_0007, ..own });
        assert!(is_blob(in_index.segment) && !is_blob(own.segment));
        assert_eq!((own_location(in_index), own_location(own)), (own, own));
        assert_eq!(blob_segment(u32::MAX >> 1), Some(u32::MAX));
        assert_eq!(blob_segment(1 << 31), None);
    }

    #[test]
    fn live_segments_are_split_by_journal() {
        let live = LiveCount { items: 1, bytes: 10 };
        let segments = BTreeMap::from([(3, live), (9, live), (0x8000_0002, live)]);
        assert_eq!(main_segments(&segments).map(|(segment, _)| segment).collect::<Vec<_>>(), [3, 9]);
        assert_eq!((last_blob(&segments), last_blob(&BTreeMap::new())), (2, 0));
    }
}
