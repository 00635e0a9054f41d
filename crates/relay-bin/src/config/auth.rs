//! The keys of `[auth]`.

use std::path::PathBuf;

use serde::Deserialize;

/// Who may read and who may send.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthConfig {
    /// Whether recipients that begin with `sha256:` or `ed25519:` have a lock.
    pub locks: bool,
    /// Who may use recipients without a lock.
    pub plain_names: PlainNames,
    /// Who may push to recipients without a lock.
    pub push: PushPlain,
    /// The audiences that tokens may be for, such as the relay's URL. Empty: the relay accepts no
    /// tokens.
    pub audiences: Vec<String>,
    /// The claim `iss` of tokens for recipients without a lock. Empty: there are none. Needs the
    /// cargo feature `tls`.
    pub issuer: String,
    /// The file with the public keys of that issuer, a JWK Set.
    pub issuer_jwks_path: PathBuf,
}

/// Who may use recipients without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainNames {
    /// Everybody who can reach the relay and knows the name.
    Open,
    /// Whoever has a token of the issuer that lists the name, or a client certificate for it.
    Token,
    /// Nobody.
    Deny,
}

/// Who may push to recipients without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushPlain {
    /// Everybody who can reach the relay.
    Open,
    /// Whoever has a token of the issuer that allows it, and whoever may read the name by a proof.
    Token,
}
