//! What a request shows to prove who it is: the `Authorization` header, parsed but not checked.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::issuer_token::IssuerToken;
use crate::malformed::Malformed;
use crate::name::Digest;
use crate::token::ReadToken;

/// The longest header value, in bytes.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The shortest secret, in bytes. A shorter one could be guessed.
pub const SECRET_BYTES_MIN: usize = 32;

/// The longest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 64;

/// The proof that a request carries.
#[derive(Default)]
pub enum Proof {
    /// There is no `Authorization` header.
    #[default]
    None,
    /// A secret.
    Secret(Secret),
    /// A token that the key of a name has signed.
    ReadToken(Arc<ReadToken>),
    /// A token that the operator's issuer may have signed. A relay without an issuer takes it for
    /// malformed.
    IssuerToken(Box<IssuerToken>),
    /// There is a header, and it is not a proof.
    Malformed(Malformed),
}

/// A secret. It is never shown.
pub struct Secret {
    buffer: [u8; BUFFER_BYTES],
    len: usize,
    read_digest: OnceLock<Digest>,
}

/// Two bytes more than the longest secret, so that one that is too long is not cut off.
const BUFFER_BYTES: usize = SECRET_BYTES_MAX + 2;

impl Secret {
    /// The digest in the names that it may read.
    #[must_use]
    pub fn read_digest(&self) -> Digest {
        *self.read_digest.get_or_init(|| Digest::of_read_secret(self.as_bytes()))
    }

    /// The digest in the names that it may send to.
    #[must_use]
    pub fn send_digest(&self) -> Digest {
        Digest::of_send_secret(self.as_bytes())
    }

    fn as_bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

/// Hidden: whoever has it may read.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Proof {
    /// Parses the values of all `Authorization` headers of a request.
    /// [`Policy::proof`](crate::Policy::proof) is faster for a token that was verified earlier.
    pub fn parse<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        Self::parse_with(values, |_| None)
    }

    /// The proof in a field of its own, which is always a secret.
    #[must_use]
    pub fn secret(text: &str) -> Self {
        parse_secret(text).unwrap_or_else(Self::Malformed)
    }

    /// Like [`parse`](Self::parse). `verified` looks for a token that was verified earlier, by its
    /// fingerprint.
    pub(crate) fn parse_with<'a>(
        mut values: impl Iterator<Item = &'a [u8]>,
        verified: impl FnOnce(&[u8; 32]) -> Option<Arc<ReadToken>>,
    ) -> Self {
        let Some(value) = values.next() else { return Self::None };
        if values.next().is_some() {
            return Self::Malformed(Malformed::Several);
        }
        parse_value(value, verified).unwrap_or_else(Self::Malformed)
    }
}

/// Hidden: whoever has the proof may read.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Secret(_) => "Secret(..)",
            Self::ReadToken(_) => "ReadToken(..)",
            Self::IssuerToken(_) => "IssuerToken(..)",
            Self::Malformed(_) => "Malformed(..)",
        })
    }
}

fn parse_value(
    value: &[u8],
    verified: impl FnOnce(&[u8; 32]) -> Option<Arc<ReadToken>>,
) -> Result<Proof, Malformed> {
    if value.len() > HEADER_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let value = str::from_utf8(value).map_err(|_| Malformed::Scheme)?;
    let (scheme, text) = value.split_once(' ').ok_or(Malformed::Scheme)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Malformed::Scheme);
    }
    let text = text.trim_matches(' ');
    if text.contains('.') {
        let fingerprint = ReadToken::fingerprint_of(text);
        let known = verified(&fingerprint).map(Proof::ReadToken);
        return known.map_or_else(|| parse_token(text, fingerprint), Ok);
    }
    parse_secret(text)
}

fn parse_token(text: &str, fingerprint: [u8; 32]) -> Result<Proof, Malformed> {
    match ReadToken::parse(text, fingerprint) {
        Ok(token) => Ok(Proof::ReadToken(Arc::new(token))),
        Err(malformed) if ReadToken::is_meant(text) => Err(malformed),
        Err(malformed) => {
            IssuerToken::parse(text, malformed).map(|token| Proof::IssuerToken(Box::new(token)))
        }
    }
}

fn parse_secret(text: &str) -> Result<Proof, Malformed> {
    let mut buffer = [0; BUFFER_BYTES];
    let len = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).map_err(|_| Malformed::Secret)?;
    let is_valid = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&len);
    let secret = Secret { buffer, len, read_digest: OnceLock::new() };
    is_valid.then_some(Proof::Secret(secret)).ok_or(Malformed::Secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Proof {
        Proof::parse([value.as_bytes()].into_iter())
    }

    fn malformed(value: &str) -> Malformed {
        match parse(value) {
            Proof::Malformed(malformed) => malformed,
            other => panic!("{value:?} is {other:?}"),
        }
    }

    #[test]
    fn secrets_have_32_to_64_bytes() {
        for bytes in 0..100 {
            let secret: Vec<u8> = (0..bytes).collect();
            let proof = parse(&format!("Bearer {}", URL_SAFE_NO_PAD.encode(&secret)));
            match proof {
                Proof::Secret(proof) if (32..=64).contains(&bytes) => {
                    let (read, send) = (proof.read_digest(), proof.send_digest());
                    assert_eq!(
                        (read, send),
                        (Digest::of_read_secret(&secret), Digest::of_send_secret(&secret))
                    );
                }
                Proof::Malformed(Malformed::Secret) => assert!(!(32..=64).contains(&bytes), "{bytes} bytes"),
                other => panic!("{bytes} bytes: {other:?}"),
            }
        }
    }

    #[test]
    fn only_one_bearer_header_in_canonical_base64url_is_a_proof() {
        let secret = URL_SAFE_NO_PAD.encode([7; 32]);
        assert!(matches!(parse(&format!("bEARER  {secret} ")), Proof::Secret(_)));
        assert!(matches!(Proof::parse(std::iter::empty()), Proof::None));
        let several = Proof::parse([b"Bearer a".as_slice(), b"Bearer a"].into_iter());
        assert!(matches!(several, Proof::Malformed(Malformed::Several)));
        for value in ["", "Bearer", &secret, "Basic YTpi", "Bearer\tx", "\u{e9} x"] {
            assert_eq!(malformed(value), Malformed::Scheme, "{value:?}");
        }
        let padded = format!("Bearer {secret}=");
        let trailing_bits = format!("Bearer {}B", &secret[..42]);
        for value in [&*padded, &trailing_bits, "Bearer ", "Bearer a b", "Bearer \u{e9}", "Bearer +/+/"] {
            assert_eq!(malformed(value), Malformed::Secret, "{value:?}");
        }
        assert_eq!(malformed(&format!("Bearer {}", "A".repeat(4090))), Malformed::TooLong);
        assert!(matches!(Proof::parse([b"Bearer \xff".as_slice()].into_iter()), Proof::Malformed(_)));
    }

    #[test]
    fn debug_output_hides_the_proof() {
        let text = format!("{:?}", parse(&format!("Bearer {}", URL_SAFE_NO_PAD.encode([7; 32]))));
        assert_eq!(text, "Secret(..)");
    }
}
