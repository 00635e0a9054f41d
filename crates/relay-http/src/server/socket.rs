//! The sockets of a server: TCP and Unix.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};

use socket2::SockRef;

use crate::connection::stream::Stream;
use crate::limits::peer::UNIX_PEER;

/// A socket that clients connect to.
#[derive(Debug)]
pub enum ListeningSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A socket in the file system. Its peers are on this machine.
    #[cfg(unix)]
    Unix(UnixListener),
}

/// The same for the runtime, which wakes up when a client connects.
pub(super) enum WatchedSocket {
    Tcp(tokio::net::TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

/// The socket of a connection.
pub(super) enum ClientSocket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl From<TcpListener> for ListeningSocket {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

#[cfg(unix)]
impl From<UnixListener> for ListeningSocket {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl ListeningSocket {
    /// Whether clients connect over TCP, and only from this machine.
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
            }
            #[cfg(unix)]
            Self::Unix(_) => false,
        }
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            #[cfg(unix)]
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            #[cfg(unix)]
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }

    /// The next connection, and its peer.
    pub(super) fn accept(&self) -> io::Result<(ClientSocket, SocketAddr)> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(socket, peer)| (ClientSocket::Tcp(socket), peer)),
            #[cfg(unix)]
            Self::Unix(listener) => {
                listener.accept().map(|(socket, _)| (ClientSocket::Unix(socket), UNIX_PEER))
            }
        }
    }

    pub(super) fn watch(self) -> io::Result<WatchedSocket> {
        Ok(match self {
            Self::Tcp(listener) => WatchedSocket::Tcp(tokio::net::TcpListener::from_std(listener)?),
            #[cfg(unix)]
            Self::Unix(listener) => WatchedSocket::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }
}

impl WatchedSocket {
    /// Waits for the next connection.
    pub(super) async fn accept(&self) -> io::Result<(ClientSocket, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((ClientSocket::Tcp(socket.into_std()?), peer))
            }
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((ClientSocket::Unix(socket.into_std()?), UNIX_PEER))
            }
        }
    }
}

impl ClientSocket {
    pub(super) fn options(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket),
            #[cfg(unix)]
            Self::Unix(socket) => SockRef::from(socket),
        }
    }

    pub(super) fn into_stream(self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(socket) => Box::new(tokio::net::TcpStream::from_std(socket)?),
            #[cfg(unix)]
            Self::Unix(socket) => Box::new(tokio::net::UnixStream::from_std(socket)?),
        })
    }
}
