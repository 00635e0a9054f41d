//! The journal itself: which segment takes the next batch, and what happens when that fails. One
//! owner writes; readers go beside it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem;
use std::sync::Arc;

use relay_disk::{Disk, DiskFile};

use crate::batch::Frames;
use crate::files::{Files, OpenSegment};
use crate::format::{SEGMENT_HEADER_BYTES, Salt, SegmentHeader};
use crate::recovery::{Recovered, cut_off, recover};
use crate::{Batch, Damage, Frame, JournalError, OpenError, Position, Reader};

/// A new segment takes at least one batch.
const SEGMENT_BYTES_MIN: u64 = SEGMENT_HEADER_BYTES as u64 + 1;

/// Setting less aside than this for a segment is not worth a call.
const RESERVED_BYTES_MIN: u64 = 64 << 10;

/// Space is set aside for a segment only while the disk has so many times as much: what is left on
/// a nearly full one is for those who need it now, and a file system that has too little keeps what
/// there is all the same.
const RESERVED_OF_FREE: u64 = 4;

/// Offsets are 32 bits wide; this leaves room for a last batch of up to 3 GiB.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// So many files that could not be removed may lie about before nothing more is written.
const VOID_FILES_MAX: usize = 16;

/// What the caller decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the names of its files begin with: `journal` by default. Journals of different names
    /// can share a disk.
    pub name: &'static str,
    /// A segment takes no further batch once it has reached this length. 64 MiB by default, at most
    /// 1 GiB.
    pub segment_bytes: u64,
    /// A batch that is larger is written in pieces of so many bytes, each synced, so that no other
    /// sync of the same disk has to wait for more of it. Without bound by default.
    pub piece_bytes: u64,
}

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// What could not be read of that which had been synced behind the position where the replay
    /// began.
    pub damage: Vec<Damage>,
    /// Whether some of the damage is not of the bytes: the disk has failed to read them, twice, and
    /// may read them another time. Opening has not changed them.
    pub unreadable: bool,
    /// How many bytes behind the last batch were cut off: of a batch that was not synced, or of one
    /// that failed.
    pub torn_bytes: u64,
    /// How many batches were replayed.
    pub batches: u64,
    /// How many frames were in them.
    pub frames: u64,
}

/// An append-only journal in segment files. The crate's own page has the rules.
#[derive(Debug)]
pub struct Journal {
    files: Arc<Files>,
    segment_bytes: u64,
    piece_bytes: u64,
    salts: fn() -> Salt,
    /// Behind the last synced batch.
    end: Position,
    /// The segment that takes the next batch; `None` if that is still to be made. Never one in
    /// which a write or sync has failed.
    current: Option<Current>,
    /// The highest number that a file may have.
    last_id: u32,
    /// Files that hold no batch, and that could not be removed yet.
    void: Vec<u32>,
    /// Memory of the last batch, for the next one.
    spare: Frames,
    /// The file with the highest number may not go: a replay begins with it, or with its number.
    last_stays: bool,
}

#[derive(Debug)]
struct Current {
    segment: OpenSegment,
    /// Behind its last synced batch, or its header.
    end: u32,
}

impl Current {
    /// Where the next batch begins.
    fn next(&self) -> Position {
        Position { segment: self.segment.header.id, offset: self.end }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { name: "journal", segment_bytes: 64 << 20, piece_bytes: u64::MAX }
    }
}

impl Journal {
    /// Opens the journal in `disk`, whose other files it leaves alone, and replays every batch from
    /// `from` on, oldest first; from the oldest segment if that is `None`. Segments before that of
    /// `from` are neither read nor checked.
    ///
    /// `from` is a position that this journal has once told. The frames of a batch that is damaged
    /// are those that can still be read.
    pub fn open<E>(
        disk: Arc<dyn Disk>,
        options: Options,
        from: Option<Position>,
        replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<(Self, Opened), OpenError<E>> {
        Self::open_salted(disk, options, random_salt, from, replay)
    }

    pub(crate) fn open_salted<E>(
        disk: Arc<dyn Disk>,
        options: Options,
        salts: fn() -> Salt,
        from: Option<Position>,
        replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<(Self, Opened), OpenError<E>> {
        let files = Arc::new(Files::list(disk, options.name)?);
        let last_id = files.last().unwrap_or(0).max(from.unwrap_or_default().segment);
        let Recovered { opened, end, current, void } = recover(&files, from, replay)?;
        let journal = Self {
            files,
            segment_bytes: options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            piece_bytes: options.piece_bytes,
            salts,
            end,
            current: current.map(|(segment, end)| Current { segment, end }),
            last_id,
            void,
            spare: Frames::default(),
            last_stays: true,
        };
        Ok((journal, opened))
    }

    /// Opens a journal that is never replayed, as its frames and their places are noted elsewhere,
    /// each after its commit. No segment is read. It goes on in a new one, behind all that are
    /// there and behind number `last`, and every one of them may be removed.
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
            last_stays: false,
        })
    }

    /// Begins a batch, in the next segment if the current one is full or has failed. If that cannot
    /// be made, nothing can be written now, and it is tried again the next time.
    ///
    /// A batch that is not committed before the next one is begun is lost.
    pub fn begin(&mut self) -> Result<Batch, JournalError> {
        let is_usable = |current: &Current| u64::from(current.end) < self.segment_bytes;
        if !self.current.as_ref().is_some_and(is_usable) {
            self.current = Some(self.make_segment()?);
        }
        let Some(current) = &self.current else { return Err(JournalError::OutOfTurn) };
        let salt = current.segment.header.salt;
        Ok(Batch::new(mem::take(&mut self.spare), current.next(), salt))
    }

    /// Writes the batch and syncs it. After an error the batch is not in the journal, and the next
    /// one goes to another segment. An empty batch touches no file.
    ///
    /// Returns the position behind the batch.
    pub fn commit(&mut self, batch: Batch) -> Result<Position, JournalError> {
        if batch.is_empty() {
            return Ok(self.end);
        }
        let current = self.current.as_mut().filter(|current| current.next() == batch.start());
        let current = current.ok_or(JournalError::OutOfTurn)?;
        let (mut frames, end) = batch.finish()?;
        let file = &current.segment.file;
        let written = write_and_sync(&**file, &frames.parts(), u64::from(current.end), self.piece_bytes);
        frames.clear();
        self.spare = frames;
        match written {
            Ok(()) => {
                current.end = end;
                self.end = current.next();
                self.files.set_end(self.end.segment, end);
                Ok(self.end)
            }
            Err(error) => {
                self.give_up_segment();
                Err(JournalError::Write(error))
            }
        }
    }

    /// Behind the last synced batch: where a replay from now on would begin.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Reads beside this journal. It goes on if the journal is dropped.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.files), self.last_stays)
    }

    /// After a failed write or sync nobody knows what is on disk behind the last batch, and a later
    /// sync would not tell.
    fn give_up_segment(&mut self) {
        let Some(Current { segment, end }) = self.current.take() else { return };
        if end == SEGMENT_HEADER_BYTES {
            // It may be the only one that names the end of the one before.
            if cut_off(&self.files, self.end).is_ok() {
                self.void.push(segment.header.id);
            }
            self.files.discard(&mut self.void);
        } else {
            // The next segment takes these bytes out of the journal; until it is there, this helps.
            let _ = segment.file.set_len(u64::from(end));
        }
        // Before anybody hears of the failure, if the disk lets us; else the next batch begins with
        // another try.
        self.current = self.make_segment().ok();
    }

    /// Makes the segment behind all others. It names the end of what came before.
    fn make_segment(&mut self) -> Result<Current, JournalError> {
        self.files.discard(&mut self.void);
        if self.void.len() >= VOID_FILES_MAX {
            return Err(JournalError::Segment(io::Error::other(
                "files that are not needed cannot be removed",
            )));
        }
        // A file that failed may be there all the same, so its number is not used again.
        self.last_id = self.last_id.checked_add(1).ok_or(JournalError::Exhausted)?;
        let header = SegmentHeader { id: self.last_id, previous: self.end, salt: (self.salts)() };
        match self.files.make(header) {
            Ok(segment) => {
                self.reserve(&segment);
                Ok(Current { segment, end: SEGMENT_HEADER_BYTES })
            }
            Err(error) => {
                self.void.push(header.id);
                self.files.discard(&mut self.void);
                Err(JournalError::Segment(error))
            }
        }
    }
}

impl Journal {
    /// Sets space aside for a new segment, if there is plenty. It makes syncs cheaper, and nothing
    /// depends on it.
    fn reserve(&self, segment: &OpenSegment) {
        let is_plenty = |free_bytes: u64| free_bytes >= self.segment_bytes.saturating_mul(RESERVED_OF_FREE);
        if self.segment_bytes < RESERVED_BYTES_MIN || !self.files.free_bytes().is_none_or(is_plenty) {
            return;
        }
        if segment.file.reserve(self.segment_bytes).is_err() {
            // It may be set aside in part. Should that stay so, this segment uses it.
            let _ = segment.file.set_len(u64::from(SEGMENT_HEADER_BYTES));
        }
    }
}

/// Writes `parts` one behind the other from `offset` on, and syncs: once, or every `piece_bytes`.
fn write_and_sync(file: &dyn DiskFile, parts: &[&[u8]], mut offset: u64, piece_bytes: u64) -> io::Result<()> {
    for piece in pieces(parts, piece_bytes) {
        file.write_all_at(&piece, offset)?;
        file.sync()?;
        offset += piece.iter().map(|part| part.len() as u64).sum::<u64>();
    }
    Ok(())
}

/// The same bytes, in pieces of at most so many. At least one piece, which may be empty.
fn pieces<'a>(parts: &[&'a [u8]], piece_bytes: u64) -> Vec<Vec<&'a [u8]>> {
    let piece_bytes = usize::try_from(piece_bytes).unwrap_or(usize::MAX).max(1);
    let (mut pieces, mut piece, mut room) = (Vec::new(), Vec::new(), piece_bytes);
    for mut part in parts.iter().copied() {
        while part.len() > room {
            let (head, rest) = part.split_at(room);
            piece.push(head);
            pieces.push(mem::take(&mut piece));
            (part, room) = (rest, piece_bytes);
        }
        room -= part.len();
        piece.push(part);
    }
    pieces.push(piece);
    pieces
}

/// From the keys of a hasher, which the standard library draws from the operating system.
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
    fn pieces_are_the_same_bytes() {
        let parts: [&[u8]; 5] = [b"", b"abc", b"defghij", b"", b"k"];
        for (bytes, expected) in [
            (1, "a b c d e f g h i j k"),
            (2, "ab cd ef gh ij k"),
            (4, "abcd efgh ijk"),
            (5, "abcde fghij k"),
            (11, "abcdefghijk"),
            (u64::MAX, "abcdefghijk"),
        ] {
            let pieces: Vec<String> = pieces(&parts, bytes)
                .into_iter()
                .map(|piece| String::from_utf8(piece.concat()).unwrap())
                .collect();
            assert_eq!(pieces.join(" "), expected, "pieces of {bytes}");
        }
        assert_eq!(pieces(&[], 5), [Vec::<&[u8]>::new()]);
    }

    #[test]
    fn salts_differ() {
        let salts: std::collections::HashSet<u64> = (0..100).map(|_| random_salt().0).collect();
        assert_eq!(salts.len(), 100);
        let halves: std::collections::HashSet<u64> = salts.iter().map(|salt| salt >> 32).collect();
        assert!(halves.len() > 95);
    }

    #[test]
    fn when_no_number_is_left_nothing_is_written() {
        let disk = SimDisk::new();
        let mut journal = open(&disk, random_salt);
        journal.last_id = u32::MAX - 1;
        commit(&mut journal, &[(1, &[0; 100])]);
        assert!(matches!(journal.begin(), Err(JournalError::Exhausted)));
        let journal = open(&disk, random_salt);
        assert_eq!(journal.end(), Position { segment: u32::MAX, offset: 156 });
    }

    #[test]
    fn a_batch_that_no_segment_can_hold_is_refused_and_costs_nothing() {
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
    fn the_memory_of_a_batch_is_used_again_but_not_hoarded() {
        let disk = SimDisk::new();
        let mut journal = open(&disk, random_salt);
        commit(&mut journal, &[(1, &[0; 1000])]);
        let kept = journal.spare.copied_capacity();
        assert!((1000..5000).contains(&kept));
        commit(&mut journal, &[(1, &vec![0; 9 << 20])]);
        assert!((4 << 20..5 << 20).contains(&journal.spare.copied_capacity()));
    }

    #[test]
    fn a_batch_that_others_have_overtaken_is_refused() {
        let mut journal = open(&SimDisk::new(), || Salt(1));
        let (mut late, mut early) = (journal.begin().unwrap(), journal.begin().unwrap());
        late.append(1, b"late", Bytes::new());
        early.append(1, b"early", Bytes::new());
        journal.commit(early).unwrap();
        assert!(matches!(journal.commit(late), Err(JournalError::OutOfTurn)));
    }
}
