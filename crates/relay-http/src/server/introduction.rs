//! The begin of a connection from a proxy that speaks the PROXY protocol: the proxy names its
//! client, and the limits decide about that client as if it had connected itself.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::connection::proxy_header;
use crate::connection::state::ConnectionState;
use crate::connection::stream::Stream;
use crate::limits::admission::{Admission, Entry, WhyRefused};
use crate::metrics::Metrics;

/// What all connections from proxies share.
pub(super) struct Introductions {
    metrics: Arc<Metrics>,
    has_warned: AtomicBool,
}

impl Introductions {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, has_warned: AtomicBool::new(false) }
    }

    /// Reads the header, and asks `admit` about the client. Returns `None` if the connection is not
    /// served: it then ends without a response.
    pub(super) async fn introduce(
        &self,
        stream: &mut Box<dyn Stream>,
        connection: &ConnectionState,
        admit: impl Fn(IpAddr) -> Admission,
    ) -> Option<()> {
        let client = proxy_header::read(stream).await;
        let client = client.inspect_err(|error| self.warn_of_missing_header(error.kind())).ok()?;
        let peer = client.unwrap_or_else(|| connection.peer());
        let Admission { entry, address, ban_began } = admit(peer.ip());
        self.metrics.count_ban(ban_began);
        let refused = match entry {
            Entry::Open => None,
            Entry::RefuseOnce => Some(WhyRefused::Ban),
            Entry::Closed(why) => {
                self.metrics.connection_refused(why);
                return None;
            }
        };
        if address.is_some_and(|address| !connection.open().set_address(address)) {
            self.metrics.connection_refused(WhyRefused::Address);
            return None;
        }
        match refused {
            // It stays among those without a known client, and closes nobody's connection.
            Some(why) => self.metrics.connection_refused(why),
            None => connection.open().take_place().await,
        }
        connection.introduce(client, refused.is_some());
        Some(())
    }

    /// The proxy does not send what the operator has promised. Whoever only checks that the port is
    /// open ends the connection, which is no such error.
    fn warn_of_missing_header(&self, error: ErrorKind) {
        if error == ErrorKind::InvalidData && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a proxy of a network in proxy_protocol does not begin its connection with a PROXY header, so the relay does \
                 not serve it; this is logged once"
            );
        }
    }
}
