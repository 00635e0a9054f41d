//! Finds the client's address behind proxies. Each proxy appends the address of its own client to
//! `X-Forwarded-For` or `Forwarded`. Everything further left may be forged. So the list is read
//! from the right, and the first address that is not a trusted proxy is the client.
//!
//! If a request has both fields, only `X-Forwarded-For` counts. Most proxies write that one by
//! default and pass on a `Forwarded` of the client unchanged, so `Forwarded` may be forged. A proxy
//! that writes only `Forwarded` has to drop the other field, as docs/operations.md says.
//!
//! An element that is not an address ("unknown", an obfuscated identifier, garbage) ends the
//! search. The proxy that wrote it then counts as the client. Each element is parsed separately, as
//! bytes, so a client cannot make the elements of a proxy unreadable. The only exception is an open
//! quote in `Forwarded`. Nothing here can fail, and nothing is logged.

use std::net::{IpAddr, SocketAddr};

use crate::limits::peer::{self, Peers};
use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};

/// The address of the client, as far as `trusted` proxies report it. An IPv4-mapped IPv6 address
/// becomes an IPv4 address.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &Peers) -> IpAddr {
    // No proxy has a client without an address.
    let is_trusted = |address: &IpAddr| !peer::is_unix(address) && trusted.contain(address);
    let mut client = peer.to_canonical();
    if !trusted.contain(&client) {
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

/// Whether the request claims to come from another address. If the peer is not a trusted proxy, the
/// claim is forged, or the peer is a proxy that is missing in the configuration. All clients of
/// such a proxy count as one.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED)
}

/// The elements of a list in one or several lines; `None` for one without an address.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&[u8]) -> Vec<Option<IpAddr>>,
) -> Vec<Option<IpAddr>> {
    // Lines are parsed separately, so that an open quote does not affect the next line.
    headers.get_all(name).flat_map(|line| read(line.as_bytes())).collect()
}

fn x_forwarded_for(line: &[u8]) -> Vec<Option<IpAddr>> {
    line.split(|byte| *byte == b',').map(|element| parse_node(element.trim_ascii())).collect()
}

/// A line of `Forwarded` (RFC 7239). A malformed element has no address. A line with an open quote
/// has none at all, since the borders of its elements are unclear.
fn forwarded(line: &[u8]) -> Vec<Option<IpAddr>> {
    split_unquoted(line, b',')
        .map_or_else(|| vec![None], |elements| elements.into_iter().map(forwarded_for).collect())
}

/// The address in `for` of one element, if the element is well formed.
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

/// Splits at separators outside quotes. `None` if a quote is open.
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

/// An address with or without a port. IPv6 may be in brackets.
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
    const UNIX: &str = "0.0.0.0";

    fn check(peer: &str, lines: &[(HeaderName, &'static str)], expected: &str) {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (name.clone(), value.as_bytes())).collect();
        check_bytes(peer, &lines, expected);
    }

    fn check_bytes(peer: &str, lines: &[(HeaderName, &[u8])], expected: &str) {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).to_vec();
        let trusted = Peers { networks, unix: peer == UNIX };
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        assert_eq!(is_forwarded(&headers), !lines.is_empty());
        let client = client_address(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        check("192.0.2.1", &[(X_FORWARDED_FOR, "198.51.100.7")], "192.0.2.1");
        check(PROXY, &[], PROXY);
        check(PROXY, &[(X_FORWARDED_FOR, "198.51.100.7")], "198.51.100.7");
        check("::ffff:10.0.0.1", &[(X_FORWARDED_FOR, "::ffff:198.51.100.7")], "198.51.100.7");
        check("fd00::1", &[(X_FORWARDED_FOR, "2001:db8::7")], "2001:db8::7");
    }

    #[test]
    fn a_proxy_on_a_unix_socket_is_believed_if_the_operator_says_so() {
        let list = |value| [(X_FORWARDED_FOR, value)];
        check(UNIX, &[], UNIX);
        check(UNIX, &list("203.0.113.9, 198.51.100.7, 10.0.0.2"), "198.51.100.7");
        check(UNIX, &list("198.51.100.7, 0.0.0.0"), UNIX);
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
    fn garbage_ends_the_search_at_the_last_known_proxy() {
        let list = |value| [(X_FORWARDED_FOR, value)];
        for garbage in ["unknown", "_hidden", "", "198.51.100.7.9", "198.51.100.7:x", "[::1", "a, "] {
            check(PROXY, &list(garbage), PROXY);
        }
        check(PROXY, &list("198.51.100.7, unknown, 10.0.0.2"), "10.0.0.2");
    }

    #[test]
    fn forwarded_is_parsed_as_in_its_standard() {
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
    fn no_byte_of_a_client_hides_the_element_of_the_proxy() {
        for byte in (0x20..=0xff).filter(|byte| *byte != 0x7f).chain([b'\t']) {
            let client = [b"203.0.113.9", [byte].as_slice()].concat();
            let line = [client.as_slice(), b", 198.51.100.7"].concat();
            check_bytes(PROXY, &[(X_FORWARDED_FOR, &line)], "198.51.100.7");
            // After an open quote, the borders of elements are unclear.
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
    fn a_client_cannot_hide_the_element_of_the_proxy_with_a_quote() {
        check(PROXY, &[(FORWARDED, "for=\"203.0.113.9, for=198.51.100.7")], PROXY);
        check(PROXY, &[(FORWARDED, "x=\", for=\"[2001:db8::7]\"")], PROXY);
        check(PROXY, &[(FORWARDED, "for=203.0.113.9;x=\", for=\"[2001:db8::7]\"")], PROXY);
        check(PROXY, &[(FORWARDED, "for=\"203.0.113.9"), (FORWARDED, "for=198.51.100.7")], "198.51.100.7");
    }

    #[test]
    fn forwarded_does_not_count_beside_x_forwarded_for() {
        let lines = [(FORWARDED, "for=203.0.113.9"), (X_FORWARDED_FOR, "198.51.100.7")];
        check(PROXY, &lines, "198.51.100.7");
    }
}
