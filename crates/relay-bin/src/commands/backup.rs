//! `relay-bin backup DIR`: writes a consistent copy of the store. If a relay uses the store, the
//! relay writes the copy. `--verify` reads a backup instead.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use relay_store_redb::{Copied, OpenError, RedbRelay, check_backup, inspect};

use super::progress::Progress;
use super::running::{Part, RunningRelay};
use super::{CommandError, Outcome, count, human, open_existing, wait_for};
use crate::backup::{self, BackupPaths};
use crate::config::RelayConfig;
use crate::control::{self, Written};
use crate::key_file::{self, RootKey};
use crate::wiring;

/// The arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct BackupArgs {
    /// The directory, which must be empty or not exist yet
    pub dir: PathBuf,
    /// An earlier backup on the same file system: what has not changed since is shared with it as
    /// hard links, and each of the two is complete without the other
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Copy the key file as well, so that clients' cursors stay valid after a restore; keep
    /// that backup secret
    #[arg(long)]
    pub with_key: bool,
    /// Write nothing: read all of the backup that the directory holds, and compare it with its
    /// checksums
    #[arg(long, conflicts_with_all = ["base", "with_key"])]
    pub verify: bool,
}

pub(super) fn run(config: &RelayConfig, arguments: &BackupArgs) -> Result<Outcome, CommandError> {
    if arguments.verify {
        return verify(&arguments.dir);
    }
    let bar = Progress::of_bytes("backing up", 0);
    let copied = match open_existing(config) {
        Ok(store) => {
            let key_path = arguments.with_key.then(|| wiring::key_path(config));
            let (directory, base) = (&*arguments.dir, arguments.base.as_deref());
            write(&store, BackupPaths { directory, base, key: key_path.as_deref() }, &bar)?
        }
        Err(OpenError::InUse(_)) => request(config, arguments, &bar)?,
        Err(error) => return Err(error.into()),
    };
    let (path, files) = (arguments.dir.display(), count(copied.files, "file", "files"));
    let shared = match (&arguments.base, copied.shared_bytes) {
        (Some(base), bytes @ 1..) => format!(", {} shared with {}", human::bytes(bytes), base.display()),
        _ => String::new(),
    };
    let (bytes, key) =
        (human::bytes(copied.bytes), if arguments.with_key { ", and the key file" } else { "" });
    Ok(Outcome::success(format!("{path}: {files} of {bytes}{shared}{key}\n")))
}

/// Reads a whole backup.
fn verify(directory: &Path) -> Result<Outcome, CommandError> {
    let bar = Progress::of_bytes("verifying", 0);
    let (found, corrupt) = check_backup(directory, &mut |progress| {
        bar.set(progress.done_bytes, progress.total_bytes);
        ControlFlow::Continue(())
    })?;
    let mut findings: Vec<_> =
        corrupt.iter().map(|path| format!("{}: is not what was written", path.display())).collect();
    let key = match RootKey::read(&directory.join(key_file::FILE_NAME)) {
        Ok(key) => key.map_or("without a key file", |_| "with a key file"),
        Err(error) => {
            findings.push(error.to_string());
            "with an unusable key file"
        }
    };
    let (path, files) = (directory.display(), count(found.files, "file", "files"));
    let (bytes, corrupt) = (human::bytes(found.bytes), corrupt.len());
    Ok(Outcome::with_findings(&findings, format!("{path}: {files} of {bytes}, {key}; {corrupt} corrupt\n")))
}

fn write(store: &RedbRelay, paths: BackupPaths<'_>, bar: &Progress) -> Result<Copied, CommandError> {
    let snapshot = wait_for(store.snapshots().take())?;
    Ok(backup::write(snapshot, paths, |progress| {
        bar.set(progress.done_bytes, progress.total_bytes);
        ControlFlow::Continue(())
    })?)
}

/// Requests the backup from the relay that uses the store, and checks that it is complete.
fn request(config: &RelayConfig, arguments: &BackupArgs, bar: &Progress) -> Result<Copied, CommandError> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| CommandError::File { path: path.to_owned(), source })
    };
    let directory = absolute(&arguments.dir)?;
    let base = arguments.base.as_deref().map(absolute).transpose()?;
    let request = control::Backup { directory: directory.clone(), base, with_key: arguments.with_key };
    let Written { files, bytes, shared_bytes } =
        RunningRelay::connect(config)?.ask("backup", &request, |part| {
            if let Part::Progress(progress) = part {
                bar.set(progress.done, progress.total);
            }
        })?;
    let is_complete = inspect(&directory).is_ok_and(|found| (found.files, found.bytes) == (files, bytes));
    let reported = Copied { files, bytes, shared_bytes };
    is_complete.then_some(reported).ok_or(CommandError::IncompleteBackup { path: directory })
}
