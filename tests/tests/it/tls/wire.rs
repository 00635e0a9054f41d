//! One request over TLS and HTTP/1.1 on its own connection, with the results of the handshake.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, StreamOwned};

/// How long a response may take before a test fails.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The result of a request.
#[derive(Debug)]
pub(crate) struct TlsResponse {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) version: ProtocolVersion,
    pub(crate) group: NamedGroup,
    /// The response, head and body.
    pub(crate) text: String,
}

/// Gets `/health`, and reads until the relay closes.
///
/// # Errors
/// When the handshake fails on either side, or the response does not end properly.
pub(crate) fn ask(base_url: &str, client: &Arc<ClientConfig>) -> io::Result<TlsResponse> {
    ask_after(b"", base_url, client)
}

/// As [`ask`], on a connection that begins with these bytes.
pub(crate) fn ask_after(begin: &[u8], base_url: &str, client: &Arc<ClientConfig>) -> io::Result<TlsResponse> {
    let mut tcp = TcpStream::connect(base_url.trim_start_matches("https://"))?;
    tcp.set_read_timeout(Some(TIMEOUT))?;
    tcp.write_all(begin)?;
    let name = "127.0.0.1".try_into().map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp);
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let connection = &stream.conn;
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    Ok(TlsResponse {
        certificate: certificate.ok_or(io::ErrorKind::NotFound)?.clone().into_owned(),
        version: connection.protocol_version().ok_or(io::ErrorKind::NotFound)?,
        group: connection.negotiated_key_exchange_group().ok_or(io::ErrorKind::NotFound)?.name(),
        text,
    })
}

impl TlsResponse {
    pub(crate) fn is_ok(&self) -> bool {
        self.text.starts_with("HTTP/1.1 200 ") && self.text.ends_with(r#"{"status":"ok"}"#)
    }
}
