//! The rate limit, before anything of a request but its head is read. It decides by the address of the client, which it
//! neither logs nor keeps longer than the limiter needs it.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::http::header::HeaderMap;
use relay_ratelimit::{Decision, Endpoint as Bucket, Limiter, Policy, Refusal};
use tokio::time::Instant;

use crate::forwarded::client_address;
use crate::options::RateLimit;
use crate::route::Endpoint;

/// Lets requests through, or not.
#[derive(Debug)]
pub(crate) struct Guard {
    limiter: Limiter<IpAddr>,
    push: Bucket,
    pull: Bucket,
    ack: Bucket,
    ipv6_prefix: u8,
    trusted_proxies: Vec<ipnet::IpNet>,
    origin: Instant,
}

impl Guard {
    /// A guard that has seen nobody yet.
    pub(crate) fn new(options: RateLimit, now: Instant) -> Self {
        let mut policy = Policy::new(options.burst, options.per_address_rps);
        policy.ban = options.ban;
        policy.ban_threshold = options.ban_threshold;
        policy.tracked_keys_max = options.tracked_addresses_max;
        let push = policy.add_endpoint("push", options.push_rps);
        let pull = policy.add_endpoint("pull", options.pull_rps);
        let ack = policy.add_endpoint("ack", options.ack_rps);
        let limiter = Limiter::new(policy);
        let RateLimit { ipv6_prefix, trusted_proxies, .. } = options;
        Self { limiter, push, pull, ack, ipv6_prefix, trusted_proxies, origin: now }
    }

    /// Decides on a request to `endpoint`, or to a path that there is not.
    ///
    /// # Errors
    /// Why it is refused, and until when.
    pub(crate) fn check(
        &self,
        endpoint: Option<Endpoint>,
        peer: IpAddr,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<(), Refusal> {
        let bucket = match endpoint {
            Some(Endpoint::Health | Endpoint::Ready) => return Ok(()),
            Some(Endpoint::Push) => Some(self.push),
            Some(Endpoint::Pull) => Some(self.pull),
            Some(Endpoint::Ack) => Some(self.ack),
            Some(Endpoint::Stats | Endpoint::OpenApi) | None => None,
        };
        let key = mask(client_address(peer, headers, &self.trusted_proxies), self.ipv6_prefix);
        match self.limiter.check(&key, bucket, now.saturating_duration_since(self.origin)) {
            Decision::Allowed => Ok(()),
            Decision::Refused(refusal) => Err(refusal),
        }
    }
}

/// One customer usually has a whole IPv6 network, so all of it counts as one.
fn mask(address: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let host_bits = 128_u32.saturating_sub(u32::from(ipv6_prefix));
            let network = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};
    use std::time::Duration;

    use super::*;
    use crate::monotonic;

    const fn positive(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn guard(burst: u32, per_address_rps: u32) -> (Guard, Instant) {
        let options = RateLimit {
            per_address_rps: positive(per_address_rps),
            burst: positive(burst),
            push_rps: positive(1),
            pull_rps: positive(1),
            ack_rps: positive(1),
            ban: Duration::ZERO,
            ban_threshold: positive(20),
            ipv6_prefix: 64,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            tracked_addresses_max: NonZeroUsize::new(10).unwrap(),
        };
        let now = monotonic::now();
        (Guard::new(options, now), now)
    }

    fn bucket_of(result: Result<(), Refusal>) -> Option<&'static str> {
        result.err().map(|refusal| refusal.bucket)
    }

    #[test]
    fn an_endpoint_has_a_bucket_of_its_own_beside_the_shared_one() {
        let (guard, start) = guard(2, 1000);
        let check = |endpoint, ms| {
            let now = start + Duration::from_millis(ms);
            bucket_of(guard.check(endpoint, [192, 0, 2, 1].into(), &HeaderMap::new(), now))
        };
        for (endpoint, ms) in [(Endpoint::Push, 0), (Endpoint::Pull, 100), (Endpoint::Ack, 200)] {
            assert_eq!(check(Some(endpoint), ms), None);
            assert_eq!(check(Some(endpoint), ms + 10), None);
            assert_eq!(check(Some(endpoint), ms + 20), Some(endpoint.path().trim_start_matches('/')));
        }
        for _ in 0..2 {
            assert_eq!(check(Some(Endpoint::Stats), 300), None);
        }
        assert_eq!(check(None, 300), Some("all"));
        for endpoint in [Endpoint::Health, Endpoint::Ready] {
            assert_eq!(check(Some(endpoint), 300), None);
        }
    }

    #[test]
    fn the_client_behind_a_trusted_proxy_is_limited_and_not_the_proxy() {
        let (guard, now) = guard(1, 1);
        let check = |client: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(actix_http::header::X_FORWARDED_FOR, client.parse().unwrap());
            bucket_of(guard.check(None, [10, 0, 0, 1].into(), &headers, now))
        };
        assert_eq!(check("198.51.100.7"), None);
        assert_eq!(check("198.51.100.8"), None);
        assert_eq!(check("198.51.100.7"), Some("all"));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let check = |prefix, expected: &str| {
            let address = "2001:db8:1:2:3:4:5:6".parse().unwrap();
            assert_eq!(mask(address, prefix), expected.parse::<IpAddr>().unwrap(), "/{prefix}");
        };
        check(128, "2001:db8:1:2:3:4:5:6");
        check(255, "2001:db8:1:2:3:4:5:6");
        check(64, "2001:db8:1:2::");
        check(56, "2001:db8:1::");
        check(0, "::");
        assert_eq!(mask([192, 0, 2, 1].into(), 0), IpAddr::from([192, 0, 2, 1]));
    }
}
