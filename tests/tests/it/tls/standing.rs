//! Tests of open connections when the client authorities change: they end in both versions of HTTP,
//! and lose no response.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::pki::{Authority, TlsFiles};
use super::relay;

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Longer than the relay takes to notice a change of the files, and shorter than a connection may
/// be idle.
const TIMEOUT: Duration = Duration::from_secs(30);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// GET / in HTTP/2.
const GET: &[u8] = b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x87\x84\x41\x09localhost";

const GOAWAY: u8 = 7;

fn connect(base_url: &str, client: &Arc<ClientConfig>, protocol: &[u8]) -> Stream {
    let tcp = TcpStream::connect(base_url.trim_start_matches("https://")).unwrap();
    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut config = ClientConfig::clone(client);
    config.alpn_protocols = vec![protocol.to_vec()];
    let tls = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    StreamOwned::new(tls, tcp)
}

/// The kind of the next frame, and its payload.
fn read_frame(stream: &mut Stream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]).try_into().unwrap()];
    stream.read_exact(&mut payload)?;
    Ok((head[3], payload))
}

#[test]
fn a_change_of_the_client_authorities_ends_open_connections() {
    let (authority, former, next) =
        (Authority::new("authority"), Authority::new("former"), Authority::new("next"));
    let files = TlsFiles::new(&authority.identity()).with_clients_of(&former);
    let relay = relay(&files);
    let client = authority.client(Some(&former.identity()));

    let mut http1 = connect(&relay.base_url, &client, b"http/1.1");
    http1.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut response = [0; 12];
    http1.read_exact(&mut response).unwrap();
    assert_eq!(&response, b"HTTP/1.1 200");
    let mut http2 = connect(&relay.base_url, &client, b"h2");
    http2.write_all(&[PREFACE, GET].concat()).unwrap();
    // Skips the settings, up to the response headers of any status.
    while read_frame(&mut http2).unwrap().0 != 1 {}

    files.add("client-ca.pem", &next.pem());
    let mut rest = Vec::new();
    http1.read_to_end(&mut rest).expect("the connection is not closed properly");
    let goodbye = loop {
        let (kind, payload) = read_frame(&mut http2).unwrap();
        if kind == GOAWAY {
            break payload;
        }
    };
    assert_eq!(goodbye[4..8], [0; 4], "GOAWAY reports no error");
    let end = loop {
        if let Err(error) = read_frame(&mut http2) {
            break error;
        }
    };
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
}
