//! The byte stream below HTTP: TCP, a Unix socket, or TLS over one of them.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A byte stream over a socket.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The socket below the stream.
    fn socket(&self) -> SockRef<'_>;
}

impl Stream for TcpStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

#[cfg(unix)]
impl Stream for tokio::net::UnixStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

#[cfg(feature = "tls")]
impl Stream for tokio_rustls::server::TlsStream<Box<dyn Stream>> {
    fn socket(&self) -> SockRef<'_> {
        self.get_ref().0.socket()
    }
}

/// A stream that several owners on one thread use. Clones share it.
#[derive(Clone)]
pub(crate) struct SharedStream(Rc<RefCell<Box<dyn Stream>>>);

impl SharedStream {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(Pin<&mut Box<dyn Stream>>) -> T) -> T {
        act(Pin::new(&mut *self.0.borrow_mut()))
    }

    /// Makes the system discard unsent bytes when the stream is dropped. Otherwise it would keep
    /// them for as long as the client likes.
    pub(super) fn abandon(&self) {
        let _ = self.0.borrow().socket().set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for SharedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}
