//! Binds the addresses of the relay.

use std::io;
use std::net::{SocketAddr, TcpListener};

use relay_http::Transport;
use tokio::net::TcpSocket;

use super::transport;
use crate::config::RelayConfig;
use crate::error::RelayError;

/// How many connections the system queues until the relay accepts them.
const LISTEN_BACKLOG: u32 = 1024;

/// A listener and the address that it is bound to.
pub(super) type Bound = (TcpListener, SocketAddr);

/// The bound addresses, and how clients connect.
pub(super) struct Listeners {
    pub(super) transport: Transport,
    pub(super) public: Bound,
    /// `None` if `admin.address` is empty.
    pub(super) admin: Option<Bound>,
    /// The URL for clients.
    pub(super) base_url: String,
}

impl Listeners {
    /// Loads the certificates and binds the addresses.
    pub(super) async fn bind(config: &RelayConfig) -> Result<Self, RelayError> {
        let transport = transport::load(config)?;
        let failed = |source| RelayError::Listen { address: config.address.clone(), source };
        let public = bind(&config.address).await.map_err(failed)?;
        let admin = bind_admin(&config.admin.address).await?;
        let base_url = format!("{}://{}", transport::scheme(config.mode), public.1);
        Ok(Self { transport, public, admin, base_url })
    }
}

async fn bind_admin(address: &str) -> Result<Option<Bound>, RelayError> {
    if address.is_empty() {
        return Ok(None);
    }
    let failed = |source| RelayError::ListenAdmin { address: address.to_owned(), source };
    let (listener, address) = bind(address).await.map_err(failed)?;
    tracing::info!(url = format!("http://{address}/metrics"), "serving metrics");
    Ok(Some((listener, address)))
}

/// Binds the first address of a host name that can be bound.
async fn bind(address: &str) -> io::Result<Bound> {
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host name has no address");
    let mut candidates: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
    candidates.dedup();
    for candidate in &candidates {
        match bind_socket(*candidate) {
            Ok(bound) => {
                if candidates.len() > 1 {
                    tracing::warn!(
                        name = address, address = %bound.1,
                        "the host name has several addresses, and the relay listens on one; configure an address to choose"
                    );
                }
                return Ok(bound);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn bind_socket(address: SocketAddr) -> io::Result<Bound> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // After a restart, old connections may still use the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(LISTEN_BACKLOG)?.into_std()?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
