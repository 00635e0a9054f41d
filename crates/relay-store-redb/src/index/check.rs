//! redb's own check of the index: every page in use, and redb's list of the pages in use. Nobody
//! may have the store open.
//!
//! redb repairs what it finds, if necessary by returning to an older commit, which the journal may
//! no longer cover. So it gets a file that keeps all writes in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};
use relay_disk::{Directory, Disk, DiskFile};

use crate::error::{OpenError, StoreError, caught};
use crate::index::{self, Head, meta};
use crate::io::files;

/// The writes of redb are kept in pieces of this length.
const PIECE_BYTES: usize = 4096;

/// redb writes only its own bookkeeping, some pages for each gigabyte. Over a corrupt file it must
/// not fill the memory.
const PIECES_MAX: usize = 64 * 1024 * 1024 / PIECE_BYTES;

/// The page cache for reading only the head.
const FORMAT_CACHE_BYTES: usize = 256 * 1024;

/// Has redb check the index of the store in `directory` with a page cache of `cache_bytes`, and
/// lists what is wrong. It changes nothing. Nobody else may have the store open.
///
/// # Errors
/// [`OpenError`], in words for the operator, when the file cannot be read at all.
pub fn verify_index(directory: &Path, cache_bytes: usize) -> Result<Vec<String>, OpenError> {
    let disk = Directory::open(directory).map_err(|error| OpenError::of_directory(directory, error))?;
    verify_index_on(&disk, directory, cache_bytes)
}

/// As [`verify_index`], on a given disk. Error messages name `path`.
///
/// # Errors
/// As [`verify_index`].
pub fn verify_index_on(disk: &dyn Disk, path: &Path, cache_bytes: usize) -> Result<Vec<String>, OpenError> {
    match caught(|| is_intact(disk, cache_bytes)) {
        Ok(true) => Ok(Vec::new()),
        Ok(false) => {
            Ok(vec!["the index: its pages are corrupt, or the list of its pages in use is wrong".to_owned()])
        }
        Err(error) if error.is_corruption() => Ok(vec![format!("the index: its pages are corrupt: {error}")]),
        Err(source) => Err(OpenError::Store { path: path.to_owned(), source }),
    }
}

fn is_intact(disk: &dyn Disk, cache_bytes: usize) -> Result<bool, StoreError> {
    let Some(mut db) = open_scratch(disk, index::page_bytes(cache_bytes))? else { return Ok(true) };
    Ok(db.check_integrity()?)
}

/// The head of the index, if there is one. Writes stay in memory, because redb would otherwise
/// change the file of another build when it opens it.
pub(crate) fn head_on(disk: &dyn Disk) -> Result<Option<Head>, StoreError> {
    caught(|| open_scratch(disk, FORMAT_CACHE_BYTES)?.map(|db| meta::head(&db)).transpose())
}

/// Opens the index, if there is one, without changing its file.
fn open_scratch(disk: &dyn Disk, page_bytes: usize) -> Result<Option<Database>, StoreError> {
    if !index::exists(disk)? {
        return Ok(None);
    }
    let scratch = Scratch::new(disk.open(files::INDEX_FILE)?)?;
    Ok(Some(Database::builder().set_cache_size(page_bytes).create_with_backend(scratch)?))
}

/// A file on the disk, with the writes to it in memory.
#[derive(Debug)]
struct Scratch {
    file: Arc<dyn DiskFile>,
    written: Mutex<Overlay>,
}

#[derive(Debug)]
struct Overlay {
    len: u64,
    /// How much of the file on the disk still counts.
    from_disk: u64,
    pieces: BTreeMap<u64, Box<[u8; PIECE_BYTES]>>,
}

impl Scratch {
    fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, written: Mutex::new(Overlay { len, from_disk: len, pieces: BTreeMap::new() }) })
    }

    // A panic of another holder does no harm: it ends the check.
    fn written(&self) -> MutexGuard<'_, Overlay> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the disk up to `from_disk`, and zeros behind it.
    fn read_disk(&self, from_disk: u64, out: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(from_disk.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (stored, zeros) = out.split_at_mut(bytes);
        zeros.fill(0);
        if stored.is_empty() { Ok(()) } else { self.file.read_exact_at(stored, offset) }
    }
}

/// The pieces that a range touches: the number of each, the offset of the range in it, and the
/// length of that part.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(len as u64);
    let piece_bytes = PIECE_BYTES as u64;
    let numbers = offset / piece_bytes..end.div_ceil(piece_bytes);
    numbers.map(move |number| {
        let (from, to) = (offset.max(number * piece_bytes), end.min((number + 1) * piece_bytes));
        let within = usize::try_from(from - number * piece_bytes).unwrap_or_default();
        (number, within, usize::try_from(to - from).unwrap_or_default())
    })
}

impl StorageBackend for Scratch {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.saturating_add(out.len() as u64) > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_disk(written.from_disk, out, offset)?;
        let mut rest = out;
        for (number, within, bytes) in pieces(offset, rest.len()) {
            let (part, tail) = rest.split_at_mut(bytes);
            if let Some(piece) = written.pieces.get(&number)
                && let Some(piece) = piece.get(within..within + bytes)
            {
                part.copy_from_slice(piece);
            }
            rest = tail;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        written.len = len;
        written.from_disk = written.from_disk.min(len);
        // The last piece may keep bytes behind the new end. redb writes them before it reads them.
        drop(written.pieces.split_off(&len.div_ceil(PIECE_BYTES as u64)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let mut rest = data;
        for (number, within, bytes) in pieces(offset, data.len()) {
            let (part, tail) = rest.split_at(bytes);
            if !written.pieces.contains_key(&number) {
                if written.pieces.len() >= PIECES_MAX {
                    return Err(io::Error::other("the check of the index needs too much memory"));
                }
                let mut piece = Box::new([0; PIECE_BYTES]);
                self.read_disk(written.from_disk, &mut *piece, number * PIECE_BYTES as u64)?;
                written.pieces.insert(number, piece);
            }
            let piece = written.pieces.get_mut(&number);
            if let Some(target) = piece.and_then(|piece| piece.get_mut(within..within + bytes)) {
                target.copy_from_slice(part);
            }
            rest = tail;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use relay_disk::SimDisk;

    use super::*;

    fn scratch(bytes: &[u8]) -> (SimDisk, Scratch) {
        let disk = SimDisk::new();
        let file = disk.create("file").unwrap();
        file.write_all_at(&[bytes], 0).unwrap();
        (disk, Scratch::new(file).unwrap())
    }

    fn read(scratch: &Scratch, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![9; len];
        scratch.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn writes_can_be_read_and_never_reach_the_disk() {
        let (disk, scratch) = scratch(&[1; 10_000]);
        scratch.write(4_000, &[2; 5_000]).unwrap();
        let expected = [&[1; 4_000][..], &[2; 5_000], &[1; 1_000]].concat();
        assert!(read(&scratch, 0, 10_000) == expected);
        assert_eq!(read(&scratch, 8_999, 2), [2, 1]);
        scratch.set_len(20_000).unwrap();
        assert_eq!((StorageBackend::len(&scratch).unwrap(), read(&scratch, 9_999, 2)), (20_000, vec![1, 0]));
        scratch.set_len(4_096).unwrap();
        assert!(scratch.read(4_000, &mut [0; 97]).is_err());
        scratch.set_len(10_000).unwrap();
        assert_eq!(read(&scratch, 4_095, 3), [2, 0, 0]);
        assert!(disk.contents("file").unwrap() == [1; 10_000]);
    }

    #[test]
    fn the_memory_has_a_limit() {
        let (_disk, scratch) = scratch(&[]);
        scratch.set_len(1 << 40).unwrap();
        let pieces = PIECES_MAX as u64;
        for number in 0..pieces {
            scratch.write(number << 13, &[1]).unwrap();
        }
        assert!(scratch.write(pieces << 13, &[1]).is_err());
        scratch.write(8, &[1]).unwrap();
    }
}
