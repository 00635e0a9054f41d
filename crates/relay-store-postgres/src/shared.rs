//! What all tasks of a shard share.

use std::sync::Arc;

use relay_core::{Recipient, Waiters};
use uuid::Uuid;

use crate::clock::StoreTime;
use crate::connect::Connector;
use crate::figures::Counters;
use crate::flights::Rules;
use crate::health::Health;
use crate::monitor::Monitor;
use crate::wakes::Wakes;

/// The state of a shard.
pub(crate) struct Shared {
    pub(crate) connector: Connector,
    pub(crate) rules: Rules,
    /// One for all shards, as the counters are.
    pub(crate) clock: Arc<StoreTime>,
    pub(crate) health: Health,
    pub(crate) monitor: Monitor,
    pub(crate) figures: Arc<Counters>,
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
