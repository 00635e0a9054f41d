//! New locks from random bytes that the caller passes in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;

use crate::name::{Digest, PublicKey, ReadLock};

/// The read lock of a secret, and the text of the secret as [`Proof`](crate::Proof) expects it.
#[must_use]
pub fn secret_lock(random: &[u8; 32]) -> (ReadLock, String) {
    (ReadLock::Secret(Digest::of_read_secret(random)), URL_SAFE_NO_PAD.encode(random))
}

/// The read lock of an Ed25519 key, and the private key: the seed of RFC 8032 in base64url.
#[must_use]
pub fn key_lock(random: &[u8; 32]) -> (ReadLock, String) {
    let key = SigningKey::from_bytes(random).verifying_key();
    (ReadLock::Key(PublicKey::from(key.to_bytes())), URL_SAFE_NO_PAD.encode(random))
}

/// The send lock of a secret, and the text of the secret.
#[must_use]
pub fn send_lock(random: &[u8; 32]) -> (Digest, String) {
    (Digest::of_send_secret(random), URL_SAFE_NO_PAD.encode(random))
}
