//! Parses header and trailer fields (RFC 9112, section 5) and hosts (RFC 9110, section 7.2).

use super::Malformed;

pub(super) const BARE_LINE_FEED: Malformed = Malformed::Because("a header line does not end with CR LF");

/// The fields of a block that ends with an empty line, as name and trimmed value.
pub(super) fn lines(block: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Malformed>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let line;
        (line, rest) = rest.split_at(end + 1);
        match line.strip_suffix(b"\r\n") {
            Some([]) => None,
            Some(line) => Some(field(line)),
            None => Some(Err(BARE_LINE_FEED)),
        }
    })
}

/// The name and value of one line, given without its CR LF.
///
/// # Errors
/// When the line is folded, has no valid name, or contains a control character.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let colon = memchr::memchr(b':', line).ok_or(Malformed::Because("a header line has no colon"))?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Malformed::Because("a header field has an invalid name"));
    }
    // A loop without an early exit compares many bytes at once.
    if value.iter().fold(false, |found, byte| found | is_control(*byte)) {
        return Err(Malformed::Because("a header field contains a control character"));
    }
    Ok((name, value.trim_ascii()))
}

/// Whether names and methods may contain this byte (RFC 9110, section 5.6.2).
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
pub(super) const fn is_token(byte: u8) -> bool {
    TOKENS[byte as usize]
}

/// Whether no value may contain this byte: a control character other than tab. All bytes above
/// ASCII are allowed (obs-text).
const fn is_control(byte: u8) -> bool {
    (byte < 32) & (byte != b'\t') | (byte == 127)
}

/// A table, since every byte of every head is looked up.
const TOKENS: [bool; 256] = tokens(b"!#$%&'*+-.^_`|~");

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where a wrong index does not compile"
)]
const fn tokens(punctuation: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < punctuation.len() {
        table[punctuation[index] as usize] = true;
        index += 1;
    }
    table
}

/// Whether this is a host with or without a port: a name, an IPv4 address, or an IPv6 address in
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
