//! Tests refused keys and values, each with its message.

mod auth;
mod network;
#[cfg(feature = "postgres")]
mod shards;
mod wake;

use std::path::PathBuf;

use relay_bin::config::{RelayConfig, StorageConfig, StorageKind};

use super::{CERTS, Given, env, file};

#[test]
fn all_mistakes_are_listed_at_once() {
    Given {
        file: "adress = \"127.0.0.1:1\"\n[relay]\npull_batch_max = 0\nmax_message_bytes = \"8MB\"\n[storage]\nkind = \"sled\"",
        env: &[("RELAY__RELAY__BURST", "1"), ("RELAY__RATE_LIMIT__BURST", "many"), ("RELAY__STORAGE__PATH", "")],
        flags: &["--address", "nowhere"],
    }
    .refused(&[
        "adress: unknown key; did you mean address? (relay.toml line 1)",
        "relay.max_message_bytes: must be a whole number from 1 to 1073741824, found the text \"8MB\" (relay.toml line 4)",
        "storage.kind: the relay cannot read the sled store of enigma-relay 0.0.3; let the old relay run beside this one until its queues are empty, and set kind = \"redb\" here (relay.toml line 6)",
        "relay.burst: unknown key; did you mean RELAY__RATE_LIMIT__BURST? (environment variable RELAY__RELAY__BURST)",
        "rate_limit.burst: must be a whole number from 1 to 4294967295, found \"many\" (environment variable RELAY__RATE_LIMIT__BURST)",
        "address: must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000; \"nowhere\" has no port (command line --address)",
        "storage.path: must be a path; it is empty (environment variable RELAY__STORAGE__PATH)",
        "relay.pull_batch_max: must be a whole number from 1 to 1000000, found 0 (relay.toml line 3)",
    ]);
}

#[test]
fn unknown_names_get_a_hint() {
    for (text, line) in [
        (
            "relay.max_mesage_bytes = 1",
            "relay.max_mesage_bytes: unknown key; did you mean relay.max_message_bytes? (relay.toml line 1)",
        ),
        (
            "push_rps = 1",
            "push_rps: unknown key; did you mean rate_limit.endpoints.push_rps? (relay.toml line 1)",
        ),
        (
            "[ratelimit]\nburst = 1\nx = 2",
            "ratelimit: unknown table; did you mean [rate_limit]? (relay.toml line 1)",
        ),
        ("[endpoints]", "endpoints: unknown table; did you mean [rate_limit.endpoints]? (relay.toml line 1)"),
        (
            "[storage]\ncolour = 1",
            "storage.colour: unknown key; [storage] has: kind, path, cache_bytes, min_free_bytes, max_bytes, trust_clock, [storage.postgres] (relay.toml line 2)",
        ),
        (
            "[rate_limit.others]",
            "rate_limit.others: unknown table; [rate_limit] has: enabled, per_ip_rps, burst, max_wait_ms, push_bytes_per_second, push_items_per_second, push_per_recipient_rps, per_name_rps, names_per_address, ban_seconds, ban_threshold, ipv6_prefix, trusted_proxies, exempt, max_tracked_addresses, [rate_limit.endpoints] (relay.toml line 1)",
        ),
        (
            "[logging]",
            "logging: unknown table; known at the top level: address, socket_mode, proxy_protocol, listen, mode, [server], [admin], [log], [tls], [storage], [privacy], [auth], [relay], [rate_limit], [cors], [wake] (relay.toml line 1)",
        ),
        (
            "\"relay.burst\" = 1",
            "\"relay.burst\": unknown key; known at the top level: address, socket_mode, proxy_protocol, listen, mode, [server], [admin], [log], [tls], [storage], [privacy], [auth], [relay], [rate_limit], [cors], [wake] (relay.toml line 1)",
        ),
        (
            "\"new\\nline\" = 1",
            "\"new\\nline\": unknown key; known at the top level: address, socket_mode, proxy_protocol, listen, mode, [server], [admin], [log], [tls], [storage], [privacy], [auth], [relay], [rate_limit], [cors], [wake] (relay.toml line 1)",
        ),
    ] {
        file(text).refused(&[line]);
    }
}

#[test]
fn unknown_variables_get_a_hint() {
    for (variable, line) in [
        (
            "RELAY__RELAY__MAX_MESAGE_BYTES",
            "relay.max_mesage_bytes: unknown key; did you mean RELAY__RELAY__MAX_MESSAGE_BYTES? (environment variable RELAY__RELAY__MAX_MESAGE_BYTES)",
        ),
        (
            "RELAY__MAX_MESSAGE_BYTES",
            "max_message_bytes: unknown key; did you mean RELAY__RELAY__MAX_MESSAGE_BYTES? (environment variable RELAY__MAX_MESSAGE_BYTES)",
        ),
        (
            "RELAY__rate_limit__burst",
            "rate_limit.burst: unknown key; did you mean RELAY__RATE_LIMIT__BURST? (environment variable RELAY__rate_limit__burst)",
        ),
        (
            "RELAY__STORAGE",
            "storage: is a table, [storage]; set one of its keys instead: kind, path, cache_bytes, min_free_bytes, max_bytes, trust_clock, [storage.postgres] (environment variable RELAY__STORAGE)",
        ),
        (
            "RELAY__",
            "\"\": unknown key; known at the top level: address, socket_mode, proxy_protocol, listen, mode, [server], [admin], [log], [tls], [storage], [privacy], [auth], [relay], [rate_limit], [cors], [wake] (environment variable RELAY__)",
        ),
    ] {
        env(&[(variable, "1")]).refused(&[line]);
    }
}

#[test]
fn values_of_a_wrong_type_are_refused() {
    let ttl = "relay.message_ttl_seconds: must be a whole number from 1 to 3153600000, found";
    for (value, found) in [
        ("\"1h\"", "the text \"1h\""),
        ("\"3600\"", "the text \"3600\""),
        ("-1", "-1"),
        ("1.5", "the fraction 1.5"),
        ("inf", "the fraction inf"),
        ("true", "true"),
        ("[1]", "a list"),
        ("{ a = 1 }", "a table"),
        ("2026-01-01", "a date"),
        ("3_153_600_001", "3153600001"),
        ("18446744073709551616", "18446744073709551616"),
        (&"9".repeat(100), &format!("{}...", "9".repeat(60))),
    ] {
        file(&format!("[relay]\nmessage_ttl_seconds = {value}"))
            .refused(&[&format!("{ttl} {found} (relay.toml line 2)")]);
    }
    for value in ["1h", "", "-1", "1.5", "true", "3153600001", "99999999999999999999999999999999999999999"] {
        env(&[("RELAY__RELAY__MESSAGE_TTL_SECONDS", value)])
            .refused(&[&format!("{ttl} {value:?} (environment variable RELAY__RELAY__MESSAGE_TTL_SECONDS)")]);
    }
}

#[test]
fn values_of_each_type_are_described() {
    for (text, line) in [
        ("relay = 5", "relay: is a table, [relay], found 5 (relay.toml line 1)"),
        ("[[relay]]", "relay: is a table, [relay], found a list (relay.toml line 1)"),
        ("address = 7000", "address: must be text, found 7000 (relay.toml line 1)"),
        ("mode = \"https\"", "mode: must be \"http\" or \"tls\", found \"https\" (relay.toml line 1)"),
        ("mode = true", "mode: must be \"http\" or \"tls\", found true (relay.toml line 1)"),
        (
            "storage.kind = \"sqlite\"",
            "storage.kind: must be \"redb\" or \"postgres\" or \"memory\", found \"sqlite\" (relay.toml line 1)",
        ),
        (
            "rate_limit.enabled = \"yes\"",
            "rate_limit.enabled: must be true or false, found the text \"yes\" (relay.toml line 1)",
        ),
        (
            "rate_limit.ipv6_prefix = 129",
            "rate_limit.ipv6_prefix: must be a whole number from 1 to 128, found 129 (relay.toml line 1)",
        ),
        (
            "rate_limit.burst = 4294967296",
            "rate_limit.burst: must be a whole number from 1 to 4294967295, found 4294967296 (relay.toml line 1)",
        ),
        (
            "rate_limit.trusted_proxies = \"::1\"",
            "rate_limit.trusted_proxies: must be a list of networks such as \"10.0.0.0/8\", and \"unix\" for Unix sockets, found the text \"::1\" (relay.toml line 1)",
        ),
    ] {
        file(text).refused(&[line]);
    }
    env(&[("RELAY__RATE_LIMIT__ENABLED", "1")]).refused(&[
        "rate_limit.enabled: must be true or false, found \"1\" (environment variable RELAY__RATE_LIMIT__ENABLED)",
    ]);
}

#[test]
fn messages_repeat_only_the_beginning_of_a_long_text() {
    let long = "k".repeat(100_000);
    let texts = [
        format!("{long} = 1"),
        format!("relay = {{ {long} = 1 }}"),
        format!("[{long}]\nx = 1"),
        format!("'{}' = 1", "\u{7f}".repeat(100_000)),
        format!("address = '{long}'"),
        format!("mode = '{}'", "\u{7f}".repeat(100_000)),
        format!("relay.max_message_bytes = '{long}'"),
        format!("rate_limit.trusted_proxies = ['{long}']"),
        format!("address = {long}"),
        format!("{long} = 1\n{long} = 2"),
        format!("address = \"\\{long}"),
        long.clone(),
    ];
    let check = |lines: String| {
        assert!(lines.lines().all(|line| line.len() < 1000), "{} bytes", lines.len());
    };
    for text in &texts {
        check(file(text).load().unwrap_err());
    }
    for name in [
        format!("RELAY__{long}"),
        format!("RELAY__{}", "x__".repeat(1000)),
        format!("RELAY__{}", "\u{7f}".repeat(1000)),
    ] {
        check(env(&[(&name, "1")]).load().unwrap_err());
    }
    check(env(&[("RELAY__RELAY__MAX_MESSAGE_BYTES", &long)]).load().unwrap_err());
}

#[test]
fn a_bound_below_the_size_of_an_empty_store_is_refused() {
    for bytes in [1, 67_108_863] {
        let line = format!(
            "storage.max_bytes: must be 0 or at least 67108864, which even a small store needs; found {bytes}"
        );
        file(&format!("storage.max_bytes = {bytes}")).refused(&[&format!("{line} (relay.toml line 1)")]);
    }
    file("storage.max_bytes = 67_108_864").load().unwrap();
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (key, least, most) in [
        ("server.request_timeout_seconds", 1, 3_153_600_000_u64),
        ("server.keep_alive_seconds", 1, 3_153_600_000),
        ("server.max_connections", 1, 1_000_000),
        ("server.max_connection_age_seconds", 1, 3_153_600_000),
        ("server.max_inflight_bytes", 1_048_576, 1_099_511_627_776),
        ("storage.cache_bytes", 1_048_576, 1_099_511_627_776),
        ("relay.max_message_bytes", 1, 1_073_741_824),
        ("relay.max_batch_bytes", 1, 1_073_741_824),
        ("relay.max_queue_bytes_per_user", 1, 9_223_372_036_854_775_807),
        ("relay.max_messages_per_user", 1, 9_223_372_036_854_775_807),
        ("relay.message_ttl_seconds", 1, 3_153_600_000),
        ("relay.gc_interval_seconds", 1, 3_153_600_000),
        ("relay.pull_batch_max", 1, 1_000_000),
        ("relay.pull_bytes_max", 1, 1_073_741_824),
        ("rate_limit.per_ip_rps", 1, 4_294_967_295),
        ("rate_limit.burst", 1, 4_294_967_295),
        ("rate_limit.per_name_rps", 1, 4_294_967_295),
        ("rate_limit.ban_threshold", 1, 4_294_967_295),
        ("rate_limit.ipv6_prefix", 1, 128),
        ("rate_limit.max_tracked_addresses", 1, 100_000_000),
        ("rate_limit.endpoints.push_rps", 1, 4_294_967_295),
        ("rate_limit.endpoints.pull_rps", 1, 4_294_967_295),
        ("rate_limit.endpoints.ack_rps", 1, 4_294_967_295),
    ] {
        let refused = |value: u64| {
            format!("{key}: must be a whole number from {least} to {most}, found {value} (relay.toml line 1)")
        };
        file(&format!("{key} = 0")).refused(&[&refused(0)]);
        if least > 1 {
            file(&format!("{key} = {}", least - 1)).refused(&[&refused(least - 1)]);
        }
        file(&format!("{key} = {least}")).load().unwrap();
        file(&format!("{key} = {most}")).load().unwrap();
        file(&format!("{key} = {}", most + 1)).refused(&[&refused(most + 1)]);
    }
}

#[test]
fn rates_may_be_zero_while_rate_limiting_is_off() {
    let rates = "per_ip_rps = 0\nburst = 0\nper_name_rps = 0\nban_threshold = 0\nendpoints = { push_rps = 0, pull_rps = 0, ack_rps = 0 }";
    file(&format!("[rate_limit]\nenabled = false\n{rates}")).warned(&[]);
    let refused = file(&format!("[rate_limit]\n{rates}")).load().unwrap_err();
    assert_eq!(refused.lines().count(), 7, "{refused}");
}

#[test]
fn a_path_with_a_nul_character_is_refused() {
    for key in ["storage.path", "privacy.key_path"] {
        file(&format!("{key} = \"a\\u0000b\"")).refused(&[&format!(
            "{key}: must be a path; a path cannot contain a NUL character (relay.toml line 1)"
        )]);
    }
    file(&format!("mode = \"tls\"\n{CERTS}client_ca_pem_path = \"\\u0000\"")).refused(&[
        "tls.client_ca_pem_path: must be a path; a path cannot contain a NUL character (relay.toml line 5)",
    ]);
}

#[test]
fn a_configuration_built_by_hand_follows_the_same_rules() {
    let mut config = RelayConfig { address: "localhost".to_owned(), ..RelayConfig::default() };
    config.relay.max_message_bytes = u64::MAX;
    config.rate_limit.ipv6_prefix = 0;
    config.storage.path = PathBuf::new();
    let errors = config.validate().unwrap_err();
    let lines = [
        "address: must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000; \"localhost\" has no port",
        "storage.path: must be a path; it is empty",
        "relay.max_message_bytes: must be a whole number from 1 to 1073741824, found 18446744073709551615",
        "rate_limit.ipv6_prefix: must be a whole number from 1 to 128, found 0",
    ];
    assert_eq!(errors.to_string(), lines.join("\n"));
    assert_eq!(errors.problems()[1].key.as_deref(), Some("storage.path"));

    let memory =
        StorageConfig { kind: StorageKind::Memory, path: PathBuf::new(), ..StorageConfig::default() };
    assert_eq!(RelayConfig { storage: memory, ..RelayConfig::default() }.validate().unwrap().len(), 1);
}
