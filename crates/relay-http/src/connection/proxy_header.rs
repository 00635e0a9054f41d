//! The header of the PROXY protocol, versions 1 and 2, in which a proxy names its client before the
//! first byte of that client. It is read only from peers that the operator names. It is bounded:
//! 107 bytes in version 1, and some kilobytes in version 2, whose extensions are skipped.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Every header has at least this many bytes. The shortest one is `PROXY UNKNOWN\r\n`.
const BYTES_MIN: usize = 15;

/// The longest header of version 1, as specified.
const TEXT_BYTES_MAX: usize = 107;

/// How a header of version 1 begins.
const TEXT_BEGIN: &[u8] = b"PROXY ";

/// How a header of version 2 begins.
const BINARY_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of version 2: its last two bytes are the length of the rest.
const BINARY_FIXED: usize = 16;

/// The longest rest of version 2: addresses, at most 216 bytes, and extensions.
const BINARY_REST_MAX: usize = 216 + 4096;

/// Reads a header, and not one byte more. Returns the client; `None` if the proxy speaks for
/// itself, or does not know its client.
///
/// # Errors
/// `UnexpectedEof` if the input ends, `InvalidData` if it is no header.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; BYTES_MIN];
    stream.read_exact(&mut header).await?;
    if header.starts_with(TEXT_BEGIN) {
        // The rest is short, so one call for each byte costs little.
        while !header.ends_with(b"\r\n") {
            if header.len() == TEXT_BYTES_MAX {
                return Err(invalid());
            }
            header.push(stream.read_u8().await?);
        }
    } else if header.starts_with(BINARY_BEGIN) {
        header.push(stream.read_u8().await?);
        let rest = match *header.as_slice() {
            [.., high, low] => usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        if rest > BINARY_REST_MAX {
            return Err(invalid());
        }
        header.resize(BINARY_FIXED + rest, 0);
        let (_, rest) = header.split_at_mut(BINARY_FIXED);
        stream.read_exact(rest).await?;
    } else {
        return Err(invalid());
    }
    parse(&header).ok_or_else(invalid)
}

/// The client that a whole header names. An address that no client has counts as unknown.
fn parse(header: &[u8]) -> Option<Option<SocketAddr>> {
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    let (parsed, length) = ProxyHeader::parse(header, config).ok()?;
    let client = parsed.proxied_address().map(|proxied| proxied.source);
    (length == header.len()).then_some(client.filter(|client| !client.ip().to_canonical().is_unspecified()))
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::ErrorKind;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Reads from these bytes. Returns the outcome, and the bytes that are left.
    fn read_from(bytes: &[u8]) -> (Result<Option<String>, ErrorKind>, &[u8]) {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcome = runtime.block_on(read(&mut rest));
        (outcome.map(|client| client.map(|client| client.to_string())).map_err(|error| error.kind()), rest)
    }

    /// A header of version 2 with this command, family and rest.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [BINARY_BEGIN, &[0x20 | command, family], &length, rest].concat()
    }

    fn ipv4(extensions: usize) -> Vec<u8> {
        let addresses = [192, 0, 2, 1, 192, 0, 2, 9, 0x12, 0x34, 1, 187];
        [addresses.as_slice(), &vec![7; extensions]].concat()
    }

    fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let ipv6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(2), vec![0, 80, 1, 187]]
            .concat();
        vec![
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 4660 443\r\n".to_vec(), Some("192.0.2.1:4660")),
            (b"PROXY TCP6 2001:db8::1 ::1 80 443\r\n".to_vec(), Some("[2001:db8::1]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(), None),
            (b"PROXY TCP4 0.0.0.0 192.0.2.9 1 2\r\n".to_vec(), None),
            (binary(1, 0x11, &ipv4(0)), Some("192.0.2.1:4660")),
            (binary(1, 0x11, &ipv4(4300)), Some("192.0.2.1:4660")),
            (binary(1, 0x21, &ipv6), Some("[2001:db8::1]:80")),
            (binary(1, 0x31, &[b'/'; 216]), None),
            (binary(1, 0x00, &[]), None),
            (binary(0, 0x00, &[]), None),
            (binary(0, 0x11, &ipv4(0)), None),
        ]
    }

    #[test]
    fn a_header_names_the_client_and_leaves_the_rest() {
        for (header, client) in headers() {
            for rest in [b"".as_slice(), b"GET / HTTP/1.1\r\n", b"PROXY UNKNOWN\r\n"] {
                let bytes = [&header, rest].concat();
                let expected = Ok(client.map(str::to_owned));
                assert_eq!(read_from(&bytes), (expected, rest), "{}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn a_header_that_ends_early_is_none() {
        for (header, _) in headers() {
            for length in 0..header.len().min(400) {
                let (outcome, _) = read_from(&header[..length]);
                assert_eq!(outcome, Err(ErrorKind::UnexpectedEof), "{}", header[..length].escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_within_its_bound() {
        let long_text = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 1000], b"\r\n"].concat();
        let long_binary = binary(1, 0x11, &ipv4(4301));
        for (bytes, read_max) in [
            (b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n".as_slice(), BYTES_MIN),
            (b"proxy TCP4 192.0.2.1 192.0.2.9 1 2\r\n", BYTES_MIN),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 1 65536\r\n", TEXT_BYTES_MAX),
            (b"PROXY TCP4 192.0.2.256 192.0.2.9 1 2\r\n", TEXT_BYTES_MAX),
            (b"PROXY TCP6 192.0.2.1 192.0.2.9 1 2\r\n", TEXT_BYTES_MAX),
            (b"PROXY UDP4 192.0.2.1 192.0.2.9 1 2\r\n", TEXT_BYTES_MAX),
            (b"PROXY TCP4 192.0.2.1\r\nHost: relay\r\n", TEXT_BYTES_MAX),
            (&long_text, TEXT_BYTES_MAX),
            (&long_binary, BINARY_FIXED),
            (&binary(2, 0x11, &ipv4(0)), BINARY_FIXED + 12),
            (&binary(1, 0x41, &ipv4(0)), BINARY_FIXED + 12),
            (&binary(1, 0x21, &ipv4(0)), BINARY_FIXED + 12),
        ] {
            let (outcome, rest) = read_from(bytes);
            assert_eq!(outcome, Err(ErrorKind::InvalidData), "{}", bytes.escape_ascii());
            assert!(bytes.len() - rest.len() <= read_max, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(
            begin in prop_oneof![Just(TEXT_BEGIN), Just(BINARY_BEGIN), Just(b"PROXY TCP4 ".as_slice()), Just(b"".as_slice())],
            command in 0x1f_u8..0x23,
            bytes in vec(any::<u8>(), 0..300),
        ) {
            let all = [begin, &[command], &bytes].concat();
            let (_, rest) = read_from(&all);
            prop_assert!(all.ends_with(rest));
        }
    }
}
