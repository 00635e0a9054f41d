//! Every configuration key has an effect that is visible from outside. Each test is named after its
//! key, and a test compares the table below with the shipped file, so that no key lacks a test.

mod auth;
mod log;
mod postgres;
mod rate_limit;
mod relay;
mod server;
mod storage;
mod tls;
mod wake;

use std::path::Path;

use relay_bin::RelayError;
use relay_bin::config::RelayConfig;
use relay_tests::{Client, Relay, Response};
use serde_json::{Value, json};

const TESTS: &[(&str, fn())] = &[
    ("address", server::address),
    ("socket_mode", server::socket_mode),
    ("proxy_protocol", server::proxy_protocol),
    ("listen", server::listen),
    ("mode", tls::mode),
    ("server.drain_seconds", server::drain_seconds),
    ("server.request_timeout_seconds", server::request_timeout_seconds),
    ("server.keep_alive_seconds", server::keep_alive_seconds),
    ("server.pull_wait_max_ms", server::pull_wait_max_ms),
    ("server.start_wait_seconds", server::start_wait_seconds),
    ("server.max_connections", server::max_connections),
    ("server.max_connections_per_address", server::max_connections_per_address),
    ("server.max_connection_age_seconds", server::max_connection_age_seconds),
    ("server.max_inflight_bytes", server::max_inflight_bytes),
    ("server.public_stats", server::public_stats),
    ("server.allowed_hosts", server::allowed_hosts),
    ("admin.address", server::admin_address),
    ("admin.allowed_hosts", server::admin_allowed_hosts),
    ("admin.control_path", server::admin_control_path),
    ("log.access", log::access),
    ("log.access_addresses", log::access),
    ("tls.cert_pem_path", tls::tls_cert_pem_path),
    ("tls.key_pem_path", tls::tls_key_pem_path),
    ("tls.client_ca_pem_path", tls::tls_client_ca_pem_path),
    ("tls.client_crl_pem_path", tls::tls_client_crl_pem_path),
    ("storage.kind", storage::storage_kind),
    ("storage.path", storage::storage_path),
    ("storage.cache_bytes", storage::storage_cache_bytes_is_accepted_and_printed_and_changes_no_response),
    ("storage.min_free_bytes", storage::storage_min_free_bytes),
    ("storage.max_bytes", storage::storage_max_bytes),
    ("storage.trust_clock", storage::storage_trust_clock),
    ("storage.postgres.dsn", postgres::dsn),
    ("storage.postgres.shards", postgres::shards),
    ("storage.postgres.password_path", postgres::password_path),
    ("storage.postgres.tls", postgres::tls_and_ca_path),
    ("storage.postgres.ca_path", postgres::tls_and_ca_path),
    ("storage.postgres.durability", postgres::durability),
    ("storage.postgres.write_connections", postgres::connections),
    ("storage.postgres.read_connections", postgres::connections),
    ("privacy.key_path", storage::privacy_key_path),
    ("privacy.hash_recipients", storage::privacy_hash_recipients),
    ("auth.locks", auth::locks),
    ("auth.plain_names", auth::plain_names),
    ("auth.push", auth::push),
    ("auth.audiences", auth::audiences),
    ("auth.issuer", auth::issuer),
    ("auth.issuer_jwks_path", auth::issuer_jwks_path),
    ("relay.max_message_bytes", relay::max_message_bytes),
    ("relay.max_batch_bytes", relay::max_batch_bytes),
    ("relay.max_queue_bytes_per_user", relay::max_queue_bytes_per_user),
    ("relay.max_messages_per_user", relay::max_messages_per_user),
    ("relay.message_ttl_seconds", relay::message_ttl_seconds),
    ("relay.gc_interval_seconds", relay::gc_interval_seconds),
    ("relay.pull_batch_max", relay::pull_batch_max),
    ("relay.pull_bytes_max", relay::pull_bytes_max),
    ("relay.dedup_window_seconds", relay::dedup_window_seconds),
    ("rate_limit.enabled", rate_limit::enabled),
    ("rate_limit.per_ip_rps", rate_limit::per_ip_rps),
    ("rate_limit.per_name_rps", rate_limit::per_name_rps),
    ("rate_limit.names_per_address", rate_limit::names_per_address),
    ("rate_limit.burst", rate_limit::burst),
    ("rate_limit.max_wait_ms", rate_limit::max_wait_ms),
    ("rate_limit.push_bytes_per_second", rate_limit::push_bytes_per_second),
    ("rate_limit.push_items_per_second", rate_limit::push_items_per_second),
    ("rate_limit.push_per_recipient_rps", rate_limit::push_per_recipient_rps),
    ("rate_limit.ban_seconds", rate_limit::ban_seconds),
    ("rate_limit.ban_threshold", rate_limit::ban_threshold),
    ("rate_limit.ipv6_prefix", rate_limit::ipv6_prefix),
    ("rate_limit.trusted_proxies", rate_limit::trusted_proxies),
    ("rate_limit.exempt", rate_limit::exempt),
    ("rate_limit.max_tracked_addresses", rate_limit::max_tracked_addresses),
    ("rate_limit.endpoints.push_rps", rate_limit::push_rps),
    ("rate_limit.endpoints.pull_rps", rate_limit::pull_rps),
    ("rate_limit.endpoints.ack_rps", rate_limit::ack_rps),
    ("cors.allowed_origins", server::cors_allowed_origins),
    ("wake.url", wake::url),
    ("wake.key_path", wake::key_path),
    ("wake.ca_path", wake::ca_path),
    ("wake.allow_http", wake::allow_http),
    ("wake.grace_ms", wake::grace_ms),
    ("wake.confirm_seconds", wake::confirm_seconds),
    ("wake.quiet_seconds", wake::quiet_seconds),
    ("wake.timeout_seconds", wake::timeout_seconds),
    ("wake.attempts", wake::attempts),
    ("wake.max_queues", wake::max_queues),
    ("wake.max_concurrent_calls", wake::max_concurrent_calls),
    ("wake.max_calls_per_second", wake::max_calls_per_second),
];

/// Keys without a default, which the shipped file contains as comments.
const COMMENTED: &[&str] =
    &["tls.cert_pem_path", "tls.key_pem_path", "tls.client_ca_pem_path", "tls.client_crl_pem_path"];

/// The defaults of these tests: nothing on disk, no rate limit, a fast end.
const COMMON: &[(&str, &str)] =
    &[("storage.kind", "\"memory\""), ("rate_limit.enabled", "false"), ("server.drain_seconds", "1")];

/// The configuration of a file with these keys and values.
fn config(keys: &[(&str, &str)]) -> RelayConfig {
    let is_given = |name: &str| keys.iter().any(|(key, _)| *key == name);
    let common = COMMON.iter().filter(|(key, _)| !is_given(key));
    let lines: Vec<String> = common.chain(keys).map(|(key, value)| format!("{key} = {value}\n")).collect();
    RelayConfig::from_toml(&lines.concat()).unwrap().config
}

fn relay(keys: &[(&str, &str)]) -> Relay {
    Relay::with(|current| *current = config(keys))
}

/// The error of a start with these keys.
fn failure(keys: &[(&str, &str)]) -> RelayError {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(relay_bin::start(config(keys))).unwrap_err()
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::from(path.to_str().unwrap()).to_string()
}

fn connect(relay: &Relay) -> Client {
    relay.connect().unwrap()
}

/// The `details` of an error response with this status.
fn details(response: &Response, status: u16) -> Value {
    assert_eq!(response.status, status, "{}", response.json());
    response.json()["error"]["details"].take()
}

fn alice() -> Value {
    json!({"recipient": "alice"})
}

#[test]
fn every_key_of_the_shipped_file_has_a_test() {
    let shipped = include_str!("../../../deploy/relay.toml");
    let mut documented = Vec::new();
    collect(&shipped.parse().unwrap(), "", &mut documented);
    for key in COMMENTED {
        let (_, leaf) = key.rsplit_once('.').unwrap();
        assert!(shipped.contains(&format!("\n# {leaf} = ")), "{key}");
        documented.push((*key).to_owned());
    }
    documented.sort();
    let mut tested: Vec<_> = TESTS.iter().map(|(key, _)| (*key).to_owned()).collect();
    tested.sort();
    assert_eq!(tested, documented);
}

/// Collects the full names of all keys.
fn collect(table: &toml::Table, prefix: &str, names: &mut Vec<String>) {
    for (leaf, value) in table {
        match value {
            toml::Value::Table(inner) => collect(inner, &format!("{prefix}{leaf}."), names),
            _ => names.push(format!("{prefix}{leaf}")),
        }
    }
}
