//! What the caller of [`serve`](crate::serve) decides. Where the values come from is not known
//! here.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

use crate::api::cursor::CursorKey;
use crate::limits::cross_site::{AllowedHosts, Origin};
use crate::readiness::Readiness;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest payload of one item, in bytes. The limit of a request body follows from it.
    pub message_bytes_max: u64,
    /// The most bytes of bodies, payloads and pages in flight together. Who does not fit is told to
    /// come back before its body is read; one alone always fits.
    pub inflight_bytes_max: usize,
    /// The most connections. For a further one, that which has been quiet longest is closed; it
    /// waits while none is quiet.
    pub connections_max: NonZeroUsize,
    /// The most connections of one address, by the same rule; but a further one is closed while
    /// none is quiet. Trusted proxies and exempt networks of [`RateLimit`] are not bound by it.
    pub connections_per_address_max: NonZeroUsize,
    /// No connection gets older than this: it ends with an answer, or when it is quiet.
    pub connection_age_max: Duration,
    /// How long a request head may take to arrive, and then its body; and the grace that a client
    /// has for its answer, of which it has to take 8 KiB a second in the long run. A body that
    /// trickles is given up earlier.
    pub request_timeout: Duration,
    /// How long a connection may rest between two requests.
    pub keep_alive: Duration,
    /// How long requests in flight have to finish at a shutdown.
    pub drain: Duration,
    /// The rate limit; without one, nobody is limited.
    pub rate_limit: Option<RateLimit>,
    /// Whether `/stats` and `/openapi.json` are there for everybody.
    pub public_stats: bool,
    /// The key of the cursors. One that is kept, and given again at the next start, keeps the
    /// cursors good that clients have; [`CursorKey::random`] does for a store that ends with the
    /// process.
    pub cursor_key: CursorKey,
    /// What `/ready` tells, as long as the server does not drain.
    pub readiness: Readiness,
    /// By which names the relay may be called.
    pub allowed_hosts: AllowedHosts,
    /// Pages of which other sites may ask, in a browser.
    pub allowed_origins: Vec<Origin>,
}

/// How much each address may send.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Requests per second, `/health` and `/ready` apart.
    pub per_address_rps: NonZeroU32,
    /// How many requests may come at once after a rest; this holds for each of the limits.
    pub burst: NonZeroU32,
    /// Pushes per second.
    pub push_rps: NonZeroU32,
    /// Pulls per second.
    pub pull_rps: NonZeroU32,
    /// Acks per second.
    pub ack_rps: NonZeroU32,
    /// How long a request over its rate waits for its turn before it is refused; zero: it is
    /// refused at once.
    pub max_wait: Duration,
    /// Bytes of pushes per second; the pushes that follow wait for what was too much. None: no
    /// bound.
    pub push_bytes_per_second: Option<NonZeroU64>,
    /// Pushes per second to one recipient, from all addresses together; one address may use half of
    /// it. None: no bound.
    pub push_per_recipient_rps: Option<NonZeroU32>,
    /// How long a ban lasts; zero: nobody is banned.
    pub ban: Duration,
    /// How many seconds within a minute, each with more than four times the rate in it, lead to a
    /// ban.
    pub ban_threshold: NonZeroU32,
    /// How many leading bits of an IPv6 address count; the rest is one customer's.
    pub ipv6_prefix: u8,
    /// Whose `X-Forwarded-For` or `Forwarded` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Who has no limits of its own: no rate, no ban, no bound on connections, no share.
    pub exempt: Vec<IpNet>,
    /// How many addresses are remembered.
    pub tracked_addresses_max: NonZeroUsize,
}

/// What carries the requests.
#[derive(Clone)]
pub enum Transport {
    /// HTTP/1.1 over TCP.
    Plain,
    /// HTTP/1.1 or HTTP/2 over TLS, as the client chooses.
    #[cfg(feature = "tls")]
    Tls(crate::tls::Tls),
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
