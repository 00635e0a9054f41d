//! Checks where the relay listens, and the certificates that it shows there.

use std::path::Path;

use super::{Build, Findings, check_path, check_proxies};
use crate::config::address::{self, ListenAddress};
use crate::config::listen::{LISTENERS_MAX, paths};
use crate::config::{ListenConfig, Mode, RelayConfig, TlsConfig, value};

pub(super) fn check(config: &RelayConfig, build: Build, findings: &mut Findings) {
    let is_off = config.address.is_empty() && !config.listen.is_empty();
    if let Err(message) = ListenAddress::parse(&config.address)
        && !is_off
    {
        findings.refuse("address", message);
    }
    if address::socket_mode(&config.socket_mode).is_none() {
        let found = value::quoted(&config.socket_mode);
        let message = format!("must be permissions in octal digits such as \"0660\", found {found}");
        findings.refuse("socket_mode", message);
    }
    check_proxies("proxy_protocol", &config.proxy_protocol, findings);
    if config.listen.len() > LISTENERS_MAX {
        findings.refuse("listen", format!("must be a list of at most {LISTENERS_MAX} tables"));
    }
    for (number, listener) in (1..).zip(&config.listen) {
        check_table(number, listener, findings);
        let others = config.listen.iter().take(number - 1).map(|other| &other.address);
        if others.chain([&config.address]).any(|other| *other == listener.address)
            && !listener.address.ends_with(":0")
        {
            let found = value::quoted(&listener.address);
            findings.refuse("listen", format!("table {number} has the address of another listener, {found}"));
        }
    }
    check_tls(config, build, findings);
}

fn check_table(number: usize, listener: &ListenConfig, findings: &mut Findings) {
    if let Err(message) = ListenAddress::parse(&listener.address) {
        findings.refuse("listen", format!("table {number}: address {message}"));
    }
    check_proxies("listen", &listener.proxy_protocol, findings);
    let Some(tls) = &listener.tls else { return };
    let mut own = Findings::default();
    if listener.mode == Mode::Tls {
        check_files(tls, &mut own);
    } else {
        refuse_unused(tls, &mut own);
    }
    for problem in own.problems {
        findings.refuse("listen", format!("table {number}: {problem}"));
    }
}

/// The table `[tls]` is for `address`, and for the tables of `listen` that have no certificate.
fn check_tls(config: &RelayConfig, build: Build, findings: &mut Findings) {
    let is_tls = |listener: &&ListenConfig| listener.mode == Mode::Tls;
    let has_tls = config.mode == Mode::Tls || config.listen.iter().any(|listener| is_tls(&listener));
    if has_tls && !build.tls {
        let key = if config.mode == Mode::Tls { "mode" } else { "listen" };
        let message = "\"tls\" is not built into this program; build it with the cargo feature \"tls\"";
        findings.refuse(key, message);
    }
    let is_used = config.mode == Mode::Tls
        || config.listen.iter().filter(is_tls).any(|listener| listener.tls.is_none());
    let none = TlsConfig::default();
    let tls = config.tls.as_ref().unwrap_or(&none);
    if is_used { check_files(tls, findings) } else { refuse_unused(tls, findings) }
}

fn check_files(tls: &TlsConfig, findings: &mut Findings) {
    let (ca, crl) = (tls.client_ca_pem_path.as_deref(), tls.client_crl_pem_path.as_deref());
    for (key, path) in
        [("tls.cert_pem_path", tls.cert_pem_path.as_path()), ("tls.key_pem_path", tls.key_pem_path.as_path())]
    {
        if is_set(path) {
            check_path(key, path, findings);
        } else {
            findings
                .refuse(key, "must be the path of a PEM file when mode = \"tls\"; it is missing or empty");
        }
    }
    for (key, path) in [("tls.client_ca_pem_path", ca), ("tls.client_crl_pem_path", crl)] {
        if let Some(path) = path {
            check_path(key, path, findings);
        }
    }
    if crl.is_some() && ca.is_none() {
        findings.refuse(
            "tls.client_crl_pem_path",
            "needs tls.client_ca_pem_path: without authorities, no client needs a certificate",
        );
    }
}

/// An operator who sets one of these wants TLS, so the relay must not serve clear text.
fn refuse_unused(tls: &TlsConfig, findings: &mut Findings) {
    for (key, path) in paths(tls) {
        if path.is_some_and(|path| is_set(path)) {
            findings.refuse(
                &format!("tls.{key}"),
                "is set, but mode = \"http\" would serve clear text; set mode = \"tls\", or remove the key",
            );
        }
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}
