//! An append-only journal of frames in segment files: what was committed is on disk, what was not
//! is there as a whole or not at all. It knows bytes, places and syncs; what a frame means, and
//! whether anybody still needs it, it never knows.
//!
//! # Promise
//! - [`Journal::commit`] returns once its frames are durable. After a crash at any instant
//!   [`Journal::open`] replays every batch that was committed, in order, and of others at most the
//!   one that was being committed, as a whole.
//! - A batch whose commit has failed never comes back once a later batch could be begun.
//! - What is damaged on disk costs the frames that it hits. It is reported, and never handed out as
//!   something else.
//!
//! # Files
//! A segment is one file, such as `journal-0000000001.seg` in a journal of that name: a header,
//! then batches of frames one behind the other, each batch in one segment. Its header names the
//! segment before it and where that one ends. Numbers are never used twice, though not all are
//! used. The layout, to the byte:
//!
//! | segment header | bytes | |
//! |---|---|---|
//! | magic | 8 | `relayseg` |
//! | format | 4 | 1; the first 36 bytes of a segment have this shape in every format |
//! | segment | 4 | its own number, from 1 |
//! | previous segment | 4 | the number of the one before, which is smaller; 0 if there was none |
//! | previous end | 4 | where the last batch of the one before ends; nothing behind that counts |
//! | salt | 8 | a random number that only this file holds |
//! | checksum | 4 | CRC-32C of the 32 bytes before |
//!
//! | frame | bytes | |
//! |---|---|---|
//! | body length | 4 | |
//! | kind | 1 | the caller's; 0 is reserved |
//! | flags | 1 | bit 0: the last frame of its batch; the others are 0 |
//! | reserved | 2 | 0 |
//! | batch | 4 | where the first frame of its batch begins, from the beginning of the file |
//! | body checksum | 4 | CRC-32C of the upper half of the salt, the frame's own offset, and the body |
//! | header checksum | 4 | CRC-32C of the lower half of the salt, the frame's own offset, and the 16 bytes before |
//! | body | | |
//!
//! Numbers are little-endian. The two halves of the salt are two secrets. Who does not know them
//! cannot send a payload that passes for a frame, and a true frame passes in its own place alone:
//! not in the payload of another, and not in another segment.
//!
//! # What may be on disk after a crash
//! A batch is written once the one before is synced, in one write and one sync, and a segment is
//! used once its header and its name are synced. So in all segments but the last everything up to
//! the end that the next one names was synced, and what cannot be read of that is damage. In the
//! last one everything before the last batch was synced; the last batch is complete, which its flag
//! and its checksums tell, or it is a torn tail and cut off. If bytes of the last batch rot later,
//! they cannot be told from a torn tail, unless the caller opens the journal with a position behind
//! them.
//!
//! After a write or sync that fails nobody knows what is on disk behind the last batch, not even
//! after a later sync that succeeds. The journal gives the segment up and goes on in a new one,
//! whose header puts an end to the old one. A segment that was given up before its first batch is
//! *void*: no later header names it, and it is removed.

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
mod place;
mod reader;
mod recovery;
mod walk;

pub use batch::{Batch, Mark};
pub use error::{JournalError, OpenError, ReadError};
pub use journal::{Journal, Opened, Options};
pub use place::{Damage, Frame, Location, Position, Segment};
pub use reader::Reader;

/// The segments of a journal that is not open, ascending, at the full length of their files.
///
/// # Errors
/// When the disk cannot tell.
pub fn segments(
    disk: std::sync::Arc<dyn relay_disk::Disk>,
    name: &'static str,
) -> std::io::Result<Vec<Segment>> {
    Ok(files::Files::list(disk, name)?.each_segment().collect())
}
