//! The segment files that there are, how far each of them counts, and a bounded number of open
//! handles. The journal and all its readers share it; nobody holds its lock while the disk works.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::{Bound, Deref};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relay_disk::{Disk, DiskFile};

use crate::format::{NoHeader, SEGMENT_HEADER_BYTES, SegmentHeader, file_name, segment_of};
use crate::{Damage, ReadError, Segment};

/// So many segments are kept open.
const HANDLES_MAX: usize = 256;

/// So many segments are listed before others have their turn.
const SEGMENTS_AT_ONCE: usize = 256;

#[derive(Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    /// What the names of the files begin with.
    journal: &'static str,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// What is known of each segment, by its number.
    ends: BTreeMap<u32, End>,
    /// How long they are together.
    bytes: u64,
    /// Open segments and when they were last asked for, in uses.
    handles: HashMap<u32, (OpenSegment, u64)>,
    uses: u64,
}

/// Where a segment ends.
#[derive(Debug, Default)]
struct End {
    /// How many of its bytes count.
    bytes: u32,
    /// Shared with all that have it open, to see that nobody has.
    user: User,
}

/// Somebody who may read a segment.
#[derive(Clone, Debug, Default)]
struct User(Arc<()>);

/// An open file and its header.
#[derive(Clone, Debug)]
pub(crate) struct OpenSegment {
    pub(crate) file: SegmentFile,
    pub(crate) header: SegmentHeader,
}

/// The file of a segment, which stays whole as long as this lives.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    file: Arc<dyn DiskFile>,
    _user: User,
}

impl Deref for SegmentFile {
    type Target = dyn DiskFile;

    fn deref(&self) -> &Self::Target {
        &*self.file
    }
}

/// Why a segment cannot be opened.
#[derive(Debug)]
pub(crate) enum NotOpen {
    Missing,
    /// The disk failed, or the process has no means to open a file.
    Io(io::Error),
    /// The disk cannot read the header.
    Unreadable(io::Error),
    /// It has no header of a segment.
    Damaged(Damage),
    Format(u32),
    /// It is of a build from before the first release.
    Earlier,
}

impl Files {
    /// What there is of a journal in `disk`, at its full length.
    pub(crate) fn list(disk: Arc<dyn Disk>, journal: &'static str) -> io::Result<Self> {
        let mut table = Table::default();
        for name in disk.list()? {
            if let Some(id) = segment_of(journal, &name) {
                table.set_end(id, counted(disk.file_len(&name)?));
            }
        }
        Ok(Self { disk, journal, table: Mutex::new(table) })
    }

    /// At most so many segments from this number on, ascending.
    fn segments_from(&self, first: u32, max: usize) -> Vec<Segment> {
        let (table, mut segments) = (self.table(), Vec::new());
        let from = table.ends.range(first..).take(max);
        segments.extend(from.map(|(id, end)| Segment { id: *id, bytes: u64::from(end.bytes) }));
        segments
    }

    /// All segments, ascending, of which a few are looked up at a time.
    pub(crate) fn each_segment(&self) -> impl Iterator<Item = Segment> {
        let (mut next, mut few) = (Some(0), Vec::new().into_iter());
        std::iter::from_fn(move || {
            if few.len() == 0 {
                let found = self.segments_from(next?, SEGMENTS_AT_ONCE);
                next = found.last().and_then(|last| last.id.checked_add(1));
                few = found.into_iter();
            }
            few.next()
        })
    }

    /// How many segments there are, and how long they are together.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let table = self.table();
        (table.ends.len() as u64, table.bytes)
    }

    pub(crate) fn last(&self) -> Option<u32> {
        self.table().ends.last_key_value().map(|(id, _)| *id)
    }

    pub(crate) fn last_before(&self, segment: u32) -> Option<u32> {
        self.table().ends.range(..segment).next_back().map(|(id, _)| *id)
    }

    pub(crate) fn first_behind(&self, segment: u32) -> Option<u32> {
        let behind = (Bound::Excluded(segment), Bound::Unbounded);
        self.table().ends.range(behind).next().map(|(id, _)| *id)
    }

    /// How many bytes of the segment count; `None` if there is no such segment.
    pub(crate) fn end(&self, segment: u32) -> Option<u32> {
        self.table().ends.get(&segment).map(|end| end.bytes)
    }

    pub(crate) fn set_end(&self, segment: u32, end: u32) {
        self.table().set_end(segment, end);
    }

    /// Opens a segment, or finds it open.
    pub(crate) fn open(&self, segment: u32) -> Result<OpenSegment, NotOpen> {
        if let Some(found) = self.table().find(segment) {
            return Ok(found);
        }
        // Before it is opened, so that it is not emptied meanwhile. One that is no segment is not.
        let user = self.table().user(segment).unwrap_or_default();
        let file = self.disk.open(&self.name(segment)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NotOpen::Missing,
            _ => NotOpen::Io(error),
        })?;
        let header = read_header(&*file, segment)?;
        let opened = OpenSegment { file: SegmentFile { file, _user: user }, header };
        self.table().keep(segment, opened.clone());
        Ok(opened)
    }

    /// Makes a segment that holds no batch yet. Once this has returned, it is durable.
    pub(crate) fn make(&self, header: SegmentHeader) -> io::Result<OpenSegment> {
        let file = self.disk.create(&self.name(header.id))?;
        file.write_all_at(&[&header.encode()], 0)?;
        file.sync()?;
        self.disk.sync()?;
        let user = User::default();
        let mut table = self.table();
        table.set_end(header.id, SEGMENT_HEADER_BYTES).user = user.clone();
        let made = OpenSegment { file: SegmentFile { file, _user: user }, header };
        table.keep(header.id, made.clone());
        Ok(made)
    }

    /// Unlinks the file, and forgets the segment once that has worked. It may not be there. Its
    /// space is given back piece by piece, with a `pause` between two, unless somebody still reads
    /// it: then all of it is when he is through.
    pub(crate) fn remove(&self, segment: u32, pause: &dyn Fn()) -> io::Result<()> {
        let name = self.name(segment);
        let file = self.disk.open(&name);
        match self.disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let end = self.forget(segment);
        if let (Ok(file), Some(end)) = (file, end)
            && end.user.is_alone()
        {
            // The segment is gone whatever comes of this.
            let _ = relay_disk::give_back(&*self.disk, &*file, pause);
        }
        Ok(())
    }

    /// Removes files that hold nothing, as far as that works. What stays is no segment, and is left
    /// in `void`.
    pub(crate) fn discard(&self, void: &mut Vec<u32>) {
        void.retain(|segment| {
            self.forget(*segment);
            self.remove(*segment, &|| ()).is_err()
        });
    }

    /// Does as if the segment were not there.
    fn forget(&self, segment: u32) -> Option<End> {
        let mut table = self.table();
        table.handles.remove(&segment);
        let end = table.ends.remove(&segment)?;
        table.bytes -= u64::from(end.bytes);
        Some(end)
    }

    /// What the file of a segment is called.
    pub(crate) fn name(&self, segment: u32) -> String {
        file_name(self.journal, segment)
    }

    /// How much space the disk has left; `None` if it cannot tell.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes().ok().flatten()
    }

    /// Makes the names of the files durable.
    pub(crate) fn sync_names(&self) -> io::Result<()> {
        self.disk.sync()
    }

    /// No code under the lock can leave the table half changed, so one that a panic has poisoned is
    /// used on.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl User {
    /// Whether there is nobody else, and will not be once it has left the table.
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Table {
    /// Notes where a segment ends, one that may be new.
    fn set_end(&mut self, segment: u32, bytes: u32) -> &mut End {
        let end = self.ends.entry(segment).or_default();
        self.bytes = self.bytes - u64::from(end.bytes) + u64::from(bytes);
        end.bytes = bytes;
        end
    }

    fn user(&self, segment: u32) -> Option<User> {
        self.ends.get(&segment).map(|end| end.user.clone())
    }

    fn find(&mut self, segment: u32) -> Option<OpenSegment> {
        self.uses += 1;
        let (found, last_use) = self.handles.get_mut(&segment)?;
        *last_use = self.uses;
        Some(found.clone())
    }

    /// Keeps a handle, in place of the one that was not asked for the longest. A segment that has
    /// been removed while it was being opened is not kept: its space would never be free.
    fn keep(&mut self, segment: u32, opened: OpenSegment) {
        if !self.ends.contains_key(&segment) {
            return;
        }
        if self.handles.len() >= HANDLES_MAX {
            let idlest = self.handles.iter().min_by_key(|(_, (_, last_use))| *last_use).map(|(id, _)| *id);
            idlest.and_then(|id| self.handles.remove(&id));
        }
        self.uses += 1;
        self.handles.insert(segment, (opened, self.uses));
    }
}

impl From<NotOpen> for io::Error {
    fn from(reason: NotOpen) -> Self {
        match reason {
            NotOpen::Missing => io::ErrorKind::NotFound.into(),
            NotOpen::Io(error) | NotOpen::Unreadable(error) => error,
            NotOpen::Damaged(damage) => Self::new(io::ErrorKind::InvalidData, damage.to_string()),
            NotOpen::Format(found) => {
                Self::new(io::ErrorKind::Unsupported, format!("a segment has format {found}"))
            }
            NotOpen::Earlier => Self::new(io::ErrorKind::Unsupported, "a segment is of an earlier build"),
        }
    }
}

impl From<NotOpen> for ReadError {
    fn from(reason: NotOpen) -> Self {
        match reason {
            NotOpen::Missing => Self::Gone,
            NotOpen::Damaged(damage) => Self::Damaged(damage),
            other => io::Error::from(other).into(),
        }
    }
}

/// The length of a segment file.
pub(crate) fn len(file: &dyn DiskFile) -> io::Result<u32> {
    Ok(counted(file.len()?))
}

/// What lies behind 32 bits of a file is none of the journal's.
fn counted(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn read_header(file: &dyn DiskFile, segment: u32) -> Result<SegmentHeader, NotOpen> {
    let len = len(file).map_err(NotOpen::Io)?;
    let damaged = |what| NotOpen::Damaged(Damage { segment, from: 0, to: len, what });
    if len < SEGMENT_HEADER_BYTES {
        return Err(damaged("the header of the segment is incomplete"));
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    // Without its header a segment is lost, so an error that may pass has a second chance.
    file.read_exact_at(&mut bytes, 0)
        .or_else(|_| file.read_exact_at(&mut bytes, 0))
        .map_err(NotOpen::Unreadable)?;
    SegmentHeader::decode(&bytes, segment).map_err(|reason| match reason {
        NoHeader::Damaged(what) => damaged(what),
        NoHeader::Format(found) => NotOpen::Format(found),
        NoHeader::Earlier => NotOpen::Earlier,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use relay_disk::SimDisk;

    use super::*;
    use crate::Position;
    use crate::format::Salt;

    fn make(files: &Files, id: u32) -> OpenSegment {
        files.make(SegmentHeader { id, previous: Position::default(), salt: Salt(0) }).unwrap()
    }

    #[test]
    fn a_bounded_number_of_handles_is_open_and_the_idlest_gives_way() {
        let files = Files::list(Arc::new(SimDisk::new()), "journal").unwrap();
        for id in 1..=300 {
            make(&files, id);
            files.open(1).unwrap();
            assert!(files.table().handles.len() <= HANDLES_MAX);
        }
        let open = |id| files.table().handles.contains_key(&id);
        assert!(open(1) && open(300) && !open(2));
        files.open(2).unwrap();
        assert!(open(2) && files.table().handles.len() == HANDLES_MAX);
    }

    #[test]
    fn segments_are_listed_and_summed_as_they_come_and_go() {
        let disk = SimDisk::new();
        disk.create("journal-0000000005.seg").unwrap().set_len(100).unwrap();
        let files = Files::list(Arc::new(disk), "journal").unwrap();
        let listed = || files.each_segment().map(|segment| (segment.id, segment.bytes)).collect::<Vec<_>>();
        assert_eq!((listed(), files.usage()), (vec![(5, 100)], (1, 100)));
        // More than are listed at once, and the last number there is.
        for id in (6..600).chain([u32::MAX]) {
            make(&files, id);
        }
        files.set_end(7, 1000);
        files.set_end(7, 900);
        files.remove(8, &|| ()).unwrap();
        files.remove(8, &|| ()).unwrap();
        files.discard(&mut vec![9]);
        let expected = [(5, 100), (6, 36), (7, 900)].into_iter().chain((10..600).map(|id| (id, 36)));
        let expected: Vec<_> = expected.chain([(u32::MAX, 36)]).collect();
        let bytes = expected.iter().map(|segment| segment.1).sum();
        assert_eq!((listed(), files.usage()), (expected, (594, bytes)));
    }

    /// Emptying it must not take it from under somebody's eyes, whichever handle he has.
    #[test]
    fn a_removed_segment_is_emptied_once_nobody_reads_it() {
        const BYTES: u64 = 3 << 20;
        let disk = SimDisk::new();
        let files = Files::list(Arc::new(disk.clone()), "journal").unwrap();
        for (id, is_read, left, pieces) in [(1, false, 1 << 20, 2), (2, true, BYTES, 0)] {
            let made = make(&files, id);
            made.file.set_len(BYTES).unwrap();
            let unseen = disk.open(&files.name(id)).unwrap();
            drop(made);
            files.table().handles.clear();
            let reader = is_read.then(|| files.open(id).unwrap());
            files.table().handles.clear();
            let pauses = Cell::new(0);
            files.remove(id, &|| pauses.set(pauses.get() + 1)).unwrap();
            assert_eq!((unseen.len().unwrap(), pauses.get()), (left, pieces));
            assert!(matches!(files.open(id), Err(NotOpen::Missing)));
            drop(reader);
        }
    }

    #[test]
    fn a_segment_that_was_removed_while_it_was_opened_is_not_kept() {
        let disk = SimDisk::new();
        let files = Files::list(Arc::new(disk.clone()), "journal").unwrap();
        let opened = make(&files, 1);
        files.remove(1, &|| ()).unwrap();
        files.table().keep(1, opened);
        assert_eq!((files.table().handles.len(), disk.bytes_used()), (0, 0));
    }
}
