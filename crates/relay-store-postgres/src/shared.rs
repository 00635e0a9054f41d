//! What all tasks of a store share.

use relay_core::{Recipient, Waiters};
use uuid::Uuid;

use crate::clock::StoreTime;
use crate::connect::Connector;
use crate::figures::Counters;
use crate::flights::Rules;
use crate::health::Health;
use crate::monitor::Monitor;
use crate::wakes::Wakes;

/// The state of a store.
pub(crate) struct Shared {
    pub(crate) connector: Connector,
    pub(crate) rules: Rules,
    pub(crate) clock: StoreTime,
    pub(crate) health: Health,
    pub(crate) monitor: Monitor,
    pub(crate) figures: Counters,
    pub(crate) waiters: Waiters,
    pub(crate) wakes: Wakes,
}

impl Shared {
    /// An item is visible in this queue: wakes who waits here, and tells the other relays.
    pub(crate) fn arrived(&self, recipient: &Recipient, queue: Uuid) {
        self.waiters.wake(recipient);
        self.wakes.note(queue);
    }
}
