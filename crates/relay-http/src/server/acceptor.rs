//! The layer between a socket and HTTP: none, or TLS.

#[cfg(feature = "tls")]
use std::sync::Arc;

use crate::connection::ending::Ending;
use crate::connection::state::ConnectionState;
use crate::connection::stream::Stream;
use crate::metrics::connections::Protocol;
use crate::options::Transport;
#[cfg(feature = "tls")]
use crate::tls::client::CertifiedClient;

/// The layer between a socket and HTTP.
pub(super) enum Acceptor {
    Plain,
    #[cfg(feature = "tls")]
    Tls(tokio_rustls::TlsAcceptor, crate::tls::Tls),
}

impl From<Transport> for Acceptor {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Plain => Self::Plain,
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => Self::Tls(Arc::new(tls.server_config()).into(), tls),
        }
    }
}

impl Acceptor {
    /// Resolves when other client CAs or revocation lists are in use, so that connected clients
    /// have to authenticate again.
    pub(super) fn client_trust_change(&self) -> Ending {
        match self {
            Self::Plain => Box::pin(std::future::pending()),
            #[cfg(feature = "tls")]
            Self::Tls(_, tls) => {
                let mut changes = tls.client_trust_changes();
                Box::pin(async move {
                    if changes.changed().await.is_err() {
                        // The sender is gone, so nothing changes any more.
                        std::future::pending::<()>().await;
                    }
                })
            }
        }
    }

    /// Returns the stream for HTTP, and what the client chose. Notes on the connection
    /// whom the client's certificate names.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "same signature as with TLS"))]
    pub(super) async fn accept(
        &self,
        stream: Box<dyn Stream>,
        connection: &ConnectionState,
    ) -> Option<(Box<dyn Stream>, Protocol)> {
        match self {
            Self::Plain => Some((stream, Protocol::Http1)),
            #[cfg(feature = "tls")]
            Self::Tls(acceptor, tls) => {
                let trust_changes = tls.client_trust_changes();
                let stream = acceptor.accept(stream).await;
                let stream =
                    stream.inspect_err(|error| tracing::debug!(%error, "TLS handshake failed")).ok()?;
                let session = stream.get_ref().1;
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1OverTls };
                connection.set_encrypted();
                if let Some(client) = CertifiedClient::new(tls, trust_changes, session.peer_certificates()) {
                    connection.set_client(client);
                }
                Some((Box::new(stream), protocol))
            }
        }
    }
}
