//! The control socket in the storage directory, which takes requests for backups while the relay
//! runs. Only users with access to that directory reach the socket. It serves one request at a
//! time. The relay writes the backup itself, so the socket never sends stored data.
//!
//! A request is the line `backup 1`, or `backup 1 with key` to also copy the key file, followed by
//! the bytes of the absolute path of a directory. The response is lines: `progress DONE TOTAL`
//! repeatedly, and finally `done FILES BYTES` or `error TEXT`. A client that disconnects stops the
//! backup.

use std::future::{Future, pending};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relay_store_redb::{CopyError, Progress, Snapshot, Snapshots};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};

use crate::backup::{self, BackupError};

/// The file name of the socket in the storage directory.
pub(crate) const SOCKET: &str = "control.sock";

/// The first line of a request for a backup.
pub(crate) const BACKUP: &[u8] = b"backup 1\n";

/// The first line of a request for a backup with the key file.
pub(crate) const BACKUP_WITH_KEY: &[u8] = b"backup 1 with key\n";

/// The longest request.
const REQUEST_BYTES: u64 = 8 * 1024;

/// The longest time that reading a request or writing a response may take.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// The socket. Dropping this removes it.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The relay's key file.
    key_path: PathBuf,
    /// The user that this process runs as.
    owner: u32,
}

/// Stops a backup when it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

/// Listens in `storage`, whose lock this process holds. The future never resolves. If listening
/// fails, the relay still serves clients.
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
        // A killed process leaves its socket behind. No other process uses the directory.
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
                    if let Err(error) = self.handle(stream, snapshots).await {
                        tracing::warn!(%error, "backup request failed");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept failed");
                    tokio::time::sleep(IO_TIMEOUT).await;
                }
            }
        }
    }

    async fn handle(&self, mut stream: UnixStream, snapshots: &Snapshots) -> io::Result<()> {
        // An existing directory may have a weaker mode than the one that the relay creates.
        let peer = stream.peer_cred()?.uid();
        if peer != self.owner && peer != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut request = Vec::new();
        let mut limited = (&mut stream).take(REQUEST_BYTES);
        let reading = limited.read_to_end(&mut request);
        tokio::time::timeout(IO_TIMEOUT, reading).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let Some((directory, with_key)) = parse_request(&request) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "invalid request"));
        };
        let key_path = with_key.then(|| self.key_path.clone());
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(IO_TIMEOUT))?;
        let snapshot = snapshots.take().await;
        let stop = StopOnDrop(Arc::default());
        let stopped = Arc::clone(&stop.0);
        let backup = tokio::task::spawn_blocking(move || match snapshot {
            Ok(snapshot) => write_backup(snapshot, &directory, key_path.as_deref(), &stream, &stopped),
            Err(error) => send(&stream, &format!("error {error}\n")),
        });
        backup.await.map_err(io::Error::other)?
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

/// The directory of a request, and whether the backup includes the key file.
fn parse_request(request: &[u8]) -> Option<(PathBuf, bool)> {
    let with_key = request.starts_with(BACKUP_WITH_KEY);
    let path = request.strip_prefix(if with_key { BACKUP_WITH_KEY } else { BACKUP })?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
    path.is_absolute().then_some((path, with_key))
}

fn write_backup(
    snapshot: Snapshot,
    directory: &Path,
    key_path: Option<&Path>,
    stream: &BlockingStream,
    stopped: &AtomicBool,
) -> io::Result<()> {
    tracing::info!("backup started");
    let watch = |progress: Progress| {
        let line = format!("progress {} {}\n", progress.done_bytes, progress.total_bytes);
        if stopped.load(Ordering::Relaxed) || send(stream, &line).is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    match backup::write(snapshot, directory, key_path, watch) {
        Ok(copied) => {
            tracing::info!(files = copied.files, bytes = copied.bytes, "backup complete");
            send(stream, &format!("done {} {}\n", copied.files, copied.bytes))
        }
        Err(error) => {
            tracing::warn!(%error, "backup failed");
            match error {
                // The client has disconnected.
                BackupError::Copy(CopyError::Stopped) => Ok(()),
                error => send(stream, &format!("error {error}\n")),
            }
        }
    }
}

fn send(mut stream: &BlockingStream, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes())
}
