//! Passes over a whole store: `verify`, `export`, `import`, and where `snapshots` begin.

pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod snapshots;
pub(crate) mod verify;
