//! The durable store of the relay. A journal makes each request durable;
//! [redb](https://docs.rs/redb) makes items findable. No other crate knows redb.
//!
//! An answered push or ack is synced to disk. One thread, the writer, owns all writes: it decides
//! the waiting requests as a batch, appends their records to the journal, syncs once, and answers.
//! Another thread writes and syncs large payloads (blobs) first. Changes since the last checkpoint
//! stay in memory (the active memtable), on top of an index in redb that the maintenance thread
//! updates in the background. Pulls read both and never pass the writer. The rules are
//! relay-core's; they run over the rows of this store. `docs/storage.md` specifies the format byte
//! by byte, and what may be on disk after a crash.
//!
//! Its folders are layers, from the top down; each uses those below it:
//! - `admin`: passes over a whole store (verify, export, import, snapshots).
//! - `relay`, `open`: the store as a [`Relay`](relay_core::Relay), and how it starts.
//! - `backup`: a snapshot as files, and back.
//! - `maintenance`: the thread that writes checkpoints and frees space.
//! - `engine`: the threads that serve requests.
//! - `txn`: the transactions that relay-core's rules run over.
//! - `version`: memtables and index as one. `index`: redb, one checkpoint at a time. `memtable`:
//!   what is kept in memory.
//! - `io`: what every thread uses beside the rows. `format`: everything that is written, as bytes.

#![warn(missing_docs)]

mod admin;
mod backup;
mod engine;
mod error;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod io;
mod maintenance;
mod memtable;
mod open;
mod options;
mod progress;
mod relay;
mod txn;
mod version;

#[cfg(test)]
#[path = "tests/samples.rs"]
mod samples;

pub use crate::admin::export::{Files, Stats};
pub use crate::admin::snapshots::Snapshots;
pub use crate::admin::verify::Contents;
pub use crate::backup::{Copied, Progress, inspect, restore};
pub use crate::engine::imported::Imported;
pub use crate::engine::snapshot::Snapshot;
pub use crate::error::{CopyError, OpenError, StoreError};
pub use crate::index::check::{verify_index, verify_index_on};
pub use crate::options::Options;
pub use crate::progress::OpenProgress;
pub use crate::relay::RedbRelay;

/// The file of the index, which every store has in its directory. Whoever owns it owns the store.
pub const INDEX_FILE: &str = io::files::INDEX_FILE;
