//! Recipients with a lock, and the proofs that open them. Both are derived from numbers, so anybody
//! can derive them: they are for measurements alone.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use relay_auth::{LIFE_SECONDS_MAX, Locks, keygen};
use serde_json::json;

use super::scramble::mix;

/// The owner of a recipient with a lock.
pub struct Owner {
    name: String,
    key: Key,
}

enum Key {
    /// A secret, as a proof shows it.
    Secret(String),
    Signing(Box<SigningKey>),
}

impl Owner {
    /// The owner of the `sha256:` name with this number.
    pub fn of_secret(number: u64) -> Self {
        Self::with_secret(&random_bytes(number))
    }

    /// The owner of the `sha256:` name with this secret.
    pub fn with_secret(secret: &[u8; 32]) -> Self {
        let (read, secret) = keygen::secret_lock(secret);
        Self { name: Locks { read, send: None }.to_string(), key: Key::Secret(secret) }
    }

    /// The owner of the `ed25519:` name with this number.
    pub fn of_key(number: u64) -> Self {
        let seed = random_bytes(number);
        let (read, _) = keygen::key_lock(&seed);
        let key = Key::Signing(Box::new(SigningKey::from_bytes(&seed)));
        Self { name: Locks { read, send: None }.to_string(), key }
    }

    /// The recipient.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A proof that opens the recipient: its secret, or a token for `audience` that is valid for
    /// ten minutes from `now` on, in seconds since 1970.
    pub fn proof(&self, audience: &str, now: u64) -> String {
        self.proof_for(&self.name, audience, now)
    }

    /// What this owner would show to open the recipient of another one. It does not open it: the
    /// secret is another one, or the token has the signature of another key.
    pub fn wrong_proof(&self, other: &Self, audience: &str, now: u64) -> String {
        self.proof_for(&other.name, audience, now)
    }

    fn proof_for(&self, name: &str, audience: &str, now: u64) -> String {
        match &self.key {
            Key::Secret(secret) => secret.clone(),
            Key::Signing(key) => token(key, name, audience, now),
        }
    }
}

/// Hidden, like every proof.
impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner(..)")
    }
}

/// Bytes that look random, and are the same for a number each time.
pub fn random_bytes(number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut word = mix(!number);
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_be_bytes());
        word = mix(word ^ number);
    }
    bytes
}

fn token(key: &SigningKey, name: &str, audience: &str, now: u64) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"relay-read+jwt"}"#);
    let claims = json!({"iss": name, "aud": audience, "iat": now, "exp": now + LIFE_SECONDS_MAX});
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}

#[cfg(test)]
mod tests {
    use relay_auth::{Operation, Policy, Proof, Refusal, Settings};

    use super::*;

    const AUDIENCE: &str = "https://relay.example.org";
    const NOW: u64 = 1_800_000_000;

    fn pull(name: &str, proof: &str) -> Result<(), Refusal> {
        let policy = Policy::new(Settings { audiences: vec![AUDIENCE.to_owned()], ..Settings::default() });
        let proof = Proof::parse([format!("Bearer {proof}").as_bytes()].into_iter());
        policy.may(Operation::Pull, name, &proof, NOW * 1000).map(drop)
    }

    #[test]
    fn a_proof_opens_the_name_of_its_owner_alone() {
        for owner_of in [Owner::of_secret, Owner::of_key] {
            let [owner, other] = [1, 2].map(owner_of);
            assert_eq!(pull(owner.name(), &owner.proof(AUDIENCE, NOW)), Ok(()));
            assert_eq!(pull(other.name(), &owner.proof(AUDIENCE, NOW)), Err(Refusal::WrongProof));
            assert_eq!(owner_of(1).name(), owner.name(), "a number is one name");
        }
    }

    #[test]
    fn a_wrong_proof_is_refused_for_the_reason_that_is_measured() {
        let [owner, other] = [1, 2].map(Owner::of_secret);
        assert_eq!(pull(owner.name(), &other.wrong_proof(&owner, AUDIENCE, NOW)), Err(Refusal::WrongProof));
        let [owner, other] = [1, 2].map(Owner::of_key);
        let refusal = pull(owner.name(), &other.wrong_proof(&owner, AUDIENCE, NOW)).unwrap_err();
        assert_eq!(refusal.reason(), "wrong_signature");
    }
}
