//! The other end of a connection, as the limits see it. The peers of a Unix socket have no address,
//! so all of them count as one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use ipnet::IpNet;

/// Stands for the peers of a Unix socket. No peer has this address over TCP.
pub(crate) const UNIX_PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// Peers that the operator names: networks, and whether those of Unix sockets belong to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Their networks.
    pub networks: Vec<IpNet>,
    /// Whether the peers of all Unix sockets belong to them.
    pub unix: bool,
}

impl Peers {
    /// Whether these peers include one with this address, in its canonical form.
    pub(crate) fn contain(&self, peer: &IpAddr) -> bool {
        if is_unix(peer) { self.unix } else { self.networks.iter().any(|network| network.contains(peer)) }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }
}

/// Whether this stands for a peer of a Unix socket.
pub(crate) fn is_unix(peer: &IpAddr) -> bool {
    *peer == UNIX_PEER.ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_of_unix_sockets_are_in_no_network() {
        let networks = || vec!["0.0.0.0/0".parse().unwrap()];
        let any = Peers { networks: networks(), unix: false };
        assert!(!any.contain(&UNIX_PEER.ip()) && any.contain(&IpAddr::from([192, 0, 2, 1])));
        let unix = Peers { networks: Vec::new(), unix: true };
        assert!(unix.contain(&UNIX_PEER.ip()) && !unix.contain(&IpAddr::from([192, 0, 2, 1])));
    }
}
