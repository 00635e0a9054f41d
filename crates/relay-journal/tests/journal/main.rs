//! Tests of the public API, on a simulated disk that crashes, fails or corrupts data.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod batches;
mod chain;
mod crash;
mod damage;
mod faults;
mod properties;
mod reading;
mod script;
mod support;
mod unread;
