//! Tests warnings for valid but unusual values.

use super::{CERTS, Given, file, flags};

#[test]
fn unusual_values_give_a_warning() {
    for (text, line) in [
        (
            "storage.kind = \"memory\"",
            "storage.kind: \"memory\" writes nothing; a restart loses all messages",
        ),
        (
            "relay.max_queue_bytes_per_user = 8_388_607",
            "relay.max_queue_bytes_per_user: less than relay.max_message_bytes, so the largest messages fit no queue",
        ),
        (
            "relay.pull_bytes_max = 8_388_607",
            "relay.pull_bytes_max: less than relay.max_message_bytes; the relay still sends a larger message, alone",
        ),
        (
            "server.max_inflight_bytes = 50_331_647",
            "server.max_inflight_bytes: less than three times relay.max_message_bytes or relay.max_batch_bytes, or less than relay.pull_bytes_max, so the largest requests succeed only while nothing else is in flight",
        ),
        (
            "relay.pull_batch_max = 10_001",
            "relay.pull_batch_max: more than 10000, so one request cannot acknowledge a full page",
        ),
        (
            "relay.gc_interval_seconds = 1_209_601",
            "relay.gc_interval_seconds: more than relay.message_ttl_seconds, so expired messages take space for long",
        ),
        (
            "relay.dedup_window_seconds = 1_209_601",
            "relay.dedup_window_seconds: more than relay.message_ttl_seconds, so the relay recognizes duplicates of expired messages",
        ),
        (
            "rate_limit.trusted_proxies = [\"0.0.0.0/0\"]",
            "rate_limit.trusted_proxies: contains every address, so any client can claim any address as its own",
        ),
        (
            "rate_limit.trusted_proxies = [\"0.0.0.0/1\", \"10.0.0.0/8\", \"128.0.0.0/2\", \"192.0.0.0/2\"]",
            "rate_limit.trusted_proxies: contains every address, so any client can claim any address as its own",
        ),
        (
            "rate_limit.trusted_proxies = [\"8000::/1\", \"::/1\"]",
            "rate_limit.trusted_proxies: contains every address, so any client can claim any address as its own",
        ),
        (
            "rate_limit.burst = 9",
            "rate_limit.burst: less than a rate of rate_limit.endpoints, so simultaneous requests are refused early",
        ),
        ("rate_limit.ban_seconds = 0", "rate_limit.ban_seconds: 0, so the relay never bans an address"),
    ] {
        file(text).warned(&[line]);
    }
}

#[test]
fn odd_lists_of_proxies_give_a_warning() {
    for (text, line) in [
        (
            "proxy_protocol = [\"0.0.0.0/1\", \"128.0.0.0/1\"]",
            "proxy_protocol: contains every address, so any client can claim any address as its own",
        ),
        (
            "listen = [{ address = \"127.0.0.1:1\", proxy_protocol = [\"::/0\"] }]",
            "listen: proxy_protocol: contains every address, so any client can claim any address as its own",
        ),
        (
            "proxy_protocol = [\"10.0.0.0/8\", \"unix\"]\nrate_limit.exempt = [\"10.1.0.0/16\"]",
            "proxy_protocol: contains addresses of rate_limit.exempt, so connections in which such a proxy names no client have no limits",
        ),
    ] {
        file(text).warned(&[line]);
    }
}

#[test]
fn values_at_the_limit_give_no_warning() {
    for text in [
        "relay.max_queue_bytes_per_user = 8_388_608",
        "relay.pull_batch_max = 10_000",
        "server.max_inflight_bytes = 50_331_648",
        "relay.gc_interval_seconds = 1_209_600",
        "rate_limit.burst = 10",
        "rate_limit.trusted_proxies = [\"0.0.0.0/1\", \"128.0.0.0/2\", \"8000::/1\"]",
        "rate_limit = { enabled = false, burst = 1, ban_seconds = 0 }",
    ] {
        file(text).warned(&[]);
    }
}

#[test]
fn an_exposed_admin_address_gives_a_warning() {
    let line = "admin.address: not loopback: anybody who can connect can read the counters; restrict it to your monitoring with a firewall";
    for (address, is_exposed) in
        [("", false), ("127.0.0.1:9", false), ("[::1]:9", false), ("0.0.0.0:9", true)]
    {
        let expected: &[&str] = if is_exposed { &[line] } else { &[] };
        file(&format!("admin.address = {address:?}")).warned(expected);
    }
}

#[test]
fn an_exposed_address_gives_a_warning() {
    let clear = "address: not loopback, with mode = \"http\": other machines connect in clear text; set mode = \"tls\", or put the relay behind a proxy that terminates TLS";
    let unlimited = "rate_limit.enabled: false, on an address that is not loopback: any client can send any number of requests";
    let open = "auth.plain_names: \"open\", on an address that is not loopback: anybody who knows a recipient without a lock can read its queue; see docs/auth.md";
    for address in ["127.0.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "LOCALHOST:1"] {
        Given { file: "rate_limit.enabled = false", flags: &["--address", address], env: &[] }.warned(&[]);
    }
    for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "relay.example.org:1"] {
        flags(&["--address", address]).warned(&[clear, open]);
        Given { file: "rate_limit.enabled = false", flags: &["--address", address], env: &[] }
            .warned(&[clear, unlimited, open]);
        Given { file: &format!("mode = \"tls\"\n{CERTS}"), flags: &["--address", address], env: &[] }
            .warned(&[open]);
        let env = [("RELAY__AUTH__PLAIN_NAMES", "deny"), ("RELAY__AUTH__AUDIENCES", "a")];
        Given { file: &format!("mode = \"tls\"\n{CERTS}"), flags: &["--address", address], env: &env }
            .warned(&[]);
    }
}
