//! `relay-bin verify`: recounts the store. It mends nothing, but opening a store replays its journal, as a start does.

use relay_store_redb::{Contents, RedbRelay};

use super::{CommandError, Outcome, open_existing};
use crate::config::RelayConfig;

pub(super) fn run(config: &RelayConfig) -> Result<Outcome, CommandError> {
    recount(&open_existing(config)?, config)
}

/// Reads all of a store.
pub(super) fn recount(store: &RedbRelay, config: &RelayConfig) -> Result<Outcome, CommandError> {
    let Contents { queues, usage, acked } = store.contents()?;
    let findings = store.verify()?;
    let (path, items, bytes, found) =
        (config.storage.path.display(), usage.items, usage.bytes, findings.len());
    let sum = format!(
        "{path}: {queues} queues, {items} items of {bytes} bytes, {acked} acked names; {found} findings\n"
    );
    Ok(Outcome::with_findings(&findings, &sum))
}
