//! Who waits for the rate limit: how many may, of each address and of all. It knows neither when a
//! wait is over nor why it began.
//!
//! A request may wait for its turn, or for its refusal: a flood that is refused after a wait is as
//! slow as one that is served. Those who are refused take at most half of the places, so that they
//! never turn away who waits for a turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::addresses::{Address, try_count};

/// Requests that wait at once: of all addresses, and of one. Each holds some KB.
const WAITING_MAX: usize = 4_096;
const WAITING_OF_ADDRESS_MAX: usize = 512;

/// All who wait. Clones are the same line.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitingLine(Arc<AtomicUsize>);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    Turn,
    Refusal,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct WaitingPlace<'a> {
    line: &'a WaitingLine,
    address: &'a Address,
}

impl WaitingLine {
    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A place for a request of this address, if there is one.
    pub(crate) fn enter<'a>(&'a self, address: &'a Address, waits_for: WaitsFor) -> Option<WaitingPlace<'a>> {
        let parts = match waits_for {
            WaitsFor::Turn => 1,
            WaitsFor::Refusal => 2,
        };
        if !try_count(&self.0, WAITING_MAX / parts) {
            return None;
        }
        if !try_count(&address.usage().waiting, WAITING_OF_ADDRESS_MAX / parts) {
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
    fn who_is_refused_leaves_half_of_the_places_to_those_who_wait_for_a_turn() {
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
