//! Warnings about values that are valid, but unusual together.

use ipnet::IpNet;

use super::{ACK_ITEMS_MAX, Findings};
use crate::config::address::ListenAddress;
use crate::config::{Mode, PeerNetwork, PlainNames, RateLimitConfig, RelayConfig, RelayLimits};

pub(super) fn warn_of_exposure(config: &RelayConfig, findings: &mut Findings) {
    let mut listeners = config.listeners();
    // What is no address is refused.
    listeners.retain(|listener| !ListenAddress::parse(&listener.address).is_ok_and(ListenAddress::is_local));
    if listeners.is_empty() {
        return;
    }
    findings.warn_if(
        listeners.iter().any(|listener| listener.mode == Mode::Http),
        "address: not loopback, with mode = \"http\": other machines connect in clear text; \
         set mode = \"tls\", or put the relay behind a proxy that terminates TLS",
    );
    findings.warn_if(
        !config.rate_limit.enabled,
        "rate_limit.enabled: false, on an address that is not loopback: any client can send any number of requests",
    );
    findings.warn_if(
        config.auth.plain_names == PlainNames::Open,
        "auth.plain_names: \"open\", on an address that is not loopback: anybody who knows a recipient without a lock can read \
         its queue; see docs/auth.md",
    );
}

pub(super) fn warn_of_limits(relay: &RelayLimits, findings: &mut Findings) {
    findings.warn_if(
        relay.max_queue_bytes_per_user < relay.max_message_bytes,
        "relay.max_queue_bytes_per_user: less than relay.max_message_bytes, so the largest messages fit no queue",
    );
    findings.warn_if(
        relay.pull_bytes_max < relay.max_message_bytes,
        "relay.pull_bytes_max: less than relay.max_message_bytes; the relay still sends a larger message, alone",
    );
    findings.warn_if(
        relay.pull_batch_max > ACK_ITEMS_MAX,
        "relay.pull_batch_max: more than 10000, so one request cannot acknowledge a full page",
    );
    findings.warn_if(
        relay.gc_interval_seconds > relay.message_ttl_seconds,
        "relay.gc_interval_seconds: more than relay.message_ttl_seconds, so expired messages take space for long",
    );
    findings.warn_if(
        relay.dedup_window_seconds > relay.message_ttl_seconds,
        "relay.dedup_window_seconds: more than relay.message_ttl_seconds, so the relay recognizes duplicates of expired messages",
    );
}

/// The body of a push is at most 5/3 of its payload, and the payload takes memory as well.
pub(super) fn warn_of_inflight_bytes(config: &RelayConfig, findings: &mut Findings) {
    let payload = config.relay.max_message_bytes.max(config.relay.batch_bytes());
    let largest = payload.saturating_mul(3).max(config.relay.pull_bytes_max);
    findings.warn_if(
        config.server.max_inflight_bytes < largest,
        "server.max_inflight_bytes: less than three times relay.max_message_bytes or relay.max_batch_bytes, or less than relay.pull_bytes_max, \
         so the largest requests succeed only while nothing else is in flight",
    );
}

pub(super) fn warn_of_proxies(config: &RelayConfig, findings: &mut Findings) {
    let tables = config.listen.iter().map(|listener| ("listen: proxy_protocol", &listener.proxy_protocol));
    for (key, proxies) in [("proxy_protocol", &config.proxy_protocol)].into_iter().chain(tables) {
        findings.warn_if(
            contain_all(proxies),
            &format!("{key}: contains every address, so any client can claim any address as its own"),
        );
        let overlaps = |proxy: IpNet| config.rate_limit.exempt.iter().any(|exempt| overlap(&proxy, exempt));
        findings.warn_if(
            proxies.iter().filter_map(|peer| peer.network()).any(overlaps),
            &format!(
                "{key}: contains addresses of rate_limit.exempt, so connections in which such a proxy names no client have \
                 no limits"
            ),
        );
    }
}

/// Two networks may together contain all addresses.
fn contain_all(peers: &[PeerNetwork]) -> bool {
    let networks: Vec<IpNet> = peers.iter().filter_map(|peer| peer.network()).collect();
    IpNet::aggregate(&networks).iter().any(|network| network.prefix_len() == 0)
}

/// Of two networks that have an address in common, one contains the other.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

pub(super) fn warn_of_rates(rates: &RateLimitConfig, findings: &mut Findings) {
    findings.warn_if(
        contain_all(&rates.trusted_proxies),
        "rate_limit.trusted_proxies: contains every address, so any client can claim any address as its own",
    );
    if !rates.enabled {
        return;
    }
    let endpoints = &rates.endpoints;
    let fastest = endpoints.push_rps.max(endpoints.pull_rps).max(endpoints.ack_rps);
    findings.warn_if(
        rates.burst < fastest,
        "rate_limit.burst: less than a rate of rate_limit.endpoints, so simultaneous requests are refused early",
    );
    findings.warn_if(
        rates.ban_threshold > 60,
        "rate_limit.ban_threshold: more than 60, the number of seconds in a minute; the relay uses 60",
    );
    findings.warn_if(rates.ban_seconds == 0, "rate_limit.ban_seconds: 0, so the relay never bans an address");
}
