//! The access log: one line for each request, when its response is sent or its client is gone. A
//! line never contains a recipient, a payload, a header, or a path that is not one of the relay's.

use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;

use actix_web::http::{Method, Version};
use tokio::time::Instant;

use crate::api::code::Code;
use crate::connection::state::ConnectionState;
use crate::limits::addresses::network;
use crate::limits::peer;
use crate::monotonic;
use crate::options::AccessAddresses;

/// The target of the lines, by which a filter of the log can select them.
const TARGET: &str = "relay_access";

/// The bits of an address that are shown when it is truncated.
const IPV4_BITS: u8 = 24;
const IPV6_BITS: u8 = 48;

/// What is known of one request.
pub(crate) struct Access {
    addresses: AccessAddresses,
    start: Instant,
    method: &'static str,
    version: Version,
    is_encrypted: bool,
    address: Cell<IpAddr>,
    id: Cell<u128>,
    path: Cell<&'static str>,
    status: Cell<Option<u16>>,
    code: Cell<Option<Code>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

/// An address as the log shows it.
#[derive(Clone, Copy)]
struct Shown(IpAddr, AccessAddresses);

impl Access {
    /// A request that begins now.
    pub(crate) fn begin(
        addresses: AccessAddresses,
        method: &Method,
        version: Version,
        connection: &ConnectionState,
    ) -> Box<Self> {
        Box::new(Self {
            addresses,
            start: monotonic::now(),
            method: known_method(method),
            version,
            is_encrypted: connection.is_encrypted(),
            address: Cell::new(connection.peer().ip()),
            id: Cell::new(0),
            path: Cell::new("other"),
            status: Cell::new(None),
            code: Cell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
        })
    }

    /// Notes who sends the request, if a proxy has said so, and its id in the log.
    pub(crate) fn identify(&self, address: IpAddr, id: u128) {
        self.address.set(address);
        self.id.set(id);
    }

    /// Notes the response. `path` is that of an endpoint.
    pub(crate) fn respond(&self, path: Option<&'static str>, status: u16, code: Option<Code>) {
        self.path.set(path.unwrap_or("other"));
        self.status.set(Some(status));
        self.code.set(code);
    }

    pub(crate) fn add_received(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get().saturating_add(bytes as u64));
    }

    pub(crate) fn add_sent(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get().saturating_add(bytes as u64));
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let duration = monotonic::now().saturating_duration_since(self.start);
        // Without a status, the client was gone before there was a response.
        let code = match (self.status.get(), self.code.get()) {
            (_, Some(code)) => code.as_str(),
            (Some(_), None) => "ok",
            (None, None) => "gone",
        };
        tracing::info!(
            target: TARGET,
            request = format_args!("{:032x}", self.id.get()),
            method = self.method,
            path = self.path.get(),
            status = self.status.get(),
            code,
            bytes_in = self.bytes_in.get(),
            bytes_out = self.bytes_out.get(),
            duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            version = version(self.version),
            tls = self.is_encrypted,
            address = %Shown(self.address.get(), self.addresses),
            "request"
        );
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0.to_canonical();
        if peer::is_unix(&address) {
            return f.write_str("unix");
        }
        match (self.1, address) {
            (AccessAddresses::Full, address) => address.fmt(f),
            (AccessAddresses::Truncated, IpAddr::V4(address)) => {
                let [a, b, c, _] = address.octets();
                write!(f, "{a}.{b}.{c}.0/{IPV4_BITS}")
            }
            (AccessAddresses::Truncated, address) => {
                write!(f, "{}/{IPV6_BITS}", network(address, IPV6_BITS))
            }
        }
    }
}

/// The name of a usual method. Others are chosen by the client.
fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_networks_or_in_full() {
        for (address, truncated, full) in [
            ("192.0.2.77", "192.0.2.0/24", "192.0.2.77"),
            ("::ffff:192.0.2.77", "192.0.2.0/24", "192.0.2.77"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48", "2001:db8:1:2:3:4:5:6"),
            ("0.0.0.0", "unix", "unix"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(Shown(address, AccessAddresses::Truncated).to_string(), truncated);
            assert_eq!(Shown(address, AccessAddresses::Full).to_string(), full);
        }
    }
}
