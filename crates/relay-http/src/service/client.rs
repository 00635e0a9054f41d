//! The sender of a request: its address as the limits see it, and the proof that it shows.

use std::net::IpAddr;

use relay_auth::{CertifiedNames, Proof};
use relay_ratelimit::Key;

use crate::connection::state::ConnectionState;
use crate::limits::addresses::{Address, network};

/// The sender of a request. The default has no address and no proof, so no limits.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// `None` if the client is exempt.
    pub(super) address: Option<(Network, Address)>,
    /// Whether the client is the other end of the socket, not behind a proxy.
    pub(super) is_peer: bool,
    /// The proof in the head of the request.
    pub(super) proof: Proof,
}

/// A client address, or a network that counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Client {
    pub(super) fn with_proof(self, proof: Proof) -> Self {
        Self { proof, ..self }
    }

    /// The same client with another proof.
    pub(super) fn showing(&self, proof: Proof) -> Self {
        Self { address: self.address.clone(), is_peer: self.is_peer, proof }
    }

    /// The address whose usage counts, unless it is exempt.
    pub(super) fn address(&self) -> Option<&Address> {
        self.address.as_ref().map(|(_, address)| address)
    }

    /// The network that counts as one address, unless it is exempt.
    pub(super) fn network(&self) -> Option<&Network> {
        self.address.as_ref().map(|(network, _)| network)
    }

    /// The names in the certificate of the connection, if the client itself has it and not a proxy.
    pub(super) const fn own<'a>(&self, certified: &'a CertifiedNames) -> &'a CertifiedNames {
        const NONE: &CertifiedNames = &CertifiedNames::NONE;
        if self.is_peer { certified } else { NONE }
    }

    /// Keeps the connection of a proxy, which carries requests of other clients.
    pub(super) fn end_if_peer(&self, connection: &ConnectionState) {
        if self.is_peer {
            connection.begin_end();
        }
    }
}

impl Network {
    /// The network of an address, of which `ipv6_prefix` bits count if it is IPv6.
    pub(super) fn new(address: IpAddr, ipv6_prefix: u8) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { ipv6_prefix };
        Self { address: network(address, ipv6_prefix), prefix }
    }

    /// Its first address.
    pub(super) const fn address(&self) -> IpAddr {
        self.address
    }
}

impl Key for Network {
    /// Providers assign networks of these sizes, so a client with one child network may have all.
    fn parent(&self) -> Option<Self> {
        let prefix = [56, 48, 40, 32].into_iter().find(|wider| *wider < self.prefix)?;
        self.address.is_ipv6().then(|| Self { address: network(self.address, prefix), prefix })
    }

    fn neighbourhood(&self) -> u64 {
        match self.address {
            IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
            IpAddr::V6(address) => u64::try_from(address.to_bits() >> 88).unwrap_or(u64::MAX),
        }
    }
}
