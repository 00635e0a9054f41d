//! What HTTP is spoken on: TCP, or TLS over it. What is said there is not known here.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What a connection is made of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The socket at its end.
    fn socket(&self) -> SockRef<'_>;

    /// Has the system forget what it still holds for a client that does not take it, as soon as the
    /// stream is dropped. Otherwise it would keep that as long as the client likes.
    fn abandon(&self) {
        let _ = self.socket().set_linger(Some(Duration::ZERO));
    }
}

impl Stream for TcpStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

#[cfg(feature = "tls")]
impl Stream for tokio_rustls::server::TlsStream<TcpStream> {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.get_ref().0)
    }
}
