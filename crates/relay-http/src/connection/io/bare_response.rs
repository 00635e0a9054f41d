//! Recognises the responses that the framework gives by itself when it refuses a head: a bare
//! status without a body.
//!
//! A bare response is the last thing that the framework writes, and its head has
//! `content-length: 0`. No response of this crate has an empty body, and JSON never contains an
//! unescaped line break.

/// The longest bare response: a status line and four short fields.
const BARE_RESPONSE_BYTES_MAX: usize = 256;

/// If `buf` ends with a bare response, returns the bytes before it and its status.
pub(super) fn split_bare_response(buf: &[u8]) -> Option<(&[u8], u16)> {
    if !buf.ends_with(b"\r\n\r\n") {
        return None;
    }
    let window = buf.len().saturating_sub(BARE_RESPONSE_BYTES_MAX);
    let (_, tail) = buf.split_at_checked(window)?;
    let begin = window + tail.windows(7).rposition(|bytes| bytes == b"HTTP/1.")?;
    let (earlier, head) = buf.split_at_checked(begin)?;
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    lines.any(|line| line == "content-length: 0").then_some((earlier, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_response_is_recognised() {
        let bare = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: x\r\n\r\n";
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let check = |written: &str, expected: Option<(&str, u16)>| {
            let expected = expected.map(|(earlier, status)| (earlier.as_bytes(), status));
            assert_eq!(split_bare_response(written.as_bytes()), expected, "{written}");
        };
        check(bare, Some(("", 400)));
        check(&format!("{response}{bare}"), Some((response, 400)));
        check(&format!("{}{bare}", response.repeat(100)), Some((&response.repeat(100), 400)));
        check(&bare.replace("1.1 400 Bad Request", "1.0 431 X"), Some(("", 431)));
        check(response, None);
        check("", None);
        check("\r\n\r\n", None);
        check("HTTP/1.1 100 Continue\r\n\r\n", None);
        check("HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 90\r\n\r\n", None);
    }
}
