//! The transactions that relay-core's rules run over. `read` and `write` are the rows of one
//! version; `replay` repeats the journal at a start.

pub(crate) mod early;
mod floor;
mod items;
pub(crate) mod queue_handle;
pub(crate) mod read;
pub(crate) mod replay;
mod trim;
pub(crate) mod whole;
pub(crate) mod write;
