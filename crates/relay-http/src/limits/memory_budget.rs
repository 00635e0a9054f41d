//! The one bound on bytes in flight: bodies while they are read and decoded, payloads until the
//! store has answered, pages until they are sent. A share is a guard, so nothing can be forgotten.
//! It counts; it holds no bytes itself, and never waits.
//!
//! One address may use a quarter of it, and more only while half of it is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use relay_core::Error;

use crate::api::error::ApiError;
use crate::limits::addresses::Address;

/// What takes no more than this is small. The last part of the budget is for such shares alone, so
/// that a few large ones never turn everybody else away.
const SMALL_BYTES: usize = 64 * 1024;

/// One part of so many is for small shares alone.
const PARTS: usize = 16;

/// One address may always use one part of so many.
const ADDRESS_PARTS: usize = 4;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much may be in flight. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    bytes_max: usize,
    used: AtomicUsize,
}

/// Some of the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    /// Whose it is, unless that is exempt.
    address: Option<Address>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(BudgetState { bytes_max, used: AtomicUsize::new(0) }))
    }

    /// A share of nothing, to grow.
    pub(crate) fn share(&self, address: Option<&Address>) -> Share {
        Share { budget: self.clone(), address: address.cloned(), bytes: 0 }
    }

    /// A share of so many bytes.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if they do not fit.
    pub(crate) fn take(&self, address: Option<&Address>, bytes: usize) -> Result<Share, ApiError> {
        let mut share = self.share(address);
        share.grow_to(bytes)?;
        Ok(share)
    }

    /// Whether so many bytes would fit just now. Nothing is taken: it may be otherwise when they
    /// arrive.
    pub(crate) fn has_room(&self, address: Option<&Address>, bytes: usize) -> bool {
        let (used, bytes_max) = (self.used(), self.0.bytes_max);
        let of_address = address.map_or(0, |address| address.usage().bytes.load(Ordering::Relaxed));
        let is_greedy = address.is_some() && of_address.saturating_add(bytes) > bytes_max / ADDRESS_PARTS;
        let is_crowded = used > 0 && used.saturating_add(bytes) > bytes_max / 2;
        grown(used, 0, bytes, bytes_max).is_some() && !(is_greedy && is_crowded)
    }

    /// Whether half of it is used.
    pub(crate) fn is_crowded(&self) -> bool {
        self.used() >= self.0.bytes_max / 2
    }

    /// How much of it is used.
    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

impl Share {
    #[cfg(test)]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it at least so large.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if that does not fit; it stays as it is then.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let BudgetState { bytes_max, used } = &*self.budget.0;
        let grown = |used| grown(used, self.bytes, bytes, *bytes_max);
        let before = used.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| no_room())?;
        let more = bytes - self.bytes;
        let is_alone = before == self.bytes;
        if let Some(address) = &self.address {
            let of_address = address.usage().bytes.fetch_add(more, Ordering::Relaxed) + more;
            let is_crowded = before + more > bytes_max / 2;
            if is_crowded && !is_alone && of_address > bytes_max / ADDRESS_PARTS {
                address.usage().bytes.fetch_sub(more, Ordering::Relaxed);
                used.fetch_sub(more, Ordering::Relaxed);
                return Err(no_room());
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Makes it no larger than this.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.budget.0.used.fetch_sub(freed, Ordering::Relaxed);
        if let Some(address) = &self.address {
            address.usage().bytes.fetch_sub(freed, Ordering::Relaxed);
        }
        self.bytes -= freed;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// What has no room, in this budget or in memory.
pub(crate) fn no_room() -> ApiError {
    Error::Overloaded { retry_after: RETRY_AFTER }.into()
}

/// What is used when a share of `held` bytes has grown to `wanted`; `None` if that does not fit. A
/// share that is alone always fits: else what is larger than the whole budget could never be
/// served.
fn grown(used: usize, held: usize, wanted: usize, bytes_max: usize) -> Option<usize> {
    let others = used.checked_sub(held)?;
    let sum = others.checked_add(wanted)?;
    let limit = if wanted <= SMALL_BYTES { bytes_max } else { bytes_max - bytes_max / PARTS };
    (others == 0 || sum <= limit).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::addresses::AddressBook;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_was_taken_comes_back() {
        let budget = Budget::new(16 * MIB);
        let mut first = budget.take(None, 8 * MIB).unwrap();
        let error = budget.take(None, 8 * MIB).unwrap_err();
        assert!(matches!(error, ApiError::Relay(Error::Overloaded { .. })));
        assert_eq!(budget.used(), 8 * MIB, "a refusal takes nothing");
        assert!(budget.is_crowded());
        first.shrink_to(5 * MIB);
        first.shrink_to(6 * MIB);
        let mut second = budget.take(None, 8 * MIB).unwrap();
        second.grow_to(9 * MIB).unwrap();
        second.grow_to(8 * MIB).unwrap();
        assert_eq!((budget.used(), second.bytes()), (14 * MIB, 9 * MIB));
        assert!(second.grow_to(11 * MIB).is_err());
        assert_eq!(second.bytes(), 9 * MIB);
        drop((first, second));
        assert_eq!(budget.used(), 0);
        assert!(!budget.is_crowded());
    }

    #[test]
    fn the_last_part_is_for_what_is_small() {
        let budget = Budget::new(16 * MIB);
        let large = budget.take(None, 15 * MIB).unwrap();
        assert!(budget.take(None, SMALL_BYTES + 1).is_err());
        let small: Vec<_> = std::iter::from_fn(|| budget.take(None, SMALL_BYTES).ok()).collect();
        assert_eq!(small.len(), MIB / SMALL_BYTES);
        drop(large);
    }

    #[test]
    fn an_address_has_a_quarter_and_more_while_half_is_free() {
        let (budget, book) = (Budget::new(16 * MIB), AddressBook::new());
        let [hog, other] = [1, 2].map(|last| book.enter([192, 0, 2, last].into()));
        let large = budget.take(Some(&hog), 8 * MIB).unwrap();
        assert!(budget.take(Some(&hog), 1).is_err(), "half is used");
        let mut held = budget.take(Some(&other), 4 * MIB).unwrap();
        assert!(held.grow_to(4 * MIB + 1).is_err());
        assert_eq!((budget.used(), held.bytes()), (12 * MIB, 4 * MIB), "a refusal takes nothing");
        drop(large);
        held.grow_to(8 * MIB).unwrap();
        drop(held);
        assert_eq!((budget.used(), hog.usage().bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn who_is_alone_always_fits() {
        let budget = Budget::new(10);
        let mut alone = budget.take(None, 100).unwrap();
        alone.grow_to(usize::MAX).unwrap();
        assert!(budget.take(None, 1).is_err());
        drop(alone);
        let _one = budget.take(None, 1).unwrap();
        assert!(budget.take(None, 100).is_err());
    }
}
