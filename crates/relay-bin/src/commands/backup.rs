//! `relay-bin backup DIR`: a consistent copy of the store. A relay that uses the store is asked to write it; otherwise it is written
//! here, by the same code.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use relay_store_redb::{Copied, OpenError, RedbRelay};

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

/// Has the relay write it that uses the store.
fn ask(storage: &Path, directory: &Path, with_key: bool, bar: &Progress) -> Result<Copied, CommandError> {
    let failed = |source| CommandError::File { path: directory.to_owned(), source };
    let directory = std::path::absolute(directory).map_err(failed)?;
    let not_asked = |source| CommandError::NotAsked { path: storage.to_owned(), source };
    let mut stream = UnixStream::connect(storage.join(control::SOCKET)).map_err(not_asked)?;
    let wanted = if with_key { control::BACKUP_WITH_KEY } else { control::BACKUP };
    let request = [wanted, directory.as_os_str().as_bytes()].concat();
    let sent = stream.write_all(&request).and_then(|()| stream.shutdown(Shutdown::Write));
    sent.map_err(not_asked)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(not_asked)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (word, numbers(rest)) {
            ("progress", Some((done, total))) => bar.at(done, total),
            ("done", Some((files, bytes))) => return Ok(Copied { files, bytes }),
            _ => return Err(CommandError::Relay(rest.to_owned())),
        }
    }
    Err(not_asked(io::Error::new(io::ErrorKind::UnexpectedEof, "it went away before the backup was whole")))
}

fn numbers(text: &str) -> Option<(u64, u64)> {
    let (one, other) = text.split_once(' ')?;
    Some((one.parse().ok()?, other.parse().ok()?))
}
