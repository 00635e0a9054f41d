//! `relay-bin verify`: recounts the store. It mends nothing, but opening a store replays its journal, as a start does.

use relay_core::Usage;
use relay_store_redb::{Contents, RedbRelay};

use super::{CommandError, Outcome, open_existing};
use crate::config::RelayConfig;

pub(super) fn run(config: &RelayConfig) -> Result<Outcome, CommandError> {
    recount(&open_existing(config)?, config)
}

/// Reads all of a store.
pub(super) fn recount(store: &RedbRelay, config: &RelayConfig) -> Result<Outcome, CommandError> {
    let findings = store.verify()?;
    let (path, found) = (config.storage.path.display(), findings.len());
    let sum = match store.contents() {
        Ok(Contents { queues, usage: Usage { items, bytes }, acked }) => {
            format!("{queues} queues, {items} items of {bytes} bytes, {acked} acked names")
        }
        // What was found says why.
        Err(error) if found > 0 => format!("not summed up, {error}"),
        Err(error) => return Err(error.into()),
    };
    Ok(Outcome::with_findings(&findings, &format!("{path}: {sum}; {found} findings\n")))
}
