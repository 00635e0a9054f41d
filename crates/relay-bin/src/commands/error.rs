//! Why a command did not do what it was asked for, in words for the operator.

use std::io;
use std::path::PathBuf;

use relay_core::Rejection;
use relay_store_redb::{CopyError, OpenError, StoreError};

/// Why a command on a store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    #[error("the store failed: {}", crate::error::cause(.0))]
    Broken(#[from] relay_core::Error),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is there already, and is not overwritten")]
    Exists { path: PathBuf },
    #[error("{path}, line {line}: {what}; nothing was imported")]
    BadLine { path: PathBuf, line: u64, what: String },
    #[error(
        "{path}, line {line}: {refusal}; what stands before it is imported. Mend that and import the file again: what is there by then \
         is passed over"
    )]
    Refused { path: PathBuf, line: u64, refusal: Rejection },
    #[error(
        "the store in {path} is in use by a relay that cannot be asked for a backup ({source}); its log says at the start why it \
         does not listen"
    )]
    NotAsked { path: PathBuf, source: io::Error },
    #[error("the relay says: {0}")]
    Relay(String),
}
