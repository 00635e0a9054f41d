//! Settles what an exchange of a plain store for a hashed one has left, before the journal opens.

use std::sync::Arc;

use relay_disk::Disk;
use relay_journal::{Journal, Options, Reader};

use crate::error::StoreError;
use crate::format;
use crate::index::Index;
use crate::index::snapshot::IndexSnapshot;
use crate::io::staged;
use crate::naming::Naming;

/// Before the exchange, removes the staged files. After it, removes the files of the plain store,
/// and gives the staged ones their names.
pub(crate) fn settle(disk: &Arc<dyn Disk>, index: &Index) -> Result<(), StoreError> {
    let names = staged::list(&**disk)?;
    match index.naming {
        _ if names.is_empty() => Ok(()),
        Naming::Plain => {
            tracing::info!("hashing the recipients was not finished; the store is as it was before");
            Ok(staged::discard(&**disk)?)
        }
        Naming::Hashed(_) => finish(disk, &names, &index.index_snapshot()?),
    }
}

fn finish(disk: &Arc<dyn Disk>, names: &[String], index_snapshot: &IndexSnapshot) -> Result<(), StoreError> {
    // The exchange must be durable before anything of the plain store goes.
    disk.sync()?;
    let IndexSnapshot { position, blobs_through, segments, .. } = index_snapshot;
    let first = position.unwrap_or_default().segment;
    let is_dead = |segment| !segments.contains_key(&segment);
    remove(&reader(disk, Options::default().name)?, |id| id < first && is_dead(id))?;
    remove(&reader(disk, format::BLOB_FILE_PREFIX)?, |id| {
        id <= *blobs_through && format::blob_segment(id).is_none_or(is_dead)
    })?;
    disk.sync()?;
    for name in names.iter().filter(|name| name.ends_with(".seg")) {
        staged::install(&**disk, name)?;
    }
    disk.sync()?;
    // Only the remains of an index can still be there.
    Ok(staged::discard(&**disk)?)
}

fn reader(disk: &Arc<dyn Disk>, name: &'static str) -> Result<Reader, StoreError> {
    Ok(Journal::open_unread(Arc::clone(disk), Options { name, ..Options::default() }, 0)?.reader())
}

fn remove(journal: &Reader, is_dead: impl Fn(u32) -> bool) -> Result<(), StoreError> {
    for segment in journal.each_segment().filter(|segment| is_dead(segment.id)) {
        journal.remove(segment.id, &|| ())?;
    }
    Ok(())
}
