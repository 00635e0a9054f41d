//! Why a command failed, with messages for operators.

use std::io;
use std::path::{Path, PathBuf};

use relay_store_redb::{CopyError, HashError, KeyId, OpenError, StoreError};

use crate::backup::BackupError;
use crate::control::Refusal;
use crate::error::{EXIT_FAILED, EXIT_UNAVAILABLE, RelayError};
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
    Start(#[from] RelayError),
    #[error("{0}")]
    Hash(#[from] HashError),
    #[error(
        "the recipients of the export were hashed with key {id}, and the key file of this store {}; give the old key file with \
         --key FILE, and import into a new store without a key file", found_key(*.found)
    )]
    OtherExportKey { id: KeyId, found: Option<KeyId> },
    #[error("key file {path}: holds key {found}, and the recipients of the export were hashed with key {id}")]
    WrongKeyFile { path: PathBuf, id: KeyId, found: KeyId },
    #[error(
        "key file {path}: contains a different key than {given}, and a store has one key; import into a new store whose \
         privacy.key_path does not exist yet"
    )]
    KeyInUse { path: PathBuf, given: PathBuf },
    #[error("the export contains plain recipients, which no key can have hashed; import it without --key")]
    KeyOfPlainExport,
    #[error(
        "the recipients of the export were hashed with key {id}, and this store holds plain ones; run `relay-bin compact \
         --hash-recipients` with that key first, or import into a new store"
    )]
    HashesIntoPlain { id: KeyId },
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] relay_store_postgres::PostgresError),
    #[cfg(feature = "postgres")]
    #[error("with storage.kind = \"postgres\" there is no `{command}`; {instead}")]
    NotWithPostgres { command: &'static str, instead: &'static str },
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(
        "key file {path}: contains a different key than the backup; move it away to restore the key of the backup, or move {backup} \
         away to keep this one"
    )]
    OtherKey { path: PathBuf, backup: PathBuf },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} exists, and the export does not overwrite it")]
    Exists { path: PathBuf },
    #[error("{path}, line {line}: {what}; nothing was imported")]
    BadLine { path: PathBuf, line: u64, what: String },
    #[error(
        "{path}, line {line}: {what}; the lines before it are imported. Correct the file and import it again: the import skips items \
         that are already stored"
    )]
    Partly { path: PathBuf, line: u64, what: String },
    #[error(
        "a relay with storage.kind = \"{kind}\" answers commands only if admin.control_path has the path of a socket"
    )]
    NoSocket { kind: &'static str },
    #[error("no relay answers at {path} ({source}); if one runs, its log has the reason at the start")]
    NoRelay { path: PathBuf, source: io::Error },
    #[error(
        "the process that listens at {path} is not of the owner of that directory, so it got no request; check who can change that directory"
    )]
    UntrustedSocket { path: PathBuf },
    #[error(
        "the relay reports a complete backup, but {path} does not contain all of it: the relay may see other directories at that path"
    )]
    IncompleteBackup { path: PathBuf },
    #[error("the relay reports: {0}")]
    Relay(Refusal),
}

fn found_key(found: Option<KeyId>) -> String {
    found.map_or_else(|| "does not exist".to_owned(), |found| format!("holds key {found}"))
}

impl CommandError {
    /// The exit code of a command that fails with this error.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::NoRelay { .. } | Self::NoSocket { .. } => EXIT_UNAVAILABLE,
            _ => EXIT_FAILED,
        }
    }

    /// Adds the path of the store to errors without one.
    pub(super) fn in_store(self, storage: &Path) -> Self {
        match self {
            Self::Store(_) | Self::Broken(_) | Self::Hash(_) => {
                Self::In { path: storage.to_owned(), cause: Box::new(self) }
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_store_contains_its_path_once() {
        let text = |error: CommandError| error.in_store(Path::new("/var/lib/relay")).to_string();
        assert!(text(StoreError::Panicked.into()).starts_with("/var/lib/relay: the store failed: "));
        let with_path = || OpenError::Unreadable("/srv".into());
        assert_eq!(text(with_path().into()), with_path().to_string());
    }
}
