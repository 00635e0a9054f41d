//! `relay-bin compact`: reclaims what is expired, empties segments that have holes, writes the
//! index anew.

use relay_core::Relay as _;

use super::{CommandError, Outcome, count, open_existing, wait_for};
use crate::config::RelayConfig;

pub(super) fn run(config: &RelayConfig) -> Result<Outcome, CommandError> {
    let store = open_existing(config)?;
    let before = store.stats()?.file_bytes();
    let swept = wait_for(store.sweep())?;
    wait_for(store.compact())?;
    let after = store.stats()?.file_bytes();
    let (path, items) = (config.storage.path.display(), count(swept.items, "expired item", "expired items"));
    Ok(Outcome::good(format!("{path}: {items} reclaimed; {before} bytes before, {after} bytes after\n")))
}
