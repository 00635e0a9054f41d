//! Keys and values that are refused, each with its sentence.

use std::path::PathBuf;

use relay_bin::config::{RelayConfig, StorageConfig, StorageKind, TlsConfig};

use super::{CERTS, Given, env, file, flags};

#[test]
fn all_mistakes_are_told_at_once() {
    Given {
        file: "adress = \"127.0.0.1:1\"\n[relay]\npull_batch_max = 0\nmax_message_bytes = \"8MB\"\n[storage]\nkind = \"sled\"",
        env: &[("RELAY__RELAY__BURST", "1"), ("RELAY__RATE_LIMIT__BURST", "many"), ("RELAY__STORAGE__PATH", "")],
        flags: &["--address", "nowhere"],
    }
    .refused(&[
        "adress: unknown key; did you mean address? (relay.toml line 1)",
        "relay.max_message_bytes: must be a whole number from 1 to 1073741824, found the text \"8MB\" (relay.toml line 4)",
        "storage.kind: the sled store of enigma-relay 0.0.3 is not read; let the old relay run beside this one until its queues are drained, and set kind = \"redb\" here (relay.toml line 6)",
        "relay.burst: unknown key; did you mean RELAY__RATE_LIMIT__BURST? (environment variable RELAY__RELAY__BURST)",
        "rate_limit.burst: must be a whole number from 1 to 4294967295, found \"many\" (environment variable RELAY__RATE_LIMIT__BURST)",
        "address: must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000; \"nowhere\" has no port (command line --address)",
        "storage.path: must be a path; it is empty (environment variable RELAY__STORAGE__PATH)",
        "relay.pull_batch_max: must be a whole number from 1 to 1000000, found 0 (relay.toml line 3)",
    ]);
}

#[test]
fn unknown_names_are_met_with_the_nearest_known_one() {
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
            "storage.colour: unknown key; [storage] holds: kind, path, cache_bytes, min_free_bytes, max_bytes, trust_clock (relay.toml line 2)",
        ),
        (
            "[rate_limit.others]",
            "rate_limit.others: unknown table; [rate_limit] holds: enabled, per_ip_rps, burst, max_wait_ms, push_bytes_per_second, push_per_recipient_rps, ban_seconds, ban_threshold, ipv6_prefix, trusted_proxies, exempt, max_tracked_addresses, [rate_limit.endpoints] (relay.toml line 1)",
        ),
        (
            "[logging]",
            "logging: unknown table; the file holds: address, mode, [server], [admin], [tls], [storage], [privacy], [relay], [rate_limit], [cors] (relay.toml line 1)",
        ),
        (
            "\"relay.burst\" = 1",
            "\"relay.burst\": unknown key; the file holds: address, mode, [server], [admin], [tls], [storage], [privacy], [relay], [rate_limit], [cors] (relay.toml line 1)",
        ),
        (
            "\"new\\nline\" = 1",
            "\"new\\nline\": unknown key; the file holds: address, mode, [server], [admin], [tls], [storage], [privacy], [relay], [rate_limit], [cors] (relay.toml line 1)",
        ),
    ] {
        file(text).refused(&[line]);
    }
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
            "storage: is a table, [storage], and cannot be set as a whole; it holds: kind, path, cache_bytes, min_free_bytes, max_bytes, trust_clock (environment variable RELAY__STORAGE)",
        ),
        (
            "RELAY__",
            "\"\": unknown key; the file holds: address, mode, [server], [admin], [tls], [storage], [privacy], [relay], [rate_limit], [cors] (environment variable RELAY__)",
        ),
    ] {
        env(&[(variable, "1")]).refused(&[line]);
    }
}

#[test]
fn wrong_types_are_named() {
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
    for (text, line) in [
        ("relay = 5", "relay: is a table, [relay], found 5 (relay.toml line 1)"),
        ("[[relay]]", "relay: is a table, [relay], found a list (relay.toml line 1)"),
        ("address = 7000", "address: must be text, found 7000 (relay.toml line 1)"),
        ("mode = \"https\"", "mode: must be \"http\" or \"tls\", found \"https\" (relay.toml line 1)"),
        ("mode = true", "mode: must be \"http\" or \"tls\", found true (relay.toml line 1)"),
        (
            "storage.kind = \"sqlite\"",
            "storage.kind: must be \"redb\" or \"memory\", found \"sqlite\" (relay.toml line 1)",
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
            "rate_limit.trusted_proxies: must be a list of networks such as \"10.0.0.0/8\", found the text \"::1\" (relay.toml line 1)",
        ),
    ] {
        file(text).refused(&[line]);
    }
    env(&[("RELAY__RATE_LIMIT__ENABLED", "1")]).refused(&[
        "rate_limit.enabled: must be true or false, found \"1\" (environment variable RELAY__RATE_LIMIT__ENABLED)",
    ]);
}

#[test]
fn of_what_is_long_only_the_begin_is_told() {
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
fn every_network_that_does_not_parse_is_named() {
    let line = |found: &str, origin: &str| {
        format!(
            "rate_limit.trusted_proxies: must list networks such as \"10.0.0.0/8\" or \"2001:db8::/32\", or single addresses, found {found} ({origin})"
        )
    };
    file("rate_limit.trusted_proxies = [\"10.0.0.0/33\", \"10.0.0.1\", \"proxy\", 7]").refused(&[
        &line("\"10.0.0.0/33\"", "relay.toml line 1"),
        &line("\"proxy\"", "relay.toml line 1"),
        &line("7", "relay.toml line 1"),
    ]);
    env(&[("RELAY__RATE_LIMIT__TRUSTED_PROXIES", "10.0.0.1,,::1")])
        .refused(&[&line("\"\"", "environment variable RELAY__RATE_LIMIT__TRUSTED_PROXIES")]);
}

#[test]
fn a_bound_that_an_empty_store_may_pass_is_refused() {
    for bytes in [1, 67_108_863] {
        let line = format!(
            "storage.max_bytes: must be 0 or at least 67108864, which a store takes with little in it; found {bytes}"
        );
        file(&format!("storage.max_bytes = {bytes}")).refused(&[&format!("{line} (relay.toml line 1)")]);
    }
    file("storage.max_bytes = 67_108_864").load().unwrap();
}

#[test]
fn values_under_the_least_are_refused() {
    for (key, least, most) in [
        ("server.request_timeout_seconds", 1, 3_153_600_000_u64),
        ("server.keep_alive_seconds", 1, 3_153_600_000),
        ("server.max_connections", 1, 1_000_000),
        ("server.max_connection_age_seconds", 1, 3_153_600_000),
        ("server.max_inflight_bytes", 1_048_576, 1_099_511_627_776),
        ("storage.cache_bytes", 1_048_576, 1_099_511_627_776),
        ("relay.max_message_bytes", 1, 1_073_741_824),
        ("relay.max_queue_bytes_per_user", 1, 9_223_372_036_854_775_807),
        ("relay.max_messages_per_user", 1, 9_223_372_036_854_775_807),
        ("relay.message_ttl_seconds", 1, 3_153_600_000),
        ("relay.gc_interval_seconds", 1, 3_153_600_000),
        ("relay.pull_batch_max", 1, 1_000_000),
        ("relay.pull_bytes_max", 1, 1_073_741_824),
        ("rate_limit.per_ip_rps", 1, 4_294_967_295),
        ("rate_limit.burst", 1, 4_294_967_295),
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
    let rates = "per_ip_rps = 0\nburst = 0\nban_threshold = 0\nendpoints = { push_rps = 0, pull_rps = 0, ack_rps = 0 }";
    file(&format!("[rate_limit]\nenabled = false\n{rates}")).warned(&[]);
    let refused = file(&format!("[rate_limit]\n{rates}")).load().unwrap_err();
    assert_eq!(refused.lines().count(), 6, "{refused}");
}

#[test]
fn addresses_have_the_shape_of_a_bind() {
    for good in ["127.0.0.1:0", "[::1]:7000", "localhost:7000", "relay-1.example.org:443", "my_relay:65535"] {
        assert_eq!(flags(&["--address", good]).load().unwrap().config.address, good);
    }
    let shape = "address: must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000;";
    for (bad, why) in [
        ("localhost", "\"localhost\" has no port"),
        ("localhost:", "\"localhost:\" has no port from 0 to 65535"),
        ("localhost:+1", "\"localhost:+1\" has no port from 0 to 65535"),
        ("127.0.0.1:65536", "\"127.0.0.1:65536\" has no port from 0 to 65535"),
        (":7000", "\":7000\" has no valid host name or IP address"),
        ("*:7000", "\"*:7000\" has no valid host name or IP address"),
        ("a..b:7000", "\"a..b:7000\" has no valid host name or IP address"),
        (" localhost:7000", "\" localhost:7000\" has no valid host name or IP address"),
        ("300.0.0.1:7000", "\"300.0.0.1:7000\" has no valid host name or IP address"),
        ("::1:7000", "\"::1:7000\" is no IPv6 address in brackets with a port"),
        ("[::g]:7000", "\"[::g]:7000\" is no IPv6 address in brackets with a port"),
        ("http://localhost:7000", "\"http://localhost:7000\" is a URL"),
        ("", "it is empty"),
    ] {
        flags(&["--address", bad]).refused(&[&format!("{shape} {why} (command line --address)")]);
    }
}

#[test]
fn an_admin_address_has_the_same_shape_and_is_not_that_of_clients() {
    let shape = "admin.address: must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000;";
    file("admin.address = \"7001\"").refused(&[&format!("{shape} \"7001\" has no port (relay.toml line 1)")]);
    file("admin.address = \"127.0.0.1:7000\"").refused(&[
        "admin.address: must not be the public address; clients would read the counters (relay.toml line 1)",
    ]);
    for good in ["", "127.0.0.1:0", "localhost:9"] {
        let given = format!("admin.address = {good:?}");
        let both = Given { file: &given, flags: &["--address", "127.0.0.1:0"], env: &[] };
        assert_eq!(both.load().unwrap().config.admin.address, good);
    }
}

#[test]
fn tls_needs_its_files() {
    let missing = "must be the path of a PEM file when mode = \"tls\"; it is missing or empty";
    file("mode = \"tls\"")
        .refused(&[&format!("tls.cert_pem_path: {missing}"), &format!("tls.key_pem_path: {missing}")]);
    file("mode = \"tls\"\n[tls]\ncert_pem_path = \"c\"\nkey_pem_path = \"\"\nclient_ca_pem_path = \"\"")
        .refused(&[
            &format!("tls.key_pem_path: {missing} (relay.toml line 4)"),
            "tls.client_ca_pem_path: must be a path; it is empty (relay.toml line 5)",
        ]);
    // A path of the wrong type is told once, not again as a missing one.
    file("mode = \"tls\"\n[tls]\ncert_pem_path = 1\nkey_pem_path = \"k\"")
        .refused(&["tls.cert_pem_path: must be text, found 1 (relay.toml line 3)"]);
    let config = file(&format!("mode = \"tls\"\n{CERTS}")).load().unwrap().config;
    let tls = TlsConfig {
        cert_pem_path: "cert.pem".into(),
        key_pem_path: "key.pem".into(),
        client_ca_pem_path: None,
        client_crl_pem_path: None,
    };
    assert_eq!(config.tls, Some(tls));
}

#[test]
fn files_of_tls_are_refused_with_clear_text() {
    let line = |key: &str, origin: &str| {
        format!(
            "{key}: is set, and mode = \"http\" would serve clear text all the same; set mode = \"tls\", or take the key out ({origin})"
        )
    };
    file(CERTS).refused(&[
        &line("tls.cert_pem_path", "relay.toml line 2"),
        &line("tls.key_pem_path", "relay.toml line 3"),
    ]);
    for key in ["client_ca_pem_path", "client_crl_pem_path"] {
        let variable = format!("RELAY__TLS__{}", key.to_uppercase());
        env(&[(&variable, "ca.pem")])
            .refused(&[&line(&format!("tls.{key}"), &format!("environment variable {variable}"))]);
    }
    // Nothing is set.
    file("[tls]\ncert_pem_path = \"\"").warned(&[]);
}

#[test]
fn revocation_lists_need_authorities() {
    file(&format!("mode = \"tls\"\n{CERTS}client_crl_pem_path = \"crl.pem\"")).refused(&[
        "tls.client_crl_pem_path: needs tls.client_ca_pem_path: without authorities no client shows a certificate that could be revoked (relay.toml line 5)",
    ]);
    file(&format!("mode = \"tls\"\n{CERTS}client_ca_pem_path = \"ca\"\nclient_crl_pem_path = \"\""))
        .refused(&["tls.client_crl_pem_path: must be a path; it is empty (relay.toml line 6)"]);
}

#[test]
fn no_path_has_a_nul_in_it() {
    for key in ["storage.path", "privacy.key_path"] {
        file(&format!("{key} = \"a\\u0000b\"")).refused(&[&format!(
            "{key}: must be a path; no path has a NUL character in it (relay.toml line 1)"
        )]);
    }
    file(&format!("mode = \"tls\"\n{CERTS}client_ca_pem_path = \"\\u0000\"")).refused(&[
        "tls.client_ca_pem_path: must be a path; no path has a NUL character in it (relay.toml line 5)",
    ]);
}

#[test]
fn networks_of_ipv4_in_the_form_of_ipv6_are_networks_of_ipv4() {
    let proxies = |text: &str| file(text).load().map(|loaded| loaded.config.rate_limit.trusted_proxies);
    let written =
        "rate_limit.trusted_proxies = [\"::ffff:10.0.0.0/104\", \"::ffff:192.0.2.1\", \"::ffff:0:0/96\"]";
    let expected = ["10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0"].map(|network| network.parse().unwrap());
    assert_eq!(proxies(written).unwrap(), expected);
    let line = |found: &str| {
        format!(
            "rate_limit.trusted_proxies: must list IPv4 networks as such, like \"10.0.0.0/8\", found \"{found}\""
        )
    };
    // More than the networks of IPv4, and none of them.
    file("rate_limit.trusted_proxies = [\"::ffff:10.0.0.0/90\"]")
        .refused(&[&format!("{} (relay.toml line 1)", line("::ffff:10.0.0.0/90"))]);
    let mut config = RelayConfig::default();
    config.rate_limit.trusted_proxies = vec!["::ffff:10.0.0.0/104".parse().unwrap()];
    assert_eq!(config.validate().unwrap_err().to_string(), line("::ffff:10.0.0.0/104"));
}

#[test]
fn a_configuration_built_by_hand_is_held_to_the_same_rules() {
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

#[test]
fn host_names_and_origins_are_refused_unless_a_browser_could_send_them() {
    for name in ["", "relay:7000", "http://relay", "*.example.org", "a b", "::1", "r\u{e4}"] {
        for key in ["server.allowed_hosts", "admin.allowed_hosts"] {
            file(&format!("{key} = [\"good.example\", {name:?}]")).refused(&[&format!(
                "{key}: must list host names such as \"relay.example.org\", without a port, or \"*\" for any, found {name:?} (relay.toml line 1)"
            )]);
        }
    }
    for origin in ["", "*", "null", "app.example.org", "https://app.example.org/", "https://*.example.org"] {
        file(&format!("cors.allowed_origins = [{origin:?}]")).refused(&[&format!(
            "cors.allowed_origins: must list origins such as \"https://app.example.org\" or \"tauri://localhost\", without a path, found {origin:?} (relay.toml line 1)"
        )]);
    }
    file("cors.allowed_origins = [7]")
        .refused(&["cors.allowed_origins: must be a list of texts, found 7 in it (relay.toml line 1)"]);
    file("admin.allowed_hosts = \"relay\"").refused(&[
        "admin.allowed_hosts: must be a list of texts, found the text \"relay\" (relay.toml line 1)",
    ]);
}
