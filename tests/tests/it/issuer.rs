//! Recipients without a lock, opened by tokens of the operator's issuer. relay-auth's tests have
//! the whole table of attempts.

mod attempts;
mod process;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use relay_bin::SystemClock;
use relay_bin::config::{PlainNames, PushPlain, RelayConfig};
use relay_core::Clock as _;
use relay_tests::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const AUDIENCE: &str = "https://relay.example.org";
pub(crate) const ISSUER: &str = "https://accounts.example.org";

/// An issuer, and the file with its public keys.
pub(crate) struct Issuer {
    directory: TempDir,
    pub(crate) key: SigningKey,
    pub(crate) kid: &'static str,
}

impl Issuer {
    /// An issuer with one key.
    pub(crate) fn new() -> Self {
        let issuer = Self {
            directory: tempfile::tempdir().unwrap(),
            key: SigningKey::from_bytes(&[7; 32]),
            kid: "first",
        };
        issuer.publish(&[issuer.jwk()]);
        issuer
    }

    /// The same issuer, with another key.
    pub(crate) fn with_key(self, seed: u8, kid: &'static str) -> Self {
        Self { key: SigningKey::from_bytes(&[seed; 32]), kid, ..self }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory().join("keys.json")
    }

    pub(crate) fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": encode(self.key.verifying_key().as_bytes())})
    }

    /// Replaces the file.
    pub(crate) fn publish(&self, keys: &[Value]) {
        std::fs::write(self.path(), json!({ "keys": keys }).to_string()).unwrap();
    }

    /// A closed relay that knows this issuer.
    pub(crate) fn configure(&self, config: &mut RelayConfig) {
        config.auth.plain_names = PlainNames::Token;
        config.auth.push = PushPlain::Token;
        config.auth.audiences = vec![AUDIENCE.to_owned()];
        ISSUER.clone_into(&mut config.auth.issuer);
        config.auth.issuer_jwks_path = self.path();
    }

    /// The usual claims, with this claim `relay`.
    pub(crate) fn claims(relay: Value) -> Value {
        json!({"iss": ISSUER, "aud": AUDIENCE, "exp": now() + 600, "relay": relay})
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        format!("{signed}.{}", encode(self.key.sign(signed.as_bytes()).to_bytes()))
    }

    /// A token for these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "typ": "JWT", "kid": self.kid}), claims)
    }

    /// A token that reads this name.
    pub(crate) fn reader(&self, name: &str) -> String {
        self.token(&Self::claims(json!({"read": [name]})))
    }
}

pub(crate) fn now() -> u64 {
    SystemClock.now().as_ms() / 1000
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Posts with this proof, if it is not empty.
pub(crate) fn post(client: &mut Client, path: &str, body: &Value, proof: &str) -> Response {
    let bearer = format!("Bearer {proof}");
    let mut headers = vec![("content-type", "application/json")];
    if !proof.is_empty() {
        headers.push(("authorization", &*bearer));
    }
    client.post_bytes(path, &headers, body.to_string().as_bytes()).unwrap()
}

/// The status, and the reason of a refusal.
pub(crate) fn outcome(response: &Response) -> (u16, String) {
    let reason = response.json()["error"]["details"]["reason"].as_str().unwrap_or_default().to_owned();
    (response.status, reason)
}
