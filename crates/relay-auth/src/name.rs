//! The locks that a recipient's name carries, and how they are spelled.
//!
//! `sha256:<digest>` and `ed25519:<key>` lock reading; `+sha256:<digest>` behind one of them locks
//! sending too. Digest and key are 32 bytes in base64url without padding, 43 characters. Each lock
//! has one spelling, so one key is one queue. Every other name is plain and has no locks.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The length of a digest or key in base64url without padding.
const TEXT_BYTES: usize = 43;

const READ_LABEL: &[u8] = b"relay/read/1\0";
const SEND_LABEL: &[u8] = b"relay/send/1\0";

const SECRET: &str = "sha256:";
const KEY: &str = "ed25519:";

/// The SHA-256 digest of a label and a secret. Compares in constant time.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

/// Who may read and who may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locks {
    /// Who may pull and ack.
    pub read: ReadLock,
    /// Who may push. `None` means anybody.
    pub send: Option<Digest>,
}

/// Who may pull and ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLock {
    /// The name has no lock.
    Plain,
    /// Whoever shows the secret with this digest.
    Secret(Digest),
    /// Whoever shows a token that this key has signed.
    Key(PublicKey),
}

/// A name begins like a lock, but is not spelled like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a recipient that begins with sha256: or ed25519: needs 43 characters of canonical base64url after it, and may end in \
     +sha256: and 43 more"
)]
pub struct MalformedLock;

impl Locks {
    /// The locks of a plain name.
    pub const NONE: Self = Self { read: ReadLock::Plain, send: None };

    /// Reads the locks of a name.
    ///
    /// # Errors
    /// If it begins with `sha256:` or `ed25519:` and is not the canonical spelling of a lock.
    pub fn of(name: &str) -> Result<Self, MalformedLock> {
        let (text, lock): (_, fn([u8; 32]) -> ReadLock) = if let Some(text) = name.strip_prefix(SECRET) {
            (text, |bytes| ReadLock::Secret(Digest(bytes)))
        } else if let Some(text) = name.strip_prefix(KEY) {
            (text, |bytes| ReadLock::Key(PublicKey(bytes)))
        } else {
            return Ok(Self::NONE);
        };
        let (read, send) = match text.split_once('+') {
            Some((read, send)) => (read, Some(send.strip_prefix(SECRET).ok_or(MalformedLock)?)),
            None => (text, None),
        };
        let send = send.map(decode).transpose()?.map(Digest);
        Ok(Self { read: lock(decode(read)?), send })
    }
}

impl Digest {
    /// The digest that locks reading with this secret.
    #[must_use]
    pub fn of_read_secret(secret: &[u8]) -> Self {
        Self::of(READ_LABEL, secret)
    }

    /// The digest that locks sending with this secret.
    #[must_use]
    pub fn of_send_secret(secret: &[u8]) -> Self {
        Self::of(SEND_LABEL, secret)
    }

    fn of(label: &[u8], secret: &[u8]) -> Self {
        Self(Sha256::new().chain_update(label).chain_update(secret).finalize().into())
    }

    /// Its bytes. They are part of a name and not secret.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

/// Hidden: it is part of a recipient's name.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl PublicKey {
    /// Its bytes. They are part of a name and not secret.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Hidden: it is part of a recipient's name.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(..)")
    }
}

/// The name with this lock, as [`Locks::of`] reads it.
impl fmt::Display for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.read {
            ReadLock::Plain => return Ok(()),
            ReadLock::Secret(digest) => write!(f, "{SECRET}{}", URL_SAFE_NO_PAD.encode(digest.0))?,
            ReadLock::Key(key) => write!(f, "{KEY}{}", URL_SAFE_NO_PAD.encode(key.0))?,
        }
        match &self.send {
            Some(digest) => write!(f, "+{SECRET}{}", URL_SAFE_NO_PAD.encode(digest.0)),
            None => Ok(()),
        }
    }
}

/// The engine refuses padding and trailing bits, so each 32 bytes have one spelling.
fn decode(text: &str) -> Result<[u8; 32], MalformedLock> {
    if text.len() != TEXT_BYTES {
        return Err(MalformedLock);
    }
    let mut bytes = [0; TEXT_BYTES];
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(32) => bytes.first_chunk().copied().ok_or(MalformedLock),
        _ => Err(MalformedLock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn names_without_a_lock_are_plain() {
        for name in
            ["", "bob", "SHA256:x", "Sha256:", "bob+sha256:x", "sha256", "ed25519", "xsha256:a", " sha256:a"]
        {
            assert_eq!(Locks::of(name), Ok(Locks::NONE), "{name}");
        }
    }

    #[test]
    fn a_lock_has_one_spelling() {
        for name in
            [format!("sha256:{ZEROS}"), format!("ed25519:{ZEROS}"), format!("sha256:{ZEROS}+sha256:{ZEROS}")]
        {
            let locks = Locks::of(&name).unwrap();
            assert_eq!(locks.to_string(), name);
        }
        let text = &ZEROS[..42];
        for tail in
            ["B", "", "AA", "A=", "+", "/", " ", "\u{e9}", "A+", "A+sha256:", "A+ed25519:A", "A+SHA256:A"]
        {
            for kind in ["sha256:", "ed25519:"] {
                assert_eq!(Locks::of(&format!("{kind}{text}{tail}")), Err(MalformedLock), "{kind} {tail}");
            }
        }
        assert_eq!(Locks::of(&format!("sha256:{ZEROS}+sha256:{ZEROS}+sha256:{ZEROS}")), Err(MalformedLock));
        assert_eq!(Locks::of(&format!("sha256:{ZEROS}+ed25519:{ZEROS}")), Err(MalformedLock));
    }

    #[test]
    fn labels_keep_reading_and_sending_apart() {
        let secret = [7; 32];
        assert_ne!(Digest::of_read_secret(&secret), Digest::of_send_secret(&secret));
        assert_eq!(Digest::of_read_secret(&secret), Digest::of_read_secret(&secret));
    }

    #[test]
    fn no_name_is_shown() {
        let locks = Locks::of(&format!("sha256:{ZEROS}+sha256:{ZEROS}")).unwrap();
        assert!(!format!("{locks:?}").contains("AAAA") && !format!("{locks:?}").contains("[0"));
    }
}
