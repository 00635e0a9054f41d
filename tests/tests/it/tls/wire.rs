//! One request over TLS and HTTP/1.1 on a connection of its own, with all that the handshake came
//! to.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, StreamOwned};

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) version: ProtocolVersion,
    pub(crate) group: NamedGroup,
    /// The answer, head and body.
    pub(crate) text: String,
}

/// Asks for `/health`, and reads until the relay closes.
///
/// # Errors
/// When the handshake fails, on whichever side, or the answer does not end as it should.
pub(crate) fn ask(base_url: &str, client: &Arc<ClientConfig>) -> io::Result<Heard> {
    let tcp = TcpStream::connect(base_url.trim_start_matches("https://"))?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let name = "127.0.0.1".try_into().map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp);
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let connection = &stream.conn;
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    Ok(Heard {
        certificate: certificate.ok_or(io::ErrorKind::NotFound)?.clone().into_owned(),
        version: connection.protocol_version().ok_or(io::ErrorKind::NotFound)?,
        group: connection.negotiated_key_exchange_group().ok_or(io::ErrorKind::NotFound)?.name(),
        text,
    })
}

impl Heard {
    pub(crate) fn is_ok(&self) -> bool {
        self.text.starts_with("HTTP/1.1 200 ") && self.text.ends_with(r#"{"status":"ok"}"#)
    }
}
