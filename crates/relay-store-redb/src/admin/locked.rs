//! A storage directory that is locked before its store is opened, so that the caller can do in
//! between what only the owner of the lock may do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_core::{Clock, Limits};
use relay_disk::Directory;

use crate::RedbRelay;
use crate::error::OpenError;
use crate::open;
use crate::options::Options;

/// The directory of a store, which no other process can use until this is dropped.
#[derive(Debug)]
pub struct LockedDirectory {
    disk: Directory,
    path: PathBuf,
}

impl LockedDirectory {
    /// Locks `path`. Creates it if necessary; only its owner then has access.
    ///
    /// # Errors
    /// [`OpenError::InUse`], or another one with a message for the operator.
    pub fn lock(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { disk: open::lock(path)?, path: path.to_owned() })
    }

    /// Opens the store, as [`RedbRelay::open`] does.
    ///
    /// # Errors
    /// [`OpenError`], with a message for the operator.
    pub fn open(
        self,
        limits: Limits,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<RedbRelay, OpenError> {
        RedbRelay::open_on(Arc::new(self.disk), &self.path, limits, clock, options)
    }
}
