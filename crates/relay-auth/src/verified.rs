//! Remembers which tokens have a right signature, so that a token that comes with every request is
//! verified once. Their claims are checked each time.

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

/// The most tokens that are remembered, about 100 bytes each.
const VERIFIED_MAX: usize = 16 * 1024;

/// The hashes of verified tokens, so that it contains no token.
pub(crate) struct Verified(Cache<[u8; 32], ()>);

impl Verified {
    pub(crate) fn new() -> Self {
        Self(Cache::new(VERIFIED_MAX))
    }

    /// Runs `verify`, unless it has succeeded before for the same parts. They are everything that
    /// it depends on, and no two lists of them may be one sequence of bytes.
    pub(crate) fn once<E>(&self, parts: &[&[u8]], verify: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part));
        let key: [u8; 32] = hash.finalize().into();
        if self.0.get(&key).is_none() {
            verify()?;
            self.0.insert(key, ());
        }
        Ok(())
    }
}
