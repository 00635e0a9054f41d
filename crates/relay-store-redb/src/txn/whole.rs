//! All of a store as it was at one moment, for passes over the whole store.

use std::collections::BTreeMap;
use std::io;

use crate::error::StoreError;
use crate::format::{Counters, LiveCount};
use crate::io::journals::Journals;
use crate::io::pin::Pin;
use crate::txn::read::ReadTxn;
use crate::version::read_snapshot::ReadSnapshot;

/// All of a store as it was at one moment. While it exists, none of its files is deleted.
pub(crate) struct WholeStore {
    pub(crate) snapshot: ReadSnapshot,
    /// The recorded live frames of each segment.
    pub(crate) segments: BTreeMap<u32, LiveCount>,
    pub(crate) numbers: Counters,
    pub(crate) _pin: Pin,
}

impl WholeStore {
    pub(crate) fn read_txn<'a>(&'a self, journal: &'a Journals) -> ReadTxn<'a> {
        ReadTxn { view: self.snapshot.view(), journal }
    }

    /// Returns what was read from the store, unless it may be wrong.
    ///
    /// # Errors
    /// If the index was reopened in the meantime, because its pages may have been reused.
    pub(crate) fn checked<T>(&self, read: T) -> Result<T, StoreError> {
        if self.snapshot.is_invalidated() {
            return Err(io::Error::other("the index was reopened in the meantime").into());
        }
        Ok(read)
    }
}
