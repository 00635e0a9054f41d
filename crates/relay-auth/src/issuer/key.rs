//! One public key of the issuer, and the verification of signatures by jsonwebtoken.
//!
//! It calls the verifiers of aws-lc-rs by name. The crate's process-wide default would be whatever
//! another part of the process has installed, or a panic.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc;
use sha2::{Digest as _, Sha256};

use crate::issuer_token::Algorithm;

/// A key for one algorithm.
pub(super) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// A hash of the key, which no other key has.
    fingerprint: [u8; 32],
}

impl Key {
    /// `parts` are what distinguishes it from other keys for the same algorithm.
    pub(super) fn new(kid: Option<String>, algorithm: Algorithm, key: DecodingKey, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new().chain_update([algorithm as u8]);
        for part in parts {
            hash = hash.chain_update((part.len() as u64).to_be_bytes()).chain_update(part);
        }
        Self { kid, algorithm, key, fingerprint: hash.finalize().into() }
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether the signature is by this key, with the algorithm of this key.
    pub(super) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        let algorithm = match self.algorithm {
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        };
        let verifier = (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&algorithm, &self.key);
        verifier.is_ok_and(|verifier| verifier.verify(signed, &signature.to_vec()).is_ok())
    }
}
