//! The file of the control socket: where it is, and who may replace it.
//!
//! In the storage directory, the lock of that directory decides: only the relay that holds it binds
//! the socket there. Elsewhere, a file beside the socket carries a lock of its own, and is never
//! removed. So no relay takes the socket of another that runs, and what a killed one left behind is
//! replaced.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tokio::sync::oneshot;

use crate::config::{RelayConfig, SOCKET_PATH_BYTES_MAX, StorageKind};
use crate::lock_file;

/// The file name of the socket in the storage directory.
const SOCKET: &str = "control.sock";

/// A socket that listens. Dropping this removes its file.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The device and the inode of the file.
    file: (u64, u64),
    /// Holds the lock beside the socket while it is open, if it has one. Dropped after the socket
    /// is removed.
    _lock: Option<File>,
}

/// Hands the socket to the task that serves it, once it may be bound.
#[derive(Debug)]
pub(crate) struct Binding {
    path: PathBuf,
    socket: oneshot::Sender<Socket>,
}

/// Where the relay of this configuration listens. `None`: nowhere.
pub(crate) fn path(config: &RelayConfig) -> Option<PathBuf> {
    if is_configured(config) {
        return Some(config.admin.control_path.clone());
    }
    (config.storage.kind == StorageKind::Redb).then(|| config.storage.path.join(SOCKET))
}

/// Whether the socket has a place of its own, outside of the locked storage directory.
pub(crate) fn is_configured(config: &RelayConfig) -> bool {
    !config.admin.control_path.as_os_str().is_empty()
}

impl Binding {
    /// A binding to `path`, and the socket for [`serve`](super::serve).
    pub(crate) fn new(path: PathBuf) -> (Self, oneshot::Receiver<Socket>) {
        let (sender, socket) = oneshot::channel();
        (Self { path, socket: sender }, socket)
    }

    /// Binds the socket. If that fails, the relay serves its clients all the same. The caller holds
    /// the lock of the directory.
    pub(crate) fn bind_in_locked_directory(self) {
        match Socket::bind(&self.path, None) {
            // If the relay has ended meanwhile, this drops the socket.
            Ok(socket) => drop(self.socket.send(socket)),
            Err(error) => tracing::warn!(
                %error, path = %self.path.display(),
                "control socket unavailable; nobody can ask the running relay, for a backup for example"
            ),
        }
    }

    /// Binds the socket outside of a locked directory.
    ///
    /// # Errors
    /// It cannot be bound, or another process uses it.
    pub(crate) fn bind(self) -> io::Result<()> {
        let lock = lock_beside(&self.path)?;
        let socket = Socket::bind(&self.path, Some(lock))?;
        drop(self.socket.send(socket));
        Ok(())
    }
}

/// Locks the file beside a socket.
fn lock_beside(socket: &Path) -> io::Result<File> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let lock = lock_file::try_lock(Path::new(&path))?;
    lock.ok_or_else(|| io::Error::other("another process listens there"))
}

impl Socket {
    /// Replaces a socket, and no other file. The caller holds the lock that says that nobody
    /// listens on it.
    fn bind(path: &Path, lock: Option<File>) -> io::Result<Self> {
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let bytes = path.as_os_str().len();
            return Err(io::Error::other(format!(
                "the path has {bytes} bytes, and the path of a socket has at most {SOCKET_PATH_BYTES_MAX}"
            )));
        }
        match path.symlink_metadata() {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other("this file exists and is no socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        let found = path.symlink_metadata()?;
        let socket = Self { listener, path: path.to_owned(), file: (found.dev(), found.ino()), _lock: lock };
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        socket.listener.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The listener of the runtime, and what removes the file when it is dropped.
    pub(super) fn listen(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If the start failed, the next relay may have replaced the file already.
        let found = self.path.symlink_metadata();
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}
