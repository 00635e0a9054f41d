//! `relay-bin verify`: recounts the store. It mends nothing, but opening a store replays its
//! journal, as a start does.

use relay_core::Usage;
use relay_store_redb::{Contents, verify_index};

use super::{CommandError, Outcome, no_directory, open};
use crate::config::RelayConfig;
use crate::wiring;

pub(super) fn run(config: &RelayConfig) -> Result<Outcome, CommandError> {
    let path = &config.storage.path;
    if !path.is_dir() {
        return Err(no_directory(path).into());
    }
    recount(config)
}

/// Reads all of a store: first the pages of its index, which nobody may have open meanwhile, then
/// everything else.
pub(super) fn recount(config: &RelayConfig) -> Result<Outcome, CommandError> {
    let mut findings = verify_index(&config.storage.path, wiring::store_options(config).cache_bytes)?;
    let store = open(config)?;
    findings.extend(store.verify()?);
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
