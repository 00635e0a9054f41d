//! The one bound on what requests of HTTP/2 hold besides bodies and pages: their heads, their
//! streams, short answers on their way. One connection has many of them, so the bound on
//! connections is none for these. A share is a guard, so nothing can be forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::addresses::Address;

/// What a stream takes with a small head, the tasks and buffers of its request and of its answer
/// included.
const STREAM_BYTES: usize = 16 * 1024;

/// A head is small up to this.
const SMALL_HEAD_BYTES: usize = 4 * 1024;

/// So much may all of them take, and those of one address: 8,192 and 1,280 with small heads.
const BYTES_MAX: usize = 128 * 1024 * 1024;
const OF_ADDRESS_BYTES_MAX: usize = 20 * 1024 * 1024;

/// All streams of a server. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamBudget(Arc<AtomicUsize>);

/// One stream, until this is dropped.
#[derive(Debug)]
pub(crate) struct StreamShare {
    budget: StreamBudget,
    /// Whose it is, unless that is exempt.
    address: Option<Address>,
    bytes: usize,
}

impl StreamBudget {
    /// The share of a stream whose head takes so many bytes, if it fits.
    pub(crate) fn take(&self, address: Option<&Address>, head_bytes: usize) -> Option<StreamShare> {
        let bytes = head_bytes.saturating_sub(SMALL_HEAD_BYTES).saturating_add(STREAM_BYTES);
        if !try_add(&self.0, bytes, BYTES_MAX) {
            return None;
        }
        if let Some(address) = address
            && !try_add(&address.usage().streams, bytes, OF_ADDRESS_BYTES_MAX)
        {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(StreamShare { budget: self.clone(), address: address.cloned(), bytes })
    }
}

impl Drop for StreamShare {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(address) = &self.address {
            address.usage().streams.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

fn try_add(sum: &AtomicUsize, more: usize, max: usize) -> bool {
    let grown = |sum: usize| sum.checked_add(more).filter(|sum| *sum <= max);
    sum.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::addresses::AddressBook;

    #[test]
    fn an_address_has_its_part_and_all_have_theirs() {
        let (budget, book) = (StreamBudget::default(), AddressBook::new());
        let all = |address: Option<&Address>, head_bytes| {
            std::iter::from_fn(|| budget.take(address, head_bytes)).collect::<Vec<_>>()
        };
        let [hog, other] = [1, 2].map(|last| book.enter([192, 0, 2, last].into()));
        let held = all(Some(&hog), 0);
        assert_eq!(held.len(), 1280);
        assert_eq!(all(Some(&other), 20 * 1024).len(), 640, "heads count");
        assert_eq!(hog.usage().streams.load(Ordering::Relaxed), OF_ADDRESS_BYTES_MAX);
        let exempt = all(None, 0);
        assert_eq!(exempt.len(), 8192 - 1280, "nobody is exempt from the bound on all");
        assert!(budget.take(Some(&other), 0).is_none());
        drop((held, exempt));
        assert_eq!((budget.0.load(Ordering::Relaxed), hog.usage().streams.load(Ordering::Relaxed)), (0, 0));
    }
}
