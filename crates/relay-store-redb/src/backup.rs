//! Writes a snapshot into a directory of its own, as a backup, and restores a backup as a store.
//!
//! An incomplete backup is never accepted as complete. The first file in the directory is a marker,
//! which is deleted when all other files are durable. A store with the marker does not open, and a
//! backup with the marker is not restored. A backup also has a manifest, with the lengths and
//! checksums of its files. It is never opened as a store, because that would change it.

mod check;
mod earlier;
pub(crate) mod manifest;

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_disk::{Directory, DirectoryError, Disk};

pub use crate::backup::check::{check, inspect};
pub use crate::backup::earlier::EarlierBackup;
use crate::backup::manifest::{Entry, ManifestError};
use crate::engine::snapshot::Snapshot;
use crate::error::{CopyError, OpenError, caught};
use crate::index::rewriting;
use crate::io::files;

/// The marker of an incomplete directory: an empty file.
pub(crate) const MARK: &str = "relay.unfinished";

/// How many bytes are copied and then synced, so that no other sync of the disk waits for more.
const PIECE_BYTES: usize = 1024 * 1024;

/// The page cache of the copied index, which is only written.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The progress of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The bytes that are written.
    pub done_bytes: u64,
    /// The bytes to write, at most.
    pub total_bytes: u64,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The number of files.
    pub files: u64,
    /// Their total length.
    pub bytes: u64,
    /// How many of these bytes were not copied, because an earlier backup has the same files.
    pub shared_bytes: u64,
}

/// Receives the progress, and may stop the copy.
type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

impl Snapshot {
    /// Writes the snapshot into a directory, as a backup. It creates the directory, for its owner
    /// alone. An existing directory must be empty or hold an incomplete backup. Files that
    /// `earlier` has as well are shared with it. `watch` receives the progress, and may stop the
    /// copy.
    ///
    /// # Errors
    /// [`CopyError`], with a text for the operator. Then the directory holds an incomplete backup,
    /// which the next attempt overwrites.
    pub fn write(
        self,
        directory: &Path,
        earlier: Option<&EarlierBackup>,
        watch: OnProgress<'_>,
    ) -> Result<Copied, CopyError> {
        self.write_on(Arc::new(open_target(directory)?), directory, earlier, watch)
    }

    /// As [`Snapshot::write`], on a given disk. Errors show `path`.
    ///
    /// # Errors
    /// As [`Snapshot::write`].
    pub fn write_on(
        self,
        disk: Arc<dyn Disk>,
        path: &Path,
        earlier: Option<&EarlierBackup>,
        watch: OnProgress<'_>,
    ) -> Result<Copied, CopyError> {
        let failed = |name: &str, source| CopyError::File { path: path.join(name), source };
        let Self { index_snapshot, disk: source, files, index_bytes, throttle, _pin } = self;
        let total_bytes = files.iter().map(|(_, bytes)| bytes).sum::<u64>() + index_bytes;
        let mut copy = CopyJob::begin(&*disk, path, total_bytes, watch)?;
        let written = caught(|| rewriting::write(&disk, CACHE_BYTES, &throttle, &index_snapshot));
        if index_snapshot.is_invalidated() {
            return Err(CopyError::Overtaken);
        }
        written.map_err(|source| CopyError::Index { path: path.to_owned(), source })?;
        // From here on the index can reuse the pages of the snapshot.
        drop(index_snapshot);
        copy.list(files::INDEX_FILE).map_err(|source| failed(files::INDEX_FILE, source))?;
        copy.advance(index_bytes)?;
        for (name, bytes) in files {
            let from = source.open(&name).map_err(|source| failed(&name, source))?;
            let read = |piece: &mut [u8], offset| from.read_exact_at(piece, offset);
            let is_shared = match earlier {
                Some(earlier) => copy.share(earlier, &name, bytes, read)?,
                None => false,
            };
            if !is_shared {
                copy.file(&name, bytes, read)?;
            }
        }
        let manifest = manifest::encode(&copy.entries);
        let written = write_manifest(&*disk, manifest.as_bytes()).and_then(|()| finish(&*disk));
        written.map_err(|source| failed(manifest::FILE_NAME, source))?;
        Ok(copy.copied())
    }
}

/// Restores a backup as a store. It creates the directory of the store. An existing directory must
/// be empty or hold an incomplete restore.
///
/// # Errors
/// [`CopyError`], with a text for the operator. Then the directory holds no store, and the next
/// attempt overwrites it.
pub fn restore(backup: &Path, store: &Path, watch: OnProgress<'_>) -> Result<Copied, CopyError> {
    let entries = read_manifest(backup)?;
    let disk = open_target(store)?;
    let total_bytes = entries.iter().map(|entry| entry.bytes).sum();
    let mut copy = CopyJob::begin(&disk, store, total_bytes, watch)?;
    for entry in entries {
        let from = backup.join(&entry.name);
        let failed = |source| CopyError::File { path: from.clone(), source };
        let mut file = File::open(&from).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() != entry.bytes {
            return Err(CopyError::Corrupted(from));
        }
        let checksum = copy.file(&entry.name, entry.bytes, |piece, _| file.read_exact(piece))?;
        if checksum != entry.checksum {
            return Err(CopyError::Corrupted(from));
        }
    }
    finish(&disk).map_err(|source| CopyError::File { path: store.to_owned(), source })?;
    Ok(copy.copied())
}

/// A copy in progress.
struct CopyJob<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    progress: Progress,
    watch: OnProgress<'a>,
    entries: Vec<Entry>,
    shared_bytes: u64,
}

impl<'a> CopyJob<'a> {
    /// Creates the marker in an empty directory. In a directory that has the marker, deletes all
    /// other files.
    fn begin(
        disk: &'a dyn Disk,
        path: &'a Path,
        total_bytes: u64,
        watch: OnProgress<'a>,
    ) -> Result<Self, CopyError> {
        let failed = |source| CopyError::File { path: path.to_owned(), source };
        let names = disk.list().map_err(failed)?;
        let is_ours = |name: &String| {
            name == MARK
                || name == manifest::FILE_NAME
                || manifest::can_list(name)
                || name.starts_with(files::INDEX_FILE)
        };
        if names.iter().any(|name| name == MARK) && names.iter().all(is_ours) {
            for name in names.iter().filter(|name| *name != MARK) {
                disk.remove(name).map_err(failed)?;
            }
        } else if names.is_empty() {
            disk.create(MARK).and_then(|mark| mark.sync()).map_err(failed)?;
        } else {
            return Err(CopyError::NotEmpty(path.to_owned()));
        }
        disk.sync().map_err(failed)?;
        let progress = Progress { done_bytes: 0, total_bytes };
        let mut copy = Self { disk, path, progress, watch, entries: Vec::new(), shared_bytes: 0 };
        copy.advance(0)?;
        Ok(copy)
    }

    /// Creates a file from what `read` reads at each offset, durably. Returns its checksum.
    fn file(
        &mut self,
        name: &str,
        bytes: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> Result<u32, CopyError> {
        let path = self.path;
        let failed = |source| CopyError::File { path: path.join(name), source };
        let to = self.disk.create(name).map_err(failed)?;
        let checksum = each_piece(bytes, |piece, offset| {
            read(piece, offset).map_err(failed)?;
            to.write_all_at(&[piece], offset).and_then(|()| to.sync()).map_err(failed)?;
            self.advance(piece.len() as u64)
        })?;
        to.sync().map_err(failed)?;
        self.entries.push(Entry { name: name.to_owned(), bytes, checksum });
        Ok(checksum)
    }

    /// Takes a file from an earlier backup, if that has the same bytes, and adds it to the
    /// manifest.
    fn share(
        &mut self,
        earlier: &EarlierBackup,
        name: &str,
        bytes: u64,
        read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> Result<bool, CopyError> {
        let failed = |source| CopyError::File { path: self.path.join(name), source };
        let Some(checksum) = earlier.link(self.path, name, bytes, read).map_err(failed)? else {
            return Ok(false);
        };
        self.entries.push(Entry { name: name.to_owned(), bytes, checksum });
        self.shared_bytes += bytes;
        self.advance(bytes)?;
        Ok(true)
    }

    /// Syncs a file that already exists, and adds it to the manifest.
    fn list(&mut self, name: &str) -> io::Result<()> {
        let file = self.disk.open(name)?;
        file.sync()?;
        let bytes = file.len()?;
        let checksum = each_piece(bytes, |piece, offset| file.read_exact_at(piece, offset))?;
        self.entries.push(Entry { name: name.to_owned(), bytes, checksum });
        Ok(())
    }

    fn advance(&mut self, bytes: u64) -> Result<(), CopyError> {
        self.progress.done_bytes = self.progress.done_bytes.saturating_add(bytes);
        if (self.watch)(self.progress).is_break() { Err(CopyError::Stopped) } else { Ok(()) }
    }

    fn copied(&self) -> Copied {
        let bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        Copied { files: self.entries.len() as u64, bytes, shared_bytes: self.shared_bytes }
    }
}

/// Calls `fill` with a buffer and its offset for each piece of a file. Returns the checksum of all
/// pieces.
fn each_piece<E>(bytes: u64, mut fill: impl FnMut(&mut [u8], u64) -> Result<(), E>) -> Result<u32, E> {
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
        return Err(CopyError::Inside(path.to_owned()));
    }
    let directory = open_private(path)?;
    if directory.has_unlisted().map_err(failed)? {
        return Err(CopyError::NotEmpty(path.to_owned()));
    }
    Ok(directory)
}

/// Opens a directory that nobody but the caller may change.
fn open_private(path: &Path) -> Result<Directory, CopyError> {
    Directory::open_private(path).map_err(|error| match error {
        DirectoryError::InUse => OpenError::InUse(path.to_owned()).into(),
        DirectoryError::NotOurs => CopyError::NotOurs(path.to_owned()),
        DirectoryError::Open => CopyError::Open(path.to_owned()),
        DirectoryError::Io(source) => CopyError::File { path: path.to_owned(), source },
    })
}

/// Whether a parent directory holds a store or a backup, with whose files this one would mix.
fn is_inside(path: &Path) -> io::Result<bool> {
    let path = std::path::absolute(path)?;
    // Missing directories will be created, so they contain no symbolic links.
    let existing =
        path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok().map(|real| (ancestor, real)));
    let Some((existing, real)) = existing else { return Ok(false) };
    let parent = if existing == path { real.parent() } else { Some(&*real) };
    let has_index = |directory: &Path| directory.join(files::INDEX_FILE).symlink_metadata().is_ok();
    Ok(parent.is_some_and(|parent| parent.ancestors().any(has_index)))
}

/// Deletes the marker, after everything else is durable.
fn finish(disk: &dyn Disk) -> io::Result<()> {
    disk.sync()?;
    disk.remove(MARK)?;
    disk.sync()
}

fn write_manifest(disk: &dyn Disk, manifest: &[u8]) -> io::Result<()> {
    let file = disk.create(manifest::FILE_NAME)?;
    file.write_all_at(&[manifest], 0)?;
    file.sync()
}

/// Reads the manifest of a complete backup.
fn read_manifest(backup: &Path) -> Result<Vec<Entry>, CopyError> {
    let manifest = backup.join(manifest::FILE_NAME);
    let exists = |path: PathBuf| path.try_exists().map_err(|source| CopyError::File { path, source });
    if !exists(backup.to_owned())? {
        return Err(CopyError::File { path: backup.to_owned(), source: io::ErrorKind::NotFound.into() });
    }
    if exists(backup.join(MARK))? || !exists(manifest.clone())? {
        return Err(CopyError::Incomplete(backup.to_owned()));
    }
    let bytes =
        std::fs::read(&manifest).map_err(|source| CopyError::File { path: manifest.clone(), source })?;
    manifest::decode(&bytes).map_err(|error| match error {
        ManifestError::Earlier => CopyError::Earlier(backup.to_owned()),
        ManifestError::Corrupted => CopyError::Corrupted(manifest),
    })
}
