//! The names of the index's files in the storage directory. The journal names its own files.

use std::io;

use relay_disk::Disk;

/// The index.
pub(crate) const INDEX_FILE: &str = "relay.redb";
/// A new index, until it replaces the old one.
pub(crate) const NEW_INDEX_FILE: &str = "relay.redb.new";

/// The bytes of the index, and of a new one that is being written.
pub(super) fn index_file_bytes(disk: &dyn Disk) -> io::Result<u64> {
    let mut bytes = 0;
    for name in [INDEX_FILE, NEW_INDEX_FILE] {
        match disk.open(name).and_then(|file| file.len()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            len => bytes += len?,
        }
    }
    Ok(bytes)
}
