//! Tests of calls to a gateway over sockets: what it gets, and what it can do to the relay.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod arrivals;
mod hostile;
mod message;
mod support;
mod tls;
