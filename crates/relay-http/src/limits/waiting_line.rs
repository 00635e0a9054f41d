//! Limits how many requests wait for the rate limit, per address and in total.
//!
//! A request waits for its turn, or for its refusal: a delayed refusal slows a flood down. Requests
//! that wait for a refusal use at most half of the places, so they never displace the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::addresses::{Address, try_add};

/// How many requests may wait, of all addresses and of one. Each uses some KB.
const WAITING_MAX: usize = 4_096;
const WAITING_PER_ADDRESS_MAX: usize = 512;

/// The number of waiting requests. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitingLine(Arc<AtomicUsize>);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    Turn,
    Refusal,
}

/// A place in the line, until it is dropped.
#[derive(Debug)]
pub(crate) struct WaitingPlace<'a> {
    line: &'a WaitingLine,
    address: &'a Address,
}

impl WaitingLine {
    /// The number of waiting requests.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a place for a request of this address, if one is free.
    pub(crate) fn enter<'a>(&'a self, address: &'a Address, waits_for: WaitsFor) -> Option<WaitingPlace<'a>> {
        let parts = match waits_for {
            WaitsFor::Turn => 1,
            WaitsFor::Refusal => 2,
        };
        if !try_add(&self.0, 1, WAITING_MAX / parts) {
            return None;
        }
        if !try_add(&address.usage().waiting, 1, WAITING_PER_ADDRESS_MAX / parts) {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(WaitingPlace { line: self, address })
    }
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        self.line.0.fetch_sub(1, Ordering::Relaxed);
        self.address.usage().waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::addresses::AddressBook;

    #[test]
    fn refusals_use_at_most_half_of_the_places() {
        let (line, book) = (WaitingLine::default(), AddressBook::new());
        let addresses: Vec<_> = (0..10).map(|host| book.enter([192, 0, 2, host].into())).collect();
        let fill = |waits_for| {
            let line = &line;
            let fill_one = |address| std::iter::from_fn(move || line.enter(address, waits_for));
            addresses.iter().flat_map(fill_one).collect::<Vec<_>>()
        };
        let refused = fill(WaitsFor::Refusal);
        assert_eq!((refused.len(), line.count()), (2048, 2048));
        assert_eq!(addresses[0].usage().waiting.load(Ordering::Relaxed), 256);
        let waiting = fill(WaitsFor::Turn);
        assert_eq!((waiting.len(), line.count()), (2048, 4096));
        assert_eq!(addresses[0].usage().waiting.load(Ordering::Relaxed), 512);
        drop((refused, waiting));
        assert_eq!(line.count(), 0);
        assert!(addresses.iter().all(|address| address.usage().waiting.load(Ordering::Relaxed) == 0));
    }
}
