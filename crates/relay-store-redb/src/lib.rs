//! The durable store of the relay. A journal makes each request durable, and an index in
//! [redb](https://docs.rs/redb) finds items. No other crate uses redb.
//!
//! An answered push or ack is synced to disk. One thread, the writer, owns all writes to the
//! journal: it decides the waiting requests as a batch, appends their records to the journal, syncs
//! once, and answers. The blob writer writes and syncs large payloads (blobs) first. Changes since
//! the last checkpoint stay in memory (the active memtable); the maintenance thread writes them to
//! the index in the background. Pulls read both, without the writer. relay-core's rules run over
//! the rows of this store. `docs/storage.md` specifies the format byte by byte, and the possible
//! states of the disk after a crash.
//!
//! The folders are layers, from the top down; each uses those below it:
//! - `admin`: passes over a whole store (verify, export, import, stats, snapshots).
//! - `relay`, `open`: the store as a [`Relay`](relay_core::Relay), and how it starts.
//! - `backup`: copies a snapshot to files, and restores it.
//! - `maintenance`: the thread that writes checkpoints and frees space.
//! - `engine`: the threads that serve requests.
//! - `txn`: the transactions that relay-core's rules run over.
//! - `version`: memtables and index as one. `index`: the rows in redb, as of a checkpoint.
//!   `memtable`: changed rows, in memory.
//! - `io`: clock, metrics, throttle, and access to the journals. `format`: the encoding of all
//!   stored data.

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
mod naming;
mod open;
mod options;
mod progress;
mod relay;
mod txn;
mod version;

#[cfg(test)]
#[path = "tests/samples.rs"]
mod samples;

pub use crate::admin::locked::LockedDirectory;
pub use crate::admin::snapshots::Snapshots;
pub use crate::admin::stats::{Files, Stats};
pub use crate::admin::verify::Contents;
pub use crate::backup::{Copied, EarlierBackup, Progress, check as check_backup, inspect, restore};
pub use crate::engine::snapshot::Snapshot;
pub use crate::error::{CopyError, HashError, OpenError, StoreError};
pub use crate::index::check::{verify_index, verify_index_on};
pub use crate::naming::{KeyId, Naming, NoKeyId};
pub use crate::options::{Options, RecipientNames};
pub use crate::progress::OpenProgress;
pub use crate::relay::RedbRelay;

/// The file name of the index in a store's directory. The owner of this file owns the store.
pub const INDEX_FILE: &str = io::files::INDEX_FILE;
