//! What the relay can listen on: `host:port`, `unix:` and a path, or `systemd:` and the name of a
//! socket that the service manager passes. It resolves no host name and opens nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::value;

/// A valid address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress<'a> {
    /// `ip:port`, `[ipv6]:port` or `name:port`.
    Tcp(&'a str),
    /// The absolute path of a socket.
    Unix(&'a Path),
    /// The name of a socket of the service manager, `FileDescriptorName` of systemd.
    Systemd(&'a str),
}

/// The longest path of a Unix socket, in bytes. The system allows 107, and the relay needs some for
/// the name that a socket has before it listens.
const SOCKET_PATH_BYTES_MAX: usize = 90;

/// The longest name of a socket that systemd passes, in bytes.
const NAME_BYTES_MAX: usize = 255;

impl<'a> ListenAddress<'a> {
    /// # Errors
    /// Why this is no valid address.
    pub(crate) fn parse(address: &'a str) -> Result<Self, String> {
        if let Some(path) = address.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        if let Some(name) = address.strip_prefix("systemd:") {
            return socket_name(name).map(Self::Systemd);
        }
        check_host_and_port(address).map(|()| Self::Tcp(address))
    }

    /// Whether no other machine can connect. Names other than localhost may be any address.
    pub(super) fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => is_loopback(address),
            Self::Unix(_) => true,
            Self::Systemd(_) => false,
        }
    }
}

/// Checks that a bind can resolve an address: `ip:port`, `[ipv6]:port` or `name:port`.
pub(super) fn check_host_and_port(address: &str) -> Result<(), String> {
    const SHAPE: &str = "must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000";
    if address.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let refuse = |why: &str| Err(format!("{SHAPE}; {} {why}", value::quoted(address)));
    if address.is_empty() {
        return Err(format!("{SHAPE}; it is empty"));
    }
    if address.contains("://") {
        return refuse("is a URL");
    }
    let Some((host, port)) = address.rsplit_once(':') else { return refuse("has no port") };
    if host.contains(':') {
        return refuse("is not an IPv6 address in brackets with a port");
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return refuse("has no port from 0 to 65535");
    }
    if !is_host_name(host) {
        return refuse("has no valid host name or IP address");
    }
    Ok(())
}

/// This does not resolve host names. Other names than localhost may be any address.
pub(super) fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().to_canonical().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host.eq_ignore_ascii_case("localhost")),
    }
}

/// The permissions of a socket in octal digits, such as `0660`.
pub(crate) fn socket_mode(text: &str) -> Option<u32> {
    const DIGITS: std::ops::RangeInclusive<usize> = 3..=4;
    let is_octal = text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal && DIGITS.contains(&text.len()));
    mode.filter(|mode| *mode <= 0o777)
}

fn socket_path(text: &str) -> Result<&Path, String> {
    let path = Path::new(text);
    let refuse =
        |why: String| Err(format!("must be unix: and an absolute path; {} {why}", value::quoted(text)));
    if cfg!(not(unix)) {
        return refuse("needs Unix sockets, which this system lacks".to_owned());
    }
    if !path.is_absolute() || path.file_name().is_none() || text.ends_with('/') {
        return refuse("is not the absolute path of a socket".to_owned());
    }
    if text.contains('\0') {
        return refuse("contains a NUL character".to_owned());
    }
    if text.len() > SOCKET_PATH_BYTES_MAX {
        return refuse(format!(
            "has {} bytes, and a Unix socket may have {SOCKET_PATH_BYTES_MAX} here",
            text.len()
        ));
    }
    Ok(path)
}

/// A name that systemd allows: printable ASCII without colons.
fn socket_name(name: &str) -> Result<&str, String> {
    let is_valid = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_valid {
        return Err(format!(
            "must be systemd: and the name of a socket (FileDescriptorName=, or the name of its unit, such as relay.socket); {} is none",
            value::quoted(name)
        ));
    }
    Ok(name)
}

/// Whether this is a valid host name. A name that ends in a number has to be an IPv4 address.
fn is_host_name(host: &str) -> bool {
    const NAME_BYTES_MAX: usize = 253;
    let is_valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let last = host.rsplit('.').next().unwrap_or(host);
    let is_number = last.bytes().all(|b| b.is_ascii_digit());
    host.len() <= NAME_BYTES_MAX
        && host.split('.').all(|label| !label.is_empty() && label.bytes().all(is_valid))
        && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_a_path_or_a_name() {
        for (text, expected, is_local) in [
            ("127.0.0.1:7000", ListenAddress::Tcp("127.0.0.1:7000"), true),
            ("[::]:7000", ListenAddress::Tcp("[::]:7000"), false),
            ("unix:1", ListenAddress::Tcp("unix:1"), false),
            ("unix:/run/relay/relay.sock", ListenAddress::Unix(Path::new("/run/relay/relay.sock")), true),
            ("systemd:relay.socket", ListenAddress::Systemd("relay.socket"), false),
        ] {
            let parsed = ListenAddress::parse(text);
            if text == "unix:1" {
                assert!(parsed.is_err(), "the prefix decides");
                continue;
            }
            assert_eq!(parsed, Ok(expected), "{text}");
            assert_eq!(expected.is_local(), is_local, "{text}");
        }
    }

    #[test]
    fn what_no_socket_can_have_is_refused() {
        let longest = format!("unix:/{}", "x".repeat(SOCKET_PATH_BYTES_MAX - 1));
        assert!(ListenAddress::parse(&longest).is_ok());
        for (text, why) in [
            (format!("{longest}x").as_str(), "has 91 bytes, and a Unix socket may have 90"),
            ("unix:", "is not the absolute path of a socket"),
            ("unix:relay.sock", "is not the absolute path of a socket"),
            ("unix:/", "is not the absolute path of a socket"),
            ("unix:/run/", "is not the absolute path of a socket"),
            ("unix:/run/..", "is not the absolute path of a socket"),
            ("unix:/a\0b", "contains a NUL character"),
            ("systemd:", "must be systemd: and the name of a socket"),
            ("systemd:a:b", "must be systemd: and the name of a socket"),
            ("systemd:a b", "must be systemd: and the name of a socket"),
        ] {
            let refusal = ListenAddress::parse(text).unwrap_err();
            assert!(refusal.contains(why), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_mode_is_octal_permissions() {
        for (text, mode) in [("0660", Some(0o660)), ("600", Some(0o600)), ("0777", Some(0o777))] {
            assert_eq!(socket_mode(text), mode, "{text}");
        }
        for text in ["", "7", "66", "0x1b", "+660", "1777", "0668", "rw-rw----", "00660"] {
            assert_eq!(socket_mode(text), None, "{text}");
        }
    }
}
