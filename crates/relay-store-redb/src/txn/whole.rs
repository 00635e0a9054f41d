//! All of a store as it was at one moment, for passes over the whole of it.

use std::collections::BTreeMap;
use std::io;

use crate::error::StoreError;
use crate::format::{Counters, LiveCount};
use crate::io::journals::Journals;
use crate::io::pin::Pin;
use crate::txn::read::Reading;
use crate::version::read_snapshot::ReadSnapshot;

/// All of a store, as it was at one moment. None of its files is taken away meanwhile.
pub(crate) struct Whole {
    pub(crate) snapshot: ReadSnapshot,
    /// What is noted of the live frames of each segment.
    pub(crate) segments: BTreeMap<u32, LiveCount>,
    pub(crate) numbers: Counters,
    pub(crate) _pin: Pin,
}

impl Whole {
    pub(crate) fn reading<'a>(&'a self, journal: &'a Journals) -> Reading<'a> {
        Reading { view: self.snapshot.view(), journal }
    }

    /// What was read of it, unless that may be wrong.
    ///
    /// # Errors
    /// When the index was opened anew meanwhile, whose pages may have been used again.
    pub(crate) fn checked<T>(&self, read: T) -> Result<T, StoreError> {
        if self.snapshot.is_overtaken() {
            return Err(io::Error::other("the index was opened anew meanwhile").into());
        }
        Ok(read)
    }
}
