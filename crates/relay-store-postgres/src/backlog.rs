//! The requests that wait for the database, and what bounds them: all together, and those of each
//! lane, so that a slow lane leaves space for others.

use std::sync::Arc;

use relay_core::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::job::{Job, RETRY_AFTER};

/// How many requests may wait for the database at once.
const WAITING_MAX: u64 = 4_096;

/// The part of the backlog that one lane may hold.
const LANE_SHARE: u32 = 4;

/// The unit of the backlog.
const UNIT_BYTES: u64 = 1_024;

/// What all lanes may hold.
pub(crate) struct Backlog {
    permits: Arc<Semaphore>,
    units: u32,
}

/// The way to a lane, and what it may hold of the backlog.
pub(crate) struct LaneSender {
    pub(crate) jobs: mpsc::UnboundedSender<Job>,
    share: Arc<Semaphore>,
}

impl Backlog {
    /// A backlog of this many bytes, with at least a unit for each of the requests that may wait.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let units = bytes_max.div_ceil(UNIT_BYTES).clamp(WAITING_MAX, u64::from(u32::MAX) / 2);
        let units = u32::try_from(units).unwrap_or(u32::MAX / 2);
        Self { permits: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// A lane with its share.
    pub(crate) fn lane(&self, jobs: mpsc::UnboundedSender<Job>) -> LaneSender {
        LaneSender { jobs, share: Arc::new(Semaphore::new((self.units / LANE_SHARE) as usize)) }
    }

    /// A part of the backlog, and of the lane's share of it, for a request with this many bytes.
    /// One request alone always fits.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub(crate) fn permits(
        &self,
        lane: &LaneSender,
        bytes: usize,
    ) -> Result<[OwnedSemaphorePermit; 2], Error> {
        let base = u64::from(self.units) / WAITING_MAX;
        let units = base.saturating_add((bytes as u64).div_ceil(UNIT_BYTES)).max(1);
        // A larger one takes all that its lane may hold.
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(self.units / LANE_SHARE);
        let take = |permits: &Arc<Semaphore>| {
            let taken = Arc::clone(permits).try_acquire_many_owned(units);
            taken.map_err(|_| Error::Overloaded { retry_after: RETRY_AFTER })
        };
        let of_lane = take(&lane.share)?;
        Ok([take(&self.permits)?, of_lane])
    }

    /// The bytes that wait, rounded up for each request.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let free = self.permits.available_permits() as u64;
        u64::from(self.units).saturating_sub(free).saturating_mul(UNIT_BYTES)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_lane_holds_a_quarter_and_a_large_request_alone_fits() {
        let backlog = Backlog::new(1 << 20);
        let lanes = [(); 5].map(|()| backlog.lane(mpsc::unbounded_channel().0));
        let held: Vec<_> = lanes.iter().map(|lane| backlog.permits(lane, 1 << 30)).collect();
        assert!(held[..4].iter().all(Result::is_ok), "each has its quarter");
        assert!(matches!(held[4], Err(Error::Overloaded { .. })));
        drop(held);
        assert_eq!(backlog.waiting_bytes(), 0);
        let small: Vec<_> = (0..).map_while(|_| backlog.permits(&lanes[0], 1).ok()).collect();
        assert!(!small.is_empty() && backlog.permits(&lanes[1], 1).is_ok());
    }
}
