//! `relay-bin verify`: checks the whole store. It repairs nothing, but opening the store replays
//! its journal.

use relay_core::Usage;
use relay_store_redb::{Contents, verify_index};

use super::{CommandError, Outcome, check_exists, open};
use crate::config::RelayConfig;
use crate::wiring;

pub(super) fn run(config: &RelayConfig) -> Result<Outcome, CommandError> {
    check_exists(&config.storage.path)?;
    verify(config)
}

/// Reads a whole store: first the pages of its index while it is closed, then everything else.
pub(super) fn verify(config: &RelayConfig) -> Result<Outcome, CommandError> {
    let mut findings = verify_index(&config.storage.path, wiring::cache_bytes(config))?;
    let store = open(config)?;
    findings.extend(store.verify()?);
    let (path, found) = (config.storage.path.display(), findings.len());
    let summary = match store.contents() {
        Ok(Contents { queues, usage: Usage { items, bytes }, acked }) => {
            format!("{queues} queues, {items} items of {bytes} bytes, {acked} acked item ids")
        }
        // The findings contain the reason.
        Err(error) if found > 0 => format!("cannot be counted, {error}"),
        Err(error) => return Err(error.into()),
    };
    Ok(Outcome::with_findings(&findings, format!("{path}: {summary}; {found} findings\n")))
}
