//! `relay-bin backup DIR`: writes a consistent copy of the store. If a relay uses the store, the
//! relay writes the copy.

use std::ops::ControlFlow;
use std::path::Path;

use relay_store_redb::{Copied, OpenError, RedbRelay, inspect};

use super::progress::Progress;
use super::running::{Part, RunningRelay};
use super::{CommandError, Outcome, count, human, open_existing, wait_for};
use crate::backup;
use crate::config::RelayConfig;
use crate::control::{self, Written};
use crate::wiring;

pub(super) fn run(config: &RelayConfig, directory: &Path, with_key: bool) -> Result<Outcome, CommandError> {
    let bar = Progress::of_bytes("backing up", 0);
    let copied = match open_existing(config) {
        Ok(store) => {
            let key_path = with_key.then(|| wiring::key_path(config));
            write(&store, directory, key_path.as_deref(), &bar)?
        }
        Err(OpenError::InUse(_)) => request(config, directory, with_key, &bar)?,
        Err(error) => return Err(error.into()),
    };
    let (path, files) = (directory.display(), count(copied.files, "file", "files"));
    let (bytes, key) = (human::bytes(copied.bytes), if with_key { ", and the key file" } else { "" });
    Ok(Outcome::success(format!("{path}: {files} of {bytes}{key}\n")))
}

fn write(
    store: &RedbRelay,
    directory: &Path,
    key_path: Option<&Path>,
    bar: &Progress,
) -> Result<Copied, CommandError> {
    let snapshot = wait_for(store.snapshots().take())?;
    Ok(backup::write(snapshot, directory, key_path, |progress| {
        bar.set(progress.done_bytes, progress.total_bytes);
        ControlFlow::Continue(())
    })?)
}

/// Requests the backup from the relay that uses the store, and checks that it is complete.
fn request(
    config: &RelayConfig,
    directory: &Path,
    with_key: bool,
    bar: &Progress,
) -> Result<Copied, CommandError> {
    let failed = |source| CommandError::File { path: directory.to_owned(), source };
    let directory = std::path::absolute(directory).map_err(failed)?;
    let request = control::Backup { directory: directory.clone(), with_key };
    let Written { files, bytes } = RunningRelay::connect(config)?.ask("backup", &request, |part| {
        if let Part::Progress(progress) = part {
            bar.set(progress.done, progress.total);
        }
    })?;
    let reported = Copied { files, bytes };
    let is_complete = inspect(&directory).is_ok_and(|found| found == reported);
    is_complete.then_some(reported).ok_or(CommandError::IncompleteBackup { path: directory })
}
