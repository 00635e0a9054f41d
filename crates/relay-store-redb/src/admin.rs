//! Operations on a whole store: `verify`, `export`, `import`, `stats`, snapshots, and hashing its
//! recipients.

mod export;
mod hash_recipients;
mod import;
pub(crate) mod locked;
mod scan;
pub(crate) mod snapshots;
pub(crate) mod stats;
pub(crate) mod verify;
