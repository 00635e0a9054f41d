//! Opening a store: the index at its last checkpoint, then what the journal holds behind it.

use std::path::Path;
use std::sync::Arc;

use relay_core::{Clock, Limits};
use relay_disk::Disk;
use relay_journal::{Journal, Position};

use crate::Options;
use crate::backup;
use crate::backup::manifest;
use crate::engine::blob_writer;
use crate::engine::shared::Shared;
use crate::error::{OpenError, StoreError};
use crate::format;
use crate::index::check;
use crate::index::{self, Format, Index};
use crate::io::clock::WatchedTime;
use crate::io::journals::Journals;
use crate::io::space_monitor::{Bounds, SpaceMonitor};
use crate::progress::Watch;
use crate::txn::replay::{Replayed, replay};
use crate::version::Version;

/// The parts of a store, not set to work yet.
pub(crate) struct Opened {
    pub(crate) shared: Shared,
    pub(crate) index: Index,
    pub(crate) journal: Journal,
    pub(crate) payloads: Journal,
    /// What was found damaged.
    pub(crate) findings: Vec<String>,
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
    let index_snapshot = Arc::new(index.index_snapshot().map_err(failed)?);
    let from = index_snapshot.position;
    let start = from.unwrap_or(Position { segment: 0, offset: 0 });
    let mut version = Version::open(index_snapshot, start).map_err(failed)?;
    let watch = options.progress.as_ref().map(|progress| Watch::new(progress, &disk, start));
    let journal_options =
        relay_journal::Options { segment_bytes: options.segment_bytes, ..relay_journal::Options::default() };
    let replayed = replay(&version, options.replay_threads, |apply| {
        let opened = Journal::open(Arc::clone(&disk), journal_options, from, |frames| {
            if let Some(watch) = &watch {
                watch.note(frames);
            }
            apply(frames)
        });
        Ok(opened?)
    });
    let ((journal, opened), Replayed { memtable, mut findings }) = replayed.map_err(failed)?;
    if opened.unreadable {
        // A checkpoint would give up for good what may be read another time.
        return Err(OpenError::Unreadable { path: path.to_owned() });
    }
    version.resume(memtable, journal.end());
    let payloads = open_payloads(Arc::clone(&disk), &mut version).map_err(failed)?;
    findings.extend(opened.damage.iter().map(ToString::to_string));
    if !findings.is_empty() {
        version.skip_numbers();
    }
    for finding in &findings {
        tracing::error!(finding, "the store is damaged");
    }
    tracing::info!(
        batches = opened.batches,
        records = opened.frames,
        torn_bytes = opened.torn_bytes,
        "the store is open"
    );
    let readers = Journals { main: journal.reader(), payloads: payloads.reader() };
    let throttle = Arc::clone(&index.throttle);
    let bounds = Bounds { free_bytes_min: options.free_bytes_min, store_bytes_max: options.store_bytes_max };
    let room = SpaceMonitor::new(bounds, disk, readers.clone(), Arc::clone(&clock));
    // The operator hears of it at the start.
    room.is_full();
    let time = begin_time(clock, &mut version, &index, options, opened.frames > 0).map_err(failed)?;
    let shared = Shared::new(limits, time, readers, throttle, room, version);
    Ok(Opened { shared, index, journal, payloads, findings })
}

/// The time of the store. One that holds nothing takes over what the machine's clock shows. Where
/// that is earlier, it is written down before anything comes that a later time would let expire; so
/// not when there is something to replay, which tells the later time again.
fn begin_time(
    clock: Arc<dyn Clock>,
    version: &mut Version,
    index: &Index,
    options: &Options,
    has_replayed: bool,
) -> Result<WatchedTime, StoreError> {
    let (known, wall) = (version.numbers().time, clock.now());
    let may_begin = !version.has_items() && (wall >= known || !has_replayed);
    let time = WatchedTime::begin(clock, (!may_begin).then_some(known), options.trust_clock);
    if may_begin && wall < known {
        index.set_back(version.index_snapshot(), time.now())?;
        version.set_back(Arc::new(index.index_snapshot()?));
    }
    Ok(time)
}

/// All payload files that are there are decided: what was to come of them is in the journal, or was
/// lost with its process.
fn open_payloads(disk: Arc<dyn Disk>, version: &mut Version) -> Result<Journal, StoreError> {
    let known = version.payloads_through().max(format::last_payload(&version.segments()));
    let payloads = blob_writer::open_payloads(disk, known)?;
    let there = payloads.reader().each_segment().last().map_or(0, |file| file.id);
    version.note_payloads(known.max(there), 0);
    Ok(payloads)
}

fn open_index(disk: &Arc<dyn Disk>, path: &Path, options: &Options) -> Result<Index, OpenError> {
    let failed = |source| OpenError::Store { path: path.to_owned(), source };
    let names = disk.list().map_err(|error| failed(error.into()))?;
    if names.iter().any(|name| name == backup::MARK) {
        return Err(OpenError::Unfinished { path: path.to_owned() });
    }
    if names.iter().any(|name| name == manifest::FILE_NAME) {
        return Err(OpenError::Backup { path: path.to_owned() });
    }
    let has_journal = names.iter().any(|name| name.ends_with(".seg"));
    if has_journal && !index::exists(&**disk).map_err(|error| failed(error.into()))? {
        return Err(OpenError::IndexMissing { path: path.to_owned() });
    }
    // What cannot be looked at is told of by the opening.
    if let Ok(Some(format)) = check::format_on(&**disk) {
        check_format(format, path)?;
    }
    let index = Index::open(Arc::clone(disk), options.cache_bytes).map_err(failed)?;
    check_format(index.format().map_err(failed)?, path)?;
    Ok(index)
}

fn check_format(format: Format, path: &Path) -> Result<(), OpenError> {
    match format {
        Format::Numbered(format::FORMAT) => Ok(()),
        Format::Numbered(found) => {
            Err(OpenError::Format { path: path.to_owned(), found, expected: format::FORMAT })
        }
        Format::Earlier => Err(OpenError::Earlier { path: path.to_owned() }),
    }
}
