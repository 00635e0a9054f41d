//! Finds and checks the head of an HTTP/1.1 request (RFC 9112, sections 2 to 6), and determines how
//! its body ends.

use std::sync::LazyLock;

use actix_web::http::Version;
use memchr::memmem;

use super::Malformed;
use super::fields::{self, BARE_LINE_FEED, is_token};
use crate::api::limits::{FIELDS_MAX, HEAD_BYTES_MAX};

/// The end of a head. Building the finder costs as much as searching one head.
static EMPTY_LINE: LazyLock<memmem::Finder<'_>> = LazyLock::new(|| memmem::Finder::new(b"\r\n\r\n"));

/// What the rest of the framing needs to know about a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) body: BodyLength,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) awaits_continue: bool,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Sized(u64),
    Chunked,
}

/// The first line of a head.
struct RequestLine<'a> {
    version: Version,
    /// The host of a target in absolute form.
    authority: Option<&'a [u8]>,
}

/// The fields that matter for the framing.
#[derive(Default)]
struct Framed<'a> {
    length: Option<u64>,
    is_chunked: bool,
    host: Option<&'a [u8]>,
    /// Whether there is an `Expect` field with any value.
    has_expect: bool,
    expects_continue: bool,
}

/// Where the head at the front of `bytes` ends, if it is complete. The first `known` bytes were
/// searched before. Line breaks before the request line belong to the head (RFC 9112, section 2.2).
///
/// # Errors
/// When the bytes cannot become a valid head, whatever follows.
pub(super) fn end(bytes: &[u8], known: usize) -> Result<Option<usize>, Malformed> {
    let begin = bytes.iter().take(2).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let from = known.saturating_sub(3).max(begin);
    let searched = bytes.get(from..).unwrap_or_default();
    let end = EMPTY_LINE.find(searched).map(|at| from + at + 4);
    if end.is_none() {
        refuse_early(bytes.get(begin..).unwrap_or_default(), from - begin)?;
    }
    if end.unwrap_or(bytes.len()) > HEAD_BYTES_MAX { Err(Malformed::HeadTooLarge) } else { Ok(end) }
}

/// Refuses what is not HTTP/1.1 before its end is found, which may never come.
fn refuse_early(bytes: &[u8], from: usize) -> Result<(), Malformed> {
    let searched = bytes.get(from..).unwrap_or_default();
    let is_bare = |at: usize| at > 0 && searched.get(at - 1) != Some(&b'\r');
    if memchr::memchr_iter(b'\n', searched).any(is_bare) {
        return Err(BARE_LINE_FEED);
    }
    match memchr::memchr(b'\n', bytes) {
        Some(end) => {
            let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(BARE_LINE_FEED)?;
            request_line(line).map(drop)
        }
        None => {
            let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
            let may_be_method = method.iter().all(|byte| is_token(*byte));
            if may_be_method { Ok(()) } else { Err(REQUEST_LINE) }
        }
    }
}

const REQUEST_LINE: Malformed = Malformed::Because("the request line is not valid HTTP/1.1");

/// Checks a complete head including its empty line, and renames in place the fields that the
/// framework must not see.
///
/// # Errors
/// When two parsers might read the head differently, or it is not HTTP/1.1.
pub(super) fn check(head: &mut [u8]) -> Result<Head, Malformed> {
    let begin = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let line_end =
        memchr::memchr(b'\n', head.get(begin..).unwrap_or_default()).map_or(head.len(), |at| begin + at);
    let line = head.get(begin..line_end).and_then(|line| line.strip_suffix(b"\r")).ok_or(BARE_LINE_FEED)?;
    let line = request_line(line)?;
    let framed = check_fields(head.get(line_end + 1..).unwrap_or_default())?;
    if framed.host.is_none() && line.version == Version::HTTP_11 {
        return Err(Malformed::Because("the Host header is missing"));
    }
    if let (Some(authority), Some(host)) = (line.authority, framed.host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(Malformed::Because("the Host header and the request target name different hosts"));
    }
    let body = framed.body_length(line.version)?;
    let awaits_continue = framed.expects_continue && line.version == Version::HTTP_11;
    if framed.has_expect {
        let (_, fields) = head.split_at_mut((line_end + 1).min(head.len()));
        hide_expect(fields);
    }
    Ok(Head { body, awaits_continue })
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Malformed> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(REQUEST_LINE);
    };
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return Err(REQUEST_LINE),
    };
    let is_method = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    let is_visible = target.iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != b'#');
    let authority = authority(target).filter(|authority| fields::is_host(authority));
    // The authority form, for CONNECT, is for proxies only.
    let is_form = target.starts_with(b"/") || authority.is_some() || (target == b"*" && method == b"OPTIONS");
    if is_method && is_visible && is_form {
        Ok(RequestLine { version, authority })
    } else {
        Err(REQUEST_LINE)
    }
}

/// The host of a target in absolute form, as clients send it to proxies (RFC 9112, section 3.2.2).
fn authority(target: &[u8]) -> Option<&[u8]> {
    if target.starts_with(b"/") {
        return None;
    }
    let scheme_end = memmem::find(target, b"://")?;
    let (scheme, rest) = (target.get(..scheme_end)?, target.get(scheme_end + 3..)?);
    let is_http = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    is_http.then(|| rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default())
}

fn check_fields(block: &[u8]) -> Result<Framed<'_>, Malformed> {
    let mut framed = Framed::default();
    let mut count = 0;
    for field in fields::lines(block) {
        let (name, value) = field?;
        count += 1;
        if count > FIELDS_MAX {
            return Err(Malformed::HeadTooLarge);
        }
        // The length alone rules out most names.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => framed.note_host(value)?,
            6 if name.eq_ignore_ascii_case(b"expect") => {
                framed.has_expect = true;
                framed.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => refuse_websocket(value)?,
            14 if name.eq_ignore_ascii_case(b"content-length") => framed.note_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => framed.note_encoding(value)?,
            _ => {}
        }
    }
    Ok(framed)
}

impl<'a> Framed<'a> {
    fn body_length(&self, version: Version) -> Result<BodyLength, Malformed> {
        match (self.length, self.is_chunked) {
            (Some(_), true) => {
                Err(Malformed::Because("a request must not have both Content-Length and Transfer-Encoding"))
            }
            (None, true) if version == Version::HTTP_10 => {
                Err(Malformed::Because("HTTP/1.0 does not support Transfer-Encoding"))
            }
            (None, true) => Ok(BodyLength::Chunked),
            (length, false) => Ok(BodyLength::Sized(length.unwrap_or(0))),
        }
    }

    fn note_host(&mut self, value: &'a [u8]) -> Result<(), Malformed> {
        if self.host.is_some() {
            return Err(Malformed::Because("the Host header appears more than once"));
        }
        self.host = Some(value);
        if fields::is_host(value) {
            Ok(())
        } else {
            Err(Malformed::Because("the Host header is not a valid host"))
        }
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(value).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
        if self.length.is_some() {
            return Err(Malformed::Because("the Content-Length header appears more than once"));
        }
        self.length =
            Some(number.ok_or(Malformed::Because("the Content-Length header is not a number of bytes"))?);
        Ok(())
    }

    fn note_encoding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Malformed::Because("the only supported Transfer-Encoding is chunked, applied once"));
        }
        self.is_chunked = true;
        Ok(())
    }
}

/// Refuses WebSocket upgrades: after such a head, the framework expects another protocol.
fn refuse_websocket(value: &[u8]) -> Result<(), Malformed> {
    let is_websocket = value.split(|byte| *byte == b',').any(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"websocket")
    });
    if is_websocket { Err(Malformed::Because("WebSocket upgrades are not supported")) } else { Ok(()) }
}

/// Renames `Expect`, so that the framework does not send `100 Continue` at once. The relay sends it
/// itself when it begins to read the body.
fn hide_expect(block: &mut [u8]) {
    let mut at = 0;
    while let Some(line) = block.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let end = memchr::memchr(b'\n', line).map_or(line.len(), |end| end + 1);
        if let Some(name) = line.get_mut(..end.min(7))
            && name.len() == 7
            && name.eq_ignore_ascii_case(b"expect:")
        {
            name.copy_from_slice(b"x-seen:");
        }
        at += end;
    }
}
