//! What a call says and how it is signed: HMAC-SHA-256 under one key, which the gateway shares.
//!
//! The two uses of the key begin with different prefixes, so that no recipient has the hash that
//! would be a signature.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use relay_core::{Recipient, Timestamp};
use sha2::Sha256;

/// The header with the signature.
pub(crate) const HEADER: &str = "relay-signature";

const HASH_PREFIX: &[u8] = b"relay wake 1, recipient:";
const SIGNATURE_PREFIX: &[u8] = b"relay wake 1, call:";

/// The secret that the relay and the gateway share. `Debug` hides it.
#[derive(Clone)]
pub struct WakeKey(Hmac<Sha256>);

impl WakeKey {
    /// The length of a key.
    pub const BYTES: usize = 32;

    /// A key of these bytes.
    #[must_use]
    pub fn new(key: &[u8; Self::BYTES]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of every length"))
    }

    /// The hash of a recipient, in hexadecimal.
    pub(crate) fn hash(&self, recipient: &Recipient) -> String {
        self.mac(&[HASH_PREFIX, recipient.as_str().as_bytes()])
    }

    /// The signature header of a body that is sent at `now`.
    pub(crate) fn sign(&self, now: Timestamp, body: &str) -> String {
        let seconds = (now.as_ms() / 1000).to_string();
        let mac = self.mac(&[SIGNATURE_PREFIX, seconds.as_bytes(), b".", body.as_bytes()]);
        format!("t={seconds},v1={mac}")
    }

    fn mac(&self, parts: &[&[u8]]) -> String {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The body of a call.
pub(crate) fn body(recipient_hash: &str, waiting: u64) -> String {
    format!(r#"{{"recipient_hash":"{recipient_hash}","waiting":{waiting}}}"#)
}

impl fmt::Debug for WakeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WakeKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in docs/wake.md, which other programs have computed as well.
    #[test]
    fn hashes_and_signatures_never_change() {
        let key = WakeKey::new(&std::array::from_fn(|index| u8::try_from(index).unwrap()));
        let hash = key.hash(&Recipient::parse("alice").unwrap());
        assert_eq!(hash, "c0dc2465e531a8f5a8f6a70fcc6eead2c79c9e473e27b9b7ca1acfaff375190e");
        let body = body(&hash, 3);
        assert_eq!(body, format!("{{\"recipient_hash\":\"{hash}\",\"waiting\":3}}"));
        assert_eq!(
            key.sign(Timestamp::from_ms(1_700_000_000_999), &body),
            "t=1700000000,v1=789b27474da26ca5f5ca55ec54ea7398acf41ac5f43802890e31780d200bc495"
        );
    }

    #[test]
    fn no_recipient_has_a_hash_that_is_a_signature() {
        let key = WakeKey::new(&[7; WakeKey::BYTES]);
        let signature = key.sign(Timestamp::from_ms(1000), "{}");
        for text in ["1.{}", "call:1.{}", "relay wake 1, call:1.{}"] {
            assert!(!signature.ends_with(&key.hash(&Recipient::parse(text).unwrap())), "{text}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", WakeKey::new(&[7; WakeKey::BYTES])), "WakeKey(..)");
    }
}
