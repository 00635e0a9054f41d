//! Where a running relay is asked for a backup: a socket in its storage directory. Who may use that
//! directory may ask; nobody else reaches the socket. It answers one at a time, and gives out
//! nothing of what the store holds: the relay writes the backup itself.
//!
//! A request is the line `backup 1`, or `backup 1 with key` for one that has a copy of the key
//! file, and then the bytes of the absolute path of a directory, up to the end. The answer is
//! lines: `progress DONE TOTAL`, again and again, and at last `done FILES BYTES` or `error TEXT`.
//! Who goes away stops the backup.

use std::future::{Future, pending};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relay_store_redb::{CopyError, Progress, Snapshot, Snapshots};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};

use crate::backup::{self, BackupError};

/// The socket in the storage directory.
pub(crate) const SOCKET: &str = "control.sock";

/// What a request for a backup begins with.
pub(crate) const BACKUP: &[u8] = b"backup 1\n";

/// What a request for a backup begins with that has the key file too.
pub(crate) const BACKUP_WITH_KEY: &[u8] = b"backup 1 with key\n";

/// The longest request.
const REQUEST_BYTES: u64 = 8 * 1024;

/// How long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket, which goes with it.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The relay's key file.
    key_path: PathBuf,
    /// The user that this process runs as.
    owner: u32,
}

/// Stops a backup when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

/// Listens in `storage`, whose lock this process holds, until it is dropped; never resolves. Where
/// it cannot, the relay serves all the same.
pub(crate) fn listen(
    storage: &Path,
    key_path: PathBuf,
    snapshots: Snapshots,
) -> impl Future<Output = ()> + Send + use<> {
    let path = storage.join(SOCKET);
    let socket = Socket::bind(path.clone(), key_path);
    if let Err(error) = &socket {
        tracing::warn!(%error, path = %path.display(), "control socket unavailable; the running relay cannot be backed up");
    }
    async move {
        match socket {
            Ok(socket) => socket.serve(&snapshots).await,
            Err(_) => pending().await,
        }
    }
}

impl Socket {
    fn bind(path: PathBuf, key_path: PathBuf) -> io::Result<Self> {
        // That of a process that was killed. No other one uses the directory.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let owner = std::fs::metadata(&path)?.uid();
        Ok(Self { listener, path, key_path, owner })
    }

    async fn serve(&self, snapshots: &Snapshots) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = self.answer(stream, snapshots).await {
                        tracing::warn!(%error, "backup request failed");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept failed");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream, snapshots: &Snapshots) -> io::Result<()> {
        // The directory may have been there before, with another mode than the one that it is made
        // with.
        let asking = stream.peer_cred()?.uid();
        if asking != self.owner && asking != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut request = Vec::new();
        let mut limited = (&mut stream).take(REQUEST_BYTES);
        let reading = limited.read_to_end(&mut request);
        tokio::time::timeout(PATIENCE, reading).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let Some((directory, with_key)) = understand(&request) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is not understood"));
        };
        let key_path = with_key.then(|| self.key_path.clone());
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let taken = snapshots.take().await;
        let stop = StopOnDrop(Arc::default());
        let stopped = Arc::clone(&stop.0);
        let written = tokio::task::spawn_blocking(move || match taken {
            Ok(snapshot) => write(snapshot, &directory, key_path.as_deref(), &stream, &stopped),
            Err(error) => say(&stream, &format!("error {error}\n")),
        });
        written.await.map_err(io::Error::other)?
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The directory that a request names, and whether the key file is wanted there.
fn understand(request: &[u8]) -> Option<(PathBuf, bool)> {
    let with_key = request.starts_with(BACKUP_WITH_KEY);
    let path = request.strip_prefix(if with_key { BACKUP_WITH_KEY } else { BACKUP })?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
    path.is_absolute().then_some((path, with_key))
}

fn write(
    snapshot: Snapshot,
    directory: &Path,
    key_path: Option<&Path>,
    stream: &Blocking,
    stopped: &AtomicBool,
) -> io::Result<()> {
    tracing::info!("backup started");
    let watch = |progress: Progress| {
        let line = format!("progress {} {}\n", progress.done_bytes, progress.total_bytes);
        if stopped.load(Ordering::Relaxed) || say(stream, &line).is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    match backup::write(snapshot, directory, key_path, watch) {
        Ok(copied) => {
            tracing::info!(files = copied.files, bytes = copied.bytes, "backup complete");
            say(stream, &format!("done {} {}\n", copied.files, copied.bytes))
        }
        Err(error) => {
            tracing::warn!(%error, "backup failed");
            match error {
                // There is nobody to tell.
                BackupError::Copy(CopyError::Stopped) => Ok(()),
                error => say(stream, &format!("error {error}\n")),
            }
        }
    }
}

fn say(mut stream: &Blocking, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes())
}
