//! Where things lie in the journal, and what lies there. Plain values; nothing here touches a file.

use std::fmt;

use bytes::Bytes;

/// A place between two batches. The derived order is the order of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The number of the segment; 0 before the first one.
    pub segment: u32,
    /// Bytes from the beginning of the segment's file.
    pub offset: u32,
}

/// A whole frame, its header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The number of the segment.
    pub segment: u32,
    /// Bytes from the beginning of the segment's file.
    pub offset: u32,
    /// Bytes of header and body together.
    pub length: u32,
}

/// One record, as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is, in the caller's numbering; never 0.
    pub kind: u8,
    /// Where it lies.
    pub location: Location,
    /// May share its memory with its neighbours: copy what is kept for long.
    pub body: Bytes,
}

/// One file of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number, never used twice.
    pub id: u32,
    /// Its length up to the end of its last batch.
    pub bytes: u64,
}

/// A stretch of a segment that cannot be read as what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The number of the segment.
    pub segment: u32,
    /// The first byte of the stretch.
    pub from: u32,
    /// The byte behind it.
    pub to: u32,
    /// What was found.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, from, to, what } = self;
        write!(f, "journal segment {segment}, bytes {from} to {to}: {what}")
    }
}
