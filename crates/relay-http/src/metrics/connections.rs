//! Counts connections by their protocol, and TLS handshakes by their outcome. It does not count
//! connections that the relay refuses, nor those that have not finished their handshake.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Label;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1 in clear text.
    Http1,
    #[cfg(feature = "tls")]
    Http1OverTls,
    /// HTTP/2, which is over TLS.
    #[cfg(feature = "tls")]
    Http2,
}

/// The counts of one relay.
#[derive(Debug)]
pub(crate) struct ConnectionCounts {
    /// By `protocol`.
    pub(super) by_protocol: Family<[Label; 1], Gauge>,
    /// By `outcome`.
    pub(super) handshakes: Family<[Label; 1], Counter>,
    /// The members of both, so that a connection need not look them up.
    open: [Gauge; 3],
    succeeded: Counter,
    failed: Counter,
}

/// A connection that counts as open until this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct CountedConnection(Gauge);

impl Default for ConnectionCounts {
    fn default() -> Self {
        let by_protocol = Family::<[Label; 1], Gauge>::default();
        let handshakes = Family::<[Label; 1], Counter>::default();
        let open = ["http1", "http1_tls", "http2"]
            .map(|protocol| by_protocol.get_or_create_owned(&[("protocol", protocol)]));
        let [succeeded, failed] =
            ["ok", "failed"].map(|outcome| handshakes.get_or_create_owned(&[("outcome", outcome)]));
        Self { by_protocol, handshakes, open, succeeded, failed }
    }
}

impl ConnectionCounts {
    /// Counts a connection that can send requests from now on.
    pub(crate) fn opened(&self, protocol: Protocol) -> CountedConnection {
        if protocol.is_over_tls() {
            self.succeeded.inc();
        }
        let gauge = self.open.get(protocol as usize).expect("there is a gauge for each protocol");
        gauge.inc();
        CountedConnection(gauge.clone())
    }

    /// Counts a handshake that failed.
    pub(crate) fn handshake_failed(&self) {
        self.failed.inc();
    }
}

impl Protocol {
    fn is_over_tls(self) -> bool {
        self != Self::Http1
    }

    /// Whether it is HTTP/2.
    pub(crate) const fn is_http2(self) -> bool {
        match self {
            Self::Http1 => false,
            #[cfg(feature = "tls")]
            Self::Http1OverTls => false,
            #[cfg(feature = "tls")]
            Self::Http2 => true,
        }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
