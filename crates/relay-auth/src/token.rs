//! Read tokens: JWTs (RFC 7519) that the owner of an `ed25519:` name signs with the key in the
//! name.
//!
//! The header decides nothing: it must be exactly `{"alg":"EdDSA","typ":"relay-read+jwt"}`, so no
//! token can choose an algorithm or a key. The signature is Ed25519 (RFC 8032), verified strictly.

use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use relay_core::Operation;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

use crate::json::parse_object;
use crate::malformed::Malformed;
use crate::name::{Locks, PublicKey, ReadLock};

/// The longest life of a token, from `iat` to `exp`, in seconds.
pub const LIFE_SECONDS_MAX: u64 = 600;

/// How far the clocks of the signer and the relay may differ, in seconds.
pub(crate) const LEEWAY_SECONDS: u64 = 60;

/// The type of read tokens, and of no others.
const TYPE: &str = "relay-read+jwt";

/// A parsed read token. Nothing of it is verified before [`Policy::may`](crate::Policy::may).
pub struct ReadToken {
    key: PublicKey,
    claims: Claims,
    fingerprint: [u8; 32],
    /// What is left to verify; `None` in a token whose signature was verified earlier.
    signed: Option<Signed>,
}

/// What was signed, and the signature.
struct Signed {
    text: String,
    signature: Signature,
    /// Whether the signature is right, once it was verified.
    is_right: OnceLock<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
}

/// Times are in seconds since 1970. Unknown claims are refused, and so are repeated ones.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
    #[serde(default, deserialize_with = "operations")]
    ops: Option<Operations>,
}

/// The operations of [`Operation::ALL`] that a token allows.
#[derive(Clone, Copy)]
struct Operations([bool; Operation::ALL.len()]);

/// Why a token that could open the name is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// The relay has no audience, so it accepts no tokens.
    #[error("this relay accepts no tokens: it has no audience")]
    NoAudience,
    /// It is for another relay.
    #[error("the token is for another audience")]
    Audience,
    /// It lives longer than [`LIFE_SECONDS_MAX`], or ends before it begins.
    #[error("the token lives longer than 600 seconds")]
    Life,
    /// Its time has not begun.
    #[error("the token is not valid yet; check the clock")]
    Early,
    /// Its time is over.
    #[error("the token has expired; check the clock")]
    Expired,
    /// It is of another issuer than the relay's.
    #[error("the token is of another issuer")]
    Issuer,
    /// The issuer's keys, as the relay knows them, have none with the token's `kid` and algorithm.
    #[error("the issuer has no such key: kid and alg must be those of a key that the relay knows")]
    Key,
    /// It is not signed by the key in the name, or by the issuer's.
    #[error("the signature of the token is wrong")]
    Signature,
}

impl ReadToken {
    /// The error of a token with another header.
    pub(crate) const HEADER: Malformed =
        Malformed::Token("its header is {\"alg\":\"EdDSA\",\"typ\":\"relay-read+jwt\"}");

    /// Whether a token says of itself that it is a read token.
    pub(crate) fn is_meant(text: &str) -> bool {
        #[derive(Deserialize)]
        struct Typed {
            typ: String,
        }
        let header = text.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
        let typed: Option<Typed> = header.and_then(|header| parse_object(&header));
        typed.is_some_and(|header| header.typ == TYPE)
    }

    /// A hash that distinguishes the text of a token from all others.
    pub(crate) fn fingerprint_of(text: &str) -> [u8; 32] {
        Sha256::digest(text).into()
    }

    /// # Errors
    /// If the text is not a read token.
    pub(crate) fn parse(text: &str, fingerprint: [u8; 32]) -> Result<Self, Malformed> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Malformed::Token("it has three parts"))?;
        let (header, claims) = signed.split_once('.').ok_or(Malformed::Token("it has three parts"))?;
        let header: Header = parse_object(&decode(header)?).ok_or(Self::HEADER)?;
        if header.alg != "EdDSA" || header.typ != TYPE {
            return Err(Self::HEADER);
        }
        let claims: Claims = parse_object(&decode(claims)?)
            .ok_or(Malformed::Token("its claims are iss, aud, iat, exp and optionally ops, once each"))?;
        let Ok(Locks { read: ReadLock::Key(key), .. }) = Locks::of(&claims.iss) else {
            return Err(Malformed::Token("iss is an ed25519: name"));
        };
        let signature = Signature::from_slice(&decode(signature)?)
            .map_err(|_| Malformed::Token("its signature has 64 bytes"))?;
        let signed = Signed { text: signed.to_owned(), signature, is_right: OnceLock::new() };
        Ok(Self { key, claims, fingerprint, signed: Some(signed) })
    }

    /// This token without what was verified, to be remembered: some 300 bytes, if its audience is
    /// one of the relay's.
    pub(crate) fn verified(&self) -> Self {
        Self { key: self.key, claims: self.claims.clone(), fingerprint: self.fingerprint, signed: None }
    }

    /// Whether it was remembered as verified.
    pub(crate) const fn is_verified(&self) -> bool {
        self.signed.is_none()
    }

    /// The name that it is for.
    pub(crate) fn name(&self) -> &str {
        &self.claims.iss
    }

    /// Whether it allows this operation.
    pub(crate) fn allows(&self, operation: Operation) -> bool {
        let allowed = |Operations(allowed): Operations| allowed.get(operation as usize) == Some(&true);
        self.claims.ops.is_none_or(allowed)
    }

    /// The key that its name contains.
    pub(crate) const fn key(&self) -> PublicKey {
        self.key
    }

    /// A hash that distinguishes this token from all others.
    pub(crate) const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Checks everything but the signature, at `now` in seconds since 1970.
    pub(crate) fn check_claims(&self, audiences: &[String], now: u64) -> Result<(), InvalidToken> {
        let Claims { aud, iat, exp, .. } = &self.claims;
        if audiences.is_empty() {
            return Err(InvalidToken::NoAudience);
        }
        if !audiences.contains(aud) {
            return Err(InvalidToken::Audience);
        }
        if exp.checked_sub(*iat).is_none_or(|life| life > LIFE_SECONDS_MAX) {
            return Err(InvalidToken::Life);
        }
        if *iat > now.saturating_add(LEEWAY_SECONDS) {
            return Err(InvalidToken::Early);
        }
        if exp.saturating_add(LEEWAY_SECONDS) < now {
            return Err(InvalidToken::Expired);
        }
        Ok(())
    }

    /// Verifies the signature, which costs some 50 microseconds the first time.
    pub(crate) fn verify(&self) -> Result<(), InvalidToken> {
        let Some(Signed { text, signature, is_right }) = &self.signed else { return Ok(()) };
        let is_right = *is_right.get_or_init(|| {
            let key = VerifyingKey::from_bytes(self.key.as_bytes());
            key.is_ok_and(|key| key.verify_strict(text.as_bytes(), signature).is_ok())
        });
        is_right.then_some(()).ok_or(InvalidToken::Signature)
    }
}

/// Hidden: whoever has the token may read.
impl fmt::Debug for ReadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadToken(..)")
    }
}

/// A list of known operations. Refuses `null`, which must not stand for all.
fn operations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Operations>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let is_known = |word: &String| Operation::ALL.iter().any(|known| known.as_str() == word);
    if !words.iter().all(is_known) {
        return Err(D::Error::custom("an unknown operation"));
    }
    let is_listed = |operation: Operation| words.iter().any(|word| word == operation.as_str());
    Ok(Some(Operations(Operation::ALL.map(is_listed))))
}

fn decode(part: &str) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed::Token("its parts are base64url without padding"))
}
