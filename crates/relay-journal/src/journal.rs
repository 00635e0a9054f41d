//! The writing side of the journal: it appends batches, and switches segments when one is full or
//! fails. It has one owner. Readers work concurrently.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem;
use std::sync::Arc;

use relay_disk::Disk;

use crate::batch::Frames;
use crate::files::Files;
use crate::format::{SEGMENT_HEADER_BYTES, Salt, SegmentHeader};
use crate::pieces::write_and_sync;
use crate::recovery::{Opened, Recovered, cut_off, recover};
use crate::segment_file::{CurrentSegment, OpenSegment};
use crate::{Batch, Frame, JournalError, OpenError, Position, Reader};

/// Lets a new segment take at least one batch.
const SEGMENT_BYTES_MIN: u64 = SEGMENT_HEADER_BYTES as u64 + 1;

/// Offsets have 32 bits; this leaves space for a last batch of up to 3 GiB.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Segments smaller than this reserve no space, because the gain is too small.
const RESERVED_BYTES_MIN: u64 = 64 << 10;

/// The disk must have this many times the reserved space. On a nearly full disk, the free space
/// belongs to whatever needs it now; a file system that lacks the space may keep all that is left.
const RESERVED_OF_FREE: u64 = 4;

/// With this many void files that cannot be removed, the journal stops writing.
const VOID_FILES_MAX: usize = 16;

/// The settings of a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// The prefix of its file names: `journal` by default. Journals with different names can share
    /// a disk.
    pub name: &'static str,
    /// A segment that has reached this length takes no further batch. 64 MiB by default, at most
    /// 1 GiB.
    pub segment_bytes: u64,
    /// A larger batch is written in pieces of this size. Each piece is synced, so that other syncs
    /// of the same disk wait for one piece at most. Unlimited by default.
    pub piece_bytes: u64,
}

/// An append-only journal in segment files. The crate documentation has the rules.
#[derive(Debug)]
pub struct Journal {
    files: Arc<Files>,
    segment_bytes: u64,
    piece_bytes: u64,
    salts: fn() -> Salt,
    /// The end of the last synced batch.
    end: Position,
    /// The segment for the next batch; `None` if it must be created. No write or sync of it has
    /// failed.
    current: Option<CurrentSegment>,
    /// The highest segment number that a file may have.
    last_id: u32,
    /// Files without a batch that could not be removed yet.
    void: Vec<u32>,
    /// Memory of the last batch, for reuse.
    spare: Frames,
    /// Whether the last segment must not be removed, because a replay begins with it or relies on
    /// its number.
    keeps_last: bool,
}

impl CurrentSegment {
    fn next_batch(&self) -> Position {
        Position { segment: self.segment.header.id, offset: self.end }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { name: "journal", segment_bytes: 64 << 20, piece_bytes: u64::MAX }
    }
}

impl Journal {
    /// Opens the journal in `disk` and replays every batch from `from` on, oldest first; `None`
    /// begins with the oldest segment. It ignores earlier segments and other files.
    ///
    /// `from` must be a position that this journal returned. Of a corrupt batch, `replay` gets the
    /// frames that are still readable.
    pub fn open<E>(
        disk: Arc<dyn Disk>,
        options: Options,
        from: Option<Position>,
        replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<(Self, Opened), OpenError<E>> {
        Self::open_salted(disk, options, random_salt, from, replay)
    }

    fn open_salted<E>(
        disk: Arc<dyn Disk>,
        options: Options,
        salts: fn() -> Salt,
        from: Option<Position>,
        replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<(Self, Opened), OpenError<E>> {
        let journal = Self::open_unread(disk, options, from.unwrap_or_default().segment)?;
        let Recovered { opened, end, current, void } = recover(&journal.files, from, replay)?;
        Ok((Self { salts, end, current, void, keeps_last: true, ..journal }, opened))
    }

    /// Opens a journal that is never replayed, because the caller stores the location of each frame
    /// elsewhere after its commit. Reads no segment. The journal continues in a new segment, whose
    /// number exceeds `last` and all existing numbers. Every existing segment can be removed.
    pub fn open_unread(disk: Arc<dyn Disk>, options: Options, last: u32) -> io::Result<Self> {
        let files = Arc::new(Files::list(disk, options.name)?);
        let last_id = files.last().unwrap_or(0).max(last);
        Ok(Self {
            files,
            segment_bytes: options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            piece_bytes: options.piece_bytes,
            salts: random_salt,
            end: Position::default(),
            current: None,
            last_id,
            void: Vec::new(),
            spare: Frames::default(),
            keeps_last: false,
        })
    }

    /// Begins a batch, in a new segment if the current one is full or has failed. If that segment
    /// cannot be created, nothing can be written, and the next call tries again.
    ///
    /// A batch is lost unless it is committed before the next one begins.
    pub fn begin(&mut self) -> Result<Batch, JournalError> {
        let is_usable = |current: &CurrentSegment| u64::from(current.end) < self.segment_bytes;
        if !self.current.as_ref().is_some_and(is_usable) {
            self.current = Some(self.create_segment()?);
        }
        let Some(current) = &self.current else { return Err(JournalError::OutOfTurn) };
        let salt = current.segment.header.salt;
        Ok(Batch::new(mem::take(&mut self.spare), current.next_batch(), salt))
    }

    /// Writes and syncs the batch. After an error the batch is not in the journal, and the next one
    /// uses another segment. An empty batch causes no I/O.
    ///
    /// Returns the position after the batch.
    pub fn commit(&mut self, batch: Batch) -> Result<Position, JournalError> {
        if batch.is_empty() {
            return Ok(self.end);
        }
        let current = self.current.as_mut().filter(|current| current.next_batch() == batch.start());
        let current = current.ok_or(JournalError::OutOfTurn)?;
        let (mut frames, end) = batch.finish()?;
        let written =
            write_and_sync(current.segment.file(), &frames.parts(), u64::from(current.end), self.piece_bytes);
        frames.clear();
        self.spare = frames;
        if let Err(error) = written {
            self.abandon_segment();
            return Err(JournalError::Write(error));
        }
        current.end = end;
        self.end = current.next_batch();
        self.files.set_end(self.end.segment, end);
        Ok(self.end)
    }

    /// The position after the last synced batch, where a later replay can begin.
    pub fn end(&self) -> Position {
        self.end
    }

    /// A reader that works concurrently with this journal, and outlives it.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.files), self.keeps_last)
    }

    /// Stops using the current segment: after a failed write or sync, the bytes after its last
    /// batch are unknown, and a later sync would not reveal them.
    fn abandon_segment(&mut self) {
        let Some(CurrentSegment { segment, end }) = self.current.take() else { return };
        if end == SEGMENT_HEADER_BYTES {
            // This header may be the only one that names the end of the previous segment.
            if cut_off(&self.files, self.end).is_ok() {
                self.void.push(segment.header.id);
            }
            self.files.discard(&mut self.void);
        } else {
            // The header of the next segment excludes these bytes. Until it exists, this helps.
            let _ = segment.file().set_len(u64::from(end));
        }
        // Excludes the batch before the caller sees the error. If this fails, the next `begin`
        // tries again.
        self.current = self.create_segment().ok();
    }

    /// Creates the segment after all others. Its header names the end of the journal so far.
    fn create_segment(&mut self) -> Result<CurrentSegment, JournalError> {
        self.files.discard(&mut self.void);
        if self.void.len() >= VOID_FILES_MAX {
            let error = io::Error::other("too many unused journal files cannot be removed");
            return Err(JournalError::Segment(error));
        }
        // A file may exist even if its creation fails, so its number is not used again.
        self.last_id = self.last_id.checked_add(1).ok_or(JournalError::Exhausted)?;
        let header = SegmentHeader { id: self.last_id, previous: self.end, salt: (self.salts)() };
        let segment = self.files.create(header).map_err(|error| {
            self.void.push(header.id);
            self.files.discard(&mut self.void);
            JournalError::Segment(error)
        })?;
        self.reserve(&segment);
        Ok(CurrentSegment { segment, end: SEGMENT_HEADER_BYTES })
    }

    /// Reserves space for a new segment if the disk has plenty. This only makes syncs cheaper.
    fn reserve(&self, segment: &OpenSegment) {
        let is_plenty = |free_bytes: u64| free_bytes >= self.segment_bytes.saturating_mul(RESERVED_OF_FREE);
        if self.segment_bytes < RESERVED_BYTES_MIN || !self.files.free_bytes().is_none_or(is_plenty) {
            return;
        }
        if segment.file().reserve(self.segment_bytes).is_err() {
            // Frees what was reserved in part. If that fails too, this segment still uses it.
            let _ = segment.file().set_len(u64::from(SEGMENT_HEADER_BYTES));
        }
    }
}

/// Uses the keys of a hasher, which the standard library gets from the operating system.
fn random_salt() -> Salt {
    Salt(RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fmt::Write;

    use bytes::Bytes;
    use relay_disk::SimDisk;

    use super::*;

    fn open(disk: &SimDisk, salts: fn() -> Salt) -> Journal {
        let options = Options { segment_bytes: 100, ..Options::default() };
        let open =
            Journal::open_salted(Arc::new(disk.clone()), options, salts, None, |_| Ok::<_, Infallible>(()));
        open.unwrap().0
    }

    fn commit(journal: &mut Journal, frames: &[(u8, &[u8])]) {
        let mut batch = journal.begin().unwrap();
        for (kind, body) in frames {
            batch.append(*kind, body, Bytes::new());
        }
        journal.commit(batch).unwrap();
    }

    fn hex(disk: &SimDisk, name: &str) -> String {
        let bytes = disk.contents(name).unwrap();
        bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    #[test]
    fn two_segments_on_disk() {
        let disk = SimDisk::new();
        let mut journal = open(&disk, || Salt(0x8877_6655_4433_2211));
        commit(&mut journal, &[(1, b"hello"), (2, b"")]);
        commit(&mut journal, &[(1, b"world")]);
        commit(&mut journal, &[(7, b"!")]);
        let first = concat!(
            "72656c6179736567 01000000 01000000 00000000 00000000 1122334455667788 c9d45fc9",
            "05000000 01 00 0000 24000000 f48c3a19 444bdb36 68656c6c6f",
            "00000000 02 01 0000 24000000 e3956740 e8692400",
            "05000000 01 01 0000 51000000 612fced6 0ee30ed9 776f726c64",
        );
        let second = concat!(
            "72656c6179736567 01000000 02000000 01000000 6a000000 1122334455667788 8b6ee2d8",
            "01000000 07 01 0000 24000000 1967df02 082a536e 21",
        );
        assert_eq!(hex(&disk, "journal-0000000001.seg"), first.replace(' ', ""));
        assert_eq!(hex(&disk, "journal-0000000002.seg"), second.replace(' ', ""));
        assert_eq!(journal.end(), Position { segment: 2, offset: 57 });
    }

    #[test]
    fn salts_differ() {
        let salts: std::collections::HashSet<u64> = (0..100).map(|_| random_salt().0).collect();
        assert_eq!(salts.len(), 100);
        let halves: std::collections::HashSet<u64> = salts.iter().map(|salt| salt >> 32).collect();
        assert!(halves.len() > 95);
    }

    #[test]
    fn begin_fails_when_no_segment_number_is_left() {
        let disk = SimDisk::new();
        let mut journal = open(&disk, random_salt);
        journal.last_id = u32::MAX - 1;
        commit(&mut journal, &[(1, &[0; 100])]);
        assert!(matches!(journal.begin(), Err(JournalError::Exhausted)));
        let journal = open(&disk, random_salt);
        assert_eq!(journal.end(), Position { segment: u32::MAX, offset: 156 });
    }

    #[test]
    fn rejected_batches_do_not_affect_the_journal() {
        let disk = SimDisk::new();
        let mut journal = open(&disk, random_salt);
        let tail = Bytes::from(vec![0; 1 << 20]);
        let mut batch = journal.begin().unwrap();
        for _ in 0..4096 {
            batch.append(1, &[], tail.clone());
        }
        assert!(matches!(journal.commit(batch), Err(JournalError::TooLarge)));
        let mut batch = journal.begin().unwrap();
        batch.append(1, b"fits", Bytes::new());
        batch.append(0, &[], Bytes::new());
        assert!(matches!(journal.commit(batch), Err(JournalError::ReservedKind)));
        commit(&mut journal, &[(1, b"fits")]);
        assert_eq!(journal.end(), Position { segment: 1, offset: 60 });
    }

    #[test]
    fn the_memory_of_a_batch_is_reused_within_a_limit() {
        let disk = SimDisk::new();
        let mut journal = open(&disk, random_salt);
        commit(&mut journal, &[(1, &[0; 1000])]);
        let capacity = journal.spare.copied_capacity();
        assert!((1000..5000).contains(&capacity));
        commit(&mut journal, &[(1, &vec![0; 9 << 20])]);
        assert!((4 << 20..5 << 20).contains(&journal.spare.copied_capacity()));
    }

    #[test]
    fn a_batch_is_rejected_after_a_commit_of_another() {
        let mut journal = open(&SimDisk::new(), || Salt(1));
        let (mut late, mut early) = (journal.begin().unwrap(), journal.begin().unwrap());
        late.append(1, b"late", Bytes::new());
        early.append(1, b"early", Bytes::new());
        journal.commit(early).unwrap();
        assert!(matches!(journal.commit(late), Err(JournalError::OutOfTurn)));
    }
}
