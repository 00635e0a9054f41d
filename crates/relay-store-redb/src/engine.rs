//! The threads that serve requests, and what they share.
//!
//! `writer` writes what `decide` decides over a `batch`. `blob_writer` writes large payloads ahead
//! of it. `command` has the requests to these threads, `reply` and `answers` the way back, and
//! `backlog` the bound on waiting requests.

mod answers;
pub(crate) mod backlog;
mod batch;
pub(crate) mod blob_writer;
pub(crate) mod checkpoint_due;
pub(crate) mod command;
mod decide;
mod decided_blobs;
pub(crate) mod exit_signal;
pub(crate) mod figures;
mod reclaim;
pub(crate) mod reply;
pub(crate) mod shared;
pub(crate) mod snapshot;
pub(crate) mod writer;
