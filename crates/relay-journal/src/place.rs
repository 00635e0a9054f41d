//! Positions, locations, and what the journal stores there, as plain values.

use std::fmt;

use bytes::Bytes;

/// A boundary between two batches. The derived order is the order of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The number of the segment; 0 before the first one.
    pub segment: u32,
    /// Bytes from the beginning of the segment file.
    pub offset: u32,
}

/// The bytes of one frame, including its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The number of the segment.
    pub segment: u32,
    /// Bytes from the beginning of the segment file.
    pub offset: u32,
    /// The bytes of header and body together.
    pub length: u32,
}

/// One appended record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type of the body, chosen by the caller; never 0.
    pub kind: u8,
    /// Where the frame is stored.
    pub location: Location,
    /// May share memory with neighbouring frames: copy a body that is kept for long.
    pub body: Bytes,
}

/// One file of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The segment number, never used twice.
    pub id: u32,
    /// Its length up to the end of its last batch.
    pub bytes: u64,
}

/// A byte range of a segment that cannot be read as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The number of the segment.
    pub segment: u32,
    /// The first byte of the range.
    pub from: u32,
    /// The byte after the range.
    pub to: u32,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, from, to, what } = self;
        write!(f, "journal segment {segment}, bytes {from} to {to}: {what}")
    }
}
