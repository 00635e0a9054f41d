//! A backup and, if it is wanted, the key file beside it. Whoever has the store writes it with
//! this: the relay that serves, or the command. It takes no snapshot and asks nobody.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use relay_store_redb::{Copied, CopyError, Progress, Snapshot};

use crate::key_file::{self, KeyFileError, RootKey};

/// Why a backup was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("key file {}: is not there; a relay makes it at its first start", path.display())]
    NoKey { path: PathBuf },
}

/// Writes a snapshot into a directory, and then a copy of the key file at `key_path`, if there is
/// to be one.
///
/// # Errors
/// [`BackupError`], in words for the operator. Without the key nothing is written.
pub(crate) fn write(
    snapshot: Snapshot,
    directory: &Path,
    key_path: Option<&Path>,
    mut watch: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Copied, BackupError> {
    let key = key_path.map(read_key).transpose()?;
    let copied = snapshot.write(directory, &mut watch)?;
    if let Some(key) = key {
        key.write_new(&directory.join(key_file::FILE_NAME))?;
    }
    Ok(copied)
}

fn read_key(path: &Path) -> Result<RootKey, BackupError> {
    RootKey::read(path)?.ok_or_else(|| BackupError::NoKey { path: path.to_owned() })
}
