//! Opens a store: the index at its last checkpoint, then the records of the journal after it.

mod naming;
pub(crate) mod staged;

use std::path::Path;
use std::sync::Arc;

use relay_core::{Clock, Limits};
use relay_disk::{Directory, Disk};
use relay_journal::Journal;

use crate::Options;
use crate::backup::{self, manifest};
use crate::engine::blob_writer;
use crate::engine::shared::Shared;
use crate::error::{OpenError, StoreError};
use crate::format;
use crate::index::{self, Format, Head, Index, check};
use crate::io::clock::WatchedTime;
use crate::io::journals::Journals;
use crate::io::space_monitor::{Bounds, SpaceMonitor};
use crate::naming::{FORMAT_HASHED, FORMAT_PLAIN};
use crate::progress::ReplayObserver;
use crate::txn::replay::{Replayed, replay};
use crate::version::Version;

/// The parts of an open store, before its threads start.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: Index,
    pub(crate) journal: Journal,
    pub(crate) blobs: Journal,
    /// Descriptions of the corruption that was found.
    pub(crate) findings: Vec<String>,
}

/// The outcome of the replay.
struct Recovered {
    version: Version,
    journal: Journal,
    replayed: relay_journal::Opened,
    findings: Vec<String>,
}

/// Locks a storage directory. Creates it if necessary.
pub(crate) fn lock(path: &Path) -> Result<Directory, OpenError> {
    let disk = Directory::open(path).map_err(|error| OpenError::of_directory(path, error))?;
    if disk.may_others_write().unwrap_or_default() {
        tracing::warn!(
            path = %path.display(),
            "the storage directory may be changed by others than its owner; they could replace the relay and its files; \
             remove that permission (chmod go-w)"
        );
    }
    Ok(disk)
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    path: &Path,
    limits: Limits,
    clock: Arc<dyn Clock>,
    options: &Options,
) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::Store { path: path.to_owned(), source };
    let index = open_index(&disk, path, options)?;
    let Recovered { mut version, journal, replayed, findings } = recover(&disk, path, &index, options)?;
    let blobs = open_blobs(Arc::clone(&disk), &mut version).map_err(failed)?;
    for finding in &findings {
        tracing::error!(finding, "found corruption in the store");
    }
    tracing::info!(
        batches = replayed.batches,
        records = replayed.frames,
        torn_bytes = replayed.torn_bytes,
        "opened the store"
    );
    let readers = Journals { main: journal.reader(), blobs: blobs.reader() };
    let throttle = Arc::clone(&index.throttle);
    let bounds = Bounds { free_bytes_min: options.free_bytes_min, store_bytes_max: options.store_bytes_max };
    let space = SpaceMonitor::new(bounds, disk, readers.clone(), Arc::clone(&clock));
    // Logs a warning at the start if the disk is full.
    space.is_full();
    let time = start_time(clock, &mut version, &index, options, replayed.frames > 0).map_err(failed)?;
    let shared = Arc::new(Shared::new(limits, time, readers, throttle, space, version));
    Ok(Opened { shared, index, journal, blobs, findings })
}

/// Replays the journal from the last checkpoint on.
fn recover(
    disk: &Arc<dyn Disk>,
    path: &Path,
    index: &Index,
    options: &Options,
) -> Result<Recovered, OpenError> {
    let failed = |source| OpenError::Store { path: path.to_owned(), source };
    let index_snapshot = Arc::new(index.index_snapshot().map_err(failed)?);
    let from = index_snapshot.position;
    let start = from.unwrap_or_default();
    let mut version = Version::open(index_snapshot, start).map_err(failed)?;
    let observer = options.progress.as_ref().map(|progress| ReplayObserver::new(progress, disk, start));
    let journal_options =
        relay_journal::Options { segment_bytes: options.segment_bytes, ..relay_journal::Options::default() };
    let outcome = replay(&version, options.replay_threads, |apply| {
        let opened = Journal::open(Arc::clone(disk), journal_options, from, |frames| {
            if let Some(observer) = &observer {
                observer.note(frames);
            }
            apply(frames)
        });
        Ok(opened?)
    });
    let ((journal, replayed), Replayed { memtable, mut findings }) = outcome.map_err(failed)?;
    if replayed.unreadable {
        // A checkpoint would discard bytes that a later start may be able to read.
        return Err(OpenError::Unreadable(path.to_owned()));
    }
    version.resume(memtable, journal.end());
    findings.extend(replayed.damage.iter().map(ToString::to_string));
    if !findings.is_empty() {
        version.skip_numbers();
    }
    Ok(Recovered { version, journal, replayed, findings })
}

/// Starts the clock of the store. An empty store takes the time of the machine's clock. If that
/// time is earlier, the index records it before the first push; otherwise the later time would
/// return at the next start and expire items. After a replay the time does not go back, because the
/// replayed records still contain the later one.
fn start_time(
    clock: Arc<dyn Clock>,
    version: &mut Version,
    index: &Index,
    options: &Options,
    has_replayed: bool,
) -> Result<WatchedTime, StoreError> {
    let (known, wall) = (version.numbers().time, clock.now());
    let may_reset = !version.has_items() && (wall >= known || !has_replayed);
    let time = WatchedTime::begin(clock, (!may_reset).then_some(known), options.trust_clock);
    if may_reset && wall < known {
        index.set_time_back(version.index_snapshot(), time.now())?;
        version.set_back(Arc::new(index.index_snapshot()?));
    }
    Ok(time)
}

/// Opens the blobs, and marks all existing ones as decided: the journal has their pushes, or the
/// pushes were lost with the earlier process.
fn open_blobs(disk: Arc<dyn Disk>, version: &mut Version) -> Result<Journal, StoreError> {
    let last_known = version.blobs_through().max(format::last_blob(&version.segments()));
    let blobs = blob_writer::open_blobs(disk, last_known)?;
    let last_existing = blobs.reader().each_segment().last().map_or(0, |blob| blob.id);
    version.note_blobs(last_known.max(last_existing), 0);
    Ok(blobs)
}

pub(crate) fn open_index(disk: &Arc<dyn Disk>, path: &Path, options: &Options) -> Result<Index, OpenError> {
    let failed = |source| OpenError::Store { path: path.to_owned(), source };
    let names = disk.list().map_err(|error| failed(error.into()))?;
    let has_file = |file: &str| names.iter().any(|name| name == file);
    if has_file(backup::MARK) {
        return Err(OpenError::Unfinished(path.to_owned()));
    }
    if has_file(manifest::FILE_NAME) {
        return Err(OpenError::Backup(path.to_owned()));
    }
    let has_journal = names.iter().any(|name| name.ends_with(".seg"));
    // An interrupted exchange may have left only the copy of the journal.
    let had_journal = has_journal || names.iter().any(|name| name.ends_with(".seg.hashed"));
    if has_journal && !index::exists(&**disk).map_err(|error| failed(error.into()))? {
        return Err(OpenError::IndexMissing(path.to_owned()));
    }
    // `Index::open` below reports an index that cannot be read.
    if let Ok(Some(Head { format, naming, had_queues })) = check::head_on(&**disk) {
        check_format(format, path)?;
        naming::of_existing(naming, had_queues || had_journal, options, path)?;
    }
    let new = naming::of_new(options);
    let mut index = Index::open(Arc::clone(disk), new, options.cache_bytes).map_err(failed)?;
    let Head { format, naming, had_queues } = index.head().map_err(failed)?;
    check_format(format, path)?;
    let naming = naming::of_existing(naming, had_queues || had_journal, options, path)?;
    if naming != index.naming {
        index.set_naming(naming).map_err(failed)?;
    }
    staged::settle(disk, &index).map_err(failed)?;
    Ok(index)
}

fn check_format(format: Format, path: &Path) -> Result<(), OpenError> {
    match format {
        Format::Numbered(FORMAT_PLAIN | FORMAT_HASHED) => Ok(()),
        Format::Numbered(found) => {
            Err(OpenError::Format { path: path.to_owned(), found, expected: FORMAT_HASHED })
        }
        Format::Earlier => Err(OpenError::Earlier(path.to_owned())),
    }
}
