//! Converts the configuration to the options of each crate. These pure functions define what each
//! key means.

#[cfg(feature = "postgres")]
use std::io;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use relay_auth::Issuer;
use relay_core::{Limits, MemoryRelay};
use relay_http::{AllowedHosts, Auth, CursorKey, Liveness, Origin, Peers, RateLimit, Readiness};
#[cfg(feature = "redb")]
use relay_store_redb::OpenError;

use crate::clock::SystemClock;
use crate::config::{
    AccessAddresses, AccessLog, AuthConfig, PeerNetwork, PlainNames, PushPlain, RateLimitConfig, RelayConfig,
    RelayLimits, ServerConfig, WakeConfig,
};
#[cfg(feature = "postgres")]
use crate::config::{PostgresDurability, PostgresTls};
#[cfg(feature = "redb")]
use crate::error::RelayError;
#[cfg(feature = "redb")]
use crate::key_file::{self, KeyFileError, KeyFileFault, RootKey};
#[cfg(feature = "postgres")]
use crate::small_file;

pub(crate) fn limits(relay: &RelayLimits) -> Limits {
    Limits {
        message_bytes_max: relay.max_message_bytes,
        queue_bytes_max: relay.max_queue_bytes_per_user,
        queue_items_max: relay.max_messages_per_user,
        ttl_ms: relay.message_ttl_seconds.saturating_mul(1000),
        page_items_max: relay.pull_batch_max,
        page_bytes_max: relay.pull_bytes_max,
        dedup_window_ms: relay.dedup_window_seconds.saturating_mul(1000),
    }
}

/// An empty path is none.
fn given(path: &Path) -> Option<PathBuf> {
    Some(path).filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned)
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// `validate` has refused zeros.
fn positive_count(number: u64) -> NonZeroUsize {
    NonZeroUsize::new(count(number)).unwrap_or(NonZeroUsize::MIN)
}

/// `validate` has refused zeros.
fn positive(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// `privacy.key_path`, unless it is empty.
pub(crate) fn configured_key_path(config: &RelayConfig) -> Option<PathBuf> {
    given(&config.privacy.key_path)
}

/// The path of the key file of a relay with a redb store.
#[cfg(feature = "redb")]
pub(crate) fn key_path(config: &RelayConfig) -> PathBuf {
    configured_key_path(config).unwrap_or_else(|| config.storage.path.join(key_file::FILE_NAME))
}

pub(crate) fn http_options(
    config: &RelayConfig,
    cursor_key: CursorKey,
    readiness: Readiness,
    issuer: Option<Issuer>,
) -> relay_http::Options {
    relay_http::Options {
        limits: limits(&config.relay),
        batch_bytes_max: config.relay.batch_bytes(),
        inflight_bytes_max: count(config.server.max_inflight_bytes),
        connections_max: positive_count(config.server.max_connections),
        connections_per_address_max: positive_count(connections_per_address(&config.server)),
        connection_age_max: Duration::from_secs(config.server.max_connection_age_seconds),
        request_timeout: Duration::from_secs(config.server.request_timeout_seconds),
        keep_alive: Duration::from_secs(config.server.keep_alive_seconds),
        pull_wait_max: Duration::from_millis(config.server.pull_wait_max_ms),
        drain: Duration::from_secs(config.server.drain_seconds),
        rate_limit: config.rate_limit.enabled.then(|| rate_limit(&config.rate_limit)),
        public_stats: config.server.public_stats,
        cursor_key,
        readiness,
        access_log: access_log(config),
        allowed_hosts: public_hosts(config, false),
        loopback_hosts: public_hosts(config, true),
        liveness: Liveness::default(),
        allowed_origins: config.cors.allowed_origins.iter().filter_map(|text| Origin::parse(text)).collect(),
        auth: Auth { settings: auth_settings(&config.auth, issuer), clock: Arc::new(SystemClock) },
    }
}

fn access_log(config: &RelayConfig) -> Option<relay_http::AccessLog> {
    (config.log.access == AccessLog::On).then(|| relay_http::AccessLog {
        addresses: match config.log.access_addresses {
            AccessAddresses::Truncated => relay_http::AccessAddresses::Truncated,
            AccessAddresses::Full => relay_http::AccessAddresses::Full,
        },
        // They name the clients, also without a rate limit.
        trusted_proxies: peers(&config.rate_limit.trusted_proxies),
    })
}

/// The host names of a listener. `is_loopback`: whether its clients connect over TCP, and only from
/// this machine.
fn public_hosts(config: &RelayConfig, is_loopback: bool) -> AllowedHosts {
    match config.server.allowed_hosts.as_slice() {
        // A proxy may use any name for the relay. So without configured names, the check applies to
        // browsers only.
        [] => allowed_hosts(&[], is_loopback).of_browsers(),
        names => allowed_hosts(names, is_loopback),
    }
}

/// `issuer` is that of `auth.issuer`, with the keys in its file.
pub(crate) fn auth_settings(auth: &AuthConfig, issuer: Option<Issuer>) -> relay_auth::Settings {
    relay_auth::Settings {
        locks: auth.locks,
        plain_names: match auth.plain_names {
            PlainNames::Open => relay_auth::PlainNames::Open,
            PlainNames::Token => relay_auth::PlainNames::Token,
            PlainNames::Deny => relay_auth::PlainNames::Deny,
        },
        push: match auth.push {
            PushPlain::Open => relay_auth::PushPlain::Open,
            PushPlain::Token => relay_auth::PushPlain::Token,
        },
        audiences: auth.audiences.clone(),
        issuer,
    }
}

/// `is_loopback`: whether operators connect from this machine only.
pub(crate) fn admin_options(
    config: &RelayConfig,
    is_loopback: bool,
    readiness: Readiness,
) -> relay_http::AdminOptions {
    let allowed_hosts = allowed_hosts(&config.admin.allowed_hosts, is_loopback);
    relay_http::AdminOptions { readiness, allowed_hosts }
}

/// Without configured names, a loopback address allows only loopback names.
fn allowed_hosts(names: &[String], is_loopback: bool) -> AllowedHosts {
    match names {
        [] if !is_loopback => AllowedHosts::any(),
        names => AllowedHosts::only(names.iter().map(String::as_str)),
    }
}

/// By default, a twentieth of all connections.
fn connections_per_address(server: &ServerConfig) -> u64 {
    match server.max_connections_per_address {
        0 => (server.max_connections / 20).max(8),
        given => given,
    }
}

fn rate_limit(config: &RateLimitConfig) -> RateLimit {
    RateLimit {
        per_address_rps: positive(config.per_ip_rps),
        burst: positive(config.burst),
        push_rps: positive(config.endpoints.push_rps),
        pull_rps: positive(config.endpoints.pull_rps),
        ack_rps: positive(config.endpoints.ack_rps),
        max_wait: Duration::from_millis(config.max_wait_ms),
        push_bytes_per_second: NonZeroU64::new(config.push_bytes_per_second),
        push_items_per_second: NonZeroU64::new(config.push_items_per_second),
        push_per_recipient_rps: NonZeroU32::new(config.push_per_recipient_rps),
        per_name_rps: positive(config.per_name_rps),
        names_per_address: config.names_per_address,
        ban: Duration::from_secs(config.ban_seconds),
        ban_threshold: positive(config.ban_threshold),
        ipv6_prefix: config.ipv6_prefix,
        trusted_proxies: peers(&config.trusted_proxies),
        exempt: config.exempt.clone(),
        tracked_addresses_max: positive_count(config.max_tracked_addresses),
    }
}

pub(crate) fn peers(networks: &[PeerNetwork]) -> Peers {
    Peers {
        networks: networks.iter().filter_map(|peer| peer.network()).collect(),
        unix: networks.contains(&PeerNetwork::Unix),
    }
}

/// The bound of a store in memory, which has no other bound.
pub(crate) const fn memory_bytes_max(max_bytes: u64) -> u64 {
    if max_bytes == 0 { MemoryRelay::BYTES_MAX } else { max_bytes }
}

/// `url` is that of `wake.url`, and `key` the one in its file.
pub(crate) fn wake_options(
    wake: &WakeConfig,
    url: relay_wake::GatewayUrl,
    key: relay_wake::WakeKey,
) -> relay_wake::Options {
    relay_wake::Options {
        url,
        key,
        ca_path: given(&wake.ca_path),
        rules: relay_wake::Rules {
            grace: Duration::from_millis(wake.grace_ms),
            confirm: Duration::from_secs(wake.confirm_seconds),
            quiet: Duration::from_secs(wake.quiet_seconds),
            attempts_max: positive(wake.attempts),
            queues_max: positive_count(wake.max_queues),
            calls_max: positive_count(wake.max_concurrent_calls),
            calls_per_second: positive(wake.max_calls_per_second),
        },
        timeout: Duration::from_secs(wake.timeout_seconds),
    }
}

#[cfg(feature = "redb")]
pub(crate) fn store_options(
    config: &RelayConfig,
    recipients: relay_store_redb::RecipientNames,
) -> relay_store_redb::Options {
    relay_store_redb::Options {
        cache_bytes: cache_bytes(config),
        free_bytes_min: config.storage.min_free_bytes,
        store_bytes_max: config.storage.max_bytes,
        trust_clock: config.storage.trust_clock,
        recipients,
        // The HTTP server bounds the bytes in flight; the store must not reject what it accepted.
        waiting_bytes_max: config.server.max_inflight_bytes,
        ..relay_store_redb::Options::default()
    }
}

/// `key_id` is that of the key that all relays of the databases share. Reads the file with the
/// password.
///
/// # Errors
/// [`RelayError::Password`].
#[cfg(feature = "postgres")]
pub(crate) fn postgres_options(
    config: &RelayConfig,
    key_id: [u8; 8],
) -> Result<relay_store_postgres::Options, RelayError> {
    use relay_store_postgres::{
        Durability, Options, Password, PostgresError, RecipientNames, ShardOptions, Slots, Tls,
    };

    let postgres = &config.storage.postgres;
    let password = given(&postgres.password_path).map(|path| {
        let read = password(&path);
        read.map(Password).map_err(|source| RelayError::Password { path, source })
    });
    let shards = match postgres.shards.as_slice() {
        [] => vec![ShardOptions::alone(postgres.dsn.clone())],
        shards => {
            let shards = shards
                .iter()
                .map(|shard| Ok(ShardOptions { dsn: shard.dsn.clone(), slots: Slots::parse(&shard.slots)? }));
            shards.collect::<Result<_, PostgresError>>()?
        }
    };
    // Some of the connections that write are for large payloads.
    let writers = count(postgres.write_connections);
    let large_lanes = (writers / 4).max(1);
    Ok(Options {
        shards,
        password: password.transpose()?,
        ca_path: given(&postgres.ca_path),
        tls: match postgres.tls {
            PostgresTls::VerifyFull => Tls::VerifyFull,
            PostgresTls::Off => Tls::Off,
        },
        durability: match postgres.durability {
            PostgresDurability::Replicated => Durability::Replicated,
            PostgresDurability::Managed => Durability::Managed,
            PostgresDurability::Single => Durability::Single,
        },
        recipients: RecipientNames { key_id, hash_new: config.privacy.hash_recipients },
        lanes: writers.saturating_sub(large_lanes),
        large_lanes,
        readers: count(postgres.read_connections),
        waiting_bytes_max: config.server.max_inflight_bytes,
        bytes_max: config.storage.max_bytes,
        ..Options::default()
    })
}

/// The first line of a file with a password.
#[cfg(feature = "postgres")]
fn password(path: &Path) -> io::Result<Vec<u8>> {
    const BYTES_MAX: u64 = 4096;
    let bytes = small_file::read(path, BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| io::Error::other("it is not a regular file"))?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

/// The memory of a store's page cache.
#[cfg(feature = "redb")]
pub(crate) fn cache_bytes(config: &RelayConfig) -> usize {
    count(config.storage.cache_bytes)
}

/// What a store gets as recipients from a relay with this key.
#[cfg(feature = "redb")]
pub(crate) fn recipient_names(config: &RelayConfig, key: &RootKey) -> relay_store_redb::RecipientNames {
    relay_store_redb::RecipientNames::Keyed { id: key.id(), hash_new: config.privacy.hash_recipients }
}

/// The error of a store that does not open. With a new key, it is the key file that is missing.
#[cfg(feature = "redb")]
pub(crate) fn open_error(error: OpenError, key_path: &Path, is_key_new: bool) -> RelayError {
    match error {
        OpenError::OtherKey { path: store, stored, .. } if is_key_new => {
            let fault = KeyFileFault::Lost { store, id: stored.to_string() };
            KeyFileError { path: key_path.to_owned(), fault }.into()
        }
        error => error.into(),
    }
}

#[cfg(feature = "tls")]
pub(crate) fn tls_paths(tls: &crate::config::TlsConfig) -> relay_http::tls::TlsPaths {
    relay_http::tls::TlsPaths {
        cert_pem: tls.cert_pem_path.clone(),
        key_pem: tls.key_pem_path.clone(),
        client_ca_pem: tls.client_ca_pem_path.clone(),
        client_crl_pem: tls.client_crl_pem_path.clone(),
    }
}
