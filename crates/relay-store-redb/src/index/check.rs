//! redb's own check of the index: every page that is in use, and the books that it keeps of them.
//! It works on a store that nobody has open.
//!
//! redb mends what it finds, by going back to an older commit if it has to, which the journal may
//! not reach back to any more. So it gets a file that takes its writes into memory: nothing of them
//! comes to the disk.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};
use relay_disk::{Directory, Disk, DiskFile};

use crate::error::{OpenError, StoreError, caught};
use crate::index::{self, Format};
use crate::io::files;

/// What redb writes is kept in pieces of this length.
const PIECE_BYTES: usize = 4096;

/// What it writes along the way are its own books, some pages for each gigabyte. It may not fill
/// the memory over a damaged file.
const PIECES_MAX: usize = 64 * 1024 * 1024 / PIECE_BYTES;

/// The page cache of a look at the format.
const LOOK_CACHE_BYTES: usize = 256 * 1024;

/// Has redb check the index of the store in `directory`, which nobody else may have open, with a
/// page cache of so many bytes. Lists what is wrong; nothing, when all is well. It changes nothing.
///
/// # Errors
/// [`OpenError`], in words for the operator, when the file cannot be read at all.
pub fn verify_index(directory: &Path, cache_bytes: usize) -> Result<Vec<String>, OpenError> {
    let disk = Directory::open(directory).map_err(|error| OpenError::of_directory(directory, error))?;
    verify_index_on(&disk, directory, cache_bytes)
}

/// As [`verify_index`], on a disk that the caller brings. `path` is what errors call it.
///
/// # Errors
/// As [`verify_index`].
pub fn verify_index_on(disk: &dyn Disk, path: &Path, cache_bytes: usize) -> Result<Vec<String>, OpenError> {
    match caught(|| check(disk, cache_bytes)) {
        Ok(true) => Ok(Vec::new()),
        Ok(false) => {
            Ok(vec!["the index: its pages are damaged, or it is not noted right which are in use".to_owned()])
        }
        Err(error) if error.is_corruption() => Ok(vec![format!("the index: its pages are damaged: {error}")]),
        Err(source) => Err(OpenError::Store { path: path.to_owned(), source }),
    }
}

/// Whether all is well.
fn check(disk: &dyn Disk, cache_bytes: usize) -> Result<bool, StoreError> {
    if !index::exists(disk)? {
        return Ok(true);
    }
    let file = disk.open(files::INDEX_FILE)?;
    let mut builder = Database::builder();
    builder.set_cache_size(index::page_bytes(cache_bytes));
    Ok(builder.create_with_backend(Scratch::new(file)?)?.check_integrity()?)
}

/// The format of the index, if there is one. Opening it for good would change what another build
/// wrote.
pub(crate) fn format_on(disk: &dyn Disk) -> Result<Option<Format>, StoreError> {
    if !index::exists(disk)? {
        return Ok(None);
    }
    let file = disk.open(files::INDEX_FILE)?;
    let mut builder = Database::builder();
    builder.set_cache_size(LOOK_CACHE_BYTES);
    caught(|| index::format(&builder.create_with_backend(Scratch::new(file)?)?)).map(Some)
}

/// A file as it is on the disk, and what was written to it since, in memory.
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

    // A panic elsewhere leaves it as it is: whoever panics checks nothing any more.
    fn written(&self) -> MutexGuard<'_, Overlay> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on the disk there, and zeros behind that.
    fn read_disk(&self, from_disk: u64, out: &mut [u8], offset: u64) -> io::Result<()> {
        let there = usize::try_from(from_disk.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (there, behind) = out.split_at_mut(there);
        behind.fill(0);
        if there.is_empty() { Ok(()) } else { self.file.read_exact_at(there, offset) }
    }
}

/// The pieces that a range touches: the number of each, where the range begins in it, and how much
/// of it that is.
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
            let (part, behind) = rest.split_at_mut(bytes);
            if let Some(piece) = written.pieces.get(&number)
                && let Some(piece) = piece.get(within..within + bytes)
            {
                part.copy_from_slice(piece);
            }
            rest = behind;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        written.len = len;
        written.from_disk = written.from_disk.min(len);
        // Of the piece that it ends in, what lies behind the end is redb's to write before it reads
        // it.
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
            let (part, behind) = rest.split_at(bytes);
            if !written.pieces.contains_key(&number) {
                if written.pieces.len() >= PIECES_MAX {
                    return Err(io::Error::other("the check of the index takes too much memory"));
                }
                let mut piece = Box::new([0; PIECE_BYTES]);
                self.read_disk(written.from_disk, &mut *piece, number * PIECE_BYTES as u64)?;
                written.pieces.insert(number, piece);
            }
            let piece = written.pieces.get_mut(&number);
            if let Some(place) = piece.and_then(|piece| piece.get_mut(within..within + bytes)) {
                place.copy_from_slice(part);
            }
            rest = behind;
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
    fn what_is_written_is_read_and_never_comes_to_the_disk() {
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
    fn it_does_not_fill_the_memory() {
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
