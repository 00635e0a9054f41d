//! What every thread uses beside the rows: journals, clock, disk space, metrics, and the throttle
//! of background work.

pub(crate) mod alarm;
pub(crate) mod clock;
pub(crate) mod files;
pub(crate) mod journals;
pub(crate) mod metrics;
pub(crate) mod payload;
pub(crate) mod pin;
mod slow_reads;
pub(crate) mod space_monitor;
pub(crate) mod staged;
pub(crate) mod throttle;
