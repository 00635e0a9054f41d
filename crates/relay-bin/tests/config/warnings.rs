//! Values that work and are odd.

use super::{CERTS, Given, file, flags};

#[test]
fn odd_values_are_warned_of() {
    for (text, line) in [
        (
            "storage.kind = \"memory\"",
            "storage.kind: \"memory\" writes nothing; messages are lost at a restart",
        ),
        (
            "relay.max_queue_bytes_per_user = 8_388_607",
            "relay.max_queue_bytes_per_user: under relay.max_message_bytes, so the largest messages fit no queue",
        ),
        (
            "relay.pull_bytes_max = 8_388_607",
            "relay.pull_bytes_max: under relay.max_message_bytes; a larger message is still sent, alone",
        ),
        (
            "server.max_inflight_bytes = 25_165_823",
            "server.max_inflight_bytes: under three times relay.max_message_bytes, or under relay.pull_bytes_max, so the largest requests are answered only while nothing else is in flight",
        ),
        (
            "relay.pull_batch_max = 10_001",
            "relay.pull_batch_max: over 10000, so a full page cannot be acknowledged in one request",
        ),
        (
            "relay.gc_interval_seconds = 1_209_601",
            "relay.gc_interval_seconds: over relay.message_ttl_seconds, so expired messages keep their space for long",
        ),
        (
            "relay.dedup_window_seconds = 1_209_601",
            "relay.dedup_window_seconds: over relay.message_ttl_seconds, so messages are remembered longer than kept",
        ),
        (
            "rate_limit.trusted_proxies = [\"0.0.0.0/0\"]",
            "rate_limit.trusted_proxies: believes every address, so any client may claim any address as its own",
        ),
        (
            "rate_limit.trusted_proxies = [\"0.0.0.0/1\", \"10.0.0.0/8\", \"128.0.0.0/2\", \"192.0.0.0/2\"]",
            "rate_limit.trusted_proxies: believes every address, so any client may claim any address as its own",
        ),
        (
            "rate_limit.trusted_proxies = [\"8000::/1\", \"::/1\"]",
            "rate_limit.trusted_proxies: believes every address, so any client may claim any address as its own",
        ),
        (
            "rate_limit.burst = 9",
            "rate_limit.burst: under a rate of rate_limit.endpoints, so requests that come together are refused early",
        ),
        ("rate_limit.ban_seconds = 0", "rate_limit.ban_seconds: 0, so no address is ever shut out"),
    ] {
        file(text).warned(&[line]);
    }
    for text in [
        "relay.max_queue_bytes_per_user = 8_388_608",
        "relay.pull_batch_max = 10_000",
        "server.max_inflight_bytes = 25_165_824",
        "relay.gc_interval_seconds = 1_209_600",
        "rate_limit.burst = 10",
        "rate_limit.trusted_proxies = [\"0.0.0.0/1\", \"128.0.0.0/2\", \"8000::/1\"]",
        "rate_limit = { enabled = false, burst = 1, ban_seconds = 0 }",
    ] {
        file(text).warned(&[]);
    }
}

#[test]
fn an_exposed_admin_address_is_warned_of() {
    let line = "admin.address: not loopback: whoever reaches it may read the counters; let a firewall keep out all but your monitoring";
    for (address, is_exposed) in
        [("", false), ("127.0.0.1:9", false), ("[::1]:9", false), ("0.0.0.0:9", true)]
    {
        let expected: &[&str] = if is_exposed { &[line] } else { &[] };
        file(&format!("admin.address = {address:?}")).warned(expected);
    }
}

#[test]
fn an_exposed_address_is_warned_of() {
    let clear = "address: not loopback, with mode = \"http\": other machines talk to the relay in clear text; set mode = \"tls\", or keep it behind a proxy that ends TLS";
    let unlimited = "rate_limit.enabled: false, on an address that is not loopback: anybody may send any number of requests";
    for address in ["127.0.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "LOCALHOST:1"] {
        Given { file: "rate_limit.enabled = false", flags: &["--address", address], env: &[] }.warned(&[]);
    }
    for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "relay.example.org:1"] {
        flags(&["--address", address]).warned(&[clear]);
        Given { file: "rate_limit.enabled = false", flags: &["--address", address], env: &[] }
            .warned(&[clear, unlimited]);
        Given { file: &format!("mode = \"tls\"\n{CERTS}"), flags: &["--address", address], env: &[] }
            .warned(&[]);
    }
}
