//! The threads that serve requests, and what they share.
//!
//! `writer` decides and writes, `blob_writer` writes large payloads ahead of it. `command` is what
//! they are asked, `reply` how they answer, `backlog` how much may wait for them.

pub(crate) mod backlog;
pub(crate) mod batch;
pub(crate) mod blob_writer;
pub(crate) mod checkpoint_due;
pub(crate) mod command;
pub(crate) mod exit_signal;
pub(crate) mod figures;
pub(crate) mod import;
pub(crate) mod imported;
pub(crate) mod reply;
pub(crate) mod shared;
pub(crate) mod snapshot;
pub(crate) mod writer;
