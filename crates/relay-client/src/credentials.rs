//! What opens a recipient: secrets, keys, tokens, and the names that belong to them.
//!
//! Nothing here is ever shown, not by `Debug` either.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use reqwest::header::HeaderValue;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::clock::{Clock, Reading};
use crate::error::Error;

const READ_LABEL: &[u8] = b"relay/read/1\0";
const SEND_LABEL: &[u8] = b"relay/send/1\0";

/// The header of every token of a key.
const TOKEN_HEADER: &str = r#"{"alg":"EdDSA","typ":"relay-read+jwt"}"#;

/// How long a token lives, and how much of that must be left when it is used.
const TOKEN_SECONDS: u64 = 300;
const TOKEN_SECONDS_LEFT: u64 = 60;

/// A relay takes secrets of this many bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=64;

/// The longest token: the relay takes a header of 4096 bytes.
const TOKEN_BYTES_MAX: usize = 4096 - "Bearer ".len();

/// A secret that opens a recipient for reading or for sending.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A new secret of 32 random bytes.
    ///
    /// # Errors
    /// `invalid_input` if the system has no random bytes.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(random::<32>()?.to_vec()))
    }

    /// A secret as it is written: base64url without padding, of 32 to 64 bytes.
    ///
    /// # Errors
    /// `invalid_input`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
        let message = "a secret is 32 to 64 bytes in base64url without padding";
        bytes.map(Self).ok_or_else(|| Error::Credentials(message.to_owned()))
    }

    /// The secret as it is written. Whoever has it may read.
    #[must_use]
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    /// The recipient that this secret opens for reading.
    #[must_use]
    pub fn recipient(&self) -> String {
        format!("sha256:{}", self.digest(READ_LABEL))
    }

    /// The send lock that this secret opens, to be appended to the name of a recipient that has a
    /// read lock.
    #[must_use]
    pub fn send_lock(&self) -> String {
        format!("+sha256:{}", self.digest(SEND_LABEL))
    }

    fn digest(&self, label: &[u8]) -> String {
        let digest = Sha256::new().chain_update(label).chain_update(&self.0).finalize();
        URL_SAFE_NO_PAD.encode(digest)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An Ed25519 key that signs tokens for its recipient.
#[derive(Clone)]
pub struct Key(SigningKey);

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// `invalid_input` if the system has no random bytes.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(SigningKey::from_bytes(&random()?)))
    }

    /// A key as it is written: its seed of 32 bytes in base64url without padding.
    ///
    /// # Errors
    /// `invalid_input`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let seed = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let message = "a key is its seed of 32 bytes in base64url without padding";
        seed.map(|seed| Self(SigningKey::from_bytes(&seed)))
            .ok_or_else(|| Error::Credentials(message.to_owned()))
    }

    /// The seed of the key. Whoever has it may read.
    #[must_use]
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.to_bytes())
    }

    /// The recipient that this key opens for reading.
    #[must_use]
    pub fn recipient(&self) -> String {
        format!("ed25519:{}", URL_SAFE_NO_PAD.encode(self.0.verifying_key().to_bytes()))
    }

    fn token(&self, recipient: &str, audience: &str, now_seconds: u64) -> String {
        let exp = now_seconds.saturating_add(TOKEN_SECONDS);
        let claims = json!({"iss": recipient, "aud": audience, "iat": now_seconds, "exp": exp});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(TOKEN_HEADER),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self.0.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What a request shows to open a recipient. A client certificate is an option of the client
/// instead, and needs no credentials.
#[derive(Clone, Default)]
pub struct Credentials(Option<Arc<Proof>>);

enum Proof {
    /// The same header always.
    Fixed(HeaderValue),
    Key {
        key: Box<Key>,
        audience: String,
        last: Mutex<Option<Signed>>,
    },
}

/// A token that was signed, and for whom.
struct Signed {
    recipient: String,
    authorization: Authorization,
    expires_seconds: u64,
}

/// A header, and for a token that was signed here, whether the clock was corrected before.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    pub(crate) was_corrected: Option<bool>,
}

impl Credentials {
    /// Nothing, for recipients that everybody may read and for client certificates.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// The secret whose digest is in the name of the recipient.
    #[must_use]
    pub fn secret(secret: &Secret) -> Self {
        // Base64url is always a valid header.
        Self(bearer(&secret.expose()).ok().map(|header| Arc::new(Proof::Fixed(header))))
    }

    /// Tokens that this key signs. `audience` is the relay's own name, as its operator has set it.
    #[must_use]
    pub fn key(key: Key, audience: impl Into<String>) -> Self {
        Self(Some(Arc::new(Proof::Key {
            key: Box::new(key),
            audience: audience.into(),
            last: Mutex::new(None),
        })))
    }

    /// A token that the relay's issuer has signed.
    ///
    /// # Errors
    /// `invalid_input` if it is too long or has characters that no token has.
    pub fn token(token: &str) -> Result<Self, Error> {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let message = format!("a token has 1 to {TOKEN_BYTES_MAX} printable characters");
            return Err(Error::Credentials(message));
        }
        Ok(Self(Some(Arc::new(Proof::Fixed(bearer(token)?)))))
    }

    /// The header for a request about this recipient.
    pub(crate) fn authorization(
        &self,
        recipient: &str,
        clock: &Clock,
    ) -> Result<Option<Authorization>, Error> {
        match self.0.as_deref() {
            None => Ok(None),
            Some(Proof::Fixed(header)) => {
                Ok(Some(Authorization { header: header.clone(), was_corrected: None }))
            }
            Some(Proof::Key { key, audience, last }) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                let now = clock.now();
                if let Some(signed) = last.as_ref().filter(|signed| signed.serves(recipient, now)) {
                    return Ok(Some(signed.authorization.clone()));
                }
                let now_seconds = now.ms / 1000;
                let header = bearer(&key.token(recipient, audience, now_seconds))?;
                let authorization = Authorization { header, was_corrected: Some(now.is_corrected) };
                let expires_seconds = now_seconds.saturating_add(TOKEN_SECONDS);
                let recipient = recipient.to_owned();
                *last = Some(Signed { recipient, authorization: authorization.clone(), expires_seconds });
                Ok(Some(authorization))
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.as_deref() {
            None => "Credentials::none()",
            Some(Proof::Fixed(_)) => "Credentials(..)",
            Some(Proof::Key { .. }) => "Credentials::key(..)",
        })
    }
}

impl Signed {
    fn serves(&self, recipient: &str, now: Reading) -> bool {
        let ends = self.expires_seconds.saturating_sub(TOKEN_SECONDS_LEFT);
        let begins = self.expires_seconds.saturating_sub(TOKEN_SECONDS);
        self.recipient == recipient
            && self.authorization.was_corrected == Some(now.is_corrected)
            && (begins..ends).contains(&(now.ms / 1000))
    }
}

fn bearer(text: &str) -> Result<HeaderValue, Error> {
    let value = HeaderValue::from_str(&format!("Bearer {text}"));
    let mut value = value.map_err(|_| Error::Credentials("they do not fit into a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Credentials(format!("the system has no random bytes: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_test_vectors() {
        let secret = Secret::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap();
        assert_eq!(secret.recipient(), "sha256:MAnwSaLYK_Lpzqa_RV50Oonc9OCE9FWdzfIl0vbSFBQ");
        let send = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj9AQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpbXF1eXw";
        let lock = Secret::parse(send).unwrap().send_lock();
        assert_eq!(lock, "+sha256:ywT9_bRvpj2qZQxlR7mYJ3zoElWIkD_BVZQpfd-H9w4");
        let key = Key::parse("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc").unwrap();
        assert_eq!(key.recipient(), "ed25519:6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw");
        assert_eq!(Secret::parse(&secret.expose()).unwrap(), secret);
        assert_eq!(Key::parse(&key.expose()).unwrap().recipient(), key.recipient());
    }

    #[test]
    fn what_is_no_secret_key_or_token_is_refused() {
        for text in ["", "AAAA", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", &"A".repeat(87)] {
            assert_eq!(Secret::parse(text).unwrap_err().code(), "invalid_input", "{text}");
            assert_eq!(Key::parse(text).unwrap_err().code(), "invalid_input", "{text}");
        }
        for text in ["", "a b", "a\nb", "ä", &"a".repeat(4090)] {
            assert_eq!(Credentials::token(text).unwrap_err().code(), "invalid_input");
        }
    }

    #[test]
    fn a_token_is_signed_again_for_another_recipient_and_another_clock() {
        let credentials = Credentials::key(Key::generate().unwrap(), "https://relay");
        let clock = Clock::new(0);
        let header =
            |name: &str, clock: &Clock| credentials.authorization(name, clock).unwrap().unwrap().header;
        let first = header("a", &clock);
        assert_eq!(header("a", &clock), first);
        assert_ne!(header("b", &clock), first);
        let again = header("a", &Clock::new(230_000));
        assert_eq!(again, header("a", &Clock::new(230_000)));
        let late = header("a", &Clock::new(520_000));
        assert_ne!(late, again, "less than a minute is left");
        assert_ne!(header("a", &Clock::new(-520_000)), late, "not valid yet");
    }

    #[test]
    fn nothing_is_shown() {
        let secret = Secret::generate().unwrap();
        let credentials = Credentials::secret(&secret);
        let header = credentials.authorization("a", &Clock::new(0)).unwrap();
        let key = Key::generate().unwrap();
        let shown = format!("{secret:?} {credentials:?} {header:?} {key:?}");
        assert!(!shown.contains(&secret.expose()) && !shown.contains(&key.expose()), "{shown}");
    }
}
