//! Tests TLS with handshakes in memory and files in a temporary directory.
//!
//! The test certificates are valid from 1975 to 4096, or expired long ago, so no test waits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod client;
mod faults;
mod handshake;
mod pki;
mod reload;
mod revocation;
mod watch;
