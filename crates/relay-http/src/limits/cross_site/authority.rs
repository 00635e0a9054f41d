//! Parses `host:port` in `Host`, targets and origins. It resolves no names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest valid name.
const NAME_BYTES_MAX: usize = 255;

/// A host with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
}

/// A host in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// In lower case, without the optional dot at the end.
    Name(String),
    /// An IPv4-mapped IPv6 address is stored as IPv4.
    Address(IpAddr),
}

impl Authority {
    /// Returns `None` for anything else than a host with or without a port, also if there are user
    /// names, spaces or non-ASCII characters.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at_checked(end)?;
        let port = match rest.strip_prefix(':') {
            // The port may be empty after the colon (RFC 3986, section 3.2.3).
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if rest.is_empty() => None,
            _ => return None,
        };
        Some(Self { host: Host::parse(host)?, port })
    }
}

impl Host {
    /// Parses a name, an IPv4 address, or an IPv6 address in brackets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix('[') {
            let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.to_canonical()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_plain);
        let is_name = name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label);
        is_name.then(|| Self::Name(name.to_ascii_lowercase()))
    }

    pub(super) const fn is_address(&self) -> bool {
        matches!(self, Self::Address(_))
    }

    /// Whether browsers resolve the name to loopback by themselves (RFC 6761, section 6.3).
    pub(super) fn is_loopback_name(&self) -> bool {
        matches!(self, Self::Name(name) if name == "localhost" || name.ends_with(".localhost"))
    }
}
