//! Limits: connections, requests in flight, memory, waiting requests, and requests from other
//! sites.

pub(crate) mod addresses;
pub(crate) mod admission;
pub(crate) mod cross_site;
pub(crate) mod forwarded;
pub(crate) mod in_flight;
pub(crate) mod memory_budget;
pub(crate) mod open_connections;
pub(crate) mod parking;
pub(crate) mod peer;
pub(crate) mod waiting_line;
