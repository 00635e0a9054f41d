//! The lines of fields, in heads and in trailers (RFC 9112, section 5), and the text of a host (RFC
//! 9110, section 7.2).

use super::Malformed;

/// The fields of a block that ends with an empty line, as name and value without the white space
/// around it.
pub(super) fn lines(block: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Malformed>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let (line, behind) = rest.split_at(end + 1);
        rest = behind;
        match line.strip_suffix(b"\r\n") {
            Some([]) => None,
            Some(line) => Some(field(line)),
            None => Some(Err(Malformed::Because("a line of the head does not end in CR LF"))),
        }
    })
}

/// One line without its end.
///
/// # Errors
/// A line that is folded, has no name, or has bytes that belong in no field.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let colon = memchr::memchr(b':', line).ok_or(Malformed::Because("a line of the head is no field"))?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Malformed::Because("a field of the head has no proper name"));
    }
    // Without an end in between, many bytes are compared at once.
    if value.iter().fold(false, |found, byte| found | is_control(*byte)) {
        return Err(Malformed::Because("a field of the head has a control character in it"));
    }
    Ok((name, value.trim_ascii()))
}

/// What names and methods are made of (RFC 9110, section 5.6.2).
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
pub(super) const fn is_token(byte: u8) -> bool {
    TOKENS[byte as usize]
}

/// What stands in no value: control characters but for the tab. Above ASCII anything may stand
/// there (obs-text).
const fn is_control(byte: u8) -> bool {
    (byte < 32) & (byte != b'\t') | (byte == 127)
}

/// By a table, since each byte of each head is asked for.
const TOKENS: [bool; 256] = tokens(b"!#$%&'*+-.^_`|~");

#[expect(clippy::indexing_slicing, reason = "at compile time, where a mistake does not compile")]
const fn tokens(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// Whether this is a host, with a port or without: a name, an IPv4 address, or an IPv6 address in
/// brackets.
pub(crate) fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !text.ends_with(b"]") => {
            let (host, port) = text.split_at(colon);
            (host, port.get(1..).unwrap_or_default())
        }
        _ => (text, &b""[..]),
    };
    let is_port = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    let is_name = match host.strip_prefix(b"[") {
        Some(rest) => rest.strip_suffix(b"]").is_some_and(|inside| {
            !inside.is_empty()
                && inside.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        }),
        None => {
            let is_in_name =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%');
            !host.is_empty() && host.iter().all(is_in_name)
        }
    };
    is_port && is_name
}
