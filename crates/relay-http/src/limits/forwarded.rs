//! Who the client is when proxies stand in between. A proxy adds the address that it was called
//! from at the right end of `X-Forwarded-For` or `Forwarded`; whatever stands further left was
//! there before and may be a lie. So the list is read from the right for as long as trusted proxies
//! speak, and the first address that is no trusted proxy's is the client.
//!
//! If a request has both fields, `X-Forwarded-For` counts alone. Most proxies write that one unless
//! told otherwise, and pass a `Forwarded` from the client through untouched, so to prefer
//! `Forwarded` would be to believe the client. Behind a proxy that writes `Forwarded` only, it has
//! to drop the other field: docs/operations.md says so.
//!
//! An element that is no address ("unknown", an obfuscated name, garbage) ends the reading: the
//! proxy that wrote it is the last one known, and counts as the client. Each element is read by
//! itself, as bytes: what a client puts into the part that it writes makes nothing of what a proxy
//! adds unreadable, but for a quote in `Forwarded` that is left open. Nothing here can fail, and
//! nothing is ever logged.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};
use ipnet::IpNet;

/// The address of the client, as far as `trusted` proxies vouch for it. An IPv4 address in IPv6
/// form comes out as IPv4.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(&client) {
        return client;
    }
    let hops = if headers.contains_key(X_FORWARDED_FOR) {
        hops(headers, &X_FORWARDED_FOR, x_forwarded_for)
    } else {
        hops(headers, &FORWARDED, forwarded)
    };
    for hop in hops.into_iter().rev() {
        let Some(address) = hop else { break };
        client = address.to_canonical();
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// Whether somebody says that the request comes from elsewhere. From a peer that is no trusted
/// proxy this is either a lie, or the word of a proxy that the configuration does not know, whose
/// clients then all count as one.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED)
}

/// The elements of a list that may be spread over several lines; None for one that tells no
/// address.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&[u8]) -> Vec<Option<IpAddr>>,
) -> Vec<Option<IpAddr>> {
    // Each line is read for itself, so that a quote left open in one does not swallow the next.
    headers.get_all(name).flat_map(|line| read(line.as_bytes())).collect()
}

fn x_forwarded_for(line: &[u8]) -> Vec<Option<IpAddr>> {
    line.split(|byte| *byte == b',').map(|element| parse_node(element.trim_ascii())).collect()
}

/// A line of `Forwarded` (RFC 7239). An element that is not well formed tells no address; nor does
/// any of a line whose last quote is not closed, since nobody can tell where its elements begin.
fn forwarded(line: &[u8]) -> Vec<Option<IpAddr>> {
    split_unquoted(line, b',')
        .map_or_else(|| vec![None], |elements| elements.into_iter().map(forwarded_for).collect())
}

/// The `for` of one element, if it is well formed and has one.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut address = None;
    for pair in split_unquoted(element, b';')? {
        let pair = pair.trim_ascii();
        let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        let value = match value.strip_prefix(b"=\"") {
            Some(quoted) => quoted
                .strip_suffix(b"\"")
                .filter(|inside| !inside.iter().any(|byte| b"\"\\".contains(byte)))?,
            None => value.strip_prefix(b"=").filter(|token| !token.contains(&b'"'))?,
        };
        if name.eq_ignore_ascii_case(b"for") {
            address = parse_node(value);
        }
    }
    address
}

/// The parts between separators that stand outside quotes; None if a quote is not closed.
fn split_unquoted(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let mut is_quoted = false;
    let parts = text
        .split(|byte| {
            is_quoted ^= *byte == b'"';
            *byte == separator && !is_quoted
        })
        .collect();
    (!is_quoted).then_some(parts)
}

/// An address, with or without a port; IPv6 may stand in brackets.
fn parse_node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn check(peer: &str, lines: &[(HeaderName, &'static str)], expected: &str) {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (name.clone(), value.as_bytes())).collect();
        check_bytes(peer, &lines, expected);
    }

    fn check_bytes(peer: &str, lines: &[(HeaderName, &[u8])], expected: &str) {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        assert_eq!(is_forwarded(&headers), !lines.is_empty());
        let client = client_address(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        check("192.0.2.1", &[(X_FORWARDED_FOR, "198.51.100.7")], "192.0.2.1");
        check(PROXY, &[], PROXY);
        check(PROXY, &[(X_FORWARDED_FOR, "198.51.100.7")], "198.51.100.7");
        check("::ffff:10.0.0.1", &[(X_FORWARDED_FOR, "::ffff:198.51.100.7")], "198.51.100.7");
        check("fd00::1", &[(X_FORWARDED_FOR, "2001:db8::7")], "2001:db8::7");
    }

    #[test]
    fn the_list_is_read_from_the_right() {
        let list = |value| [(X_FORWARDED_FOR, value)];
        check(PROXY, &list("203.0.113.9, 198.51.100.7, 10.0.0.2,10.0.0.3"), "198.51.100.7");
        check(PROXY, &list("10.0.0.4, 10.0.0.2"), "10.0.0.4");
        check(PROXY, &list("198.51.100.7:4711"), "198.51.100.7");
        check(PROXY, &list("[2001:db8::7]:4711"), "2001:db8::7");
        check(PROXY, &list("[2001:db8::7]"), "2001:db8::7");
        let lines = [(X_FORWARDED_FOR, "203.0.113.9"), (X_FORWARDED_FOR, "198.51.100.7, 10.0.0.2")];
        check(PROXY, &lines, "198.51.100.7");
    }

    #[test]
    fn garbage_ends_the_reading_at_the_last_known_proxy() {
        let list = |value| [(X_FORWARDED_FOR, value)];
        for garbage in ["unknown", "_hidden", "", "198.51.100.7.9", "198.51.100.7:x", "[::1", "a, "] {
            check(PROXY, &list(garbage), PROXY);
        }
        check(PROXY, &list("198.51.100.7, unknown, 10.0.0.2"), "10.0.0.2");
    }

    #[test]
    fn forwarded_is_read_as_its_standard_says() {
        let list = |value| [(FORWARDED, value)];
        check(PROXY, &list("for=198.51.100.7"), "198.51.100.7");
        check(PROXY, &list("For=\"[2001:db8::7]:4711\";proto=http;by=10.0.0.1"), "2001:db8::7");
        check(
            PROXY,
            &list("for=203.0.113.9, proto=https;FOR=\"198.51.100.7:80\", for=10.0.0.2"),
            "198.51.100.7",
        );
        check(PROXY, &list("for=203.0.113.9, by=\"a,b;c\";for=198.51.100.7"), "198.51.100.7");
        for garbage in ["for=unknown", "for=_x", "by=10.0.0.2", "198.51.100.7", "for=\"198.51.100.7", ""] {
            check(PROXY, &list(garbage), PROXY);
        }
    }

    #[test]
    fn no_byte_of_a_client_makes_what_the_proxy_adds_unreadable() {
        for byte in (0x20..=0xff).filter(|byte| *byte != 0x7f).chain([b'\t']) {
            let client = [b"203.0.113.9", [byte].as_slice()].concat();
            let line = [client.as_slice(), b", 198.51.100.7"].concat();
            check_bytes(PROXY, &[(X_FORWARDED_FOR, &line)], "198.51.100.7");
            // A quote that is left open is the one byte after which nobody can tell elements apart.
            if byte != b'"' {
                let line = [b"for=", client.as_slice(), b", for=198.51.100.7"].concat();
                check_bytes(PROXY, &[(FORWARDED, &line)], "198.51.100.7");
                let line = [client.as_slice(), b";=;, for=198.51.100.7"].concat();
                check_bytes(PROXY, &[(FORWARDED, &line)], "198.51.100.7");
            }
        }
        check_bytes(PROXY, &[(X_FORWARDED_FOR, b"198.51.100.7, \xff, 10.0.0.2")], "10.0.0.2");
        check_bytes(PROXY, &[(FORWARDED, b"for=198.51.100.7, for=\xff, for=10.0.0.2")], "10.0.0.2");
    }

    #[test]
    fn a_client_cannot_quote_away_what_the_proxy_adds() {
        check(PROXY, &[(FORWARDED, "for=\"203.0.113.9, for=198.51.100.7")], PROXY);
        check(PROXY, &[(FORWARDED, "x=\", for=\"[2001:db8::7]\"")], PROXY);
        check(PROXY, &[(FORWARDED, "for=203.0.113.9;x=\", for=\"[2001:db8::7]\"")], PROXY);
        check(PROXY, &[(FORWARDED, "for=\"203.0.113.9"), (FORWARDED, "for=198.51.100.7")], "198.51.100.7");
    }

    #[test]
    fn a_forwarded_that_the_client_smuggled_in_does_not_count() {
        let lines = [(FORWARDED, "for=203.0.113.9"), (X_FORWARDED_FOR, "198.51.100.7")];
        check(PROXY, &lines, "198.51.100.7");
    }
}
