//! Tests of the client against a server that a test scripts, and against the real HTTP stack over
//! a store in memory. All on loopback.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod acks;
mod clocks;
mod deliveries;
#[cfg(feature = "driver")]
mod driver;
mod faults;
mod legacy;
mod pushes;
mod real;
mod support;
mod tls;
