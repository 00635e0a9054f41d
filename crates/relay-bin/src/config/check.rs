//! Checks a whole configuration for invalid and for unusual values. It opens no file and resolves
//! no host name.

mod issuer;
mod listen;
mod postgres;
mod wake;
mod warnings;

use std::path::Path;

use relay_http::{AllowedHosts, Origin};

use self::warnings::{
    warn_of_exposure, warn_of_inflight_bytes, warn_of_limits, warn_of_proxies, warn_of_rates,
};
use super::address::{check_host_and_port, is_loopback};
use super::error::Problem;
use super::keys::{self, Kind};
use super::value;
use super::{AuthConfig, PeerNetwork, PlainNames, RelayConfig, SOCKET_PATH_BYTES_MAX, StorageKind};

pub(super) const NOT_UTF8: &str = "must be UTF-8 text";

/// How many items one ack may list.
const ACK_ITEMS_MAX: u64 = relay_core::Ack::ITEMS_MAX as u64;

/// An empty store takes up to 48 MiB. After the store exceeds its bound, it must shrink by a
/// sixteenth of the bound before it accepts pushes again.
const STORE_BYTES_MIN: u64 = 64 << 20;

/// The optional features of this program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Build {
    pub(super) postgres: bool,
    pub(super) redb: bool,
    pub(super) tls: bool,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Build {
    pub(super) const THIS: Self = Self {
        postgres: cfg!(feature = "postgres"),
        redb: cfg!(feature = "redb"),
        tls: cfg!(feature = "tls"),
    };
}

impl Findings {
    fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem { key: Some(key.to_owned()), message: message.into(), origin: None });
    }

    fn warn_if(&mut self, condition: bool, warning: &str) {
        if condition {
            self.warnings.push(warning.to_owned());
        }
    }
}

/// Checks each value, and values that depend on each other.
pub(super) fn examine(config: &RelayConfig, build: Build) -> Findings {
    let mut findings = Findings::default();
    listen::check(config, build, &mut findings);
    check_admin(config, build, &mut findings);
    check_hosts_and_origins(config, &mut findings);
    check_storage(config, build, &mut findings);
    check_optional_path("privacy.key_path", &config.privacy.key_path, &mut findings);
    check_auth(&config.auth, &mut findings);
    issuer::check(config, build, &mut findings);
    wake::check(&config.wake, build, &mut findings);
    check_numbers(config, &mut findings);
    check_proxies("rate_limit.trusted_proxies", &config.rate_limit.trusted_proxies, &mut findings);
    warn_of_exposure(config, &mut findings);
    warn_of_limits(&config.relay, &mut findings);
    warn_of_inflight_bytes(config, &mut findings);
    warn_of_proxies(config, &mut findings);
    warn_of_rates(&config.rate_limit, &mut findings);
    findings
}

fn check_auth(auth: &AuthConfig, findings: &mut Findings) {
    let is_closed = auth.plain_names == PlainNames::Deny;
    findings.warn_if(
        is_closed && !auth.locks,
        "auth.plain_names: \"deny\" while auth.locks is false, so nobody can use the relay",
    );
    findings.warn_if(
        !auth.locks && auth.plain_names != PlainNames::Token,
        "auth.locks: false, so everybody who knows a recipient with a lock can read its queue, also what waits there now",
    );
    if auth.audiences.iter().any(String::is_empty) {
        findings.refuse("auth.audiences", "must not contain an empty text");
    }
    findings.warn_if(
        is_closed && auth.locks && auth.audiences.is_empty(),
        "auth.audiences: empty, so nobody can read ed25519: recipients; sha256: recipients work",
    );
}

fn check_numbers(config: &RelayConfig, findings: &mut Findings) {
    for key in keys::KEYS {
        let (number, fits) = match key.kind {
            Kind::Number { min, max, read } => (read(config), (min..=max).contains(&read(config))),
            Kind::Rate(read) => (read(config).into(), read(config) > 0 || !config.rate_limit.enabled),
            _ => continue,
        };
        if !fits {
            findings.refuse(key.name, value::unfit(key, &number.to_string()));
        }
    }
}

fn check_control_path(path: &Path, build: Build, findings: &mut Findings) {
    check_optional_path("admin.control_path", path, findings);
    let bytes = path.as_os_str().len();
    if bytes > 0 && !build.redb {
        let message = "is not built into this program; build it with the cargo feature \"redb\"";
        findings.refuse("admin.control_path", message);
    }
    if bytes > SOCKET_PATH_BYTES_MAX {
        let message = format!(
            "has {bytes} bytes, and the path of a socket has at most {SOCKET_PATH_BYTES_MAX}; choose a shorter one"
        );
        findings.refuse("admin.control_path", message);
    }
}

/// An empty address turns the admin server off.
fn check_admin(config: &RelayConfig, build: Build, findings: &mut Findings) {
    check_control_path(&config.admin.control_path, build, findings);
    let address = &config.admin.address;
    if address.is_empty() {
        return;
    }
    if let Err(message) = check_host_and_port(address) {
        return findings.refuse("admin.address", message);
    }
    let mut public = config.listen.iter().map(|listener| &listener.address).chain([&config.address]);
    if public.any(|public| public == address) && !address.ends_with(":0") {
        findings.refuse("admin.address", "must not be the public address; clients could read the counters");
    }
    findings.warn_if(
        !is_loopback(address),
        "admin.address: not loopback: anybody who can connect can read the counters; restrict it to your monitoring with a firewall",
    );
}

fn check_hosts_and_origins(config: &RelayConfig, findings: &mut Findings) {
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

fn check_storage(config: &RelayConfig, build: Build, findings: &mut Findings) {
    let max_bytes = config.storage.max_bytes;
    if (1..STORE_BYTES_MIN).contains(&max_bytes) {
        findings.refuse(
            "storage.max_bytes",
            format!(
                "must be 0 or at least {STORE_BYTES_MIN}, which even a small store needs; found {max_bytes}"
            ),
        );
    }
    match config.storage.kind {
        StorageKind::Memory => {
            findings.warn_if(true, "storage.kind: \"memory\" writes nothing; a restart loses all messages");
        }
        StorageKind::Postgres => postgres::check(config, build, findings),
        StorageKind::Redb => {
            check_path("storage.path", &config.storage.path, findings);
            if !build.redb {
                findings.refuse(
                    "storage.kind",
                    "\"redb\" is not built into this program; build it with the cargo feature \"redb\", \
                     or set kind = \"memory\" and lose all messages at a restart",
                );
            }
        }
    }
}

/// The relay compares addresses of the same family, so an IPv4 network that is written as IPv6
/// would match none. Parsing has already converted such networks in text.
fn check_proxies(key: &str, proxies: &[PeerNetwork], findings: &mut Findings) {
    let networks = proxies.iter().filter_map(|peer| peer.network());
    for network in networks.filter(value::is_mapped) {
        findings
            .refuse(key, format!("must list IPv4 networks in the form \"10.0.0.0/8\", found \"{network}\""));
    }
}

fn check_path(key: &str, path: &Path, findings: &mut Findings) {
    if path.as_os_str().is_empty() {
        findings.refuse(key, "must be a path; it is empty");
    }
    check_optional_path(key, path, findings);
}

fn check_optional_path(key: &str, path: &Path, findings: &mut Findings) {
    match path.to_str() {
        Some(text) if text.contains('\0') => {
            findings.refuse(key, "must be a path; a path cannot contain a NUL character");
        }
        Some(_) => {}
        None => findings.refuse(key, NOT_UTF8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    #[test]
    fn a_missing_feature_is_refused_by_its_name() {
        let config = RelayConfig { mode: Mode::Tls, ..RelayConfig::default() };
        let refused = |build: Build| -> Vec<String> {
            let problems = examine(&config, build).problems;
            problems.iter().map(ToString::to_string).filter(|line| !line.starts_with("tls.")).collect()
        };
        assert_eq!(refused(Build { postgres: true, redb: true, tls: true }), Vec::<String>::new());
        assert_eq!(
            refused(Build { postgres: false, redb: false, tls: false }),
            [
                "mode: \"tls\" is not built into this program; build it with the cargo feature \"tls\"",
                "storage.kind: \"redb\" is not built into this program; build it with the cargo feature \"redb\", \
                 or set kind = \"memory\" and lose all messages at a restart",
            ]
        );
        let auth = AuthConfig {
            issuer: "i".to_owned(),
            issuer_jwks_path: "keys".into(),
            audiences: vec!["a".to_owned()],
            ..AuthConfig::default()
        };
        let problems =
            examine(&RelayConfig { auth, ..config }, Build { postgres: false, redb: true, tls: false })
                .problems;
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let expected = "auth.issuer: tokens of an issuer are not built into this program; build it with the cargo feature \"tls\"";
        assert!(lines.iter().any(|line| line == expected), "{lines:?}");
    }
}
