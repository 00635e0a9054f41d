//! TLS as its peers and its operator see it: handshakes in memory, files in a directory of the
//! test's own.
//!
//! Certificates are made here and are valid from 1975 to 4096, or ended long ago; no test waits for
//! time to pass.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod faults;
mod handshake;
mod pki;
mod reload;
mod revocation;
mod watch;
