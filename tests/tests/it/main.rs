//! Black-box tests of the whole relay, in process and as a process. They are one binary, so that it
//! is linked once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod attacks;
mod browser;
mod cbor;
mod clients;
mod commands;
mod config_keys;
mod conformance;
mod crowds;
mod database;
mod database_loss;
mod embed;
mod fuzz;
mod heavy;
mod issuer;
mod package;
mod process;
mod promtool;
mod readme;
mod ready;
mod recipients;
mod scale_out;
mod shards;
mod stopwatch;
mod store;
mod tls;
mod wake;

/// The path of the relay's program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_relay-under-test");
