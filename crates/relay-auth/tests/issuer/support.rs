//! Keys, key sets, tokens and policies for the tests.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
};
use relay_auth::{CertifiedNames, Issuer, Jwks, Operation, PlainNames, Policy, Proof, PushPlain, Settings};
use serde_json::{Value, json};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const AUDIENCE: &str = "https://relay.example.org";
pub(crate) const ISSUER: &str = "https://accounts.example.org";

/// The bytes before the seed in a PKCS#8 key of Ed25519.
const PKCS8_SEED: usize = 16;

/// The bytes before the PKCS#1 key in a PKCS#8 key of 2048 bits.
const PKCS8_HEAD: usize = 26;

/// A key pair of the issuer.
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    signer: Signer,
    /// The public key in DER form, and in PEM form.
    pub(crate) der: Vec<u8>,
    pub(crate) pem: String,
}

enum Signer {
    Ed25519(SigningKey),
    Other(EncodingKey),
}

pub(crate) static ED: LazyLock<Key> = LazyLock::new(|| Key::generate(Algorithm::EdDSA));
pub(crate) static EC: LazyLock<Key> = LazyLock::new(|| Key::generate(Algorithm::ES256));
pub(crate) static RSA: LazyLock<Key> = LazyLock::new(|| Key::generate(Algorithm::RS256));
pub(crate) static P384: LazyLock<Key> = LazyLock::new(|| Key::generate(Algorithm::ES384));

impl Key {
    pub(crate) fn generate(algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            Algorithm::ES384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            Algorithm::RS256 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
            other => panic!("no key for {other:?}"),
        };
        let der = pair.serialize_der();
        let signer = match algorithm {
            Algorithm::EdDSA => {
                Signer::Ed25519(SigningKey::from_bytes(der[PKCS8_SEED..][..32].try_into().unwrap()))
            }
            Algorithm::RS256 => Signer::Other(EncodingKey::from_rsa_der(&der[PKCS8_HEAD..])),
            _ => Signer::Other(EncodingKey::from_ec_der(&der)),
        };
        Self { algorithm, signer, der: pair.public_key_raw().to_vec(), pem: pair.public_key_pem() }
    }

    /// Its public key as a member of a key set.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match &self.signer {
            Signer::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.verifying_key().as_bytes())})
            }
            Signer::Other(key) => {
                serde_json::to_value(Jwk::from_encoding_key(key, self.algorithm).unwrap()).unwrap()
            }
        };
        jwk["kid"] = kid.into();
        jwk
    }

    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = match &self.signer {
            Signer::Ed25519(key) => encode(key.sign(signed.as_bytes()).to_bytes()),
            Signer::Other(key) => jsonwebtoken::crypto::sign(signed.as_bytes(), key, self.algorithm).unwrap(),
        };
        format!("{signed}.{signature}")
    }

    /// A token with the usual header.
    pub(crate) fn token(&self, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": kid});
        self.sign(&header.to_string(), &claims.to_string())
    }
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn key_set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// The issuer with one key of each kind.
pub(crate) fn issuer() -> Issuer {
    let keys = key_set(&[ED.jwk("ed"), EC.jwk("ec"), RSA.jwk("rsa")]);
    Issuer::new(ISSUER, Jwks::parse(&keys).unwrap())
}

pub(crate) fn policy_of(plain_names: PlainNames, push: PushPlain, issuer: Option<Issuer>) -> Policy {
    let audiences = vec!["other".to_owned(), AUDIENCE.to_owned()];
    Policy::new(Settings { plain_names, push, audiences, issuer, ..Settings::default() })
}

/// A relay that is closed without a proof.
pub(crate) fn policy() -> Policy {
    policy_of(PlainNames::Token, PushPlain::Token, Some(issuer()))
}

/// Claims that open `bob` for reading.
pub(crate) fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600, "sub": "1", "relay": {"read": ["bob"]}})
}

/// The claims with some replaced, or removed if `null`.
pub(crate) fn claims_with(changes: &Value) -> Value {
    let mut all = claims();
    for (name, value) in changes.as_object().unwrap() {
        all.as_object_mut().unwrap().remove(name);
        if !value.is_null() {
            all[name] = value.clone();
        }
    }
    all
}

pub(crate) fn bearer(proof: &str) -> Proof {
    Proof::parse([format!("Bearer {proof}").as_bytes()].into_iter())
}

pub(crate) fn certificate(uris: &[&str]) -> CertifiedNames {
    CertifiedNames::from_uris(uris.iter().copied()).unwrap()
}

/// Whether the proof opens the name at [`NOW`], or the reason why not.
pub(crate) fn may(
    policy: &Policy,
    operation: Operation,
    name: &str,
    proof: &str,
) -> Result<bool, &'static str> {
    policy
        .may(operation, name, &bearer(proof), NOW * 1000)
        .map(|granted| granted.sees_usage)
        .map_err(|refusal| refusal.reason())
}

pub(crate) fn pull(policy: &Policy, name: &str, proof: &str) -> Result<(), &'static str> {
    may(policy, Operation::Pull, name, proof).map(drop)
}
