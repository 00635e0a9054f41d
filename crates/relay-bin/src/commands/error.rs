//! Why a command did not do what it was asked for, in words for the operator.

use std::io;
use std::path::{Path, PathBuf};

use relay_store_redb::{CopyError, OpenError, StoreError};

use crate::backup::BackupError;
use crate::key_file::KeyFileError;

/// Why a command on a store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    #[error("the store failed: {}", crate::error::cause(.0))]
    Broken(#[from] relay_core::Error),
    #[error("{path}: {cause}")]
    In { path: PathBuf, cause: Box<Self> },
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(
        "key file {path}: holds another key than the backup; move it away, and it is replaced by that of the backup, or move {backup} \
         away, and it stays"
    )]
    OtherKey { path: PathBuf, backup: PathBuf },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is there already, and is not overwritten")]
    Exists { path: PathBuf },
    #[error("{path}, line {line}: {what}; nothing was imported")]
    BadLine { path: PathBuf, line: u64, what: String },
    #[error(
        "{path}, line {line}: {what}; what stands before it is imported. Mend that and import it again: what is there by then is passed \
         over"
    )]
    Partly { path: PathBuf, line: u64, what: String },
    #[error(
        "the store in {path} is in use by a relay that cannot be asked for a backup ({source}); its log says at the start why it \
         does not listen"
    )]
    NotAsked { path: PathBuf, source: io::Error },
    #[error(
        "who listens at {path} is not the owner of the store; it was asked for nothing. Look at who may change that directory"
    )]
    Stranger { path: PathBuf },
    #[error(
        "the relay says that the backup is written, and it is not all in {path}: it may see other directories there than this command"
    )]
    NotThere { path: PathBuf },
    #[error("the relay says: {0}")]
    Relay(String),
}

impl CommandError {
    /// Says which store it was, where nothing else does.
    pub(super) fn of(self, storage: &Path) -> Self {
        match self {
            Self::Store(_) | Self::Broken(_) => Self::In { path: storage.to_owned(), cause: Box::new(self) },
            named => named,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_fails_is_named() {
        let told = |error: CommandError| error.of(Path::new("/var/lib/relay")).to_string();
        assert!(told(StoreError::Panicked.into()).starts_with("/var/lib/relay: the store failed: "));
        let named = || OpenError::Unreadable { path: "/srv".into() };
        assert_eq!(told(named().into()), named().to_string());
    }
}
