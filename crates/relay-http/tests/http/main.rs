//! The HTTP face over real sockets, from outside: what the wire contract promises, sentence by
//! sentence. Every test has a server of its own on a port of its own, on the loopback alone.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod admin;
mod api;
mod bodies;
mod bounded;
mod contract;
mod cursors;
mod errors;
mod expect;
#[cfg(feature = "tls")]
mod floods;
mod frames;
mod hostile;
mod limits;
mod metrics;
mod overload;
mod pipeline;
mod raw;
mod ready;
#[cfg(feature = "tls")]
mod secure;
mod shutdown;
mod slow;
mod support;
mod watching;
