//! Peers of connections that the operator names: networks, and Unix sockets.

use std::fmt;
use std::str::FromStr;

use ipnet::{AddrParseError, IpNet};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A network, or the peers of all Unix sockets. Written `10.0.0.0/8` or `unix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerNetwork {
    /// The peers with these addresses.
    Network(IpNet),
    /// The peers of Unix sockets.
    Unix,
}

/// How [`PeerNetwork::Unix`] is written.
pub(super) const UNIX: &str = "unix";

impl PeerNetwork {
    /// The network, unless these are the peers of Unix sockets.
    #[must_use]
    pub const fn network(self) -> Option<IpNet> {
        match self {
            Self::Network(network) => Some(network),
            Self::Unix => None,
        }
    }
}

impl FromStr for PeerNetwork {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == UNIX { Ok(Self::Unix) } else { text.parse().map(Self::Network) }
    }
}

impl fmt::Display for PeerNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str(UNIX),
        }
    }
}

impl<'de> Deserialize<'de> for PeerNetwork {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
