//! What every thread uses beside the rows: the journals, the clock, the space on the disk, metrics,
//! and the throttle of background work.

pub(crate) mod alarm;
pub(crate) mod clock;
pub(crate) mod cold;
pub(crate) mod files;
pub(crate) mod journals;
pub(crate) mod metrics;
pub(crate) mod payload;
pub(crate) mod pin;
pub(crate) mod space_monitor;
pub(crate) mod throttle;
