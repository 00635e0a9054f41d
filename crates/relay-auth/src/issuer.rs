//! The operator's issuer of tokens for plain names: its name, and the keys that sign its tokens.

mod jwks;
mod key;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::issuer_token::IssuerToken;
use crate::token::InvalidToken;

use self::key::Key;

pub use self::jwks::{JWKS_BYTES_MAX, Jwks, JwksError, KeyFault};

/// The most tokens whose signature is remembered as verified, about 100 bytes each.
const VERIFIED_MAX: usize = 16 * 1024;

/// The issuer of tokens for plain names. Clones share its keys.
#[derive(Clone)]
pub struct Issuer(Arc<Shared>);

struct Shared {
    /// The claim `iss` of its tokens.
    name: String,
    keys: ArcSwap<Jwks>,
    /// The hashes of verified tokens and their keys, so that it contains no token. Their claims are
    /// checked each time.
    verified: Cache<[u8; 32], ()>,
}

impl Issuer {
    /// The issuer whose tokens have this claim `iss`, and are signed by one of these keys.
    #[must_use]
    pub fn new(name: impl Into<String>, keys: Jwks) -> Self {
        let (keys, verified) = (ArcSwap::from_pointee(keys), Cache::new(VERIFIED_MAX));
        Self(Arc::new(Shared { name: name.into(), keys, verified }))
    }

    /// Replaces the keys. The tokens of a key that is gone open nothing from now on.
    pub fn replace_keys(&self, keys: Jwks) {
        self.0.keys.store(Arc::new(keys));
    }

    /// Checks everything but which names the token lists, at `now` in seconds since 1970. The
    /// signature comes last: it costs some 50 microseconds, and everybody can send one.
    pub(crate) fn check(
        &self,
        token: &IssuerToken,
        audiences: &[String],
        now: u64,
    ) -> Result<(), InvalidToken> {
        token.check_claims(&self.0.name, audiences, now)?;
        let keys = self.0.keys.load();
        let key = keys.find(token.kid(), token.algorithm()).ok_or(InvalidToken::Key)?;
        let hash = hash(token, key);
        let known = token.verified.get().filter(|(verified, _)| *verified == hash);
        let is_right = known.map_or_else(|| self.verify(token, key, hash), |(_, is_right)| *is_right);
        is_right.then_some(()).ok_or(InvalidToken::Signature)
    }

    /// Whether the signature of a token is right, which only the first request with it verifies.
    fn verify(&self, token: &IssuerToken, key: &Key, hash: [u8; 32]) -> bool {
        let is_right = self.0.verified.get(&hash).is_some() || {
            let (signed, signature) = token.parts();
            let is_right = key.verify(signed, signature);
            if is_right {
                self.0.verified.insert(hash, ());
            }
            is_right
        };
        // If it was verified with another key before, that outcome stays, and is not used.
        let _ = token.verified.set((hash, is_right));
        is_right
    }

    /// Whether the token is valid, and its signature was verified earlier.
    pub(crate) fn has_verified(&self, token: &IssuerToken, audiences: &[String], now: u64) -> bool {
        let keys = self.0.keys.load();
        let key = keys.find(token.kid(), token.algorithm());
        token.check_claims(&self.0.name, audiences, now).is_ok()
            && key.is_some_and(|key| self.0.verified.get(&hash(token, key)).is_some())
    }
}

/// A hash of a token and the key that verifies it. Another key with the same `kid` has verified
/// nothing yet.
fn hash(token: &IssuerToken, key: &Key) -> [u8; 32] {
    let (signed, signature) = token.parts();
    let hash = Sha256::new().chain_update(key.fingerprint()).chain_update(signed);
    hash.chain_update(b".").chain_update(signature).finalize().into()
}

/// Shows neither its name nor its keys.
impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer(..)")
    }
}
