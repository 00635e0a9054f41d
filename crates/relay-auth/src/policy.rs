//! Whether a proof opens a name.

mod plain;

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;
use relay_core::Operation;
use sha2::{Digest as _, Sha256};

use crate::certified_names::CertifiedNames;
use crate::issuer::Issuer;
use crate::name::{Digest, Locks, PublicKey, ReadLock};
use crate::proof::Proof;
use crate::refusal::Refusal;
use crate::token::{InvalidToken, ReadToken};

/// The most tokens that are remembered as verified, about 300 bytes each.
const VERIFIED_MAX: usize = 16 * 1024;

/// Who may read plain names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainNames {
    /// Everybody who knows the name, as in relays without locks.
    #[default]
    Open,
    /// Whoever has a token of the issuer that lists the name, or a certificate for it.
    Token,
    /// Nobody, and nobody may push to them.
    Deny,
}

/// Who may push to plain names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushPlain {
    /// Everybody who knows the name.
    #[default]
    Open,
    /// Whoever has a token of the issuer that allows it, and whoever may read the name.
    Token,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether names that begin like a lock have one. Otherwise they are plain.
    pub locks: bool,
    /// Who may read plain names.
    pub plain_names: PlainNames,
    /// Who may push to plain names.
    pub push: PushPlain,
    /// The audiences that tokens may be for. Without any, there are no tokens.
    pub audiences: Vec<String>,
    /// The issuer of tokens for plain names.
    pub issuer: Option<Issuer>,
}

/// Locks, open plain names, and no tokens.
impl Default for Settings {
    fn default() -> Self {
        Self {
            locks: true,
            plain_names: PlainNames::Open,
            push: PushPlain::Open,
            audiences: Vec::new(),
            issuer: None,
        }
    }
}

/// Decides whether a proof opens a name.
pub struct Policy {
    settings: Settings,
    /// Verified tokens by a hash of their text, so that it contains no token that could be used.
    /// Their claims are checked each time.
    verified: Cache<[u8; 32], Arc<ReadToken>>,
}

/// What a request may learn besides the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Whether it may learn how full the queue is. A sender may not, unless everybody may read.
    pub sees_usage: bool,
    /// Whether the proof is one that all senders to the recipient have, so that it says nothing
    /// about who this one is.
    pub is_shared: bool,
}

/// Who shows a valid proof, so that requests can count by it. The same for all names with the same
/// read lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever has the secret with this digest.
    Secret(Digest),
    /// Whoever has the private key.
    Key(PublicKey),
    /// The subject of an issuer's token, or the first name of a certificate: a hash of it.
    Plain([u8; 32]),
}

/// Which signatures of tokens [`Policy::owner`] accepts. Secrets and certificates have none to
/// verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Those that were verified for an earlier request.
    Earlier,
    /// Others too, which it verifies.
    Now,
}

impl Owner {
    fn plain(label: &str, name: &str) -> Self {
        Self::Plain(Sha256::new().chain_update(label).chain_update(name).finalize().into())
    }

    /// Bytes that are different for each owner.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Secret(digest) => digest.as_bytes(),
            Self::Key(key) => key.as_bytes(),
            Self::Plain(hash) => hash,
        }
    }
}

const READER: Granted = Granted { sees_usage: true, is_shared: false };
const SENDER: Granted = Granted { sees_usage: false, is_shared: false };

/// What a relay without an issuer takes an issuer's token for.
static NO_READ_TOKEN: Proof = Proof::Malformed(ReadToken::HEADER);

impl Policy {
    /// A policy that has verified nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, verified: Cache::new(VERIFIED_MAX) }
    }

    /// Whether a request with this proof may do this with the queue of `name`, at `now_ms`
    /// milliseconds since 1970. It looks at no queue, so the answer is the same whether one exists.
    ///
    /// # Errors
    /// Why not.
    pub fn may(
        &self,
        operation: Operation,
        name: &str,
        proof: &Proof,
        now_ms: u64,
    ) -> Result<Granted, Refusal> {
        self.may_with_certificate(operation, name, proof, &CertifiedNames::NONE, now_ms)
    }

    /// Like [`may`](Self::may), for a client whose certificate has these names. They are plain
    /// names: a certificate opens no lock.
    ///
    /// # Errors
    /// Why not.
    pub fn may_with_certificate(
        &self,
        operation: Operation,
        name: &str,
        proof: &Proof,
        certified: &CertifiedNames,
        now_ms: u64,
    ) -> Result<Granted, Refusal> {
        let proof = match proof {
            Proof::IssuerToken(_) if self.settings.issuer.is_none() => &NO_READ_TOKEN,
            proof => proof,
        };
        let locks = if self.settings.locks { Locks::of(name)? } else { Locks::NONE };
        if locks.read == ReadLock::Plain {
            return self.may_plain(operation, name, (proof, certified), now_ms / 1000);
        }
        if operation != Operation::Push {
            return self.check_reader(operation, (name, locks.read), proof, now_ms).map(|()| READER);
        }
        match locks.send {
            Some(lock) => check_sender(lock, proof).map(|()| Granted { is_shared: true, ..SENDER }),
            // Anybody may push. The reader itself may learn how full its queue is.
            None => {
                let reader = self.check_reader(operation, (name, locks.read), proof, now_ms);
                Ok(reader.map_or(SENDER, |()| READER))
            }
        }
    }

    fn check_reader(
        &self,
        operation: Operation,
        (name, lock): (&str, ReadLock),
        proof: &Proof,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        match (lock, proof) {
            (_, Proof::None) => Err(Refusal::NoProof),
            (_, Proof::Malformed(malformed)) => Err((*malformed).into()),
            (ReadLock::Secret(lock), Proof::Secret(secret)) if secret.read_digest() == lock => Ok(()),
            (ReadLock::Key(_), Proof::ReadToken(token)) if token.name() == name => {
                self.check_token(token, operation, now_ms / 1000)
            }
            _ => Err(Refusal::WrongProof),
        }
    }

    fn check_token(&self, token: &ReadToken, operation: Operation, now: u64) -> Result<(), Refusal> {
        token.check_claims(&self.settings.audiences, now)?;
        self.verify(token)?;
        // Last, so that only the owner of the key learns what its token lacks.
        if token.allows(operation) { Ok(()) } else { Err(Refusal::WrongOperation) }
    }

    /// Parses the values of all `Authorization` headers of a request, or finds the token that they
    /// contain among those that were verified earlier.
    pub fn proof<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> Proof {
        Proof::parse_with(values, |fingerprint| self.verified.get(fingerprint))
    }

    /// Verifies the signature of a token, once. Its claims were checked, so it is small.
    fn verify(&self, token: &ReadToken) -> Result<(), InvalidToken> {
        if !self.has_verified(token) {
            token.verify()?;
            self.verified.insert(*token.fingerprint(), Arc::new(token.verified()));
        }
        Ok(())
    }

    fn has_verified(&self, token: &ReadToken) -> bool {
        token.is_verified() || self.verified.get(token.fingerprint()).is_some()
    }

    /// Who shows this proof or this certificate, if it is valid. It may be the proof of any name.
    #[must_use]
    pub fn owner(
        &self,
        operation: Operation,
        proof: &Proof,
        certified: &CertifiedNames,
        now_ms: u64,
        verification: Verification,
    ) -> Option<Owner> {
        let (locks, audiences, now) = (self.settings.locks, &self.settings.audiences, now_ms / 1000);
        match proof {
            Proof::Secret(secret) if locks => Some(Owner::Secret(secret.read_digest())),
            Proof::ReadToken(token) if locks => {
                let is_valid = token.check_claims(audiences, now).is_ok() && token.allows(operation);
                let is_verified = || match verification {
                    Verification::Earlier => self.has_verified(token),
                    Verification::Now => self.verify(token).is_ok(),
                };
                (is_valid && is_verified()).then(|| Owner::Key(token.key()))
            }
            Proof::IssuerToken(token) => {
                let issuer = self.settings.issuer.as_ref()?;
                let is_valid = match verification {
                    Verification::Earlier => issuer.has_verified(token, audiences, now),
                    Verification::Now => issuer.check(token, audiences, now).is_ok(),
                };
                token.subject().filter(|_| is_valid).map(|subject| Owner::plain("subject ", subject))
            }
            _ => certified.first().map(|name| Owner::plain("certificate ", name)),
        }
    }
}

fn check_sender(lock: Digest, proof: &Proof) -> Result<(), Refusal> {
    match proof {
        Proof::None => Err(Refusal::NoProof),
        Proof::Malformed(malformed) => Err((*malformed).into()),
        Proof::Secret(secret) if secret.send_digest() == lock => Ok(()),
        _ => Err(Refusal::WrongProof),
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("settings", &self.settings).finish_non_exhaustive()
    }
}
