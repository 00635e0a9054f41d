//! `host:port`, as it stands in `Host`, in targets and in origins. It resolves nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name that there is.
const NAME_BYTES_MAX: usize = 255;

/// A host, and a port if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
}

/// A host, in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// In lower case, without the dot that may stand at the end.
    Name(String),
    /// An IPv4 address that is written as one of IPv6 is that IPv4 address.
    Address(IpAddr),
}

impl Authority {
    /// `None` for what is no host with or without a port: also for user names, blanks and what is
    /// not ASCII.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at_checked(end)?;
        let port = match rest.strip_prefix(':') {
            // The port may be left out behind its colon (RFC 3986, section 3.2.3).
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if rest.is_empty() => None,
            _ => return None,
        };
        Some(Self { host: Host::parse(host)?, port })
    }
}

impl Host {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
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

    /// Browsers ask no name server for these (RFC 6761, section 6.3).
    pub(super) fn is_loopback_name(&self) -> bool {
        matches!(self, Self::Name(name) if name == "localhost" || name.ends_with(".localhost"))
    }
}
