//! `relay-bin backup DIR`: writes a consistent copy of the store. If a relay uses the store, the
//! relay writes the copy.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use relay_store_redb::{Copied, OpenError, RedbRelay, inspect};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::progress::Progress;
use super::{CommandError, Outcome, count, open_existing, wait_for};
use crate::backup;
use crate::config::RelayConfig;
use crate::control;
use crate::wiring;

pub(super) fn run(config: &RelayConfig, directory: &Path, with_key: bool) -> Result<Outcome, CommandError> {
    let bar = Progress::of_bytes("backing up", 0);
    let copied = match open_existing(config) {
        Ok(store) => {
            let key_path = with_key.then(|| wiring::key_path(config));
            write(&store, directory, key_path.as_deref(), &bar)?
        }
        Err(OpenError::InUse(path)) => request(&path, directory, with_key, &bar)?,
        Err(error) => return Err(error.into()),
    };
    let (path, files, bytes) = (directory.display(), count(copied.files, "file", "files"), copied.bytes);
    let key = if with_key { ", and the key file" } else { "" };
    Ok(Outcome::success(format!("{path}: {files} of {bytes} bytes{key}\n")))
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
fn request(storage: &Path, directory: &Path, with_key: bool, bar: &Progress) -> Result<Copied, CommandError> {
    let failed = |source| CommandError::File { path: directory.to_owned(), source };
    let directory = std::path::absolute(directory).map_err(failed)?;
    let no_response = |source| CommandError::NoResponse { path: storage.to_owned(), source };
    let mut stream = UnixStream::connect(storage.join(control::SOCKET)).map_err(no_response)?;
    if !is_listener_trusted(&stream, storage).map_err(no_response)? {
        return Err(CommandError::UntrustedSocket { path: storage.join(control::SOCKET) });
    }
    let command = if with_key { control::BACKUP_WITH_KEY } else { control::BACKUP };
    let request = [command, directory.as_os_str().as_bytes()].concat();
    let sent = stream.write_all(&request).and_then(|()| stream.shutdown(Shutdown::Write));
    sent.map_err(no_response)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(no_response)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (word, numbers(rest)) {
            ("progress", Some((done, total))) => bar.set(done, total),
            ("done", Some((files, bytes))) => {
                let reported = Copied { files, bytes };
                let is_complete = inspect(&directory).is_ok_and(|found| found == reported);
                return is_complete
                    .then_some(reported)
                    .ok_or(CommandError::IncompleteBackup { path: directory });
            }
            _ => return Err(CommandError::Relay(rest.to_owned())),
        }
    }
    Err(no_response(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "it disconnected before the backup was complete",
    )))
}

/// Whether root or the owner of the store listens. If other users can change the directory, they
/// can replace the socket and the file of the store. So the owner of the file must also be the
/// owner of the directory, or the user of this command.
fn is_listener_trusted(stream: &UnixStream, storage: &Path) -> io::Result<bool> {
    let listener = socket_peercred(stream)?.uid;
    let store = storage.join(relay_store_redb::INDEX_FILE).symlink_metadata()?;
    let is_owned = store.uid() == storage.metadata()?.uid() || store.uid() == geteuid().as_raw();
    Ok(listener.is_root() || store.is_file() && is_owned && listener.as_raw() == store.uid())
}

fn numbers(text: &str) -> Option<(u64, u64)> {
    let (first, second) = text.split_once(' ')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}
