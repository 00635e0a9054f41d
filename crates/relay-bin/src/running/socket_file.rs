//! A Unix socket in the file system: made with its permissions, in place of one that a killed relay
//! has left behind, and removed at the end. A socket on which another process listens is never
//! replaced.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Several relays of one process have different temporary names.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The file of a listening socket. Dropping this removes it, unless it has been replaced.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens on `path`, which then has the permissions `mode`.
    pub(super) fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<(UnixListener, Self)> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        // The socket gets its name when it has its permissions and listens. So nobody connects
        // earlier, and no other relay takes it for one that was left behind.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 100;
        let temporary = directory.join(format!(".{}-{number}", std::process::id()));
        let temporary = Temporary::new(temporary)?;
        let socket = unix_socket()?;
        bind(&socket, &SocketAddrUnix::new(&temporary.0)?)?;
        fs::set_permissions(&temporary.0, fs::Permissions::from_mode(mode))?;
        listen(&socket, backlog)?;
        let metadata = fs::symlink_metadata(&temporary.0)?;
        match fs::hard_link(&temporary.0, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // One relay at a time decides about a socket that was left behind.
                let directory = File::open(directory)?;
                flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
                check_left_behind(path)?;
                fs::rename(&temporary.0, path)?;
            }
            linked => linked?,
        }
        let identity = (metadata.dev(), metadata.ino());
        Ok((socket.into(), Self { path: path.to_owned(), identity }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(is_own) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A name that is removed when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(path: PathBuf) -> io::Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(Self(path)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is gone if it was renamed.
        drop(fs::remove_file(&self.0));
    }
}

/// # Errors
/// If this is no socket, or another process listens on it.
fn check_left_behind(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match connect(unix_socket()?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => Ok(()),
        // It does not wait for a process that does not accept.
        Ok(()) | Err(Errno::AGAIN) => {
            Err(io::Error::new(ErrorKind::AddrInUse, "another process listens on this socket"))
        }
        Err(error) => Err(error.into()),
    }
}

fn unix_socket() -> rustix::io::Result<rustix::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::net::UnixStream;

    use super::*;

    fn listen_on(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
        SocketFile::listen(path, 0o640, 8)
    }

    #[test]
    fn a_socket_has_its_mode_and_is_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.sock");
        let (listener, file) = listen_on(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        drop(UnixStream::connect(&path).unwrap());
        assert!(listener.accept().is_ok(), "the connection waits already");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no other name is left");
        drop((listener, file));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, _file) = listen_on(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no other name is left");
    }

    #[test]
    fn a_socket_in_use_and_other_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.sock");
        let first = listen_on(&path).unwrap();
        assert_eq!(listen_on(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok());
        drop(first);
        fs::write(&path, "mine").unwrap();
        assert_eq!(listen_on(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no other name is left");
    }

    #[test]
    fn the_end_does_not_remove_the_socket_of_another_relay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.sock");
        let (listener, file) = listen_on(&path).unwrap();
        drop(listener);
        let second = listen_on(&path).unwrap();
        drop(file);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
    }
}
