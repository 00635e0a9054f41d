//! Compares the policy with a model of a few lines, for random names, proofs, times and operations.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use relay_auth::{CertifiedNames, Digest, Operation, Policy, Proof, Settings, Verification};

const NOW: u64 = 1_800_000_000;
const AUDIENCE: &str = "https://relay.example.org";

/// A recipient: who reads and who sends, by the numbers of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Plain(u8),
    Secret { read: u8, send: Option<u8> },
    Key { read: u8, send: Option<u8> },
}

/// What a request shows.
#[derive(Clone, Debug)]
enum Shown {
    Nothing,
    Noise(String),
    Secret(u8),
    Token {
        name: Name,
        signer: u8,
        from: i64,
        life: u64,
        is_for_us: bool,
        operations: Option<Vec<Operation>>,
    },
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

impl Name {
    fn text(self) -> String {
        let send_lock = |send: Option<u8>| {
            let digest = |number| encode(Digest::of_send_secret(&[number; 32]).as_bytes());
            send.map_or_else(String::new, |number| format!("+sha256:{}", digest(number)))
        };
        match self {
            Self::Plain(number) => format!("user-{number}"),
            Self::Secret { read, send } => {
                format!(
                    "sha256:{}{}",
                    encode(Digest::of_read_secret(&[read; 32]).as_bytes()),
                    send_lock(send)
                )
            }
            Self::Key { read, send } => {
                format!("ed25519:{}{}", encode(key(read).verifying_key().as_bytes()), send_lock(send))
            }
        }
    }
}

impl Shown {
    /// The value of the header.
    fn value(&self) -> Option<String> {
        Some(match self {
            Self::Nothing => return None,
            Self::Noise(text) => text.clone(),
            Self::Secret(number) => format!("Bearer {}", encode([*number; 32])),
            Self::Token { name, signer, from, life, is_for_us, operations } => {
                let from = NOW.saturating_add_signed(*from);
                let mut claims = serde_json::json!({
                    "iss": name.text(), "aud": if *is_for_us { AUDIENCE } else { "other" },
                    "iat": from, "exp": from + life,
                });
                if let Some(operations) = operations {
                    claims["ops"] = operations.iter().map(|operation| operation.as_str()).collect();
                }
                let header = encode(r#"{"alg":"EdDSA","typ":"relay-read+jwt"}"#);
                let signed = format!("{header}.{}", encode(claims.to_string()));
                format!("Bearer {signed}.{}", encode(key(*signer).sign(signed.as_bytes()).to_bytes()))
            }
        })
    }

    fn proof(&self) -> Proof {
        Proof::parse(self.value().iter().map(String::as_bytes))
    }

    /// Whether this is a valid token for this operation, of the key that its own name has.
    fn is_valid_token(&self, operation: Operation) -> bool {
        let Self::Token { name: Name::Key { read, .. }, signer, from, life, is_for_us, operations } = self
        else {
            return false;
        };
        let until = from + i64::try_from(*life).unwrap();
        let is_in_time = *from <= 60 && until >= -60 && *life <= 600;
        let allows = operations.as_ref().is_none_or(|operations| operations.contains(&operation));
        *is_for_us && signer == read && is_in_time && allows
    }

    fn is_reader_of(&self, name: Name, operation: Operation) -> bool {
        match (self, name) {
            (Self::Secret(shown), Name::Secret { read, .. }) => *shown == read,
            (Self::Token { name: shown, .. }, Name::Key { .. }) => {
                *shown == name && self.is_valid_token(operation)
            }
            _ => false,
        }
    }

    /// Whether the request may do this, and whether it learns how full the queue is.
    fn model(&self, name: Name, operation: Operation) -> Option<bool> {
        let (Name::Secret { send, .. } | Name::Key { send, .. }) = name else { return Some(true) };
        match (operation, send) {
            (Operation::Push, Some(send)) => {
                matches!(self, Self::Secret(shown) if *shown == send).then_some(false)
            }
            (Operation::Push, None) => Some(self.is_reader_of(name, operation)),
            _ => self.is_reader_of(name, operation).then_some(true),
        }
    }

    fn model_owner(&self, operation: Operation) -> Option<[u8; 32]> {
        match self {
            Self::Secret(number) => Some(*Digest::of_read_secret(&[*number; 32]).as_bytes()),
            Self::Token { signer, .. } if self.is_valid_token(operation) => {
                Some(key(*signer).verifying_key().to_bytes())
            }
            _ => None,
        }
    }
}

fn name() -> impl Strategy<Value = Name> {
    let send = || prop::option::of(0..3_u8);
    prop_oneof![
        (0..3_u8).prop_map(Name::Plain),
        (0..3_u8, send()).prop_map(|(read, send)| Name::Secret { read, send }),
        (0..3_u8, send()).prop_map(|(read, send)| Name::Key { read, send }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(Operation::ALL.to_vec())
}

fn shown() -> impl Strategy<Value = Shown> {
    let operations = prop::option::of(prop::collection::vec(operation(), 0..3));
    let times = (prop_oneof![Just(0), -800..100_i64], prop_oneof![Just(600), 0..800_u64]);
    let token = (name(), 0..3_u8, times, prop::bool::weighted(0.9), operations);
    prop_oneof![
        Just(Shown::Nothing),
        "(Bearer )?[ -~]{0,60}".prop_map(Shown::Noise),
        (0..3_u8).prop_map(Shown::Secret),
        token.prop_map(|(name, signer, (from, life), is_for_us, operations)| {
            Shown::Token { name, signer, from, life, is_for_us, operations }
        }),
    ]
}

/// The name, and often a proof that fits it, since a random one rarely does.
fn request() -> impl Strategy<Value = (Name, Shown)> {
    (name(), shown(), any::<bool>()).prop_map(|(name, shown, fits)| match (fits, name, shown) {
        (true, Name::Secret { read, .. }, Shown::Secret(_)) => (name, Shown::Secret(read)),
        (true, Name::Key { read, .. }, Shown::Token { from, life, is_for_us, operations, .. }) => {
            (name, Shown::Token { name, signer: read, from, life, is_for_us, operations })
        }
        (_, name, shown) => (name, shown),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// One policy for all requests of a case: what it remembers of one never helps another.
    #[test]
    fn the_policy_does_what_the_model_does(requests in prop::collection::vec((request(), operation()), 1..12)) {
        let settings = Settings { audiences: vec![AUDIENCE.to_owned()], ..Settings::default() };
        let policy = Policy::new(settings);
        for ((name, shown), operation) in requests {
            // It finds tokens that were verified earlier, and must not see a difference.
            let proof = policy.proof(shown.value().iter().map(String::as_bytes));
            let granted = policy.may(operation, &name.text(), &proof, NOW * 1000);
            prop_assert_eq!(granted, policy.may(operation, &name.text(), &shown.proof(), NOW * 1000));
            let expected = shown.model(name, operation);
            prop_assert_eq!(granted.map(|granted| granted.sees_usage).ok(), expected, "{:?} {:?}", name, shown);
            let owner = policy.owner(operation, &shown.proof(), &CertifiedNames::NONE, NOW * 1000, Verification::Now);
            prop_assert_eq!(owner.map(|owner| *owner.as_bytes()), shown.model_owner(operation));
            let known = policy.owner(operation, &shown.proof(), &CertifiedNames::NONE, NOW * 1000, Verification::Earlier);
            prop_assert_eq!(known, owner, "a proof that was right is known afterwards");
        }
    }

    #[test]
    fn nobody_is_known_before_a_signature_was_verified(shown in shown()) {
        let policy = Policy::new(Settings { audiences: vec![AUDIENCE.to_owned()], ..Settings::default() });
        let known = policy.owner(Operation::Pull, &shown.proof(), &CertifiedNames::NONE, NOW * 1000, Verification::Earlier);
        prop_assert_eq!(known.is_some(), matches!(shown, Shown::Secret(_)));
    }
}
