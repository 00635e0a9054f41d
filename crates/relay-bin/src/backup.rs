//! Writes a backup, and optionally a copy of the key file. A running relay and the command both
//! use this.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use relay_store_redb::{Copied, CopyError, KeyId, Progress, Snapshot};

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

/// Writes a snapshot into a directory, and then a copy of the key file at `key_path`, if given.
///
/// # Errors
/// [`BackupError`]. If the key file is unusable, nothing is written.
pub(crate) fn write(
    snapshot: Snapshot,
    directory: &Path,
    key_path: Option<&Path>,
    mut watch: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Copied, BackupError> {
    let read_key =
        |path: &Path| RootKey::read(path)?.ok_or_else(|| BackupError::NoKey { path: path.to_owned() });
    let key = key_path.map(read_key).transpose()?;
    if let (Some(key), Some(path), Some(stored)) = (&key, key_path, snapshot.naming().key_id())
        && key.id() != stored
    {
        return Err(BackupError::OtherKey { path: path.to_owned(), stored, found: key.id() });
    }
    let copied = snapshot.write(directory, &mut watch)?;
    if let Some(key) = key {
        key.write_new(&directory.join(key_file::FILE_NAME))?;
    }
    Ok(copied)
}
