//! Bounds the memory that HTTP/2 requests use besides bodies and pages: heads, streams, and short
//! responses. One connection has many streams, so the bound on connections does not suffice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::addresses::{Address, try_add};

/// The memory of a stream with a small head, including the tasks and buffers of its request and its
/// response.
const STREAM_BYTES: usize = 16 * 1024;

/// A head of up to this size is small.
const SMALL_HEAD_BYTES: usize = 4 * 1024;

/// The limits of all streams, and of those of one address: 8,192 and 1,280 with small heads.
const BYTES_MAX: usize = 128 * 1024 * 1024;
const ADDRESS_BYTES_MAX: usize = 20 * 1024 * 1024;

/// The memory of all streams of a server. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamBudget(Arc<AtomicUsize>);

/// The share of one stream. Dropping it gives the bytes back.
#[derive(Debug)]
pub(super) struct StreamShare {
    budget: StreamBudget,
    /// `None` if the address is exempt.
    address: Option<Address>,
    bytes: usize,
}

impl StreamBudget {
    /// Takes the share of a stream with a head of `head_bytes`, if it fits.
    pub(super) fn take(&self, address: Option<&Address>, head_bytes: usize) -> Option<StreamShare> {
        let bytes = head_bytes.saturating_sub(SMALL_HEAD_BYTES).saturating_add(STREAM_BYTES);
        if !try_add(&self.0, bytes, BYTES_MAX) {
            return None;
        }
        if let Some(address) = address
            && !try_add(&address.usage().streams, bytes, ADDRESS_BYTES_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::addresses::AddressBook;

    #[test]
    fn one_address_and_all_addresses_have_a_limit() {
        let (budget, book) = (StreamBudget::default(), AddressBook::new());
        let all = |address: Option<&Address>, head_bytes| {
            std::iter::from_fn(|| budget.take(address, head_bytes)).collect::<Vec<_>>()
        };
        let [hog, other] = [1, 2].map(|last| book.enter([192, 0, 2, last].into()));
        let held = all(Some(&hog), 0);
        assert_eq!(held.len(), 1280);
        assert_eq!(all(Some(&other), 20 * 1024).len(), 640, "large heads count more");
        assert_eq!(hog.usage().streams.load(Ordering::Relaxed), ADDRESS_BYTES_MAX);
        let exempt = all(None, 0);
        assert_eq!(exempt.len(), 8192 - 1280, "exempt addresses count for the limit of all");
        assert!(budget.take(Some(&other), 0).is_none());
        drop((held, exempt));
        assert_eq!((budget.0.load(Ordering::Relaxed), hog.usage().streams.load(Ordering::Relaxed)), (0, 0));
    }
}
