//! A Unix socket in the file system: made with its permissions, in place of one that a killed relay
//! has left behind, and removed at the end. A socket on which another process listens is never
//! replaced. A lock file beside the socket, `.NAME.lock`, decides between two relays; it stays.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::lock_file;

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
        // The socket gets its name when it has its permissions and listens. So nobody connects
        // earlier, and no other relay takes it for one that was left behind.
        let socket = unix_socket()?;
        let temporary = Temporary::bind(&socket, beside(path, random_name()?))?;
        fs::set_permissions(&temporary.0, fs::Permissions::from_mode(mode))?;
        listen(&socket, backlog)?;
        let metadata = fs::symlink_metadata(&temporary.0)?;
        match fs::hard_link(&temporary.0, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // One relay at a time decides about a socket that was left behind.
                let _lock = lock(path)?;
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
        // A relay that has the lock is about to replace the socket.
        let Ok(_lock) = lock(&self.path) else { return };
        let is_own = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(is_own) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A name that is removed when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    /// Fails if there is such a file.
    fn bind(socket: &OwnedFd, path: PathBuf) -> io::Result<Self> {
        bind(socket, &SocketAddrUnix::new(&path)?)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is gone if it was renamed.
        drop(fs::remove_file(&self.0));
    }
}

/// A path in the same directory.
fn beside(path: &Path, name: impl AsRef<Path>) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).join(name)
}

/// A name that nobody can guess and prepare.
fn random_name() -> io::Result<String> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().fold(".".to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

/// Holds the lock of the socket at `path` until the result is dropped.
fn lock(path: &Path) -> io::Result<File> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    let file = beside(path, name);
    let failed =
        |kind, why: &dyn Display| io::Error::new(kind, format!("cannot lock {}: {why}", file.display()));
    let lock = lock_file::try_lock(&file).map_err(|error| failed(error.kind(), &error))?;
    lock.ok_or_else(|| failed(ErrorKind::WouldBlock, &"another relay is replacing this socket"))
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

fn unix_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::net::UnixStream;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    const LOCK: &str = ".relay.sock.lock";

    /// The sorted names in a directory.
    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_lock_belongs_to_the_relay_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = (directory.path().join("relay.sock"), directory.path().join(LOCK));
        drop(UnixListener::bind(&path).unwrap());
        // A lock on the directory, which others may be able to read, changes nothing.
        let read = File::open(directory.path()).unwrap();
        flock(&read, FlockOperation::NonBlockingLockExclusive).unwrap();
        drop(listen_on(&path).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);

        drop(UnixListener::bind(&path).unwrap());
        let held = lock(&path).unwrap();
        let expected = format!("cannot lock {}: another relay is replacing this socket", file.display());
        assert_eq!(listen_on(&path).unwrap_err().to_string(), expected);
        drop(held);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(directory.path().join("other"), &file).unwrap();
        assert!(listen_on(&path).is_err());
        assert_eq!(names(directory.path()), [LOCK, "relay.sock"], "the link is not followed");
    }

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
        assert_eq!(names(directory.path()), ["relay.sock"]);
        drop((listener, file));
        assert_eq!(names(directory.path()), [LOCK]);
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, _file) = listen_on(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(names(directory.path()), [LOCK, "relay.sock"]);
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
        assert_eq!(names(directory.path()), [LOCK, "relay.sock"]);
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
