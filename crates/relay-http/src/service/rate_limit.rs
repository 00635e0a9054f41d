//! The rate limit, before anything of a request but its head is read. It decides by the address of
//! the client, which it neither logs nor keeps longer than the limiter needs it.
//!
//! A client over its rate is slowed down before it is refused: its request waits in line for a
//! token, and a refusal is told only when that wait has been in vain. So a client that asks again
//! at once is slow as well. There are so many places in line and no more; a refusal that finds none
//! ends its connection. So whoever floods is slow, or has to connect again and again, which is
//! bounded as well.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use ipnet::IpNet;
use relay_core::Recipient;
use relay_ratelimit::{
    ByteRate, Connection, Decision, Endpoint as Bucket, Key, Level, Limiter, PairLimiter, Policy, Refusal,
    Reservation, SHARED_BUCKET, Wait,
};
use siphasher::sip::SipHasher13;
use tokio::time::{Instant, sleep};

use crate::api::endpoint::Endpoint;
use crate::connection::state::ConnectionState;
use crate::limits::addresses::{Address, AddressBook, network};
use crate::limits::admission::{Admission, Entry, WhyRefused};
use crate::limits::forwarded::client_address;
use crate::limits::waiting_line::{WaitingLine, WaitingPlace, WaitsFor};
use crate::monotonic;
use crate::options::RateLimit;

/// An address may push as much at once as in so many seconds.
const BYTE_BURST_SECONDS: NonZeroU64 = NonZeroU64::new(16).expect("16 is not zero");

/// Lets requests through, or not.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limiter: Limiter<Network>,
    recipients: Option<PairLimiter>,
    push: Bucket,
    pull: Bucket,
    ack: Bucket,
    max_wait: Duration,
    ipv6_prefix: u8,
    trusted_proxies: Vec<IpNet>,
    exempt: Vec<IpNet>,
    addresses: AddressBook,
    waiting: WaitingLine,
    has_warned_of_proxy: AtomicBool,
    keys: [u64; 2],
    origin: Instant,
}

/// Who sends a request, as far as limits go. The default is somebody without limits.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// None: it is exempt.
    address: Option<(Network, Address)>,
    /// It is the other end of the socket, and not behind a proxy.
    is_peer: bool,
}

/// An address, or a network that counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Tokens that a request waits for. When it goes away, it leaves them to others.
struct Reserved<'a> {
    guard: &'a RateLimiter,
    key: &'a Network,
    reservation: Option<Reservation>,
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    InFull,
    /// The client has hung up, or the relay drains.
    CutShort,
}

impl RateLimiter {
    /// A guard that has seen nobody yet.
    pub(crate) fn new(options: RateLimit, keys: [u64; 2], now: Instant) -> Self {
        let mut policy = Policy::new(options.burst, options.per_address_rps);
        policy.max_wait = options.max_wait;
        policy.ban = options.ban;
        policy.ban_threshold = options.ban_threshold;
        policy.tracked_keys_max = options.tracked_addresses_max;
        policy.bytes = options
            .push_bytes_per_second
            .map(|per_second| ByteRate { per_second, burst: per_second.saturating_mul(BYTE_BURST_SECONDS) });
        let push = policy.add_endpoint_with_bytes("push", options.push_rps);
        let pull = policy.add_endpoint("pull", options.pull_rps);
        let ack = policy.add_endpoint("ack", options.ack_rps);
        let recipients = options
            .push_per_recipient_rps
            .map(|rps| PairLimiter::new(rps, options.burst, options.tracked_addresses_max));
        Self {
            limiter: Limiter::new(policy),
            recipients,
            push,
            pull,
            ack,
            max_wait: options.max_wait,
            ipv6_prefix: options.ipv6_prefix,
            trusted_proxies: options.trusted_proxies,
            exempt: options.exempt,
            addresses: AddressBook::new(),
            waiting: WaitingLine::default(),
            has_warned_of_proxy: AtomicBool::new(false),
            keys,
            origin: now,
        }
    }

    /// Decides about a connection of this peer before anything of it is read.
    pub(crate) fn decide(&self, peer: IpAddr) -> Admission {
        let peer = peer.to_canonical();
        if self.is_exempt(&peer) || contains(&self.trusted_proxies, &peer) {
            return Admission::OPEN;
        }
        let key = self.network(peer);
        let closed = |why| Admission { entry: Entry::Closed(why), ..Admission::OPEN };
        let (entry, ban_began) = match self.limiter.connection(&key, self.since(monotonic::now())) {
            Connection::Serve => (Entry::Open, false),
            Connection::RefuseOnce(refusal) => (Entry::RefuseOnce, refusal.ban_began),
            Connection::Drop { banned: true } => return closed(WhyRefused::Ban),
            Connection::Drop { banned: false } => return closed(WhyRefused::Rate),
        };
        Admission { entry, address: Some(self.addresses.enter(key.address)), ban_began }
    }

    /// Who sends a request with these headers on this connection.
    pub(crate) fn client(&self, connection: &ConnectionState, headers: &HeaderMap) -> Client {
        let peer = connection.peer().ip().to_canonical();
        let address = client_address(peer, headers, &self.trusted_proxies);
        // A trusted proxy stands for others even where it does not say for whom.
        let is_peer = address == peer && !contains(&self.trusted_proxies, &peer);
        if is_peer {
            self.warn_of_proxy(headers);
        }
        if self.is_exempt(&address) {
            return Client::default();
        }
        let key = self.network(address);
        // The connection knows its own, unless it is a trusted proxy's.
        let known = connection.address().filter(|_| is_peer).cloned();
        let usage = known.unwrap_or_else(|| self.addresses.enter(key.address));
        Client { address: Some((key, usage)), is_peer }
    }

    /// Lets a request to `endpoint`, or to a path that there is not, through in its turn. Tells
    /// what is left to its client, if the endpoint is limited.
    ///
    /// # Errors
    /// Why it is refused, and until when.
    pub(crate) async fn admit(
        &self,
        endpoint: Option<Endpoint>,
        client: &Client,
        connection: &ConnectionState,
        drained: impl Future<Output = ()>,
    ) -> Result<Option<Level>, Refusal> {
        let Some((key, address)) = &client.address else { return Ok(None) };
        let now = self.since(monotonic::now());
        if connection.is_shut_out()
            && let Some(refusal) = self.limiter.is_banned(key, now)
        {
            connection.begin_end();
            return Err(refusal);
        }
        let bucket = match endpoint {
            Some(Endpoint::Health | Endpoint::Ready) => {
                if connection.address().is_some() {
                    self.slow_down_check(address, connection, drained).await;
                }
                return Ok(None);
            }
            Some(Endpoint::Push) => Some(self.push),
            Some(Endpoint::Pull) => Some(self.pull),
            Some(Endpoint::Ack) => Some(self.ack),
            Some(Endpoint::Stats | Endpoint::OpenApi) | None => None,
        };
        match self.limiter.check(key, bucket, now) {
            Decision::Allowed(level) => Ok(Some(level)),
            Decision::Wait(Wait { after, level, reservation }) => {
                let mut reserved = Reserved { guard: self, key, reservation: Some(reservation) };
                let Some(_place) = self.waiting.enter(address, WaitsFor::Turn) else {
                    client.end_if_peer(connection);
                    return Err(in_vain(&level, after));
                };
                match waited(after, connection, drained).await {
                    Waited::InFull => {
                        reserved.reservation = None;
                        Ok(Some(level))
                    }
                    Waited::CutShort => Err(in_vain(&level, after)),
                }
            }
            Decision::Refused(refusal) => {
                self.slow_down(&refusal, client, address, connection, drained).await;
                Err(refusal)
            }
        }
    }

    /// Lets a refused request wait, or its connection end: a peer that is shut out has no business
    /// here, and one that has no place in line asks more than it can be slowed down.
    async fn slow_down(
        &self,
        refusal: &Refusal,
        client: &Client,
        address: &Address,
        connection: &ConnectionState,
        drained: impl Future<Output = ()>,
    ) {
        let is_shut_out = refusal.banned && refusal.bucket == SHARED_BUCKET;
        if is_shut_out && client.is_peer {
            connection.begin_end();
        } else if self.max_wait.is_zero() && !refusal.banned {
            // Refusals at once are what the operator wants.
        } else if let Some(_place) = self.place_of_refusal(address) {
            waited(self.max_wait, connection, drained).await;
        } else {
            client.end_if_peer(connection);
        }
    }

    /// Whoever watches the relay is never refused, and never waits if it asks as seldom as that
    /// takes.
    async fn slow_down_check(
        &self,
        address: &Address,
        connection: &ConnectionState,
        drained: impl Future<Output = ()>,
    ) {
        let Some(wait) = connection.check_again_after(monotonic::now()) else { return };
        if wait <= self.max_wait
            && let Some(_place) = self.place_of_refusal(address)
        {
            waited(wait, connection, drained).await;
        } else {
            connection.begin_end();
        }
    }

    /// None as well where nobody waits.
    fn place_of_refusal<'a>(&'a self, address: &'a Address) -> Option<WaitingPlace<'a>> {
        if self.max_wait.is_zero() { None } else { self.waiting.enter(address, WaitsFor::Refusal) }
    }

    /// Who waits.
    pub(crate) fn waiting(&self) -> WaitingLine {
        self.waiting.clone()
    }

    /// Decides on a push to `recipient`, once it is known.
    ///
    /// # Errors
    /// Why it is refused, and until when.
    pub(crate) fn admit_push(&self, recipient: &Recipient, client: &Client) -> Result<(), Refusal> {
        let (Some(recipients), Some((key, _))) = (&self.recipients, &client.address) else { return Ok(()) };
        let recipient = self.hash(recipient.as_str().as_bytes());
        let sender = match key.address {
            IpAddr::V4(address) => self.hash(&address.octets()),
            IpAddr::V6(address) => self.hash(&address.octets()),
        };
        recipients.check(recipient, sender, self.since(monotonic::now()))
    }

    /// Counts bytes of a client's body as they arrive.
    pub(crate) fn arrived(&self, client: &Client, bytes: usize) {
        if let Some((key, _)) = &client.address {
            self.limiter.charge_bytes(key, bytes as u64, self.since(monotonic::now()));
        }
    }

    fn is_exempt(&self, address: &IpAddr) -> bool {
        contains(&self.exempt, address)
    }

    fn network(&self, address: IpAddr) -> Network {
        let prefix = if address.is_ipv4() { 32 } else { self.ipv6_prefix };
        Network { address: network(address, self.ipv6_prefix), prefix }
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let [first, second] = self.keys;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write(bytes);
        hasher.finish()
    }

    /// All users of a proxy that is not known as one count as one address, which their operator
    /// should hear of.
    fn warn_of_proxy(&self, headers: &HeaderMap) {
        if crate::limits::forwarded::is_forwarded(headers)
            && !self.has_warned_of_proxy.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "a proxy seems to stand before the relay: requests carry X-Forwarded-For or Forwarded and come from an address \
                 that rate_limit.trusted_proxies does not list, so all users of the proxy count as one; this is said once"
            );
        }
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }
}

impl Client {
    /// The address whose share of what is there counts, unless it is exempt.
    pub(crate) fn address(&self) -> Option<&Address> {
        self.address.as_ref().map(|(_, address)| address)
    }

    /// A proxy's connection is not its user's, and stays.
    fn end_if_peer(&self, connection: &ConnectionState) {
        if self.is_peer {
            connection.begin_end();
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.guard.limiter.give_back(self.key, reservation, self.guard.since(monotonic::now()));
        }
    }
}

/// The refusal of a request that could not wait to the end.
const fn in_vain(level: &Level, after: Duration) -> Refusal {
    let Level { bucket, quota, window_seconds, .. } = *level;
    Refusal { bucket, retry_after: after, banned: false, ban_began: false, quota, window_seconds }
}

async fn waited(after: Duration, connection: &ConnectionState, drained: impl Future<Output = ()>) -> Waited {
    tokio::select! {
        () = sleep(after) => Waited::InFull,
        () = connection.hung_up() => Waited::CutShort,
        () = drained => Waited::CutShort,
    }
}

impl Key for Network {
    /// Providers hand out networks of these sizes, so whoever has one child of them may well have
    /// all.
    fn parent(&self) -> Option<Self> {
        let prefix = [56, 48, 40, 32].into_iter().find(|wider| *wider < self.prefix)?;
        self.address.is_ipv6().then(|| Self { address: network(self.address, prefix), prefix })
    }

    fn neighbourhood(&self) -> u64 {
        match self.address {
            IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
            IpAddr::V6(address) => u64::try_from(address.to_bits() >> 88).unwrap_or(u64::MAX),
        }
    }
}

fn contains(networks: &[IpNet], address: &IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}
