//! The bound on bytes in flight: bodies while they are read and decoded, payloads until the store
//! has finished, pages until they are sent. It only counts, and never waits.
//!
//! One address may use a quarter of the budget, and more only while half of it is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use relay_core::Error;

use crate::api::error::ApiError;
use crate::limits::addresses::Address;

/// Shares up to this size are small. The last part of the budget is reserved for them, so that a
/// few large requests never lock out all others.
const SMALL_BYTES: usize = 64 * 1024;

/// One of this many parts is reserved for small shares.
const PARTS: usize = 16;

/// One address may always use one of this many parts.
const ADDRESS_PARTS: usize = 4;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A budget of bytes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    bytes_max: usize,
    used: AtomicUsize,
}

/// A part of the budget. Dropping it gives the bytes back.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    /// `None` if the address is exempt.
    address: Option<Address>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(BudgetState { bytes_max, used: AtomicUsize::new(0) }))
    }

    /// An empty share, which can grow.
    pub(crate) fn share(&self, address: Option<&Address>) -> Share {
        Share { budget: self.clone(), address: address.cloned(), bytes: 0 }
    }

    /// Takes a share of `bytes`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if it does not fit.
    pub(crate) fn take(&self, address: Option<&Address>, bytes: usize) -> Result<Share, ApiError> {
        let mut share = self.share(address);
        share.grow_to(bytes)?;
        Ok(share)
    }

    /// Whether `bytes` would fit now. Takes nothing, so they may not fit any more when they arrive.
    pub(crate) fn would_fit(&self, address: Option<&Address>, bytes: usize) -> bool {
        let (used, bytes_max) = (self.used(), self.0.bytes_max);
        let of_address = address.map_or(0, |address| address.usage().bytes.load(Ordering::Relaxed));
        let is_greedy = address.is_some() && of_address.saturating_add(bytes) > bytes_max / ADDRESS_PARTS;
        let is_crowded = used > 0 && used.saturating_add(bytes) > bytes_max / 2;
        grown(used, 0, bytes, bytes_max).is_some() && !(is_greedy && is_crowded)
    }

    /// Whether at least half of the budget is used.
    pub(crate) fn is_crowded(&self) -> bool {
        self.used() >= self.0.bytes_max / 2
    }

    /// The bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

impl Share {
    #[cfg(test)]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows the share to at least `bytes`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if that does not fit. The share is then unchanged.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let BudgetState { bytes_max, used } = &*self.budget.0;
        let grown = |used| grown(used, self.bytes, bytes, *bytes_max);
        let used_before =
            used.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| overloaded())?;
        let more = bytes - self.bytes;
        let is_alone = used_before == self.bytes;
        if let Some(address) = &self.address {
            let of_address = address.usage().bytes.fetch_add(more, Ordering::Relaxed) + more;
            let is_crowded = used_before + more > bytes_max / 2;
            if is_crowded && !is_alone && of_address > bytes_max / ADDRESS_PARTS {
                address.usage().bytes.fetch_sub(more, Ordering::Relaxed);
                used.fetch_sub(more, Ordering::Relaxed);
                return Err(overloaded());
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Shrinks the share to at most `bytes`.
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

/// The error when bytes do not fit into the budget, or into memory.
pub(crate) fn overloaded() -> ApiError {
    Error::Overloaded { retry_after: RETRY_AFTER }.into()
}

/// The bytes in use after a share of `held` bytes has grown to `wanted`; `None` if that does not
/// fit. A share that is alone always fits. Otherwise a request that is larger than the budget could
/// never be served.
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
    fn shares_give_their_bytes_back() {
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
    fn the_last_part_is_reserved_for_small_shares() {
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
    fn a_share_that_is_alone_always_fits() {
        let budget = Budget::new(10);
        let mut alone = budget.take(None, 100).unwrap();
        alone.grow_to(usize::MAX).unwrap();
        assert!(budget.take(None, 1).is_err());
        drop(alone);
        let _one = budget.take(None, 1).unwrap();
        assert!(budget.take(None, 100).is_err());
    }
}
