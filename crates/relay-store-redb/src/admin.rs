//! Operations on a whole store: `verify`, `export`, `import`, `stats` and snapshots.

mod export;
mod import;
mod scan;
pub(crate) mod snapshots;
pub(crate) mod stats;
pub(crate) mod verify;
