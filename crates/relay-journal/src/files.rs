//! The segment files of a journal, their lengths, and a bounded cache of open handles. The journal
//! and its readers share it. It never holds its lock during disk access.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relay_disk::Disk;

use crate::Segment;
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader, file_name, segment_of};
use crate::segment_file::{OpenSegment, SegmentError, clamp_len, read_header};

/// How many segments stay open.
const HANDLES_MAX: usize = 256;

/// How many segments are listed under one lock.
const SEGMENTS_AT_ONCE: usize = 256;

#[derive(Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    /// The prefix of the file names.
    journal: &'static str,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    segments: BTreeMap<u32, Entry>,
    /// The total length of all segments.
    bytes: u64,
    /// Open segments, each with the value of `uses` at its last use.
    handles: HashMap<u32, (OpenSegment, u64)>,
    uses: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// Where the segment ends: bytes after this do not count.
    end: u32,
    /// Every open handle holds a clone.
    user: Arc<()>,
}

impl Files {
    /// Lists the files of a journal, each with its full length.
    pub(crate) fn list(disk: Arc<dyn Disk>, journal: &'static str) -> io::Result<Self> {
        let mut table = Table::default();
        for name in disk.list()? {
            if let Some(id) = segment_of(journal, &name) {
                table.set_end(id, clamp_len(disk.file_len(&name)?));
            }
        }
        Ok(Self { disk, journal, table: Mutex::new(table) })
    }

    /// All segments, ascending. The lock is released between groups of segments.
    pub(crate) fn each_segment(&self) -> impl Iterator<Item = Segment> {
        let mut next = Some(0);
        let groups = std::iter::from_fn(move || {
            let group = self.segments_from(next?);
            next = group.last()?.id.checked_add(1);
            Some(group)
        });
        groups.flatten()
    }

    fn segments_from(&self, first: u32) -> Vec<Segment> {
        let table = self.table();
        let entries = table.segments.range(first..).take(SEGMENTS_AT_ONCE);
        entries.map(|(id, entry)| Segment { id: *id, bytes: u64::from(entry.end) }).collect()
    }

    /// The number of segments and their total length.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let table = self.table();
        (table.segments.len() as u64, table.bytes)
    }

    pub(crate) fn last(&self) -> Option<u32> {
        self.table().segments.last_key_value().map(|(id, _)| *id)
    }

    pub(crate) fn last_before(&self, segment: u32) -> Option<u32> {
        self.table().segments.range(..segment).next_back().map(|(id, _)| *id)
    }

    pub(crate) fn first_after(&self, segment: u32) -> Option<u32> {
        let after = (Bound::Excluded(segment), Bound::Unbounded);
        self.table().segments.range(after).next().map(|(id, _)| *id)
    }

    /// Where the segment ends; `None` if it does not exist.
    pub(crate) fn end(&self, segment: u32) -> Option<u32> {
        self.table().segments.get(&segment).map(|entry| entry.end)
    }

    pub(crate) fn set_end(&self, segment: u32, end: u32) {
        self.table().set_end(segment, end);
    }

    /// Returns a cached handle, or opens the segment.
    pub(crate) fn open(&self, segment: u32) -> Result<OpenSegment, SegmentError> {
        if let Some(cached) = self.table().cached(segment) {
            return Ok(cached);
        }
        // Registers the user before opening, so that `remove` does not truncate the file meanwhile.
        let user = self.table().segments.get(&segment).map(|entry| Arc::clone(&entry.user));
        let file = self.disk.open(&self.name(segment)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SegmentError::Missing,
            _ => SegmentError::Io(error),
        })?;
        let header = read_header(&*file, segment)?;
        let opened = OpenSegment::new(file, header, user.unwrap_or_default());
        self.table().cache(opened.clone());
        Ok(opened)
    }

    /// Creates a segment without batches. It is durable when this returns.
    pub(crate) fn create(&self, header: SegmentHeader) -> io::Result<OpenSegment> {
        let file = self.disk.create(&self.name(header.id))?;
        file.write_all_at(&[&header.encode()], 0)?;
        file.sync()?;
        self.disk.sync()?;
        let mut table = self.table();
        let user = Arc::clone(&table.set_end(header.id, SEGMENT_HEADER_BYTES).user);
        let created = OpenSegment::new(file, header, user);
        table.cache(created.clone());
        Ok(created)
    }

    /// Removes a segment; a missing file is not an error. Truncates the file step by step, with
    /// `pause` after each step. If the segment still has users, the last one to finish frees all of
    /// its space instead.
    pub(crate) fn remove(&self, segment: u32, pause: &dyn Fn()) -> io::Result<()> {
        let name = self.name(segment);
        let file = self.disk.open(&name);
        match self.disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let (Some(entry), Ok(file)) = (self.forget(segment), file)
            && Arc::strong_count(&entry.user) == 1
        {
            // The segment is removed even if truncation fails.
            let _ = relay_disk::give_back(&*self.disk, &*file, pause);
        }
        Ok(())
    }

    /// Removes void files, and leaves those that cannot be removed in `void`. None of them counts
    /// as a segment afterwards.
    pub(crate) fn discard(&self, void: &mut Vec<u32>) {
        void.retain(|segment| {
            self.forget(*segment);
            self.remove(*segment, &|| ()).is_err()
        });
    }

    fn forget(&self, segment: u32) -> Option<Entry> {
        let mut table = self.table();
        table.handles.remove(&segment);
        let entry = table.segments.remove(&segment)?;
        table.bytes -= u64::from(entry.end);
        Some(entry)
    }

    /// The file name of a segment.
    pub(crate) fn name(&self, segment: u32) -> String {
        file_name(self.journal, segment)
    }

    /// The free space of the disk; `None` if it is unknown.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes().ok().flatten()
    }

    /// Makes the file names durable.
    pub(crate) fn sync_names(&self) -> io::Result<()> {
        self.disk.sync()
    }

    /// Ignores poisoning: no panic under the lock can leave the table inconsistent.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Records where a segment ends, and adds the segment if it is new.
    fn set_end(&mut self, segment: u32, end: u32) -> &mut Entry {
        let entry = self.segments.entry(segment).or_default();
        self.bytes = self.bytes - u64::from(entry.end) + u64::from(end);
        entry.end = end;
        entry
    }

    fn cached(&mut self, segment: u32) -> Option<OpenSegment> {
        self.uses += 1;
        let (handle, last_use) = self.handles.get_mut(&segment)?;
        *last_use = self.uses;
        Some(handle.clone())
    }

    /// Caches a handle, and drops the least recently used one if the cache is full. A segment that
    /// was removed while it was opened is not cached, because its space would never be freed.
    fn cache(&mut self, opened: OpenSegment) {
        let segment = opened.header.id;
        if !self.segments.contains_key(&segment) {
            return;
        }
        if self.handles.len() >= HANDLES_MAX {
            let oldest = self.handles.iter().min_by_key(|(_, (_, last_use))| *last_use).map(|(id, _)| *id);
            oldest.and_then(|id| self.handles.remove(&id));
        }
        self.uses += 1;
        self.handles.insert(segment, (opened, self.uses));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use relay_disk::SimDisk;

    use super::*;
    use crate::Position;
    use crate::format::Salt;

    fn create(files: &Files, id: u32) -> OpenSegment {
        files.create(SegmentHeader { id, previous: Position::default(), salt: Salt(0) }).unwrap()
    }

    #[test]
    fn the_least_recently_used_handle_is_closed() {
        let files = Files::list(Arc::new(SimDisk::new()), "journal").unwrap();
        for id in 1..=300 {
            create(&files, id);
            files.open(1).unwrap();
            assert!(files.table().handles.len() <= HANDLES_MAX);
        }
        let open = |id| files.table().handles.contains_key(&id);
        assert!(open(1) && open(300) && !open(2));
        files.open(2).unwrap();
        assert!(open(2) && files.table().handles.len() == HANDLES_MAX);
    }

    #[test]
    fn listing_and_usage_follow_new_and_removed_segments() {
        let disk = SimDisk::new();
        disk.create("journal-0000000005.seg").unwrap().set_len(100).unwrap();
        let files = Files::list(Arc::new(disk), "journal").unwrap();
        let listed = || files.each_segment().map(|segment| (segment.id, segment.bytes)).collect::<Vec<_>>();
        assert_eq!((listed(), files.usage()), (vec![(5, 100)], (1, 100)));
        // More than one group, and the highest number.
        for id in (6..600).chain([u32::MAX]) {
            create(&files, id);
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

    /// Truncation must not affect any reader, whichever handle it uses.
    #[test]
    fn a_removed_segment_is_truncated_only_without_readers() {
        const BYTES: u64 = 3 << 20;
        let disk = SimDisk::new();
        let files = Files::list(Arc::new(disk.clone()), "journal").unwrap();
        for (id, is_read, len, pauses) in [(1, false, 1 << 20, 2), (2, true, BYTES, 0)] {
            let created = create(&files, id);
            created.file().set_len(BYTES).unwrap();
            let observer = disk.open(&files.name(id)).unwrap();
            drop(created);
            files.table().handles.clear();
            let reader = is_read.then(|| files.open(id).unwrap());
            files.table().handles.clear();
            let paused = Cell::new(0);
            files.remove(id, &|| paused.set(paused.get() + 1)).unwrap();
            assert_eq!((observer.len().unwrap(), paused.get()), (len, pauses));
            assert!(matches!(files.open(id), Err(SegmentError::Missing)));
            drop(reader);
        }
    }

    #[test]
    fn a_segment_removed_while_it_is_opened_is_not_cached() {
        let disk = SimDisk::new();
        let files = Files::list(Arc::new(disk.clone()), "journal").unwrap();
        let opened = create(&files, 1);
        files.remove(1, &|| ()).unwrap();
        files.table().cache(opened);
        assert_eq!((files.table().handles.len(), disk.bytes_used()), (0, 0));
    }
}
