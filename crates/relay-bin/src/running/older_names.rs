//! Looks once for recipients of an older store that mean something else now: those that begin like
//! a lock.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use relay_store_redb::{RedbRelay, StoreError};

use crate::lock_like::LockLikeNames;

/// An empty file in the storage directory: a relay with locks has used the store.
const MARK: &str = "relay.locks";

/// Counts such recipients at the first start with locks, and warns of them.
pub(super) fn check_once(store: &RedbRelay, storage: &Path) {
    let mark = storage.join(MARK);
    if mark.exists() {
        return;
    }
    match count(store) {
        Ok(LockLikeNames { locked: 0, malformed: 0 }) => {}
        Ok(LockLikeNames { locked, malformed }) => tracing::warn!(
            locked,
            malformed,
            "recipients of this store begin with sha256: or ed25519:, which are locks now: without a proof nobody can read \
             their items, and requests to malformed ones are refused; auth.locks = false keeps them plain (docs/auth.md); \
             this is logged once"
        ),
        Err(error) => {
            tracing::warn!(%error, "the recipients of the store could not be checked for locks");
            return;
        }
    }
    if let Err(error) = create(&mark) {
        tracing::warn!(%error, path = %mark.display(), "the file cannot be created; the next start counts again");
    }
}

/// The mark need not be durable: without it, the next start counts again.
fn create(mark: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(mark) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        opened => opened.map(drop),
    }
}

fn count(store: &RedbRelay) -> Result<LockLikeNames, StoreError> {
    let mut names = LockLikeNames::default();
    store.each_recipient(|recipient| names.note(recipient))?;
    Ok(names)
}

/// Removes the mark, because the store is used without locks.
pub(super) fn forget(storage: &Path) {
    // Without the mark, a later start counts once too often.
    drop(fs::remove_file(storage.join(MARK)));
}
