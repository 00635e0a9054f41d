//! Tests refused and unusual combinations of `[auth]`.

use crate::{CERTS, file};

const ISSUER: &str = "audiences = [\"a\"]\nissuer = \"https://i\"\nissuer_jwks_path = \"keys.json\"\n";

#[test]
fn an_issuer_needs_its_keys_and_an_audience() {
    file("[auth]\nissuer = \"https://i\"\nplain_names = \"token\"").refused(&[
        "auth.issuer_jwks_path: must be the path of the issuer's public keys, a JWK Set, when auth.issuer is set; it is empty",
        "auth.audiences: must list a name of this relay when auth.issuer is set: a token without it is not for this relay",
    ]);
    file("[auth]\nissuer_jwks_path = \"keys.json\"").refused(&[
        "auth.issuer: must be the claim iss of the issuer's tokens when auth.issuer_jwks_path is set; it is empty",
    ]);
    file(&format!("[auth]\n{}", ISSUER.replace("keys.json", "a\\u0000b"))).refused(&[
        "auth.issuer_jwks_path: must be a path; a path cannot contain a NUL character (relay.toml line 4)",
    ]);
}

#[test]
fn a_closed_relay_needs_somebody_with_a_proof() {
    let line = |key: &str| {
        format!(
            "{key}: \"token\" needs auth.issuer or tls.client_ca_pem_path: without them nobody can have a proof (relay.toml line 2)"
        )
    };
    for key in ["plain_names", "push"] {
        file(&format!("[auth]\n{key} = \"token\"")).refused(&[&line(&format!("auth.{key}"))]);
        file(&format!("[auth]\n{key} = \"token\"\n{ISSUER}")).warned(&[]);
        let mutual =
            format!("mode = \"tls\"\n{CERTS}client_ca_pem_path = \"ca\"\n[auth]\n{key} = \"token\"\n");
        file(&mutual).warned(&[]);
    }
}

#[test]
fn keys_without_effect_give_a_warning() {
    file(&format!("[auth]\n{ISSUER}")).warned(&[
        "auth.issuer: without effect, because neither auth.plain_names nor auth.push is \"token\"",
    ]);
    file(&format!("[auth]\nplain_names = \"deny\"\npush = \"token\"\n{ISSUER}"))
        .warned(&["auth.push: without effect, because auth.plain_names is \"deny\""]);
    // Then a token opens what looks like a lock, and nobody else does.
    file(&format!("[auth]\nplain_names = \"token\"\nlocks = false\n{ISSUER}")).warned(&[]);
}
