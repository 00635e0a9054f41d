//! Tokens of an issuer with fixed keys, and sets of keys.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use relay_core::Operation;
use serde_json::Value;

use super::NOW_MS;
use crate::issuer::{Issuer, JWKS_BYTES_MAX, Jwks};
use crate::policy::{PlainNames, Policy, Settings};
use crate::proof::Proof;

const AUDIENCE: &str = "https://relay.example.org";
const ISSUER: &str = "https://accounts.example.org";

/// The keys that have signed the tokens in fuzz/corpus, one of each kind.
const KEYS: &str = include_str!("../../fuzz-keys.json");

/// A plain name and the value of `Authorization`, separated by a line feed. A token opens only what
/// it lists, and only if jsonwebtoken finds it valid too.
pub fn issuer_token(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(name), Some(value)) = (parts.next(), parts.next()) else { return };
    let Ok(name) = str::from_utf8(name) else { return };
    let keys = Jwks::parse(KEYS.as_bytes()).expect("the keys in the repository are usable");
    let settings = Settings {
        plain_names: PlainNames::Token,
        audiences: vec![AUDIENCE.to_owned()],
        issuer: Some(Issuer::new(ISSUER, keys)),
        ..Settings::default()
    };
    let policy = Policy::new(settings);
    let proof = Proof::parse(std::iter::once(value));
    let is_open = policy.may(Operation::Pull, name, &proof, NOW_MS).is_ok();
    let is_open_again = policy.may(Operation::Pull, name, &proof, NOW_MS).is_ok();
    assert_eq!(is_open, is_open_again, "the cache changes the answer");
    if is_open && matches!(proof, Proof::IssuerToken(_)) {
        let token = str::from_utf8(value).ok().and_then(|value| value.split_once(' '));
        let listed = token.and_then(|(_, token)| claims(token.trim_matches(' ')));
        let listed = listed.is_some_and(|claims| {
            let read = claims.get("relay").and_then(|relay| relay.get("read")?.as_array());
            read.is_some_and(|names| names.iter().any(|listed| listed == name))
        });
        assert!(listed, "a token opened what it does not list, or is not valid");
    }
}

/// The claims of a token that jsonwebtoken accepts with one of the keys.
fn claims(token: &str) -> Option<Value> {
    let keys: Value = serde_json::from_str(KEYS).ok()?;
    let keys = keys.get("keys")?.as_array()?;
    keys.iter().find_map(|key| {
        let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
        let (algorithm, key) = match text("kty") {
            "OKP" => (Algorithm::EdDSA, DecodingKey::from_ed_components(text("x"))),
            "EC" => (Algorithm::ES256, DecodingKey::from_ec_components(text("x"), text("y"))),
            _ => (Algorithm::RS256, DecodingKey::from_rsa_components(text("n"), text("e"))),
        };
        let mut validation = Validation::new(algorithm);
        // The time is fixed here, and jsonwebtoken reads the clock.
        validation.validate_exp = false;
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        jsonwebtoken::decode::<Value>(token, &key.ok()?, &validation).ok().map(|token| token.claims)
    })
}

/// The bytes of a set of keys. A usable one has a key, and names each key that it skips.
pub fn jwks(data: &[u8]) {
    let Ok(keys) = Jwks::parse(data) else { return };
    assert!(data.len() <= JWKS_BYTES_MAX, "a large set was read");
    let set: Value = serde_json::from_slice(data).unwrap_or_default();
    let set = set.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let count = set.len();
    assert!(keys.skipped().len() < count && count <= 64, "a set without a key was read");
    assert!(keys.skipped().iter().all(|number| (1..=count).contains(number)));
    assert!(set.iter().all(|key| key.get("d").is_none()), "a private key was read");
}
