//! Issuer's tokens: JWTs (RFC 7519) of the operator's issuer, which list the plain names that their
//! holder may read and send to.
//!
//! The header names a key and nothing else: tokens that bring a key, or the address of one, are
//! malformed, and so are those whose algorithm needs no key or a shared one.

use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};

use crate::json::{not_null, object, parse_object, parse_open_object};
use crate::malformed::Malformed;
use crate::token::{InvalidToken, LEEWAY_SECONDS};

/// A parsed token. Nothing of it is verified before [`Policy::may`](crate::Policy::may).
pub struct IssuerToken {
    /// The header and the claims, as they were signed.
    signed: String,
    signature: Vec<u8>,
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Claims,
    /// Whether the signature is right, once it was verified with a key: the hash of this token and
    /// that key, and the outcome. A request may ask for each of its items.
    pub(crate) verified: OnceLock<([u8; 32], bool)>,
}

/// The algorithms of issuers. All have a key that only the issuer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

/// `x5t` and `x5t#S256` repeat which key it is; some issuers send them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "not_null")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "not_null", rename = "x5t")]
    _x5t: Option<String>,
    #[serde(default, deserialize_with = "not_null", rename = "x5t#S256")]
    _x5t_s256: Option<String>,
}

/// Times are in seconds since 1970. Issuers add claims of their own, which are ignored.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audiences,
    exp: u64,
    #[serde(default, deserialize_with = "not_null")]
    sub: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "object")]
    relay: Access,
}

/// The claim `relay`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Access {
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    send: Senders,
}

/// The claim `aud`, a text or a list of texts.
struct Audiences(Vec<String>);

/// The member `send`.
enum Senders {
    /// `true`: all plain names.
    All,
    Names(Vec<String>),
}

impl Default for Senders {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

const HEADER: Malformed = Malformed::Token(
    "the header of an issuer's token is alg (EdDSA, ES256 or RS256), kid and optionally typ",
);

const CLAIMS: Malformed = Malformed::Token(
    "the claims of an issuer's token are iss, aud, exp and optionally sub, nbf and relay, once each; \
     relay has read, a list, and send, a list or true; times are whole seconds",
);

impl IssuerToken {
    /// # Errors
    /// If the text is not a token that an issuer could have made. The error is `other` if it has
    /// nothing of such a token.
    pub(crate) fn parse(text: &str, other: Malformed) -> Result<Self, Malformed> {
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(other);
        };
        let [header, claims, signature] =
            [header, claims, signature].map(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let (Some(header), Some(claims), Some(signature)) = (header, claims, signature) else {
            return Err(other);
        };
        let header: Header = parse_object(&header).ok_or(HEADER)?;
        let algorithm = Algorithm::of(&header.alg).ok_or(HEADER)?;
        if !header.typ.as_deref().is_none_or(is_access_token) {
            return Err(HEADER);
        }
        let claims = parse_open_object(&claims).ok_or(CLAIMS)?;
        let signed = text.rsplit_once('.').map(|(signed, _)| signed.to_owned()).ok_or(other)?;
        Ok(Self { signed, signature, algorithm, kid: header.kid, claims, verified: OnceLock::new() })
    }

    /// Whom it is for: `sub`, or else the first name that it lists for reading.
    pub(crate) fn subject(&self) -> Option<&str> {
        let Claims { sub, relay, .. } = &self.claims;
        sub.as_deref().or_else(|| relay.read.first().map(String::as_str))
    }

    /// Whether it lists this name for reading.
    pub(crate) fn reads(&self, name: &str) -> bool {
        contains(&self.claims.relay.read, name)
    }

    /// Whether it allows to send to this name.
    pub(crate) fn sends_to(&self, name: &str) -> bool {
        match &self.claims.relay.send {
            Senders::All => true,
            Senders::Names(names) => contains(names, name),
        }
    }

    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Which of the issuer's keys it names.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What is signed, and the signature.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        (self.signed.as_bytes(), &self.signature)
    }

    /// Checks everything but the signature, at `now` in seconds since 1970.
    pub(crate) fn check_claims(
        &self,
        issuer: &str,
        audiences: &[String],
        now: u64,
    ) -> Result<(), InvalidToken> {
        let Claims { iss, aud: Audiences(aud), exp, nbf, .. } = &self.claims;
        if iss != issuer {
            return Err(InvalidToken::Issuer);
        }
        if audiences.is_empty() {
            return Err(InvalidToken::NoAudience);
        }
        if !aud.iter().any(|aud| audiences.contains(aud)) {
            return Err(InvalidToken::Audience);
        }
        if nbf.is_some_and(|nbf| nbf > now.saturating_add(LEEWAY_SECONDS)) {
            return Err(InvalidToken::Early);
        }
        if exp.saturating_add(LEEWAY_SECONDS) < now {
            return Err(InvalidToken::Expired);
        }
        Ok(())
    }
}

/// Hidden: whoever has the token may read.
impl fmt::Debug for IssuerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuerToken(..)")
    }
}

impl Algorithm {
    /// The algorithm with this name in headers and keys.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "EdDSA" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }
}

/// Whether a token of this type is for access. Issuers sign others too, as for a logout.
fn is_access_token(typ: &str) -> bool {
    ["JWT", "at+jwt", "application/at+jwt"].iter().any(|known| known.eq_ignore_ascii_case(typ))
}

fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|listed| listed == name)
}

impl<'de> Deserialize<'de> for Audiences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Audiences;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Audiences, E> {
                Ok(Audiences(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Audiences, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Audiences)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl<'de> Deserialize<'de> for Senders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TrueOrNames;
        impl<'de> Visitor<'de> for TrueOrNames {
            type Value = Senders;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or a list of names")
            }

            fn visit_bool<E: Error>(self, is_all: bool) -> Result<Senders, E> {
                is_all.then_some(Senders::All).ok_or_else(|| E::custom("false is no list of names"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Senders, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Senders::Names)
            }
        }
        deserializer.deserialize_any(TrueOrNames)
    }
}
