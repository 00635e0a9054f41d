//! `relay-bin health`: asks the relay of this configuration whether it works, or whether it is
//! ready. For health checks of containers and scripts, which need no HTTP client for it.
//!
//! It asks the admin address if there is one, because clients cannot use up its connections.
//! Otherwise it asks where clients connect.

#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use relay_core::excerpt;

use crate::config::{ListenAddress, ListenConfig, Mode, RelayConfig};

/// How long the whole check may take. Health checks of containers usually wait a bit longer.
const TIMEOUT: Duration = Duration::from_millis(2500);

/// How much of a response is read.
const RESPONSE_BYTES_MAX: u64 = 8 * 1024;

/// How many bytes of an unexpected response are repeated.
const EXCERPT_BYTES_MAX: usize = 200;

/// What `health` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct HealthArgs {
    /// Ask whether the relay is ready for requests (/ready), not only whether it serves (/health)
    #[arg(long)]
    pub ready: bool,
}

/// Why the relay is not healthy, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HealthError {
    /// The configuration does not say where the relay listens.
    #[error("cannot ask the relay: {0}; set admin.address to an address with a port")]
    Unknown(String),
    /// There is no response.
    #[error("no answer from {0}: {1}")]
    NoAnswer(Target, io::Error),
    /// The response is not 200.
    #[error("{0} answered {1}")]
    Unhealthy(Target, String),
}

/// Where the relay is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// HTTP in clear text.
    Http(String),
    /// HTTPS, with whatever certificate.
    Https(String),
    /// HTTP over a Unix socket.
    Unix(PathBuf),
}

/// Returns a line about a relay that is healthy, or ready.
///
/// # Errors
/// Why it is not.
pub(crate) fn check(args: HealthArgs, config: &RelayConfig) -> Result<String, HealthError> {
    let target = Target::of(config)?;
    let path = if args.ready { "/ready" } else { "/health" };
    // The thread ends with the process, however long its peer takes.
    let (sender, answer) = mpsc::sync_channel(1);
    let asked = target.clone();
    std::thread::spawn(move || sender.send(ask(&asked, path)));
    let failed = |error| HealthError::NoAnswer(target.clone(), error);
    let timed_out = |_| failed(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
    let response = answer.recv_timeout(TIMEOUT).map_err(timed_out)?.map_err(failed)?;
    match status(&response) {
        Some("200") => Ok(format!("{target} answered 200 to {path}")),
        _ => Err(HealthError::Unhealthy(target, summary(&response))),
    }
}

impl Target {
    fn of(config: &RelayConfig) -> Result<Self, HealthError> {
        if !config.admin.address.is_empty() && has_port(&config.admin.address) {
            return Ok(Self::Http(config.admin.address.clone()));
        }
        let unknown = |why: &str| Err(HealthError::Unknown(why.to_owned()));
        let Some(ListenConfig { address, mode, proxy_protocol, tls }) = config.listeners().into_iter().next()
        else {
            return unknown("it listens nowhere");
        };
        if !proxy_protocol.is_empty() {
            return unknown("it may expect a PROXY header");
        }
        match ListenAddress::parse(&address) {
            Ok(ListenAddress::Unix(_)) if mode == Mode::Tls => unknown("its Unix socket has TLS"),
            Ok(ListenAddress::Unix(path)) => Ok(Self::Unix(path.to_owned())),
            Ok(ListenAddress::Tcp(address)) if !has_port(address) => unknown("the system chooses its port"),
            Ok(ListenAddress::Tcp(address)) => match (mode, tls) {
                (Mode::Tls, Some(tls)) if tls.client_ca_pem_path.is_some() => {
                    unknown("it requires certificates of its clients")
                }
                (Mode::Tls, Some(_)) => Ok(Self::Https(address.to_owned())),
                (Mode::Http, _) | (Mode::Tls, None) => Ok(Self::Http(address.to_owned())),
            },
            Ok(ListenAddress::Systemd(_)) => unknown("the service manager chooses its address"),
            // The configuration was checked.
            Err(why) => unknown(&why),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Https(address) => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether the port is known.
fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(_, port)| port.parse().is_ok_and(|port: u16| port != 0))
}

/// The first bytes of the response.
fn ask(target: &Target, path: &str) -> io::Result<Vec<u8>> {
    match target {
        Target::Http(address) => exchange(connect(address)?, path),
        #[cfg(feature = "tls")]
        Target::Https(address) => exchange(tls::connect(connect(address)?)?, path),
        #[cfg(not(feature = "tls"))]
        Target::Https(..) => Err(io::ErrorKind::Unsupported.into()),
        Target::Unix(path_of_socket) => ask_socket(path_of_socket, path),
    }
}

#[cfg(unix)]
fn ask_socket(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    exchange(UnixStream::connect(socket)?, path)
}

#[cfg(not(unix))]
fn ask_socket(_: &Path, _: &str) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.map(reachable).collect();
    TcpStream::connect(&*addresses)
}

/// Nobody can connect to a wildcard address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Sends one request, and returns the first bytes of its response.
fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<Vec<u8>> {
    // Every relay allows this host name.
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut response = Vec::new();
    match stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut response) {
        // An end without a notice, or a reset after a response, loses nothing.
        Err(error) if response.is_empty() => Err(error),
        _ if response.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(response),
    }
}

/// The status of a response of HTTP/1.1.
fn status(response: &[u8]) -> Option<&str> {
    let line = response.strip_prefix(b"HTTP/1.1 ")?;
    let status = line.get(..3).filter(|_| line.get(3) == Some(&b' '))?;
    str::from_utf8(status).ok()
}

/// The status line and the body of a response on one line.
fn summary(response: &[u8]) -> String {
    if status(response).is_none() {
        return "something that is not HTTP/1.1".to_owned();
    }
    let text = String::from_utf8_lossy(response);
    let line = text.lines().next().unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let line = format!("{} {body}", line.trim_start_matches("HTTP/1.1 "));
    excerpt(&line.replace(char::is_control, " ").trim(), EXCERPT_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::TlsConfig;

    fn target(address: &str, admin: &str, tls: Option<TlsConfig>) -> Result<Target, String> {
        let mut config = RelayConfig { address: address.to_owned(), ..RelayConfig::default() };
        config.admin.address = admin.to_owned();
        config.mode = if tls.is_some() { Mode::Tls } else { Mode::Http };
        config.tls = tls;
        Target::of(&config).map_err(|error| error.to_string())
    }

    fn certificate(client_ca: Option<&str>) -> Option<TlsConfig> {
        Some(TlsConfig {
            cert_pem_path: "cert.pem".into(),
            key_pem_path: "key.pem".into(),
            client_ca_pem_path: client_ca.map(Into::into),
            client_crl_pem_path: None,
        })
    }

    #[test]
    fn the_admin_address_comes_first() {
        let http = |address: &str| Ok(Target::Http(address.to_owned()));
        let https = || Ok(Target::Https("[::]:443".to_owned()));
        assert_eq!(target("[::]:443", "0.0.0.0:7001", certificate(None)), http("0.0.0.0:7001"));
        assert_eq!(target("[::]:443", "", certificate(None)), https());
        assert_eq!(target("[::]:443", "127.0.0.1:0", certificate(None)), https());
        assert_eq!(target("localhost:80", "", None), http("localhost:80"));
        assert_eq!(target("unix:/run/relay.sock", "", None), Ok(Target::Unix("/run/relay.sock".into())));
    }

    #[test]
    fn what_the_configuration_does_not_say_is_an_error() {
        for (address, tls, why) in [
            ("127.0.0.1:0", None, "the system chooses its port"),
            ("systemd:relay.socket", None, "the service manager chooses its address"),
            ("127.0.0.1:443", certificate(Some("ca.pem")), "it requires certificates of its clients"),
            ("unix:/run/relay.sock", certificate(None), "its Unix socket has TLS"),
            ("", None, "it listens nowhere"),
        ] {
            let expected =
                format!("cannot ask the relay: {why}; set admin.address to an address with a port");
            assert_eq!(target(address, "", tls), Err(expected));
        }
    }

    #[test]
    fn wildcard_addresses_are_asked_on_loopback() {
        for (bound, asked) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("192.0.2.1:3", "192.0.2.1:3"),
            ("[2001:db8::1]:4", "[2001:db8::1]:4"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn a_response_is_one_line() {
        for (response, expected) in [
            (
                "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{\"x\":1}\n",
                "503 Service Unavailable {\"x\":1}",
            ),
            ("HTTP/1.1 404 \r\n\r\na\r\n\x1b[31mb", "404  a   [31mb"),
            ("HTTP/1.1 2000\r\n\r\n", "something that is not HTTP/1.1"),
            ("SSH-2.0-OpenSSH_9.2p1\r\n", "something that is not HTTP/1.1"),
            ("HTTP/1.1 500", "something that is not HTTP/1.1"),
        ] {
            assert_eq!(summary(response.as_bytes()), expected);
        }
        let long = format!("HTTP/1.1 500 {}", "é".repeat(5000));
        assert!(summary(long.as_bytes()).len() <= EXCERPT_BYTES_MAX + 3);
    }
}
