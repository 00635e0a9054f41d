//! Checks the keys that decide who has a proof for recipients without a lock: issuer, client
//! certificates, and whether they matter.

use super::{Build, Findings, check_optional_path};
use crate::config::{AuthConfig, PlainNames, PushPlain, RelayConfig};

pub(super) fn check(config: &RelayConfig, build: Build, findings: &mut Findings) {
    let auth = &config.auth;
    check_file(auth, build, findings);
    let has_clients = config.tls.as_ref().is_some_and(|tls| tls.client_ca_pem_path.is_some());
    let (reads, pushes) = (auth.plain_names == PlainNames::Token, auth.push == PushPlain::Token);
    for (key, needs_proof) in [("auth.plain_names", reads), ("auth.push", pushes)] {
        if needs_proof && auth.issuer.is_empty() && !has_clients {
            findings.refuse(
                key,
                "\"token\" needs auth.issuer or tls.client_ca_pem_path: without them nobody can have a proof",
            );
        }
    }
    findings.warn_if(
        !auth.issuer.is_empty() && !reads && !pushes,
        "auth.issuer: without effect, because neither auth.plain_names nor auth.push is \"token\"",
    );
    findings.warn_if(
        pushes && auth.plain_names == PlainNames::Deny,
        "auth.push: without effect, because auth.plain_names is \"deny\"",
    );
}

fn check_file(auth: &AuthConfig, build: Build, findings: &mut Findings) {
    check_optional_path("auth.issuer_jwks_path", &auth.issuer_jwks_path, findings);
    let has_path = !auth.issuer_jwks_path.as_os_str().is_empty();
    if auth.issuer.is_empty() {
        if has_path {
            findings.refuse(
                "auth.issuer",
                "must be the claim iss of the issuer's tokens when auth.issuer_jwks_path is set; it is empty",
            );
        }
        return;
    }
    if !build.tls {
        findings.refuse(
            "auth.issuer",
            "tokens of an issuer are not built into this program; build it with the cargo feature \"tls\"",
        );
    }
    if !has_path {
        findings.refuse(
            "auth.issuer_jwks_path",
            "must be the path of the issuer's public keys, a JWK Set, when auth.issuer is set; it is empty",
        );
    }
    if auth.audiences.is_empty() {
        findings.refuse(
            "auth.audiences",
            "must list a name of this relay when auth.issuer is set: a token without it is not for this relay",
        );
    }
}
