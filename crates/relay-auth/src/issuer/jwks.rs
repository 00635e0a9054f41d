//! The issuer's keys: a JWK Set (RFC 7517) with keys of RFC 7518 and RFC 8037.
//!
//! Keys of kinds that the relay does not use are skipped, since a set often has keys for other
//! programs. A key that would be dangerous, or that is unclear, makes the whole set unusable.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::key::Key;
use crate::issuer_token::Algorithm;
use crate::json::{UniqueMembers, parse_open_object};

/// The largest set, in bytes. Some sets have the certificates of their keys.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// The most keys of a set.
const KEYS_MAX: usize = 64;

/// The sizes of RSA keys, in bits. Larger ones take long to verify.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Members that only private keys have, or shared ones (RFC 7518, section 6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The public keys of an issuer.
pub struct Jwks {
    keys: Vec<Key>,
    skipped: Vec<usize>,
}

/// Why a set of keys cannot be used. The texts repeat nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is larger than [`JWKS_BYTES_MAX`].
    #[error("is larger than {JWKS_BYTES_MAX} bytes; check the path")]
    TooLarge,
    /// It is no JWK Set.
    #[error("is no JWK Set: an object with a list \"keys\" of objects, none with a repeated member")]
    Malformed,
    /// It has more than 64 keys.
    #[error("has more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// It has no key of a kind that the relay uses.
    #[error("has no key for EdDSA (Ed25519), ES256 or RS256, so no token could be valid")]
    NoKey,
    /// One of its keys cannot be used.
    #[error("has a key, number {number}, that {fault}")]
    Key {
        /// Its position, from 1.
        number: usize,
        /// The problem.
        fault: KeyFault,
    },
}

/// Why a key makes its set unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// A member is missing, has another type, or is not base64url.
    #[error("is malformed")]
    Malformed,
    /// A private or shared key.
    #[error("is not public; the relay must not have it, and neither should whoever can read this file")]
    NotPublic,
    /// Its `use` or `key_ops` is something else than to verify signatures.
    #[error("is not for signatures (use, key_ops); leave it out")]
    NotForSignatures,
    /// An RSA key with less than 2048 or more than 8192 bits, or an unusual exponent.
    #[error("is an RSA key that does not have 2048 to 8192 bits and a small odd exponent")]
    RsaSize,
    /// It has no `kid`, and there are other keys.
    #[error("has no kid, which tells it from the other keys")]
    NoKid,
    /// An earlier key has the same `kid`.
    #[error("has the kid of an earlier one")]
    RepeatedKid,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Members>,
}

/// The members of a key, each once.
type Members = UniqueMembers<Value>;

impl Jwks {
    /// Reads the bytes of a set.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLarge);
        }
        let Set { keys: all } = parse_open_object(json).ok_or(JwksError::Malformed)?;
        if all.len() > KEYS_MAX {
            return Err(JwksError::TooManyKeys);
        }
        let mut set = Self { keys: Vec::new(), skipped: Vec::new() };
        for (number, members) in (1..).zip(&all) {
            match members.key().map_err(|fault| JwksError::Key { number, fault })? {
                Some(key) if key.kid().is_some() && set.keys.iter().any(|known| known.kid() == key.kid()) => {
                    return Err(JwksError::Key { number, fault: KeyFault::RepeatedKid });
                }
                Some(key) => set.keys.push(key),
                None => set.skipped.push(number),
            }
        }
        set.check_kids(&all)
    }

    /// The positions, from 1, of the keys that are not used because of their kind.
    #[must_use]
    pub fn skipped(&self) -> &[usize] {
        &self.skipped
    }

    /// The key with this `kid`, if it is for this algorithm. A token without a `kid` can only mean
    /// the only key.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let key = match (kid, self.keys.as_slice()) {
            (Some(_), keys) => keys.iter().find(|key| key.kid() == kid),
            (None, [key]) => Some(key),
            (None, _) => None,
        };
        key.filter(|key| key.algorithm() == algorithm)
    }

    /// Without a `kid`, one of several keys would never be found.
    fn check_kids(self, all: &[Members]) -> Result<Self, JwksError> {
        match self.keys.len() {
            0 => Err(JwksError::NoKey),
            1 => Ok(self),
            _ => {
                let is_nameless = |number: &usize| {
                    !self.skipped.contains(number)
                        && all.get(number - 1).is_some_and(|members| !members.0.contains_key("kid"))
                };
                match (1..=all.len()).find(is_nameless) {
                    Some(number) => Err(JwksError::Key { number, fault: KeyFault::NoKid }),
                    None => Ok(self),
                }
            }
        }
    }
}

/// Shows how many keys it has.
impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").field("keys", &self.keys.len()).field("skipped", &self.skipped).finish()
    }
}

impl Members {
    /// The key, unless its kind or algorithm is one that the relay does not use.
    fn key(&self) -> Result<Option<Key>, KeyFault> {
        let kind = self.text("kty")?.ok_or(KeyFault::Malformed)?;
        if kind == "oct" || PRIVATE.iter().any(|name| self.0.contains_key(*name)) {
            return Err(KeyFault::NotPublic);
        }
        self.check_use()?;
        let algorithm = match (kind, self.text("crv")?) {
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("RSA", _) => Algorithm::Rs256,
            _ => return Ok(None),
        };
        if self.text("alg")?.is_some_and(|name| Algorithm::of(name) != Some(algorithm)) {
            return Ok(None);
        }
        let kid = self.text("kid")?.map(str::to_owned);
        match algorithm {
            Algorithm::EdDsa => self.ed25519(kid),
            Algorithm::Es256 => self.p256(kid),
            Algorithm::Rs256 => self.rsa(kid),
        }
        .map(Some)
    }

    fn check_use(&self) -> Result<(), KeyFault> {
        let is_for_signatures = self.text("use")?.is_none_or(|purpose| purpose == "sig")
            && match self.0.get("key_ops") {
                None => true,
                Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
                Some(_) => return Err(KeyFault::Malformed),
            };
        if is_for_signatures { Ok(()) } else { Err(KeyFault::NotForSignatures) }
    }

    fn ed25519(&self, kid: Option<String>) -> Result<Key, KeyFault> {
        let x: [u8; 32] = self.bytes("x")?.try_into().map_err(|_| KeyFault::Malformed)?;
        // Everybody can sign for a key of small order.
        let is_sound = VerifyingKey::from_bytes(&x).is_ok_and(|key| !key.is_weak());
        let key = is_sound.then(|| DecodingKey::from_ed_der(&x)).ok_or(KeyFault::Malformed)?;
        Ok(Key::new(kid, Algorithm::EdDsa, key, &[&x]))
    }

    fn p256(&self, kid: Option<String>) -> Result<Key, KeyFault> {
        let [x, y] = [self.bytes("x")?, self.bytes("y")?];
        if x.len() != 32 || y.len() != 32 {
            return Err(KeyFault::Malformed);
        }
        // The uncompressed point of SEC 1.
        let point = [&[4], &*x, &y].concat();
        Ok(Key::new(kid, Algorithm::Es256, DecodingKey::from_ec_der(&point), &[&point]))
    }

    fn rsa(&self, kid: Option<String>) -> Result<Key, KeyFault> {
        let [n, e] = [self.bytes("n")?, self.bytes("e")?];
        let [n, e] = [&n, &e].map(|number| without_zeros(number));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        let is_usual = e.len() <= 4 && e.last().is_some_and(|last| last % 2 == 1) && e != [1];
        if !RSA_BITS.contains(&bits) || !is_usual {
            return Err(KeyFault::RsaSize);
        }
        Ok(Key::new(kid, Algorithm::Rs256, DecodingKey::from_rsa_raw_components(n, e), &[n, e]))
    }

    fn text(&self, name: &str) -> Result<Option<&str>, KeyFault> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(KeyFault::Malformed),
        }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, KeyFault> {
        let text = self.text(name)?.ok_or(KeyFault::Malformed)?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyFault::Malformed)
    }
}

/// A number without the zeros that some programs put before it.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
