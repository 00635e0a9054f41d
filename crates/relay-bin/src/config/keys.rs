//! The table of all keys: name, valid values, and the field of [`RelayConfig`]. Reading, checking
//! and printing all use this table, so none of them can miss a key.

use std::path::Path;

use ipnet::IpNet;

use super::postgres::without_password;
use super::{
    AccessAddresses, AccessLog, ListenConfig, Mode, PeerNetwork, PlainNames, PostgresDurability,
    PostgresShard, PostgresTls, PushPlain, RelayConfig, StorageKind,
};

/// The bound of messages and responses, which the relay holds in memory.
const GIB: u64 = 1 << 30;
/// The largest number in TOML.
const COUNT_MAX: u64 = i64::MAX as u64;
/// 100 years: more than any use needs, and milliseconds since 1970 cannot overflow.
const SECONDS_MAX: u64 = 3_153_600_000;
/// A day.
const WAIT_MS_MAX: u64 = 86_400_000;
const RATE_MAX: u64 = u32::MAX as u64;

/// All keys, with the tables in the order of the shipped file.
pub(super) const KEYS: &[Key] = &[
    text("address", |c| Some(c.address.clone())),
    text("socket_mode", |c| Some(c.socket_mode.clone())),
    peers("proxy_protocol", |c| &c.proxy_protocol),
    Key::new("listen", Kind::Listeners(|c| &c.listen)),
    choice("mode", &["http", "tls"], |c| mode(c.mode)),
    number("server.drain_seconds", 0, SECONDS_MAX, |c| c.server.drain_seconds).live(),
    number("server.request_timeout_seconds", 1, SECONDS_MAX, |c| c.server.request_timeout_seconds).live(),
    number("server.keep_alive_seconds", 1, SECONDS_MAX, |c| c.server.keep_alive_seconds).live(),
    number("server.pull_wait_max_ms", 0, WAIT_MS_MAX, |c| c.server.pull_wait_max_ms).live(),
    number("server.start_wait_seconds", 0, SECONDS_MAX, |c| c.server.start_wait_seconds),
    number("server.max_connections", 1, 1_000_000, |c| c.server.max_connections).live(),
    number("server.max_connections_per_address", 0, 1_000_000, |c| c.server.max_connections_per_address)
        .live(),
    number("server.max_connection_age_seconds", 1, SECONDS_MAX, |c| c.server.max_connection_age_seconds)
        .live(),
    number("server.max_inflight_bytes", 1 << 20, 1 << 40, |c| c.server.max_inflight_bytes),
    flag("server.public_stats", |c| c.server.public_stats).live(),
    texts("server.allowed_hosts", |c| &c.server.allowed_hosts).live(),
    text("admin.address", |c| Some(c.admin.address.clone())),
    texts("admin.allowed_hosts", |c| &c.admin.allowed_hosts),
    text("admin.control_path", |c| Some(lossy(&c.admin.control_path))),
    choice("log.access", &["off", "on"], |c| match c.log.access {
        AccessLog::Off => "off",
        AccessLog::On => "on",
    }),
    choice("log.access_addresses", &["truncated", "full"], |c| match c.log.access_addresses {
        AccessAddresses::Truncated => "truncated",
        AccessAddresses::Full => "full",
    }),
    text("tls.cert_pem_path", |c| c.tls.as_ref().map(|tls| lossy(&tls.cert_pem_path))),
    text("tls.key_pem_path", |c| c.tls.as_ref().map(|tls| lossy(&tls.key_pem_path))),
    text("tls.client_ca_pem_path", |c| c.tls.as_ref()?.client_ca_pem_path.as_deref().map(lossy)),
    text("tls.client_crl_pem_path", |c| c.tls.as_ref()?.client_crl_pem_path.as_deref().map(lossy)),
    choice("storage.kind", &["redb", "postgres", "memory"], |c| c.storage.kind.name()),
    text("storage.path", |c| Some(lossy(&c.storage.path))),
    number("storage.cache_bytes", 1 << 20, 1 << 40, |c| c.storage.cache_bytes),
    number("storage.min_free_bytes", 0, COUNT_MAX, |c| c.storage.min_free_bytes),
    number("storage.max_bytes", 0, COUNT_MAX, |c| c.storage.max_bytes),
    flag("storage.trust_clock", |c| c.storage.trust_clock),
    text("storage.postgres.dsn", |c| Some(without_password(&c.storage.postgres.dsn))),
    shards("storage.postgres.shards", |c| &c.storage.postgres.shards),
    text("storage.postgres.password_path", |c| Some(lossy(&c.storage.postgres.password_path))),
    choice("storage.postgres.tls", &["verify-full", "off"], |c| match c.storage.postgres.tls {
        PostgresTls::VerifyFull => "verify-full",
        PostgresTls::Off => "off",
    }),
    text("storage.postgres.ca_path", |c| Some(lossy(&c.storage.postgres.ca_path))),
    choice("storage.postgres.durability", &["replicated", "managed", "single"], |c| {
        match c.storage.postgres.durability {
            PostgresDurability::Replicated => "replicated",
            PostgresDurability::Managed => "managed",
            PostgresDurability::Single => "single",
        }
    }),
    number("storage.postgres.write_connections", 2, 128, |c| c.storage.postgres.write_connections),
    number("storage.postgres.read_connections", 1, 128, |c| c.storage.postgres.read_connections),
    text("privacy.key_path", |c| Some(lossy(&c.privacy.key_path))),
    flag("privacy.hash_recipients", |c| c.privacy.hash_recipients),
    flag("auth.locks", |c| c.auth.locks),
    choice("auth.plain_names", &["open", "token", "deny"], |c| match c.auth.plain_names {
        PlainNames::Open => "open",
        PlainNames::Token => "token",
        PlainNames::Deny => "deny",
    })
    .live(),
    choice("auth.push", &["open", "token"], |c| match c.auth.push {
        PushPlain::Open => "open",
        PushPlain::Token => "token",
    })
    .live(),
    texts("auth.audiences", |c| &c.auth.audiences).live(),
    text("auth.issuer", |c| Some(c.auth.issuer.clone())),
    text("auth.issuer_jwks_path", |c| Some(lossy(&c.auth.issuer_jwks_path))),
    number("relay.max_message_bytes", 1, GIB, |c| c.relay.max_message_bytes).live(),
    number("relay.max_batch_bytes", 1, GIB, |c| c.relay.max_batch_bytes).live(),
    number("relay.max_queue_bytes_per_user", 1, COUNT_MAX, |c| c.relay.max_queue_bytes_per_user).live(),
    number("relay.max_messages_per_user", 1, COUNT_MAX, |c| c.relay.max_messages_per_user).live(),
    number("relay.message_ttl_seconds", 1, SECONDS_MAX, |c| c.relay.message_ttl_seconds).live(),
    number("relay.gc_interval_seconds", 1, SECONDS_MAX, |c| c.relay.gc_interval_seconds).live(),
    number("relay.pull_batch_max", 1, 1_000_000, |c| c.relay.pull_batch_max).live(),
    number("relay.pull_bytes_max", 1, GIB, |c| c.relay.pull_bytes_max).live(),
    number("relay.dedup_window_seconds", 0, SECONDS_MAX, |c| c.relay.dedup_window_seconds).live(),
    flag("rate_limit.enabled", |c| c.rate_limit.enabled).live(),
    rate("rate_limit.per_ip_rps", |c| c.rate_limit.per_ip_rps).live(),
    rate("rate_limit.burst", |c| c.rate_limit.burst).live(),
    number("rate_limit.max_wait_ms", 0, 3_600_000, |c| c.rate_limit.max_wait_ms).live(),
    number("rate_limit.push_bytes_per_second", 0, COUNT_MAX, |c| c.rate_limit.push_bytes_per_second).live(),
    number("rate_limit.push_items_per_second", 0, COUNT_MAX, |c| c.rate_limit.push_items_per_second).live(),
    number("rate_limit.push_per_recipient_rps", 0, RATE_MAX, |c| c.rate_limit.push_per_recipient_rps.into())
        .live(),
    rate("rate_limit.per_name_rps", |c| c.rate_limit.per_name_rps).live(),
    number("rate_limit.names_per_address", 0, 1000, |c| c.rate_limit.names_per_address.into()).live(),
    number("rate_limit.ban_seconds", 0, SECONDS_MAX, |c| c.rate_limit.ban_seconds).live(),
    rate("rate_limit.ban_threshold", |c| c.rate_limit.ban_threshold).live(),
    number("rate_limit.ipv6_prefix", 1, 128, |c| c.rate_limit.ipv6_prefix.into()),
    peers("rate_limit.trusted_proxies", |c| &c.rate_limit.trusted_proxies).live(),
    networks("rate_limit.exempt", |c| &c.rate_limit.exempt).live(),
    number("rate_limit.max_tracked_addresses", 1, 100_000_000, |c| c.rate_limit.max_tracked_addresses),
    rate("rate_limit.endpoints.push_rps", |c| c.rate_limit.endpoints.push_rps).live(),
    rate("rate_limit.endpoints.pull_rps", |c| c.rate_limit.endpoints.pull_rps).live(),
    rate("rate_limit.endpoints.ack_rps", |c| c.rate_limit.endpoints.ack_rps).live(),
    texts("cors.allowed_origins", |c| &c.cors.allowed_origins).live(),
    text("wake.url", |c| Some(c.wake.url.clone())),
    text("wake.key_path", |c| Some(lossy(&c.wake.key_path))),
    text("wake.ca_path", |c| Some(lossy(&c.wake.ca_path))),
    flag("wake.allow_http", |c| c.wake.allow_http),
    number("wake.grace_ms", 0, 3_600_000, |c| c.wake.grace_ms),
    number("wake.confirm_seconds", 0, 86_400, |c| c.wake.confirm_seconds),
    number("wake.quiet_seconds", 1, 86_400, |c| c.wake.quiet_seconds),
    number("wake.timeout_seconds", 1, 300, |c| c.wake.timeout_seconds),
    number("wake.attempts", 1, 20, |c| c.wake.attempts.into()),
    number("wake.max_queues", 1, 1_000_000, |c| c.wake.max_queues),
    number("wake.max_concurrent_calls", 1, 256, |c| c.wake.max_concurrent_calls),
    number("wake.max_calls_per_second", 1, 10_000, |c| c.wake.max_calls_per_second.into()),
];

#[derive(Debug)]
pub(super) struct Key {
    /// The full name, such as `relay.max_message_bytes`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether a reload changes it. Other keys need a restart.
    pub(super) is_live: bool,
}

/// The type of a key, with a function that reads its value.
#[derive(Debug)]
pub(super) enum Kind {
    Text(fn(&RelayConfig) -> Option<String>),
    Choice(&'static [&'static str], fn(&RelayConfig) -> &'static str),
    Flag(fn(&RelayConfig) -> bool),
    Number {
        min: u64,
        max: u64,
        read: fn(&RelayConfig) -> u64,
    },
    /// Positive if `rate_limit.enabled` is true; any number otherwise.
    Rate(fn(&RelayConfig) -> u32),
    Networks(fn(&RelayConfig) -> &[IpNet]),
    /// Networks, and "unix".
    Peers(fn(&RelayConfig) -> &[PeerNetwork]),
    Texts(fn(&RelayConfig) -> &[String]),
    Shards(fn(&RelayConfig) -> &[PostgresShard]),
    Listeners(fn(&RelayConfig) -> &[ListenConfig]),
}

impl Key {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, is_live: false }
    }

    /// A reload changes this key.
    const fn live(self) -> Self {
        Self { is_live: true, ..self }
    }

    /// The environment variable that sets this key.
    pub(super) fn variable(&self) -> String {
        variable(self.name)
    }

    /// The valid values, to follow "must be".
    pub(super) fn allowed(&self) -> String {
        match &self.kind {
            Kind::Text(_) => "text".to_owned(),
            Kind::Choice(choices, _) => {
                choices.iter().map(|choice| format!("{choice:?}")).collect::<Vec<_>>().join(" or ")
            }
            Kind::Flag(_) => "true or false".to_owned(),
            Kind::Number { min, max, .. } => whole_number(*min, *max),
            Kind::Rate(_) => whole_number(1, RATE_MAX),
            Kind::Networks(_) => r#"a list of networks such as "10.0.0.0/8""#.to_owned(),
            Kind::Peers(_) => {
                r#"a list of networks such as "10.0.0.0/8", and "unix" for Unix sockets"#.to_owned()
            }
            Kind::Texts(_) => "a list of texts".to_owned(),
            Kind::Listeners(_) => {
                r#"a list of at most 64 tables such as [{ address = "[::]:443", mode = "tls" }, ...]"#
                    .to_owned()
            }
            Kind::Shards(_) => {
                r#"a list of databases such as [{ dsn = "host=a", slots = "0-127" }, ...]"#.to_owned()
            }
        }
    }

    /// The largest valid number; `None` if the key is not a number.
    pub(super) fn number_max(&self) -> Option<u64> {
        match self.kind {
            Kind::Number { max, .. } => Some(max),
            Kind::Rate(_) => Some(RATE_MAX),
            _ => None,
        }
    }
}

/// Finds a key by its full name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether this is the full name of a table.
pub(super) fn is_table(name: &str) -> bool {
    tables().any(|table| table == name)
}

/// Splits a full name into its table, "" for the top level, and the last part.
pub(super) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

/// The environment variable for a key's full name.
pub(super) fn variable(name: &str) -> String {
    format!("RELAY__{}", name.replace('.', "__").to_uppercase())
}

/// The known key with the most similar name, for a hint.
pub(super) fn nearest_key(name: &str) -> Option<&'static str> {
    nearest(name, &KEYS.iter().map(|key| key.name).collect::<Vec<_>>())
}

/// The known table with the most similar name, for a hint.
pub(super) fn nearest_table(name: &str) -> Option<&'static str> {
    nearest(name, &tables().collect::<Vec<_>>())
}

/// The keys and tables in a table, or in the top level if the table is unknown.
pub(super) fn members(table: &str) -> String {
    let table = if is_table(table) { table } else { "" };
    let keys = KEYS.iter().map(|key| split(key.name)).filter(|(parent, _)| *parent == table);
    let tables = tables().filter(|name| split(name).0 == table).map(|name| format!("[{name}]"));
    keys.map(|(_, leaf)| leaf.to_owned()).chain(tables).collect::<Vec<_>>().join(", ")
}

/// All tables, each once, in order.
fn tables() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter().map(|key| split(key.name).0).filter(move |table| {
        let is_new = *table != last;
        last = table;
        is_new
    })
}

/// A name that differs in a few letters, or has the same last part in another table. A hint with
/// less similarity would mislead.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    const NAME_BYTES_MAX: usize = 64;
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let leaf = split(name).1;
    let distance_max = (leaf.chars().count() / 3).max(1);
    let distance = |candidate: &&&'static str| strsim::damerau_levenshtein(name, candidate);
    let close = known.iter().min_by_key(distance).filter(|candidate| distance(candidate) <= distance_max);
    close.or_else(|| known.iter().find(|candidate| split(candidate).1 == leaf)).copied()
}

fn whole_number(min: u64, max: u64) -> String {
    format!("a whole number from {min} to {max}")
}

/// The check refuses paths that are not UTF-8, so a valid configuration is printed exactly.
fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Http => "http",
        Mode::Tls => "tls",
    }
}

const fn text(name: &'static str, read: fn(&RelayConfig) -> Option<String>) -> Key {
    Key::new(name, Kind::Text(read))
}

const fn choice(
    name: &'static str,
    choices: &'static [&'static str],
    read: fn(&RelayConfig) -> &'static str,
) -> Key {
    Key::new(name, Kind::Choice(choices, read))
}

const fn flag(name: &'static str, read: fn(&RelayConfig) -> bool) -> Key {
    Key::new(name, Kind::Flag(read))
}

const fn number(name: &'static str, min: u64, max: u64, read: fn(&RelayConfig) -> u64) -> Key {
    Key::new(name, Kind::Number { min, max, read })
}

const fn rate(name: &'static str, read: fn(&RelayConfig) -> u32) -> Key {
    Key::new(name, Kind::Rate(read))
}

const fn networks(name: &'static str, read: fn(&RelayConfig) -> &[IpNet]) -> Key {
    Key::new(name, Kind::Networks(read))
}

const fn peers(name: &'static str, read: fn(&RelayConfig) -> &[PeerNetwork]) -> Key {
    Key::new(name, Kind::Peers(read))
}

const fn texts(name: &'static str, read: fn(&RelayConfig) -> &[String]) -> Key {
    Key::new(name, Kind::Texts(read))
}

const fn shards(name: &'static str, read: fn(&RelayConfig) -> &[PostgresShard]) -> Key {
    Key::new(name, Kind::Shards(read))
}

impl StorageKind {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::Postgres => "postgres",
            Self::Memory => "memory",
        }
    }
}
