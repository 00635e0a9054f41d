//! Black-box tests of the whole relay: over a socket, in process and as a process. One binary, so
//! that it is linked once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod attacks;
mod commands;
mod config_keys;
mod conformance;
mod crowds;
mod embed;
mod fuzz;
mod heavy;
mod process;
mod readme;
mod ready;
mod recipients;
mod stopwatch;
mod store;
mod tls;

/// The relay's program, as built for these tests.
const PROGRAM: &str = env!("CARGO_BIN_EXE_relay-under-test");
