//! `relay-bin compact`: removes expired items, compacts sparse segments, and rewrites the index.

use relay_core::Relay as _;

use super::{CommandError, Outcome, count, open_existing, wait_for};
use crate::config::RelayConfig;

pub(super) fn run(config: &RelayConfig) -> Result<Outcome, CommandError> {
    let store = open_existing(config)?;
    let old_bytes = store.stats()?.file_bytes();
    let swept = wait_for(store.sweep())?;
    wait_for(store.compact())?;
    let new_bytes = store.stats()?.file_bytes();
    let (path, items) = (config.storage.path.display(), count(swept.items, "expired item", "expired items"));
    Ok(Outcome::success(format!(
        "{path}: {items} reclaimed; {old_bytes} bytes before, {new_bytes} bytes after\n"
    )))
}
