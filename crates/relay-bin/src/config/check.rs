//! What could never work, and what is merely odd, about a whole configuration. Pure: opens no file,
//! resolves no name, and does not know where a value came from.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use relay_http::{AllowedHosts, Origin};

use super::error::Problem;
use super::keys::{self, Kind};
use super::value;
use super::{Mode, RateLimitConfig, RelayConfig, RelayLimits, StorageKind, TlsConfig};

pub(super) const NOT_UTF8: &str = "must be UTF-8 text";

/// Entries that one acknowledgement may list.
const ACK_ENTRIES_MAX: u64 = relay_core::Ack::ITEMS_MAX as u64;

/// A store takes up to 48 MiB when nothing lives in it, and a bound has to be left again by a
/// sixteenth of it.
const STORE_BYTES_LEAST: u64 = 64 << 20;

/// What is built into this program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Build {
    pub(super) redb: bool,
    pub(super) tls: bool,
}

/// What the check found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Build {
    pub(super) const THIS: Self = Self { redb: cfg!(feature = "redb"), tls: cfg!(feature = "tls") };
}

impl Findings {
    fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem { key: Some(key.to_owned()), message: message.into(), origin: None });
    }

    fn warn_if(&mut self, odd: bool, line: &str) {
        if odd {
            self.warnings.push(line.to_owned());
        }
    }
}

/// Checks every value by itself, then what belongs together.
pub(super) fn examine(config: &RelayConfig, build: Build) -> Findings {
    let mut findings = Findings::default();
    if let Err(message) = check_address(&config.address) {
        findings.refuse("address", message);
    }
    check_admin(config, &mut findings);
    check_names(config, &mut findings);
    check_tls(config, build, &mut findings);
    check_storage(config, build, &mut findings);
    check_optional_path("privacy.key_path", &config.privacy.key_path, &mut findings);
    check_numbers(config, &mut findings);
    check_proxies(&config.rate_limit, &mut findings);
    warn_of_exposure(config, &mut findings);
    warn_of_limits(&config.relay, &mut findings);
    warn_of_flight(config, &mut findings);
    warn_of_rates(&config.rate_limit, &mut findings);
    findings
}

fn check_numbers(config: &RelayConfig, findings: &mut Findings) {
    for key in keys::KEYS {
        let (number, fits) = match key.kind {
            Kind::Number { min, max, read } => (read(config), (min..=max).contains(&read(config))),
            Kind::Rate(read) => (read(config).into(), read(config) > 0 || !config.rate_limit.enabled),
            Kind::Text(_) | Kind::Choice(..) | Kind::Flag(_) | Kind::Networks(_) | Kind::Texts(_) => {
                continue;
            }
        };
        if !fits {
            findings.refuse(key.name, value::unfit(key, &number.to_string()));
        }
    }
}

/// Holds an address to the shape that a bind can resolve: `ip:port`, `[ipv6]:port` or `name:port`.
fn check_address(address: &str) -> Result<(), String> {
    const SHAPE: &str = "must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000";
    if address.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let refuse = |why: &str| Err(format!("{SHAPE}; {} {why}", value::quoted(address)));
    if address.is_empty() {
        return Err(format!("{SHAPE}; it is empty"));
    }
    if address.contains("://") {
        return refuse("is a URL");
    }
    let Some((host, port)) = address.rsplit_once(':') else { return refuse("has no port") };
    if host.contains(':') {
        return refuse("is no IPv6 address in brackets with a port");
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return refuse("has no port from 0 to 65535");
    }
    if !is_host_name(host) {
        return refuse("has no valid host name or IP address");
    }
    Ok(())
}

/// An empty one means that nobody listens there.
fn check_admin(config: &RelayConfig, findings: &mut Findings) {
    let address = &config.admin.address;
    if address.is_empty() {
        return;
    }
    if let Err(message) = check_address(address) {
        return findings.refuse("admin.address", message);
    }
    if *address == config.address && !address.ends_with(":0") {
        findings.refuse("admin.address", "must not be the public address; clients would read the counters");
    }
    findings.warn_if(
        !is_loopback(address),
        "admin.address: not loopback: whoever reaches it may read the counters; let a firewall keep out all but your monitoring",
    );
}

/// Host names and origins, which a browser's requests are held to.
fn check_names(config: &RelayConfig, findings: &mut Findings) {
    for (key, names) in [
        ("server.allowed_hosts", &config.server.allowed_hosts),
        ("admin.allowed_hosts", &config.admin.allowed_hosts),
    ] {
        for name in names.iter().filter(|name| !AllowedHosts::is_name(name)) {
            let found = value::quoted(name);
            findings.refuse(
                key,
                format!("must list host names such as \"relay.example.org\", without a port, or \"*\" for any, found {found}"),
            );
        }
    }
    for origin in config.cors.allowed_origins.iter().filter(|origin| Origin::parse(origin).is_none()) {
        let found = value::quoted(origin);
        findings.refuse(
            "cors.allowed_origins",
            format!("must list origins such as \"https://app.example.org\" or \"tauri://localhost\", without a path, found {found}"),
        );
    }
}

/// Whether a resolver could know this name. A name that ends in a number is an IPv4 address with a
/// mistake in it.
fn is_host_name(host: &str) -> bool {
    const LONGEST: usize = 253;
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let last = host.rsplit('.').next().unwrap_or(host);
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    host.len() <= LONGEST
        && host.split('.').all(|label| !label.is_empty() && label.bytes().all(letters))
        && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

fn check_tls(config: &RelayConfig, build: Build, findings: &mut Findings) {
    if config.mode == Mode::Http {
        return refuse_unused_tls(config.tls.as_ref(), findings);
    }
    if !build.tls {
        findings.refuse(
            "mode",
            "\"tls\" is not built into this program; build it with the cargo feature \"tls\"",
        );
    }
    let tls = config.tls.as_ref();
    for (key, path) in [
        ("tls.cert_pem_path", tls.map(|tls| tls.cert_pem_path.as_path())),
        ("tls.key_pem_path", tls.map(|tls| tls.key_pem_path.as_path())),
    ] {
        match path.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => check_path(key, path, findings),
            None => findings
                .refuse(key, "must be the path of a PEM file when mode = \"tls\"; it is missing or empty"),
        }
    }
    let (ca, crl) = (
        tls.and_then(|tls| tls.client_ca_pem_path.as_deref()),
        tls.and_then(|tls| tls.client_crl_pem_path.as_deref()),
    );
    for (key, path) in [("tls.client_ca_pem_path", ca), ("tls.client_crl_pem_path", crl)] {
        if let Some(path) = path {
            check_path(key, path, findings);
        }
    }
    if crl.is_some() && ca.is_none() {
        findings.refuse(
            "tls.client_crl_pem_path",
            "needs tls.client_ca_pem_path: without authorities no client shows a certificate that could be revoked",
        );
    }
}

/// Who sets one of these wants TLS, or even clients with certificates. To serve clear text to
/// everybody instead would be the worst way to misunderstand that.
fn refuse_unused_tls(tls: Option<&TlsConfig>, findings: &mut Findings) {
    let Some(tls) = tls else { return };
    let is_set = |path: &Path| !path.as_os_str().is_empty();
    for (key, is_set) in [
        ("tls.cert_pem_path", is_set(&tls.cert_pem_path)),
        ("tls.key_pem_path", is_set(&tls.key_pem_path)),
        ("tls.client_ca_pem_path", tls.client_ca_pem_path.as_deref().is_some_and(is_set)),
        ("tls.client_crl_pem_path", tls.client_crl_pem_path.as_deref().is_some_and(is_set)),
    ] {
        if is_set {
            findings.refuse(
                key,
                "is set, and mode = \"http\" would serve clear text all the same; set mode = \"tls\", or take the key out",
            );
        }
    }
}

fn check_storage(config: &RelayConfig, build: Build, findings: &mut Findings) {
    let max_bytes = config.storage.max_bytes;
    if (1..STORE_BYTES_LEAST).contains(&max_bytes) {
        findings.refuse(
            "storage.max_bytes",
            format!("must be 0 or at least {STORE_BYTES_LEAST}, which a store takes with little in it; found {max_bytes}"),
        );
    }
    match config.storage.kind {
        StorageKind::Memory => {
            findings.warn_if(true, "storage.kind: \"memory\" writes nothing; messages are lost at a restart");
        }
        StorageKind::Redb => {
            check_path("storage.path", &config.storage.path, findings);
            if !build.redb {
                findings.refuse(
                    "storage.kind",
                    "\"redb\" is not built into this program; build it with the cargo feature \"redb\", \
                     or set kind = \"memory\" and lose messages at a restart",
                );
            }
        }
    }
}

/// Addresses are compared in their own family, so a network in the mapped form of IPv6 would match
/// none. From text, those that are IPv4 networks have become such already.
fn check_proxies(rates: &RateLimitConfig, findings: &mut Findings) {
    for network in rates.trusted_proxies.iter().filter(|network| value::is_mapped(network)) {
        findings.refuse(
            "rate_limit.trusted_proxies",
            format!("must list IPv4 networks as such, like \"10.0.0.0/8\", found \"{network}\""),
        );
    }
}

fn check_path(key: &str, path: &Path, findings: &mut Findings) {
    if path.as_os_str().is_empty() {
        findings.refuse(key, "must be a path; it is empty");
    }
    check_optional_path(key, path, findings);
}

/// An empty one means that there is none.
fn check_optional_path(key: &str, path: &Path, findings: &mut Findings) {
    match path.to_str() {
        Some(text) if text.contains('\0') => {
            findings.refuse(key, "must be a path; no path has a NUL character in it");
        }
        Some(_) => {}
        None => findings.refuse(key, NOT_UTF8),
    }
}

fn warn_of_exposure(config: &RelayConfig, findings: &mut Findings) {
    if is_loopback(&config.address) {
        return;
    }
    findings.warn_if(
        config.mode == Mode::Http,
        "address: not loopback, with mode = \"http\": other machines talk to the relay in clear text; \
         set mode = \"tls\", or keep it behind a proxy that ends TLS",
    );
    findings.warn_if(
        !config.rate_limit.enabled,
        "rate_limit.enabled: false, on an address that is not loopback: anybody may send any number of requests",
    );
}

/// A name other than localhost is not resolved here, and may be anything.
fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().to_canonical().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host.eq_ignore_ascii_case("localhost")),
    }
}

fn warn_of_limits(relay: &RelayLimits, findings: &mut Findings) {
    findings.warn_if(
        relay.max_queue_bytes_per_user < relay.max_message_bytes,
        "relay.max_queue_bytes_per_user: under relay.max_message_bytes, so the largest messages fit no queue",
    );
    findings.warn_if(
        relay.pull_bytes_max < relay.max_message_bytes,
        "relay.pull_bytes_max: under relay.max_message_bytes; a larger message is still sent, alone",
    );
    findings.warn_if(
        relay.pull_batch_max > ACK_ENTRIES_MAX,
        "relay.pull_batch_max: over 10000, so a full page cannot be acknowledged in one request",
    );
    findings.warn_if(
        relay.gc_interval_seconds > relay.message_ttl_seconds,
        "relay.gc_interval_seconds: over relay.message_ttl_seconds, so expired messages keep their space for long",
    );
    findings.warn_if(
        relay.dedup_window_seconds > relay.message_ttl_seconds,
        "relay.dedup_window_seconds: over relay.message_ttl_seconds, so messages are remembered longer than kept",
    );
}

/// The body of a push is at most 5/3 of its payload, and has room for that besides.
fn warn_of_flight(config: &RelayConfig, findings: &mut Findings) {
    let largest = config.relay.max_message_bytes.saturating_mul(3).max(config.relay.pull_bytes_max);
    findings.warn_if(
        config.server.max_inflight_bytes < largest,
        "server.max_inflight_bytes: under three times relay.max_message_bytes, or under relay.pull_bytes_max, so the \
         largest requests are answered only while nothing else is in flight",
    );
}

fn warn_of_rates(rates: &RateLimitConfig, findings: &mut Findings) {
    // Halves of all addresses are all addresses as well.
    let together = IpNet::aggregate(&rates.trusted_proxies);
    findings.warn_if(
        together.iter().any(|network| network.prefix_len() == 0),
        "rate_limit.trusted_proxies: believes every address, so any client may claim any address as its own",
    );
    if !rates.enabled {
        return;
    }
    let endpoints = &rates.endpoints;
    let fastest = endpoints.push_rps.max(endpoints.pull_rps).max(endpoints.ack_rps);
    findings.warn_if(
        rates.burst < fastest,
        "rate_limit.burst: under a rate of rate_limit.endpoints, so requests that come together are refused early",
    );
    findings.warn_if(
        rates.ban_threshold > 60,
        "rate_limit.ban_threshold: over 60, and a minute has no more seconds: it is taken as 60",
    );
    findings.warn_if(rates.ban_seconds == 0, "rate_limit.ban_seconds: 0, so no address is ever shut out");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_in_is_refused_by_the_name_of_its_feature() {
        let config = RelayConfig { mode: Mode::Tls, ..RelayConfig::default() };
        let refused = |build: Build| -> Vec<String> {
            let problems = examine(&config, build).problems;
            problems.iter().map(ToString::to_string).filter(|line| !line.starts_with("tls.")).collect()
        };
        assert_eq!(refused(Build { redb: true, tls: true }), Vec::<String>::new());
        assert_eq!(
            refused(Build { redb: false, tls: false }),
            [
                "mode: \"tls\" is not built into this program; build it with the cargo feature \"tls\"",
                "storage.kind: \"redb\" is not built into this program; build it with the cargo feature \"redb\", \
                 or set kind = \"memory\" and lose messages at a restart",
            ]
        );
    }
}
