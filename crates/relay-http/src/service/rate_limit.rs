//! The rate limit, which applies before more than the head of a request is read. It decides by the
//! client's address, or by the name that the client has proven. It logs neither, and keeps them
//! only as long as the limiter needs them.
//!
//! A client over its rate is slowed down first: its request waits in line for a token. The relay
//! refuses the request only after that wait, so a client that retries at once is slow as well. The
//! line is bounded. A refusal that finds it full ends its connection, and new connections are
//! bounded too.

mod policies;
mod slow_down;

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use ipnet::IpNet;
use relay_auth::{Operation, Owner};
use relay_core::Recipient;
use relay_ratelimit::{
    Connection, Decision, Endpoint as Bucket, Level, Limiter, NameLimiter, PairLimiter, Refusal, Reservation,
    Wait,
};
use siphasher::sip::SipHasher13;
use tokio::time::Instant;

use crate::api::endpoint::Endpoint;
use crate::connection::state::ConnectionState;
use crate::limits::addresses::AddressBook;
use crate::limits::admission::{Admission, Entry, WhyRefused};
use crate::limits::forwarded::{client_address, is_forwarded};
use crate::limits::waiting_line::{WaitingLine, WaitsFor};
use crate::monotonic;
use crate::options::RateLimit;
use crate::service::client::{Client, Network};
use crate::service::rate_limit::policies::{Policies, of_recipients};
use crate::service::rate_limit::slow_down::wait;

/// The rate limits of all clients.
#[derive(Debug)]
pub(super) struct RateLimiter {
    options: RateLimit,
    limiter: Arc<Limiter<Network>>,
    names: Arc<NameLimiter>,
    recipients: Option<Arc<PairLimiter>>,
    push: Bucket,
    pull: Bucket,
    ack: Bucket,
    addresses: AddressBook,
    waiting: WaitingLine,
    has_warned_of_proxy: Arc<AtomicBool>,
    keys: [u64; 2],
    start: Instant,
}

/// The tokens that a request waits for. If the request ends early, other requests get them.
struct Reserved<'a> {
    rate_limiter: &'a RateLimiter,
    holder: Holder<'a>,
    reservation: Option<Reservation>,
}

/// Whose tokens a request uses.
#[derive(Clone, Copy)]
enum Holder<'a> {
    Address(&'a Network),
    /// The hash of a proven name.
    Name(u64),
}

impl RateLimiter {
    /// `waiting` is the line of requests that wait for this limit.
    pub(super) fn new(options: RateLimit, waiting: WaitingLine, keys: [u64; 2], start: Instant) -> Self {
        let Policies { addresses, names, push, pull, ack } = Policies::of(&options);
        Self {
            names: Arc::new(NameLimiter::new(names, &addresses, options.names_per_address)),
            limiter: Arc::new(Limiter::new(addresses)),
            recipients: options.push_per_recipient_rps.map(|rps| Arc::new(of_recipients(&options, rps))),
            push,
            pull,
            ack,
            addresses: AddressBook::new(),
            waiting,
            has_warned_of_proxy: Arc::default(),
            keys,
            start,
            options,
        }
    }

    /// The same clients under other options, from now on also for requests that this limiter
    /// decides. What they have used and their bans stay, within the bounds of the new options. The
    /// number of tracked addresses and the prefix of IPv6 stay as they are.
    pub(super) fn reloaded(&self, options: RateLimit) -> Self {
        let options = RateLimit {
            ipv6_prefix: self.options.ipv6_prefix,
            tracked_addresses_max: self.options.tracked_addresses_max,
            ..options
        };
        let now = self.since_start();
        let Policies { addresses, names, push, pull, ack } = Policies::of(&options);
        self.names.set_policy(names, &addresses, options.names_per_address, now);
        self.limiter.set_policy(addresses, now);
        let recipients = options.push_per_recipient_rps.map(|rps| match &self.recipients {
            Some(recipients) => {
                recipients.set_rate(rps, options.burst, now);
                Arc::clone(recipients)
            }
            None => Arc::new(of_recipients(&options, rps)),
        });
        Self {
            options,
            limiter: Arc::clone(&self.limiter),
            names: Arc::clone(&self.names),
            recipients,
            push,
            pull,
            ack,
            addresses: self.addresses.clone(),
            waiting: self.waiting.clone(),
            has_warned_of_proxy: Arc::clone(&self.has_warned_of_proxy),
            ..*self
        }
    }

    /// Decides whether a new connection of `peer` is served.
    pub(super) fn admit_connection(&self, peer: IpAddr) -> Admission {
        let peer = peer.to_canonical();
        if contains(&self.options.exempt, &peer) || self.trusts(&peer) {
            return Admission::OPEN;
        }
        let key = Network::new(peer, self.options.ipv6_prefix);
        let now = self.since_start();
        let closed = |why| Admission { entry: Entry::Closed(why), ..Admission::OPEN };
        let (entry, ban_began) = match self.limiter.connection(&key, now) {
            Connection::Serve => (Entry::Open, false),
            Connection::RefuseOnce(refusal) => (Entry::RefuseOnce, refusal.ban_began),
            Connection::Drop { banned: true } => return closed(WhyRefused::Ban),
            Connection::Drop { banned: false } => return closed(WhyRefused::Rate),
        };
        Admission { entry, address: Some(self.addresses.enter(key.address())), ban_began }
    }

    /// Whether `peer` is a trusted proxy.
    pub(super) fn trusts(&self, peer: &IpAddr) -> bool {
        self.options.trusted_proxies.contain(peer)
    }

    /// The sender of a request with these headers on this connection.
    pub(super) fn client(&self, connection: &ConnectionState, headers: &HeaderMap) -> Client {
        let peer = connection.peer().ip().to_canonical();
        let address = client_address(peer, headers, &self.options.trusted_proxies);
        // A trusted proxy is not a client, even if its request names none.
        let is_peer = address == peer && !self.trusts(&peer);
        if is_peer {
            self.warn_about_proxy(headers);
        }
        if contains(&self.options.exempt, &address) {
            return Client::default();
        }
        let key = Network::new(address, self.options.ipv6_prefix);
        // A connection has the address of its peer, unless that is a trusted proxy.
        let known = connection.address().filter(|_| is_peer).cloned();
        let address = known.unwrap_or_else(|| self.addresses.enter(key.address()));
        Client { address: Some((key, address)), is_peer, ..Client::default() }
    }

    /// Waits until the request may proceed. Returns the remaining quota of the client, if the
    /// endpoint is limited. The request counts by the `owner` of its proof, if there is one that
    /// the address has introduced.
    ///
    /// # Errors
    /// The refusal, if the request exceeds a limit or `drained` resolves first.
    pub(super) async fn admit(
        &self,
        endpoint: Option<Endpoint>,
        client: &Client,
        owner: Option<Owner>,
        connection: &ConnectionState,
        drained: impl Future<Output = ()>,
    ) -> Result<Option<Level>, Refusal> {
        let Some((key, address)) = &client.address else { return Ok(None) };
        let now = self.since_start();
        if connection.is_shut_out()
            && let Some(refusal) = self.limiter.is_banned(key, now)
        {
            connection.begin_end();
            return Err(refusal);
        }
        if let Some(Endpoint::Health | Endpoint::Ready) = endpoint {
            self.slow_down_uncounted(address, connection, drained).await;
            return Ok(None);
        }
        let bucket = endpoint.and_then(Endpoint::operation).map(|operation| self.bucket(operation));
        let (decision, holder) = self.decide(bucket, key, owner, now);
        match decision {
            Decision::Allowed(level) => Ok(Some(level)),
            Decision::Wait(Wait { after, level, reservation }) => {
                let mut reserved = Reserved { rate_limiter: self, holder, reservation: Some(reservation) };
                let Some(_place) = self.waiting.enter(address, WaitsFor::Turn) else {
                    client.end_if_peer(connection);
                    return Err(refusal_of_wait(&level, after));
                };
                if !wait(after, connection, drained).await {
                    return Err(refusal_of_wait(&level, after));
                }
                reserved.reservation = None;
                Ok(Some(level))
            }
            Decision::Refused(refusal) => {
                self.slow_down(&refusal, client, address, connection, drained).await;
                Err(refusal)
            }
        }
    }

    const fn bucket(&self, operation: Operation) -> Bucket {
        match operation {
            Operation::Push => self.push,
            Operation::Pull => self.pull,
            Operation::Ack => self.ack,
        }
    }

    /// Decides by the name if possible, else by the address.
    fn decide<'a>(
        &self,
        bucket: Option<Bucket>,
        key: &'a Network,
        owner: Option<Owner>,
        now: Duration,
    ) -> (Decision, Holder<'a>) {
        if let (Some(owner), Some(endpoint)) = (owner, bucket)
            && self.limiter.is_clear(key, endpoint, now)
        {
            let name = self.hash(owner.as_bytes());
            if let Some(decision) = self.names.check(self.hash_network(key), name, now) {
                return (decision, Holder::Name(name));
            }
        }
        (self.limiter.check(key, bucket, now), Holder::Address(key))
    }

    /// Takes the tokens of a pull for a page that a stream reads by itself.
    ///
    /// # Errors
    /// When to ask again, if there are none.
    pub(super) fn take_for_page(&self, client: &Client, owner: Option<&Owner>) -> Result<(), Duration> {
        let Some(key) = client.network() else { return Ok(()) };
        let now = self.since_start();
        let by_name = owner
            .filter(|_| self.limiter.is_clear(key, self.pull, now))
            .and_then(|owner| self.names.try_take(self.hash_network(key), self.hash(owner.as_bytes()), now));
        by_name.unwrap_or_else(|| self.limiter.try_take(key, Some(self.pull), now))
    }

    /// Lets later requests of a client count by the owner of its proof.
    pub(super) fn introduce(&self, client: &Client, owner: &Owner) {
        if let Some(key) = client.network() {
            self.names.introduce(self.hash_network(key), self.hash(owner.as_bytes()), self.since_start());
        }
    }

    /// Counts a request whose proof was wrong like a refusal, and the next ones with this proof by
    /// the address. Returns whether that begins a ban.
    pub(super) fn count_wrong_proof(
        &self,
        operation: Operation,
        client: &Client,
        owner: Option<&Owner>,
    ) -> bool {
        let Some(key) = client.network() else { return false };
        if let Some(owner) = owner {
            self.names.withdraw(self.hash_network(key), self.hash(owner.as_bytes()));
        }
        self.limiter.count_refusal(key, self.bucket(operation), self.since_start())
    }

    /// Applies the limit of pushes to one recipient.
    ///
    /// # Errors
    /// The refusal, if the push exceeds the limit.
    pub(super) fn admit_push(&self, recipient: &Recipient, client: &Client) -> Result<(), Refusal> {
        let (Some(recipients), Some((key, _))) = (&self.recipients, &client.address) else { return Ok(()) };
        let recipient = self.hash(recipient.as_str().as_bytes());
        recipients.check(recipient, self.hash_network(key), self.since_start())
    }

    /// Counts bytes of a client's body as they arrive.
    pub(super) fn charge_bytes(&self, client: &Client, bytes: usize) {
        if let Some((key, _)) = &client.address {
            self.limiter.charge_bytes(key, bytes as u64, self.since_start());
        }
    }

    /// Counts the items of a client's batch.
    pub(super) fn charge_items(&self, client: &Client, items: usize) {
        if let Some((key, _)) = &client.address {
            self.limiter.charge_items(key, items as u64, self.since_start());
        }
    }

    fn hash_network(&self, network: &Network) -> u64 {
        match network.address() {
            IpAddr::V4(address) => self.hash(&address.octets()),
            IpAddr::V6(address) => self.hash(&address.octets()),
        }
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let [first, second] = self.keys;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write(bytes);
        hasher.finish()
    }

    /// All users of an unknown proxy count as one address, so the operator should know.
    fn warn_about_proxy(&self, headers: &HeaderMap) {
        if is_forwarded(headers) && !self.has_warned_of_proxy.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a proxy seems to forward requests: they carry X-Forwarded-For or Forwarded and come from an address that \
                 rate_limit.trusted_proxies does not list, so all users of the proxy count as one; this is logged once"
            );
        }
    }

    fn since_start(&self) -> Duration {
        monotonic::now().saturating_duration_since(self.start)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            let RateLimiter { limiter, names, .. } = self.rate_limiter;
            let now = self.rate_limiter.since_start();
            match self.holder {
                Holder::Address(key) => limiter.give_back(key, reservation, now),
                Holder::Name(name) => names.give_back(name, reservation, now),
            }
        }
    }
}

/// The refusal of a request that did not wait to the end.
const fn refusal_of_wait(level: &Level, after: Duration) -> Refusal {
    let Level { bucket, quota, window_seconds, .. } = *level;
    Refusal { bucket, retry_after: after, banned: false, ban_began: false, quota, window_seconds }
}

fn contains(networks: &[IpNet], address: &IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}
