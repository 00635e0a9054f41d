//! The transactions that relay-core's rules run over: `read` and `write` the rows of one version,
//! `replay` repeats a journal at a start.

pub(crate) mod queue_handle;
pub(crate) mod read;
pub(crate) mod replay;
pub(crate) mod whole;
pub(crate) mod write;
