//! Writes a snapshot into a directory of its own, and brings such a directory back as a store.
//!
//! What is not whole is never taken for something that is: the first file that is made is a mark
//! that says so, and it goes when all others are durable. A store with that mark is not opened, and
//! a backup with it is not restored. A backup has a list of its files besides, with lengths and
//! checksums, and is never opened as a store, which would change it.

pub(crate) mod manifest;

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_disk::{Directory, DirectoryError, Disk};

use crate::backup::manifest::{Entry, NoList};
use crate::engine::snapshot::Snapshot;
use crate::error::{CopyError, OpenError, caught};
use crate::index::rewriting;
use crate::io::files;

/// It lies in a directory that is not whole, and holds nothing.
pub(crate) const MARK: &str = "relay.unfinished";

/// What is copied at once, and synced: no other sync of the disk has to wait for more.
const PIECE_BYTES: usize = 1024 * 1024;

/// The page cache of an index that is only written.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are written.
    pub done_bytes: u64,
    /// What there is to write, at most.
    pub total_bytes: u64,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many files.
    pub files: u64,
    /// How long they are together.
    pub bytes: u64,
}

/// Who is told of progress, and may stop it.
type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

impl Snapshot {
    /// Writes the snapshot into a directory, which is made, for its owner alone, if it is not
    /// there. One that is there has to be empty, or hold a backup that was not finished. `watch` is
    /// told how far it has come, and may stop it.
    ///
    /// # Errors
    /// [`CopyError`], in words for the operator. What is there then is no backup, and is
    /// overwritten by the next one.
    pub fn write(self, directory: &Path, watch: OnProgress<'_>) -> Result<Copied, CopyError> {
        self.write_on(Arc::new(open_target(directory)?), directory, watch)
    }

    /// As [`Snapshot::write`], on a disk that the caller brings. `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Snapshot::write`].
    pub fn write_on(
        self,
        disk: Arc<dyn Disk>,
        path: &Path,
        watch: OnProgress<'_>,
    ) -> Result<Copied, CopyError> {
        let failed = |name: &str, source| CopyError::File { path: path.join(name), source };
        begin(&*disk, path)?;
        let total_bytes = self.files.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.index_bytes;
        let mut copy = Copy { progress: Progress { done_bytes: 0, total_bytes }, watch, entries: Vec::new() };
        copy.advance(0)?;
        let Self { index_snapshot, disk: source, files, index_bytes, throttle, _pin } = self;
        let written = caught(|| rewriting::write(&disk, CACHE_BYTES, &throttle, &index_snapshot));
        if index_snapshot.is_overtaken() {
            return Err(CopyError::Overtaken);
        }
        written.map_err(|source| CopyError::Index { path: path.to_owned(), source })?;
        // Its pages can be used again from here on.
        drop(index_snapshot);
        copy.note(&*disk, files::INDEX_FILE).map_err(|source| failed(files::INDEX_FILE, source))?;
        copy.advance(index_bytes)?;
        for (name, bytes) in files {
            let from = source.open(&name).map_err(|source| failed(&name, source))?;
            let mut offset = 0;
            let read = |piece: &mut [u8]| {
                from.read_exact_at(piece, offset)?;
                offset += piece.len() as u64;
                Ok(())
            };
            copy.file(&*disk, path, (&name, bytes), read)?;
        }
        let list = manifest::encode(&copy.entries);
        let written = write_list(&*disk, list.as_bytes()).and_then(|()| finish(&*disk));
        written.map_err(|source| failed(manifest::FILE_NAME, source))?;
        Ok(copy.copied())
    }
}

/// Brings a backup back as a store, in a directory that is made if it is not there. One that is
/// there has to be empty, or hold what a restore has not finished.
///
/// # Errors
/// [`CopyError`], in words for the operator. What is there then is no store, and is overwritten by
/// the next restore.
pub fn restore(backup: &Path, store: &Path, watch: OnProgress<'_>) -> Result<Copied, CopyError> {
    let entries = read_list(backup)?;
    restore_on(&entries, backup, Arc::new(open_target(store)?), store, watch)
}

fn restore_on(
    entries: &[Entry],
    backup: &Path,
    disk: Arc<dyn Disk>,
    store: &Path,
    watch: OnProgress<'_>,
) -> Result<Copied, CopyError> {
    begin(&*disk, store)?;
    let total_bytes = entries.iter().map(|entry| entry.bytes).sum();
    let mut copy = Copy { progress: Progress { done_bytes: 0, total_bytes }, watch, entries: Vec::new() };
    copy.advance(0)?;
    for entry in entries {
        let from = backup.join(&entry.name);
        let failed = |source| CopyError::File { path: from.clone(), source };
        let mut file = File::open(&from).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() != entry.bytes {
            return Err(CopyError::Corrupted { path: from });
        }
        let checksum =
            copy.file(&*disk, store, (&entry.name, entry.bytes), |piece| file.read_exact(piece))?;
        if checksum != entry.checksum {
            return Err(CopyError::Corrupted { path: from });
        }
    }
    finish(&*disk).map_err(|source| CopyError::File { path: store.to_owned(), source })?;
    Ok(copy.copied())
}

/// What a backup consists of, if it is whole: all of its files are there, and as long as they were.
/// What is in them is read when it is brought back.
///
/// # Errors
/// [`CopyError`], in words for the operator.
pub fn inspect(backup: &Path) -> Result<Copied, CopyError> {
    let mut copied = Copied::default();
    for entry in read_list(backup)? {
        let path = backup.join(&entry.name);
        let found =
            path.symlink_metadata().map_err(|source| CopyError::File { path: path.clone(), source })?;
        if !found.is_file() || found.len() != entry.bytes {
            return Err(CopyError::Corrupted { path });
        }
        copied = Copied { files: copied.files + 1, bytes: copied.bytes.saturating_add(entry.bytes) };
    }
    Ok(copied)
}

/// A copy under way.
struct Copy<'w> {
    progress: Progress,
    watch: OnProgress<'w>,
    entries: Vec<Entry>,
}

impl Copy<'_> {
    /// Makes a file of what `read` gives, durably, and returns its checksum.
    fn file(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        (name, bytes): (&str, u64),
        mut read: impl FnMut(&mut [u8]) -> io::Result<()>,
    ) -> Result<u32, CopyError> {
        let failed = |source| CopyError::File { path: path.join(name), source };
        let to = disk.create(name).map_err(failed)?;
        let checksum = in_pieces(bytes, |piece, offset| {
            read(piece).map_err(failed)?;
            to.write_all_at(&[piece], offset).and_then(|()| to.sync()).map_err(failed)?;
            self.advance(piece.len() as u64)
        })?;
        to.sync().map_err(failed)?;
        self.entries.push(Entry { name: name.to_owned(), bytes, checksum });
        Ok(checksum)
    }

    /// Takes a file into the list that was written otherwise.
    fn note(&mut self, disk: &dyn Disk, name: &str) -> io::Result<()> {
        let file = disk.open(name)?;
        file.sync()?;
        let bytes = file.len()?;
        let checksum = in_pieces(bytes, |piece, offset| file.read_exact_at(piece, offset))?;
        self.entries.push(Entry { name: name.to_owned(), bytes, checksum });
        Ok(())
    }

    fn advance(&mut self, bytes: u64) -> Result<(), CopyError> {
        self.progress.done_bytes = self.progress.done_bytes.saturating_add(bytes);
        if (self.watch)(self.progress).is_break() { Err(CopyError::Stopped) } else { Ok(()) }
    }

    fn copied(&self) -> Copied {
        let bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        Copied { files: self.entries.len() as u64, bytes }
    }
}

/// Has `fill` fill one piece after the other, each told where it begins, and returns the checksum
/// of all of them.
fn in_pieces<E>(bytes: u64, mut fill: impl FnMut(&mut [u8], u64) -> Result<(), E>) -> Result<u32, E> {
    let (mut offset, mut checksum, mut buffer) = (0, 0, vec![0; PIECE_BYTES]);
    while offset < bytes {
        let length = usize::try_from(bytes - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let Some(piece) = buffer.get_mut(..length) else { break };
        fill(piece, offset)?;
        checksum = crc32c::crc32c_append(checksum, piece);
        offset += length as u64;
    }
    Ok(checksum)
}

fn open_target(path: &Path) -> Result<Directory, CopyError> {
    let failed = |source| CopyError::File { path: path.to_owned(), source };
    if is_inside(path).map_err(failed)? {
        return Err(CopyError::Inside { path: path.to_owned() });
    }
    let directory = Directory::open_private(path).map_err(|error| match error {
        DirectoryError::InUse => OpenError::InUse { path: path.to_owned() }.into(),
        DirectoryError::NotOurs => CopyError::NotOurs { path: path.to_owned() },
        DirectoryError::Open => CopyError::Open { path: path.to_owned() },
        DirectoryError::Io(source) => failed(source),
    })?;
    if directory.has_unlisted().map_err(failed)? {
        return Err(CopyError::NotEmpty { path: path.to_owned() });
    }
    Ok(directory)
}

/// Whether one of the directories above this one holds a store or a backup, whose files it would
/// lie among.
fn is_inside(path: &Path) -> io::Result<bool> {
    let path = std::path::absolute(path)?;
    // What is not there yet is made, and has no links.
    let there =
        path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok().map(|real| (ancestor, real)));
    let Some((there, real)) = there else { return Ok(false) };
    let above = if there == path { real.parent() } else { Some(&*real) };
    let holds = |directory: &Path| directory.join(files::INDEX_FILE).symlink_metadata().is_ok();
    Ok(above.is_some_and(|above| above.ancestors().any(holds)))
}

/// Puts the mark into an empty directory. One that has the mark is emptied.
fn begin(disk: &dyn Disk, path: &Path) -> Result<(), CopyError> {
    let failed = |source| CopyError::File { path: path.to_owned(), source };
    let names = disk.list().map_err(failed)?;
    let is_ours =
        |name: &String| name == MARK || manifest::is_listed(name) || name.starts_with(files::INDEX_FILE);
    let is_begun = names.iter().any(|name| name == MARK);
    if is_begun && names.iter().all(|name| is_ours(name) || name == manifest::FILE_NAME) {
        for name in names.iter().filter(|name| *name != MARK) {
            disk.remove(name).map_err(failed)?;
        }
    } else if names.is_empty() {
        disk.create(MARK).and_then(|mark| mark.sync()).map_err(failed)?;
    } else {
        return Err(CopyError::NotEmpty { path: path.to_owned() });
    }
    disk.sync().map_err(failed)
}

/// Takes the mark away, once all else is durable.
fn finish(disk: &dyn Disk) -> io::Result<()> {
    disk.sync()?;
    disk.remove(MARK)?;
    disk.sync()
}

fn write_list(disk: &dyn Disk, list: &[u8]) -> io::Result<()> {
    let file = disk.create(manifest::FILE_NAME)?;
    file.write_all_at(&[list], 0)?;
    file.sync()
}

/// The list of a whole backup.
fn read_list(backup: &Path) -> Result<Vec<Entry>, CopyError> {
    let list = backup.join(manifest::FILE_NAME);
    let is_there = |path: PathBuf| path.try_exists().map_err(|source| CopyError::File { path, source });
    if !is_there(backup.to_owned())? {
        return Err(CopyError::File { path: backup.to_owned(), source: io::ErrorKind::NotFound.into() });
    }
    if is_there(backup.join(MARK))? || !is_there(list.clone())? {
        return Err(CopyError::Incomplete { path: backup.to_owned() });
    }
    let bytes = std::fs::read(&list).map_err(|source| CopyError::File { path: list.clone(), source })?;
    manifest::decode(&bytes).map_err(|no_list| match no_list {
        NoList::Earlier => CopyError::Earlier { path: backup.to_owned() },
        NoList::Corrupted => CopyError::Corrupted { path: list },
    })
}
