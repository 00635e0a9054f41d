//! `relay-bin backup DIR`: a consistent copy of the store. A relay that uses the store is asked to
//! write it; otherwise it is written here, by the same code.

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
        Err(OpenError::InUse { path }) => ask(&path, directory, with_key, &bar)?,
        Err(error) => return Err(error.into()),
    };
    let (path, files, bytes) = (directory.display(), count(copied.files, "file", "files"), copied.bytes);
    let key = if with_key { ", and the key file" } else { "" };
    Ok(Outcome::good(format!("{path}: {files} of {bytes} bytes{key}\n")))
}

fn write(
    store: &RedbRelay,
    directory: &Path,
    key_path: Option<&Path>,
    bar: &Progress,
) -> Result<Copied, CommandError> {
    let snapshot = wait_for(store.snapshots().take())?;
    Ok(backup::write(snapshot, directory, key_path, |progress| {
        bar.at(progress.done_bytes, progress.total_bytes);
        ControlFlow::Continue(())
    })?)
}

/// Has the relay write it that uses the store, and sees for itself that it is there.
fn ask(storage: &Path, directory: &Path, with_key: bool, bar: &Progress) -> Result<Copied, CommandError> {
    let failed = |source| CommandError::File { path: directory.to_owned(), source };
    let directory = std::path::absolute(directory).map_err(failed)?;
    let not_asked = |source| CommandError::NotAsked { path: storage.to_owned(), source };
    let mut stream = UnixStream::connect(storage.join(control::SOCKET)).map_err(not_asked)?;
    if !is_of_the_store(&stream, storage).map_err(not_asked)? {
        return Err(CommandError::Stranger { path: storage.join(control::SOCKET) });
    }
    let wanted = if with_key { control::BACKUP_WITH_KEY } else { control::BACKUP };
    let request = [wanted, directory.as_os_str().as_bytes()].concat();
    let sent = stream.write_all(&request).and_then(|()| stream.shutdown(Shutdown::Write));
    sent.map_err(not_asked)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(not_asked)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (word, numbers(rest)) {
            ("progress", Some((done, total))) => bar.at(done, total),
            ("done", Some((files, bytes))) => {
                let told = Copied { files, bytes };
                let is_there = inspect(&directory).is_ok_and(|found| found == told);
                return if is_there { Ok(told) } else { Err(CommandError::NotThere { path: directory }) };
            }
            _ => return Err(CommandError::Relay(rest.to_owned())),
        }
    }
    Err(not_asked(io::Error::new(io::ErrorKind::UnexpectedEof, "it went away before the backup was whole")))
}

/// Whether it is root or the owner of the store who listens. In a directory that others may change,
/// anybody can put a socket in the place of the relay's, and a file of its own in the place of the
/// store's; so the owner of the file has to be that of the directory besides, or whoever asks.
fn is_of_the_store(stream: &UnixStream, storage: &Path) -> io::Result<bool> {
    let listener = socket_peercred(stream)?.uid;
    let store = storage.join(relay_store_redb::INDEX_FILE).symlink_metadata()?;
    let is_owned = store.uid() == storage.metadata()?.uid() || store.uid() == geteuid().as_raw();
    Ok(listener.is_root() || store.is_file() && is_owned && listener.as_raw() == store.uid())
}

fn numbers(text: &str) -> Option<(u64, u64)> {
    let (one, other) = text.split_once(' ')?;
    Some((one.parse().ok()?, other.parse().ok()?))
}
