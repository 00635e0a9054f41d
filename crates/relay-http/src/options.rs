//! The options of [`serve`](crate::serve).

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use relay_core::{Clock, Limits};

use crate::api::cursor::CursorKey;
use crate::limits::cross_site::{AllowedHosts, Origin};
use crate::limits::peer::Peers;
use crate::liveness::Liveness;
use crate::readiness::Readiness;

/// The options of the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The limits of the relay behind this server. The limit of a request body follows from that of
    /// one payload, and clients learn the others.
    pub limits: Limits,
    /// The maximum payload of all items of a batch together, in bytes.
    pub batch_bytes_max: u64,
    /// The maximum bytes of bodies, payloads and pages in flight. A request that does not fit is
    /// refused with `overloaded` before its body is read. A single request always fits.
    pub inflight_bytes_max: usize,
    /// The maximum number of connections. To accept another one, the relay closes the connection
    /// that has been quiet longest. While none is quiet, the new one waits.
    pub connections_max: NonZeroUsize,
    /// The maximum number of connections of one address. To accept another one, the relay closes
    /// the one that has been quiet longest. While none is quiet, it closes the new one. Trusted
    /// proxies and exempt networks of [`RateLimit`] have no such limit.
    pub connections_per_address_max: NonZeroUsize,
    /// The maximum age of a connection. After that it ends with its next response, or when it is
    /// quiet.
    pub connection_age_max: Duration,
    /// How long a request head may take to arrive, and then its body. It is also the grace period
    /// before a client has to read its response at 8 KiB per second in the long run. A body that
    /// arrives very slowly is given up earlier.
    pub request_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    /// How long a pull of an empty queue may wait for an item. Zero allows no waiting.
    pub pull_wait_max: Duration,
    /// How long requests in flight may take to finish at a shutdown.
    pub drain: Duration,
    /// The rate limit; `None` for no limit.
    pub rate_limit: Option<RateLimit>,
    /// Whether the public listener serves `/stats` and `/openapi.json`.
    pub public_stats: bool,
    /// The key of cursors. The cursors of clients stay valid if the next start uses the same key.
    /// [`CursorKey::random`] is enough for a store that ends with the process.
    pub cursor_key: CursorKey,
    /// What `/ready` reports, unless the server is draining.
    pub readiness: Readiness,
    /// How each request is logged; `None` logs none.
    pub access_log: Option<AccessLog>,
    /// Gets the threads of the server.
    pub liveness: Liveness,
    /// The host names that requests may use, except on loopback.
    pub allowed_hosts: AllowedHosts,
    /// The host names that requests may use on TCP addresses that are loopback.
    pub loopback_hosts: AllowedHosts,
    /// The other sites whose web pages may send requests.
    pub allowed_origins: Vec<Origin>,
    /// Who may read and who may send.
    pub auth: Auth,
}

/// Who may read and who may send.
#[derive(Clone)]
pub struct Auth {
    /// The rules for names.
    pub settings: relay_auth::Settings,
    /// The clock that tokens are checked against.
    pub clock: Arc<dyn Clock>,
}

/// The access log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// How it shows the addresses of clients.
    pub addresses: AccessAddresses,
    /// The proxies whose `X-Forwarded-For` or `Forwarded` names the client.
    pub trusted_proxies: Peers,
}

/// How the access log shows the addresses of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessAddresses {
    /// As networks, /24 or /48.
    Truncated,
    /// As they are.
    Full,
}

/// How much each address may send.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Requests per second, not counting `/health` and `/ready`.
    pub per_address_rps: NonZeroU32,
    /// How many requests may arrive at once after a pause. Applies to each of the limits.
    pub burst: NonZeroU32,
    /// Pushes per second.
    pub push_rps: NonZeroU32,
    /// Pulls per second.
    pub pull_rps: NonZeroU32,
    /// Acks per second.
    pub ack_rps: NonZeroU32,
    /// Requests per second of a client that has proven a name, instead of by its address.
    pub per_name_rps: NonZeroU32,
    /// How many names of one address may count on their own at once. With 0, all requests count by
    /// their address.
    pub names_per_address: u32,
    /// How long a request over the limit may wait for its turn. Zero refuses it at once.
    pub max_wait: Duration,
    /// Bytes of pushes per second; `None` for no limit. Bytes over the limit delay the next pushes.
    pub push_bytes_per_second: Option<NonZeroU64>,
    /// Items in batches per second; `None` for no limit. Items over the limit delay the next
    /// pushes.
    pub push_items_per_second: Option<NonZeroU64>,
    /// Pushes per second to one recipient from all addresses; `None` for no limit. One address may
    /// use half of it.
    pub push_per_recipient_rps: Option<NonZeroU32>,
    /// How long a ban lasts. Zero disables bans.
    pub ban: Duration,
    /// An address is banned if it exceeds four times the rate in this many seconds of a minute.
    pub ban_threshold: NonZeroU32,
    /// How many leading bits of an IPv6 address count. The rest belongs to one customer.
    pub ipv6_prefix: u8,
    /// The proxies whose `X-Forwarded-For` or `Forwarded` is trusted.
    pub trusted_proxies: Peers,
    /// Networks without limits per address: no rate, ban, maximum of connections, or memory share.
    pub exempt: Vec<IpNet>,
    /// How many addresses the rate limit tracks.
    pub tracked_addresses_max: NonZeroUsize,
}

/// The transport below HTTP, over a socket.
#[derive(Clone)]
pub enum Transport {
    /// HTTP/1.1 in clear text.
    Plain,
    /// HTTP/1.1 or HTTP/2 over TLS, as the client chooses.
    #[cfg(feature = "tls")]
    Tls(crate::tls::Tls),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            #[cfg(feature = "tls")]
            Self::Tls(_) => "Tls",
        })
    }
}
