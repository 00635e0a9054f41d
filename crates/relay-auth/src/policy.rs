//! Whether a proof opens a name.

use std::fmt;

use quick_cache::sync::Cache;
use relay_core::Operation;

use crate::name::{Digest, Locks, PublicKey, ReadLock};
use crate::proof::Proof;
use crate::refusal::Refusal;
use crate::token::{InvalidToken, ReadToken};

/// The most tokens whose signature is remembered as verified, about 100 bytes each.
const VERIFIED_MAX: usize = 16 * 1024;

/// Who may read plain names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainNames {
    /// Everybody who knows the name, as in relays without locks.
    #[default]
    Open,
    /// Nobody, and nobody may push to them.
    Deny,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether names that begin like a lock have one. Otherwise they are plain.
    pub locks: bool,
    /// Who may read plain names.
    pub plain_names: PlainNames,
    /// The audiences that tokens may be for. Without any, there are no tokens.
    pub audiences: Vec<String>,
}

/// Locks, open plain names, and no tokens.
impl Default for Settings {
    fn default() -> Self {
        Self { locks: true, plain_names: PlainNames::Open, audiences: Vec::new() }
    }
}

/// Decides whether a proof opens a name.
pub struct Policy {
    settings: Settings,
    /// The hashes of verified tokens. Their claims are checked each time.
    verified: Cache<[u8; 32], ()>,
}

/// What a request may learn besides the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Whether it may learn how full the queue is. A sender to a locked name may not.
    pub sees_usage: bool,
}

/// Who shows a valid proof. All names with the same read lock have one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever has the secret with this digest.
    Secret(Digest),
    /// Whoever has the private key.
    Key(PublicKey),
}

impl Owner {
    /// Bytes that are different for each owner.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Secret(digest) => digest.as_bytes(),
            Self::Key(key) => key.as_bytes(),
        }
    }
}

const READER: Granted = Granted { sees_usage: true };
const SENDER: Granted = Granted { sees_usage: false };

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
        let locks = if self.settings.locks { Locks::of(name)? } else { Locks::NONE };
        if locks.read == ReadLock::Plain {
            return match self.settings.plain_names {
                PlainNames::Open => Ok(READER),
                PlainNames::Deny => Err(Refusal::PlainDenied),
            };
        }
        if operation != Operation::Push {
            return self.check_reader(operation, (name, locks.read), proof, now_ms).map(|()| READER);
        }
        match locks.send {
            Some(lock) => check_sender(lock, proof).map(|()| SENDER),
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

    /// Verifies the signature of a token, once.
    fn verify(&self, token: &ReadToken) -> Result<(), InvalidToken> {
        if self.verified.get(token.fingerprint()).is_none() {
            token.verify()?;
            self.verified.insert(*token.fingerprint(), ());
        }
        Ok(())
    }

    /// Who shows this proof, if that takes no signature to find out: the proof is a secret, or a
    /// valid token whose signature was verified earlier.
    #[must_use]
    pub fn known_owner(&self, operation: Operation, proof: &Proof, now_ms: u64) -> Option<Owner> {
        self.owner(operation, proof, now_ms, |token| self.verified.get(token.fingerprint()).is_some())
    }

    /// Who shows this proof, if it is valid. It may be the proof of any name.
    #[must_use]
    pub fn proven_owner(&self, operation: Operation, proof: &Proof, now_ms: u64) -> Option<Owner> {
        self.owner(operation, proof, now_ms, |token| self.verify(token).is_ok())
    }

    fn owner(
        &self,
        operation: Operation,
        proof: &Proof,
        now_ms: u64,
        is_verified: impl FnOnce(&ReadToken) -> bool,
    ) -> Option<Owner> {
        match proof {
            _ if !self.settings.locks => None,
            Proof::Secret(secret) => Some(Owner::Secret(secret.read_digest())),
            Proof::ReadToken(token) => {
                let valid = token.check_claims(&self.settings.audiences, now_ms / 1000).is_ok();
                let proven = valid && token.allows(operation) && is_verified(token);
                proven.then(|| Owner::Key(token.key()))
            }
            Proof::None | Proof::Malformed(_) => None,
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
