//! The operator's issuer of tokens for plain names: its name, and the keys that sign its tokens.

mod jwks;
mod key;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::issuer_token::IssuerToken;
use crate::token::InvalidToken;
use crate::verified::Verified;

pub use self::jwks::{JWKS_BYTES_MAX, Jwks, JwksError, KeyFault};

/// Keeps the hashes of these tokens apart from those of read tokens, which begin in base64url.
const LABEL: &[u8] = b"relay/issuer/1\0";

/// The issuer of tokens for plain names. Clones share its keys.
#[derive(Clone)]
pub struct Issuer(Arc<Shared>);

struct Shared {
    /// The claim `iss` of its tokens.
    name: String,
    keys: ArcSwap<Jwks>,
}

impl Issuer {
    /// The issuer whose tokens have this claim `iss`, and are signed by one of these keys.
    #[must_use]
    pub fn new(name: impl Into<String>, keys: Jwks) -> Self {
        Self(Arc::new(Shared { name: name.into(), keys: ArcSwap::from_pointee(keys) }))
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
        verified: &Verified,
    ) -> Result<(), InvalidToken> {
        token.check_claims(&self.0.name, audiences, now)?;
        let keys = self.0.keys.load();
        let key = keys.find(token.kid(), token.algorithm()).ok_or(InvalidToken::Key)?;
        let (signed, signature) = token.parts();
        // The key is a part of the hash: another key with the same `kid` has verified nothing yet.
        verified.once(&[LABEL, key.fingerprint(), signed, b".", signature], || {
            key.verify(signed, signature).then_some(()).ok_or(InvalidToken::Signature)
        })
    }
}

/// Shows neither its name nor its keys.
impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer(..)")
    }
}
