//! Tests the defaults, every key from every source, and printing.

use std::path::{Path, PathBuf};

use relay_bin::config::{
    AccessAddresses, AccessLog, AuthConfig, CorsConfig, EndpointRateLimit, LogConfig, Mode, PlainNames,
    PostgresConfig, PostgresDurability, PostgresTls, PrivacyConfig, PushPlain, RateLimitConfig, RelayConfig,
    RelayLimits, ServerConfig, StorageConfig, StorageKind, TlsConfig, WakeConfig,
};

use super::{Given, env, file};

pub(crate) const SHIPPED: &str = include_str!("../../../../deploy/relay.toml");

/// The defaults that clients and operators rely on.
pub(crate) fn documented_defaults() -> RelayConfig {
    RelayConfig {
        address: "127.0.0.1:7000".to_owned(),
        socket_mode: "0660".to_owned(),
        proxy_protocol: Vec::new(),
        listen: Vec::new(),
        mode: Mode::Http,
        tls: None,
        server: ServerConfig {
            drain_seconds: 20,
            request_timeout_seconds: 30,
            keep_alive_seconds: 75,
            pull_wait_max_ms: 55_000,
            start_wait_seconds: 5,
            max_connections: 10_000,
            max_connections_per_address: 0,
            max_connection_age_seconds: 3_600,
            max_inflight_bytes: 268_435_456,
            public_stats: true,
            allowed_hosts: Vec::new(),
        },
        admin: super::admin_at("127.0.0.1:7001"),
        log: LogConfig { access: AccessLog::Off, access_addresses: AccessAddresses::Truncated },
        storage: documented_storage(),
        privacy: PrivacyConfig { key_path: PathBuf::new(), hash_recipients: true },
        auth: AuthConfig {
            locks: true,
            plain_names: PlainNames::Open,
            push: PushPlain::Open,
            audiences: Vec::new(),
            issuer: String::new(),
            issuer_jwks_path: PathBuf::new(),
        },
        relay: RelayLimits {
            max_message_bytes: 8_388_608,
            max_batch_bytes: 16_777_216,
            max_queue_bytes_per_user: 1_073_741_824,
            max_messages_per_user: 200_000,
            message_ttl_seconds: 1_209_600,
            gc_interval_seconds: 60,
            pull_batch_max: 256,
            pull_bytes_max: 8_388_608,
            dedup_window_seconds: 300,
        },
        rate_limit: documented_rate_limit(),
        cors: CorsConfig { allowed_origins: Vec::new() },
        wake: documented_wake(),
    }
}

fn documented_storage() -> StorageConfig {
    StorageConfig {
        kind: StorageKind::Redb,
        path: "./relay_db".into(),
        cache_bytes: 134_217_728,
        min_free_bytes: 268_435_456,
        max_bytes: 0,
        trust_clock: false,
        postgres: documented_postgres(),
    }
}

fn documented_postgres() -> PostgresConfig {
    PostgresConfig {
        dsn: String::new(),
        shards: Vec::new(),
        password_path: PathBuf::new(),
        tls: PostgresTls::VerifyFull,
        ca_path: PathBuf::new(),
        durability: PostgresDurability::Replicated,
        write_connections: 3,
        read_connections: 4,
    }
}

fn documented_wake() -> WakeConfig {
    WakeConfig {
        url: String::new(),
        key_path: PathBuf::new(),
        ca_path: PathBuf::new(),
        allow_http: false,
        grace_ms: 2_000,
        confirm_seconds: 30,
        quiet_seconds: 60,
        timeout_seconds: 10,
        attempts: 5,
        max_queues: 10_000,
        max_concurrent_calls: 8,
        max_calls_per_second: 50,
    }
}

fn documented_rate_limit() -> RateLimitConfig {
    RateLimitConfig {
        enabled: true,
        per_ip_rps: 20,
        burst: 40,
        max_wait_ms: 2_000,
        push_bytes_per_second: 16_777_216,
        push_items_per_second: 1_000,
        push_per_recipient_rps: 0,
        per_name_rps: 10,
        names_per_address: 64,
        ban_seconds: 300,
        ban_threshold: 20,
        ipv6_prefix: 64,
        trusted_proxies: Vec::new(),
        exempt: Vec::new(),
        max_tracked_addresses: 100_000,
        endpoints: EndpointRateLimit { push_rps: 10, pull_rps: 5, ack_rps: 10 },
    }
}

/// A key, a value in TOML, the same value in the environment, and whether a configuration has it.
pub(crate) type Row = (&'static str, &'static str, &'static str, fn(&RelayConfig) -> bool);

pub(crate) const EVERY_KEY: &[Row] = &[
    ("address", r#""127.0.0.2:7001""#, "127.0.0.2:7001", |c| c.address == "127.0.0.2:7001"),
    ("socket_mode", r#""0600""#, "0600", |c| c.socket_mode == "0600"),
    ("proxy_protocol", r#"["192.0.2.0/24", "unix"]"#, "192.0.2.0/24,unix", |c| {
        c.proxy_protocol == ["192.0.2.0/24", "unix"].map(|peer| peer.parse().unwrap())
    }),
    (
        "listen",
        r#"[{ address = "unix:/a" }, { address = "[::1]:1", mode = "tls", proxy_protocol = ["10.0.0.1"], tls = { cert_pem_path = "a", key_pem_path = "b" } }]"#,
        r#"[{ address = "unix:/a" }, { address = "[::1]:1", mode = "tls", proxy_protocol = ["10.0.0.1"], tls = { cert_pem_path = "a", key_pem_path = "b" } }]"#,
        |c| {
            let [plain, tls] = c.listen.as_slice() else { return false };
            let is_plain = plain.mode == Mode::Http && plain.tls.is_none() && plain.proxy_protocol.is_empty();
            is_plain
                && (plain.address.as_str(), tls.address.as_str(), tls.mode)
                    == ("unix:/a", "[::1]:1", Mode::Tls)
                && tls.proxy_protocol == ["10.0.0.1/32".parse().unwrap()]
                && tls.tls.as_ref().is_some_and(|tls| tls.cert_pem_path == Path::new("a"))
        },
    ),
    ("mode", r#""tls""#, "tls", |c| c.mode == Mode::Tls),
    ("server.drain_seconds", "0", "0", |c| c.server.drain_seconds == 0),
    ("server.request_timeout_seconds", "31", "31", |c| c.server.request_timeout_seconds == 31),
    ("server.keep_alive_seconds", "76", "76", |c| c.server.keep_alive_seconds == 76),
    ("server.pull_wait_max_ms", "0", "0", |c| c.server.pull_wait_max_ms == 0),
    ("server.start_wait_seconds", "0", "0", |c| c.server.start_wait_seconds == 0),
    ("server.max_connections", "1_000", "1_000", |c| c.server.max_connections == 1000),
    ("server.max_connections_per_address", "50", "50", |c| c.server.max_connections_per_address == 50),
    ("server.max_connection_age_seconds", "60", "60", |c| c.server.max_connection_age_seconds == 60),
    ("server.max_inflight_bytes", "0x2000_0000", "536_870_912", |c| {
        c.server.max_inflight_bytes == 536_870_912
    }),
    ("server.public_stats", "false", "false", |c| !c.server.public_stats),
    ("server.allowed_hosts", r#"["relay.example.org", "*"]"#, "relay.example.org, *", |c| {
        c.server.allowed_hosts == ["relay.example.org", "*"]
    }),
    ("log.access", r#""on""#, "on", |c| c.log.access == AccessLog::On),
    ("log.access_addresses", r#""full""#, "full", |c| c.log.access_addresses == AccessAddresses::Full),
    ("admin.address", r#""[::1]:7002""#, "[::1]:7002", |c| c.admin.address == "[::1]:7002"),
    ("admin.allowed_hosts", r#"["relay"]"#, " relay,", |c| c.admin.allowed_hosts == ["relay"]),
    ("admin.control_path", r#""/s""#, "/s", |c| c.admin.control_path == Path::new("/s")),
    ("tls.cert_pem_path", r#""c""#, "c", |c| {
        c.tls.as_ref().is_some_and(|t| t.cert_pem_path == Path::new("c"))
    }),
    ("tls.key_pem_path", r#""k""#, "k", |c| c.tls.as_ref().is_some_and(|t| t.key_pem_path == Path::new("k"))),
    ("tls.client_ca_pem_path", r#""a""#, "a", |c| {
        c.tls.as_ref().is_some_and(|t| t.client_ca_pem_path == Some(PathBuf::from("a")))
    }),
    ("tls.client_crl_pem_path", r#""r""#, "r", |c| {
        c.tls.as_ref().is_some_and(|t| t.client_crl_pem_path == Some(PathBuf::from("r")))
    }),
    ("storage.kind", r#""memory""#, "memory", |c| c.storage.kind == StorageKind::Memory),
    ("storage.path", r#""1""#, "1", |c| c.storage.path == Path::new("1")),
    ("storage.cache_bytes", "0x200000", "2_097_152", |c| c.storage.cache_bytes == 2_097_152),
    ("storage.min_free_bytes", "0", "0", |c| c.storage.min_free_bytes == 0),
    ("storage.max_bytes", "0x4000000", "67_108_864", |c| c.storage.max_bytes == 67_108_864),
    ("storage.trust_clock", "true", "true", |c| c.storage.trust_clock),
    ("storage.postgres.dsn", "\"host=a\"", "host=a", |c| c.storage.postgres.dsn == "host=a"),
    (
        "storage.postgres.shards",
        r#"[{ dsn = "host=a", slots = "0-255" }]"#,
        r#"[{ dsn = "host=a", slots = "0-255" }]"#,
        |c| matches!(c.storage.postgres.shards.as_slice(), [shard] if shard.dsn == "host=a" && shard.slots == "0-255"),
    ),
    ("storage.postgres.password_path", "\"p\"", "p", |c| c.storage.postgres.password_path == Path::new("p")),
    ("storage.postgres.tls", "\"off\"", "off", |c| c.storage.postgres.tls == PostgresTls::Off),
    ("storage.postgres.ca_path", "\"c\"", "c", |c| c.storage.postgres.ca_path == Path::new("c")),
    ("storage.postgres.durability", "\"managed\"", "managed", |c| {
        c.storage.postgres.durability == PostgresDurability::Managed
    }),
    ("storage.postgres.write_connections", "5", "5", |c| c.storage.postgres.write_connections == 5),
    ("storage.postgres.read_connections", "5", "5", |c| c.storage.postgres.read_connections == 5),
    ("privacy.key_path", r#""key""#, "key", |c| c.privacy.key_path == Path::new("key")),
    ("privacy.hash_recipients", "false", "false", |c| !c.privacy.hash_recipients),
    ("auth.locks", "false", "false", |c| !c.auth.locks),
    ("auth.plain_names", r#""deny""#, "deny", |c| c.auth.plain_names == PlainNames::Deny),
    ("auth.push", r#""token""#, "token", |c| c.auth.push == PushPlain::Token),
    ("auth.audiences", r#"["a", "b"]"#, "a,b", |c| c.auth.audiences == ["a", "b"]),
    ("auth.issuer", r#""https://issuer""#, "https://issuer", |c| c.auth.issuer == "https://issuer"),
    ("auth.issuer_jwks_path", r#""/keys.json""#, "/keys.json", |c| {
        c.auth.issuer_jwks_path == Path::new("/keys.json")
    }),
    ("relay.max_message_bytes", "1_000", "1_000", |c| c.relay.max_message_bytes == 1000),
    ("relay.max_batch_bytes", "2_000", "2_000", |c| c.relay.max_batch_bytes == 2000),
    ("relay.max_queue_bytes_per_user", "9223372036854775807", "9223372036854775807", |c| {
        c.relay.max_queue_bytes_per_user == 9_223_372_036_854_775_807
    }),
    ("relay.max_messages_per_user", "3", "3", |c| c.relay.max_messages_per_user == 3),
    ("relay.message_ttl_seconds", "4", "4", |c| c.relay.message_ttl_seconds == 4),
    ("relay.gc_interval_seconds", "5", "5", |c| c.relay.gc_interval_seconds == 5),
    ("relay.pull_batch_max", "6", "6", |c| c.relay.pull_batch_max == 6),
    ("relay.pull_bytes_max", "7", "7", |c| c.relay.pull_bytes_max == 7),
    ("relay.dedup_window_seconds", "0", "0", |c| c.relay.dedup_window_seconds == 0),
    ("rate_limit.enabled", "false", "false", |c| !c.rate_limit.enabled),
    ("rate_limit.per_ip_rps", "8", "8", |c| c.rate_limit.per_ip_rps == 8),
    ("rate_limit.burst", "4294967295", "4294967295", |c| c.rate_limit.burst == u32::MAX),
    ("rate_limit.max_wait_ms", "0", "0", |c| c.rate_limit.max_wait_ms == 0),
    ("rate_limit.push_bytes_per_second", "0", "0", |c| c.rate_limit.push_bytes_per_second == 0),
    ("rate_limit.push_items_per_second", "0", "0", |c| c.rate_limit.push_items_per_second == 0),
    ("rate_limit.push_per_recipient_rps", "5", "5", |c| c.rate_limit.push_per_recipient_rps == 5),
    ("rate_limit.per_name_rps", "8", "8", |c| c.rate_limit.per_name_rps == 8),
    ("rate_limit.names_per_address", "8", "8", |c| c.rate_limit.names_per_address == 8),
    ("rate_limit.ban_seconds", "0", "0", |c| c.rate_limit.ban_seconds == 0),
    ("rate_limit.ban_threshold", "9", "9", |c| c.rate_limit.ban_threshold == 9),
    ("rate_limit.ipv6_prefix", "128", "128", |c| c.rate_limit.ipv6_prefix == 128),
    ("rate_limit.trusted_proxies", r#"["10.0.0.0/8", "unix", "::1"]"#, "10.0.0.0/8, unix, ::1", |c| {
        c.rate_limit.trusted_proxies == ["10.0.0.0/8", "unix", "::1/128"].map(|peer| peer.parse().unwrap())
    }),
    ("rate_limit.exempt", r#"["192.0.2.0/24"]"#, "192.0.2.0/24", |c| {
        c.rate_limit.exempt == ["192.0.2.0/24".parse().unwrap()]
    }),
    ("rate_limit.max_tracked_addresses", "1", "1", |c| c.rate_limit.max_tracked_addresses == 1),
    ("rate_limit.endpoints.push_rps", "11", "11", |c| c.rate_limit.endpoints.push_rps == 11),
    ("rate_limit.endpoints.pull_rps", "12", "12", |c| c.rate_limit.endpoints.pull_rps == 12),
    ("rate_limit.endpoints.ack_rps", "13", "13", |c| c.rate_limit.endpoints.ack_rps == 13),
    (
        "cors.allowed_origins",
        r#"["https://a.example", "tauri://localhost"]"#,
        "https://a.example,tauri://localhost",
        |c| c.cors.allowed_origins == ["https://a.example", "tauri://localhost"],
    ),
    ("wake.url", r#""https://push.example/wake""#, "https://push.example/wake", |c| {
        c.wake.url == "https://push.example/wake"
    }),
    ("wake.key_path", r#""w""#, "w", |c| c.wake.key_path == Path::new("w")),
    ("wake.ca_path", r#""a""#, "a", |c| c.wake.ca_path == Path::new("a")),
    ("wake.allow_http", "true", "true", |c| c.wake.allow_http),
    ("wake.grace_ms", "0", "0", |c| c.wake.grace_ms == 0),
    ("wake.confirm_seconds", "0", "0", |c| c.wake.confirm_seconds == 0),
    ("wake.quiet_seconds", "1", "1", |c| c.wake.quiet_seconds == 1),
    ("wake.timeout_seconds", "11", "11", |c| c.wake.timeout_seconds == 11),
    ("wake.attempts", "1", "1", |c| c.wake.attempts == 1),
    ("wake.max_queues", "1_000_000", "1_000_000", |c| c.wake.max_queues == 1_000_000),
    ("wake.max_concurrent_calls", "256", "256", |c| c.wake.max_concurrent_calls == 256),
    ("wake.max_calls_per_second", "10_000", "10_000", |c| c.wake.max_calls_per_second == 10_000),
];

/// The full names of all keys in a TOML text, sorted.
fn names(text: &str) -> Vec<String> {
    fn collect(table: &toml::Table, prefix: &str, into: &mut Vec<String>) {
        for (leaf, value) in table {
            match value {
                toml::Value::Table(inner) => collect(inner, &format!("{prefix}{leaf}."), into),
                _ => into.push(format!("{prefix}{leaf}")),
            }
        }
    }
    let mut all = Vec::new();
    collect(&text.parse().unwrap(), "", &mut all);
    all.sort();
    all
}

#[test]
fn the_shipped_file_contains_every_key() {
    let mut expected: Vec<_> = EVERY_KEY.iter().map(|row| row.0.to_owned()).collect();
    expected.sort();

    let uncommented =
        ["cert", "key", "client_ca", "client_crl"].iter().fold(SHIPPED.to_owned(), |text, name| {
            text.replace(&format!("# {name}_pem_path"), &format!("{name}_pem_path"))
        });
    let uncommented = uncommented.replace("mode = \"http\"", "mode = \"tls\"");
    assert_eq!(names(&uncommented), expected);
    let config = file(&uncommented).load().unwrap().config;
    assert_eq!(names(&config.to_toml()), expected);
}

#[test]
fn every_key_is_read_from_file_and_environment() {
    for (name, toml, text, holds) in EVERY_KEY {
        assert!(!holds(&documented_defaults()), "{name}: the row tests the default");
        // The keys of TLS require mode = "tls", which requires other keys of TLS. The keys of the
        // issuer require each other, and so do the URL of the gateway and its key.
        let group = |name: &str| match name {
            "mode" => Some("tls"),
            "auth.issuer" | "auth.issuer_jwks_path" | "auth.push" | "auth.audiences" => Some("issuer"),
            "wake.url" | "wake.key_path" => Some("wake"),
            name => name.starts_with("tls.").then_some("tls"),
        };
        let rest: String = EVERY_KEY
            .iter()
            .filter(|row| row.0 != *name && group(name).is_some() && group(row.0) == group(name))
            .map(|(name, toml, ..)| format!("{name} = {toml}\n"))
            .collect();
        let from_file = file(&format!("{rest}{name} = {toml}\n")).load().unwrap();
        assert!(holds(&from_file.config), "{name} from the file");

        let variable = format!("RELAY__{}", name.to_uppercase().replace('.', "__"));
        let from_env = Given { file: &rest, env: &[(&variable, text)], flags: &[] }.load().unwrap();
        assert_eq!(from_env.config, from_file.config, "{name} from the environment");
    }
}

#[test]
fn later_sources_override_earlier_ones() {
    let mut given =
        file("address = \"127.0.0.1:1\"\n[storage]\npath = \"file\"\n[relay]\npull_batch_max = 1");
    let held = |given: &Given<'_>| {
        let config = given.load().unwrap().config;
        (config.address, config.storage.path, config.relay.pull_batch_max)
    };
    assert_eq!(held(&given), ("127.0.0.1:1".to_owned(), "file".into(), 1));

    given.env = &[
        ("RELAY__ADDRESS", "127.0.0.1:2"),
        ("RELAY__STORAGE__PATH", "env"),
        ("RELAY__RELAY__PULL_BATCH_MAX", "2"),
    ];
    assert_eq!(held(&given), ("127.0.0.1:2".to_owned(), "env".into(), 2));

    given.flags = &["--address", "127.0.0.1:3", "--storage-path", "flag"];
    assert_eq!(held(&given), ("127.0.0.1:3".to_owned(), "flag".into(), 2));
}

#[test]
fn tables_may_be_partial_empty_or_dotted() {
    for text in ["[tls]", "[server]\n[relay]\n[rate_limit.endpoints]", "rate_limit.endpoints = {}"] {
        assert_eq!(file(text).load().unwrap().config, documented_defaults(), "{text}");
    }
    let memory = file("[storage]\nkind = \"memory\"").load().unwrap().config;
    assert_eq!(memory.storage, StorageConfig { kind: StorageKind::Memory, ..StorageConfig::default() });
    assert_eq!(file("\u{feff}relay.pull_batch_max = 9").load().unwrap().config.relay.pull_batch_max, 9);
}

#[test]
fn other_variables_are_ignored() {
    let foreign =
        [("PATH", "/bin"), ("RELAY_PORT", "tcp://10.0.0.1:7000"), ("RELAY", "x"), ("relay__address", "x")];
    assert_eq!(env(&foreign).load().unwrap().config, documented_defaults());
    let empty_list = env(&[("RELAY__RATE_LIMIT__TRUSTED_PROXIES", "")]);
    assert_eq!(empty_list.load().unwrap().config, documented_defaults());
}

#[test]
fn a_printed_configuration_reads_back_the_same() {
    let rows: Vec<String> = EVERY_KEY.iter().map(|(name, toml, ..)| format!("{name} = {toml}\n")).collect();
    for text in [String::new(), rows.concat()] {
        let config = file(&text).load().unwrap().config;
        assert_eq!(file(&config.to_toml()).load().unwrap().config, config);
    }
    let mut odd = RelayConfig::default();
    odd.storage.path = "a \"quoted\\path\"\n\t'''\u{1}é".into();
    odd.tls = Some(TlsConfig {
        cert_pem_path: PathBuf::new(),
        key_pem_path: PathBuf::new(),
        client_ca_pem_path: None,
        client_crl_pem_path: None,
    });
    assert_eq!(file(&odd.to_toml()).load().unwrap().config, odd);
}

#[test]
fn a_printed_configuration_is_plain_toml() {
    let text = file("address = \"[::1]:1\"\nrate_limit.trusted_proxies = [\"10.0.0.1\"]")
        .load()
        .unwrap()
        .config
        .to_toml();
    assert!(
        text.starts_with(
            "address = \"[::1]:1\"\nsocket_mode = \"0660\"\nproxy_protocol = []\nlisten = []\nmode = \"http\"\n\n[server]\ndrain_seconds = 20\n"
        ),
        "{text}"
    );
    assert!(text.contains("\ntrusted_proxies = [\"10.0.0.1/32\"]\n"), "{text}");
    assert!(!text.contains("[tls]"), "{text}");
}
