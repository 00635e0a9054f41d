//! An append-only journal of frames in segment files. After a crash, a batch of frames is complete
//! or absent. The journal handles bytes, locations and syncs. It does not know what a frame means
//! or whether anything still needs it.
//!
//! # Guarantees
//! - [`Journal::commit`] returns after its frames are durable. After a crash at any moment,
//!   [`Journal::open`] replays every committed batch in order. Of the other batches, only the one
//!   that was being committed may be replayed, and only if it is complete.
//! - After a failed commit, the batch never returns once a later batch has begun.
//! - Corruption on disk affects only the frames that it hits. The journal reports it, and never
//!   returns wrong data.
//!
//! # Files
//! A segment is one file, such as `journal-0000000001.seg` for a journal with the name `journal`.
//! It consists of a header and a sequence of batches. A batch never spans segments. The header
//! names the previous segment and where that one ends. Segment numbers can have gaps, and are never
//! used twice. The exact layout:
//!
//! | segment header | bytes | |
//! |---|---|---|
//! | magic | 8 | `relayseg` |
//! | format | 4 | 1; the first 36 bytes of a segment have this layout in every format |
//! | segment | 4 | its own number, from 1 |
//! | previous segment | 4 | the number of the segment before, which is smaller; 0 if there was none |
//! | previous end | 4 | where the last batch of that segment ends; bytes after it do not count |
//! | salt | 8 | a random number that is unique to this file |
//! | checksum | 4 | CRC-32C of the 32 bytes before |
//!
//! | frame | bytes | |
//! |---|---|---|
//! | body length | 4 | |
//! | kind | 1 | chosen by the caller; 0 is reserved |
//! | flags | 1 | bit 0: the last frame of its batch; the others are 0 |
//! | reserved | 2 | 0 |
//! | batch | 4 | the offset of the batch's first frame in the file |
//! | body checksum | 4 | CRC-32C of the upper half of the salt, the frame's own offset, and the body |
//! | header checksum | 4 | CRC-32C of the lower half of the salt, the frame's own offset, and the 16 bytes before |
//! | body | | |
//!
//! Numbers are little-endian. The two halves of the salt are two secrets. A sender without them
//! cannot craft a payload that passes as a frame. A real frame is valid only at its own offset
//! in its own segment.
//!
//! # After a crash
//! The journal writes a batch with one write and one sync (or one of each for every
//! [`Options::piece_bytes`]), after the previous batch is synced. It
//! uses a segment only after the segment's header and file name are synced. So in every segment but
//! the last, all bytes before the end that the next header names were synced; any that cannot be
//! read are corrupt. In the last segment, every batch but the last was synced. The last batch is
//! either complete, according to its flag and checksums, or a torn tail, which the journal removes.
//! Later corruption of the last batch looks like a torn tail, unless the caller opens the journal
//! with a position after it.
//!
//! After a failed write or sync, the bytes after the last batch are unknown, even if a later sync
//! succeeds. The journal abandons the segment and continues in a new one, whose header marks the
//! end of the old one. A segment that is abandoned before its first batch is *void*: no later
//! header names it, and the journal removes it.

mod assemble;
mod batch;
mod buffers;
mod chain;
mod error;
mod files;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod journal;
mod pieces;
mod place;
mod reader;
mod recovery;
mod segment_file;
mod walk;

pub use batch::{Batch, Mark};
pub use error::{JournalError, OpenError, ReadError};
pub use journal::{Journal, Options};
pub use place::{Damage, Frame, Location, Position, Segment};
pub use reader::Reader;
pub use recovery::Opened;

/// The segments of a journal that is not open, ascending, with the full length of each file.
///
/// # Errors
/// If the disk cannot list its files or their lengths.
pub fn segments(
    disk: std::sync::Arc<dyn relay_disk::Disk>,
    name: &'static str,
) -> std::io::Result<Vec<Segment>> {
    Ok(files::Files::list(disk, name)?.each_segment().collect())
}
