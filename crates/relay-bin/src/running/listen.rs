//! Binds the addresses of the relay.

use std::io;
use std::net::{SocketAddr, TcpListener};

use relay_http::{Listener, ListeningSocket};
use tokio::net::TcpSocket;

#[cfg(unix)]
use super::socket_file::SocketFile;
use super::transport;
use crate::config::{self, ListenAddress, Mode, RelayConfig};
use crate::error::RelayError;
use crate::passed_sockets::PassedSockets;
use crate::wiring;

/// How many connections the system queues until the relay accepts them.
const LISTEN_BACKLOG: u32 = 1024;

/// A listener and the address that it is bound to.
pub(super) type Bound = (TcpListener, SocketAddr);

/// The bound addresses, and how clients connect.
pub(super) struct Listeners {
    pub(super) public: Vec<Listener>,
    /// `None` if `admin.address` is empty.
    pub(super) admin: Option<Bound>,
    /// The URL for clients, or `unix:` and the path of the socket.
    pub(super) base_url: String,
    /// Removes the Unix sockets when it is dropped.
    pub(super) files: SocketFiles,
}

/// The Unix sockets in the file system.
#[derive(Default)]
pub(super) struct SocketFiles {
    #[cfg(unix)]
    files: Vec<SocketFile>,
}

impl SocketFiles {
    #[cfg(unix)]
    fn add(&mut self, others: Self) {
        self.files.extend(others.files);
    }

    #[cfg(not(unix))]
    fn add(&mut self, _: Self) {}
}

/// The sockets of one address.
struct Opened {
    sockets: Vec<ListeningSocket>,
    /// Where clients find the first one, without the scheme of a URL if it is TCP.
    location: String,
    files: SocketFiles,
}

impl Opened {
    fn url(&self, mode: Mode) -> String {
        match self.sockets.first().and_then(tcp_address) {
            Some(_) => format!("{}://{}", transport::scheme(mode), self.location),
            None => self.location.clone(),
        }
    }
}

impl Listeners {
    /// Loads the certificates and binds the addresses.
    pub(super) async fn bind(config: &RelayConfig, mut passed: PassedSockets) -> Result<Self, RelayError> {
        let listeners = config.listeners();
        let transports = transport::load(&listeners)?;
        let (mut public, mut files, mut urls) = (Vec::new(), SocketFiles::default(), Vec::new());
        for (listener, transport) in listeners.iter().zip(transports) {
            let failed = |source| RelayError::Listen { address: listener.address.clone(), source };
            let opened = open(config, &listener.address, &mut passed).await.map_err(failed)?;
            urls.push(opened.url(listener.mode));
            files.add(opened.files);
            let proxy_protocol = wiring::peers(&listener.proxy_protocol);
            public.extend(opened.sockets.into_iter().map(|socket| Listener {
                transport: transport.clone(),
                proxy_protocol: proxy_protocol.clone(),
                socket,
            }));
        }
        passed.all_are_taken().map_err(RelayError::PassedSockets)?;
        let admin = bind_admin(&config.admin.address).await?;
        if urls.len() > 1 {
            tracing::info!(urls = urls.join(" "), "listening on several addresses");
        }
        Ok(Self {
            public,
            admin,
            // `validate` has refused a relay that listens nowhere.
            base_url: urls.into_iter().next().unwrap_or_default(),
            files,
        })
    }
}

/// Opens the sockets of a valid address.
async fn open(config: &RelayConfig, address: &str, passed: &mut PassedSockets) -> io::Result<Opened> {
    match ListenAddress::parse(address).map_err(io::Error::other)? {
        ListenAddress::Tcp(address) => {
            let (listener, bound) = bind(address).await?;
            let sockets = vec![ListeningSocket::Tcp(listener)];
            Ok(Opened { sockets, location: bound.to_string(), files: SocketFiles::default() })
        }
        #[cfg(unix)]
        ListenAddress::Unix(path) => {
            // `validate` has refused other modes.
            let mode = config::socket_mode(&config.socket_mode).unwrap_or(0o600);
            let (listener, file) = SocketFile::listen(path, mode, LISTEN_BACKLOG.cast_signed())?;
            let sockets = vec![ListeningSocket::Unix(listener)];
            Ok(Opened { sockets, location: address.to_owned(), files: SocketFiles { files: vec![file] } })
        }
        #[cfg(not(unix))]
        ListenAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        ListenAddress::Systemd(name) => {
            let sockets = passed.take(name)?;
            let location = sockets.first().and_then(tcp_address).map(|bound| bound.to_string());
            Ok(Opened {
                sockets,
                location: location.unwrap_or_else(|| address.to_owned()),
                files: SocketFiles::default(),
            })
        }
    }
}

fn tcp_address(socket: &ListeningSocket) -> Option<SocketAddr> {
    match socket {
        ListeningSocket::Tcp(listener) => listener.local_addr().ok(),
        #[cfg(unix)]
        ListeningSocket::Unix(_) => None,
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
