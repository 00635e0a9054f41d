//! Writes a backup, and optionally a copy of the key file. A running relay and the command both
//! use this.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use relay_store_redb::{Copied, CopyError, EarlierBackup, KeyId, Progress, Snapshot};

use crate::key_file::{self, KeyFileError, RootKey};

/// Why a backup was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("key file {}: does not exist; a relay creates it at its first start", path.display())]
    NoKey { path: PathBuf },
    #[error("key file {}: holds key {found}, and the recipients of the store were hashed with key {stored}", path.display())]
    OtherKey { path: PathBuf, stored: KeyId, found: KeyId },
}

/// Where a backup goes, and what it gets from elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackupPaths<'a> {
    pub(crate) directory: &'a Path,
    /// The earlier backup that it shares files with.
    pub(crate) base: Option<&'a Path>,
    /// The key file that is copied into it.
    pub(crate) key: Option<&'a Path>,
}

/// Writes a snapshot into a directory, and then a copy of the key file.
///
/// # Errors
/// [`BackupError`]. If the key file or the earlier backup is unusable, nothing is written.
pub(crate) fn write(
    snapshot: Snapshot,
    paths: BackupPaths<'_>,
    mut watch: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Copied, BackupError> {
    let read_key =
        |path: &Path| RootKey::read(path)?.ok_or_else(|| BackupError::NoKey { path: path.to_owned() });
    let key = paths.key.map(read_key).transpose()?;
    if let (Some(key), Some(path), Some(stored)) = (&key, paths.key, snapshot.naming().key_id())
        && key.id() != stored
    {
        return Err(BackupError::OtherKey { path: path.to_owned(), stored, found: key.id() });
    }
    let base = paths.base.map(EarlierBackup::open).transpose()?;
    let copied = snapshot.write(paths.directory, base.as_ref(), &mut watch)?;
    if let Some(key) = key {
        key.write_new(&paths.directory.join(key_file::FILE_NAME))?;
    }
    Ok(copied)
}
