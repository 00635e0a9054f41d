//! Black-box tests of the HTTP server over real sockets: they check what docs/api.md promises.
//! Every test has its own server on its own loopback port.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod acks;
mod admin;
mod api;
mod auth;
mod batches;
mod bodies;
mod bounded;
mod cbor;
mod contract;
mod cors;
mod cursors;
mod dashboard;
mod errors;
mod expect;
#[cfg(feature = "tls")]
mod floods;
mod frames;
mod hostile;
mod limits;
mod metrics;
mod names;
mod overload;
mod pipeline;
mod proxied;
mod raw;
mod ready;
#[cfg(feature = "tls")]
mod secure;
mod shutdown;
mod slow;
mod streams;
mod support;
#[cfg(unix)]
mod unix;
mod waiting;
mod watching;
