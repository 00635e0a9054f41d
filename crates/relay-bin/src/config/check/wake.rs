//! Checks the keys of the gateway that wakes clients. No message repeats the URL, which may contain
//! a secret.

use relay_wake::GatewayUrl;

use super::{Build, Findings, check_optional_path};
use crate::config::WakeConfig;

pub(super) fn check(wake: &WakeConfig, build: Build, findings: &mut Findings) {
    check_optional_path("wake.key_path", &wake.key_path, findings);
    check_optional_path("wake.ca_path", &wake.ca_path, findings);
    let has_key = !wake.key_path.as_os_str().is_empty();
    let has_ca = !wake.ca_path.as_os_str().is_empty();
    if wake.url.is_empty() {
        findings.warn_if(has_key, "wake.key_path: without effect, because wake.url is empty");
        findings.warn_if(has_ca, "wake.ca_path: without effect, because wake.url is empty");
        return;
    }
    if !has_key {
        findings.refuse(
            "wake.key_path",
            "must be the path of the key that the gateway shares when wake.url is set; it is empty",
        );
    }
    match GatewayUrl::parse(&wake.url) {
        Ok(url) => check_scheme(&url, wake, has_ca, build, findings),
        Err(fault) => findings.refuse(
            "wake.url",
            format!(
                "must be a URL such as \"https://push.example.org/wake\", or empty for no calls; {fault}"
            ),
        ),
    }
}

fn check_scheme(url: &GatewayUrl, wake: &WakeConfig, has_ca: bool, build: Build, findings: &mut Findings) {
    if url.is_https() {
        if !build.tls {
            findings.refuse(
                "wake.url",
                "https is not built into this program; build it with the cargo feature \"tls\"",
            );
        }
        return;
    }
    findings.warn_if(has_ca, "wake.ca_path: without effect, because wake.url is not an https URL");
    if !url.is_loopback() && !wake.allow_http {
        findings.refuse(
            "wake.url",
            "must be an https URL, unless the gateway is on this machine: the network would see when messages \
             arrive for whom; set wake.allow_http = true if that is no concern there",
        );
    }
}
