//! `relay-bin restore DIR`: brings a backup back as the store, and then reads all of it.

use std::ops::ControlFlow;
use std::path::Path;

use super::progress::Progress;
use super::{CommandError, Outcome, open, verify};
use crate::config::RelayConfig;

pub(super) fn run(config: &RelayConfig, backup: &Path) -> Result<Outcome, CommandError> {
    copy(config, backup)?;
    verify::recount(&open(config)?, config)
}

fn copy(config: &RelayConfig, backup: &Path) -> Result<(), CommandError> {
    let bar = Progress::of_bytes("restoring", 0);
    relay_store_redb::restore(backup, &config.storage.path, &mut |progress| {
        bar.at(progress.done_bytes, progress.total_bytes);
        ControlFlow::Continue(())
    })?;
    Ok(())
}
