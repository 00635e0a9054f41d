//! Attempts to open names: which proofs do, and which do not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use relay_auth::{Digest, Locks, Operation, PlainNames, Policy, Proof, Refusal, Settings};

const NOW: u64 = 1_800_000_000;
const AUDIENCE: &str = "https://relay.example.org";
const HEADER: &str = r#"{"alg":"EdDSA","typ":"relay-read+jwt"}"#;

fn policy() -> Policy {
    Policy::new(Settings {
        locks: true,
        plain_names: PlainNames::Open,
        audiences: vec!["other".to_owned(), AUDIENCE.to_owned()],
        ..Settings::default()
    })
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn key_name(key: &SigningKey) -> String {
    format!("ed25519:{}", encode(key.verifying_key().as_bytes()))
}

fn secret_name(secret: &[u8]) -> String {
    format!("sha256:{}", encode(Digest::of_read_secret(secret).as_bytes()))
}

fn claims(key: &SigningKey) -> String {
    format!(r#"{{"iss":"{}","aud":"{AUDIENCE}","iat":{NOW},"exp":{}}}"#, key_name(key), NOW + 600)
}

fn sign(key: &SigningKey, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", encode(signature.to_bytes()))
}

fn bearer(proof: &str) -> Proof {
    Proof::parse([format!("Bearer {proof}").as_bytes()].into_iter())
}

fn pull(policy: &Policy, name: &str, proof: &Proof, now: u64) -> Result<(), &'static str> {
    policy.may(Operation::Pull, name, proof, now * 1000).map(drop).map_err(|refusal| refusal.reason())
}

#[test]
fn plain_names_open_to_everybody_whatever_they_show() {
    let secret = bearer(&encode([1; 32]));
    let basic = Proof::parse([b"Basic YTpi".as_slice()].into_iter());
    for name in ["bob", "SHA256:x", "bob+sha256:y", "Ed25519:abc"] {
        for proof in [&Proof::None, &secret, &basic] {
            for operation in [Operation::Push, Operation::Pull, Operation::Ack] {
                assert!(policy().may(operation, name, proof, NOW * 1000).unwrap().sees_usage);
            }
        }
    }
    let closed = Policy::new(Settings { locks: true, plain_names: PlainNames::Deny, ..Settings::default() });
    for operation in [Operation::Push, Operation::Pull] {
        assert_eq!(closed.may(operation, "bob", &secret, 0), Err(Refusal::PlainDenied));
    }
}

#[test]
fn without_locks_every_name_is_plain() {
    let policy = Policy::new(Settings { locks: false, ..Settings::default() });
    for name in ["sha256:x", &secret_name(&[1; 32]), &key_name(&key(1))] {
        assert!(policy.may(Operation::Pull, name, &Proof::None, 0).is_ok());
    }
}

#[test]
fn a_secret_opens_its_own_name_only() {
    let (policy, secret) = (policy(), [1; 32]);
    let name = secret_name(&secret);
    assert_eq!(pull(&policy, &name, &bearer(&encode(secret)), NOW), Ok(()));
    assert_eq!(pull(&policy, &name, &Proof::None, NOW), Err("no_proof"));
    assert_eq!(pull(&policy, &name, &bearer(&encode([2; 32])), NOW), Err("wrong_proof"));
    assert_eq!(pull(&policy, &secret_name(&[2; 32]), &bearer(&encode(secret)), NOW), Err("wrong_proof"));
    assert_eq!(pull(&policy, &name, &bearer(&encode([1; 31])), NOW), Err("malformed_proof"));
    assert_eq!(pull(&policy, &name, &bearer(&name["sha256:".len()..]), NOW), Err("wrong_proof"));
    assert_eq!(pull(&policy, &format!("{name}="), &bearer(&encode(secret)), NOW), Err("malformed_name"));
    let token = sign(&key(1), HEADER, &claims(&key(1)));
    assert_eq!(pull(&policy, &name, &bearer(&token), NOW), Err("wrong_proof"));
}

#[test]
fn a_send_lock_opens_to_its_own_secret_only() {
    let policy = policy();
    let (read, send) = ([1; 32], [2; 32]);
    let name = format!("{}+sha256:{}", secret_name(&read), encode(Digest::of_send_secret(&send).as_bytes()));
    let push =
        |proof: &Proof| policy.may(Operation::Push, &name, proof, 0).map_err(|refusal| refusal.reason());
    assert!(!push(&bearer(&encode(send))).unwrap().sees_usage);
    assert_eq!(push(&bearer(&encode(read))), Err("wrong_proof"));
    assert_eq!(push(&Proof::None), Err("no_proof"));
    assert_eq!(pull(&policy, &name, &bearer(&encode(read)), NOW), Ok(()));
    assert_eq!(pull(&policy, &name, &bearer(&encode(send)), NOW), Err("wrong_proof"));
    // Without a send lock anybody may push, and only the reader learns how full the queue is.
    let open = secret_name(&read);
    for (proof, sees_usage) in [(Proof::None, false), (bearer("x.y.z"), false), (bearer(&encode(read)), true)]
    {
        assert_eq!(policy.may(Operation::Push, &open, &proof, 0).unwrap().sees_usage, sees_usage);
    }
}

#[test]
fn a_token_opens_the_name_of_its_key() {
    let (policy, key) = (policy(), key(1));
    let token = bearer(&sign(&key, HEADER, &claims(&key)));
    for now in [NOW - 60, NOW, NOW + 660, NOW] {
        assert_eq!(pull(&policy, &key_name(&key), &token, now), Ok(()));
    }
    let other_order = r#"{ "typ": "relay-read+jwt", "alg": "EdDSA" }"#;
    assert_eq!(pull(&policy, &key_name(&key), &bearer(&sign(&key, other_order, &claims(&key))), NOW), Ok(()));
    // With another send lock it is another queue.
    let other = format!("{}+sha256:{}", key_name(&key), encode([9; 32]));
    assert_eq!(pull(&policy, &other, &token, NOW), Err("wrong_proof"));
    let token = bearer(&sign(&key, HEADER, &claims(&key).replace(&key_name(&key), &other)));
    assert_eq!(pull(&policy, &other, &token, NOW), Ok(()));
    assert_eq!(pull(&policy, &key_name(&key), &token, NOW), Err("wrong_proof"));
}

#[test]
fn claims_that_are_not_valid_open_nothing() {
    let (key, name) = (key(1), key_name(&key(1)));
    let with = |aud: &str, iat: u64, exp: u64| {
        sign(&key, HEADER, &format!(r#"{{"iss":"{name}","aud":"{aud}","iat":{iat},"exp":{exp}}}"#))
    };
    for (token, reason) in [
        (with(AUDIENCE, NOW - 700, NOW - 100), "token_expired"),
        (with(AUDIENCE, NOW + 61, NOW + 100), "token_not_valid_yet"),
        (with(AUDIENCE, NOW, NOW + 601), "token_lives_too_long"),
        (with(AUDIENCE, NOW, NOW - 1), "token_lives_too_long"),
        (with(AUDIENCE, 0, u64::MAX), "token_lives_too_long"),
        (with(AUDIENCE, u64::MAX - 1, u64::MAX), "token_not_valid_yet"),
        (with("https://relay.example.org/", NOW, NOW + 1), "wrong_audience"),
        (with("", NOW, NOW + 1), "wrong_audience"),
    ] {
        assert_eq!(pull(&policy(), &name, &bearer(&token), NOW), Err(reason), "{token}");
    }
    let closed = Policy::new(Settings { locks: true, ..Settings::default() });
    assert_eq!(pull(&closed, &name, &bearer(&with(AUDIENCE, NOW, NOW + 1)), NOW), Err("no_audience"));
}

#[test]
fn a_verified_token_still_expires() {
    let (policy, key) = (policy(), key(1));
    let token = bearer(&sign(&key, HEADER, &claims(&key)));
    assert_eq!(pull(&policy, &key_name(&key), &token, NOW), Ok(()));
    assert_eq!(pull(&policy, &key_name(&key), &token, NOW + 661), Err("token_expired"));
}

#[test]
fn other_headers_open_nothing() {
    let (key, name) = (key(1), key_name(&key(1)));
    for header in [
        r#"{"alg":"none","typ":"relay-read+jwt"}"#,
        r#"{"alg":"HS256","typ":"relay-read+jwt"}"#,
        r#"{"alg":"RS256","typ":"relay-read+jwt"}"#,
        r#"{"alg":"eddsa","typ":"relay-read+jwt"}"#,
        r#"{"alg":"EdDSA","typ":"JWT"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","typ":"relay-read+jwt","kid":"../../key"}"#,
        r#"{"alg":"EdDSA","typ":"relay-read+jwt","jwk":{}}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA","typ":"relay-read+jwt"}"#,
        r#"{"alg":["EdDSA"],"typ":"relay-read+jwt"}"#,
        r#"["EdDSA","relay-read+jwt"]"#,
        "[]",
        "",
    ] {
        let token = sign(&key, header, &claims(&key));
        assert_eq!(pull(&policy(), &name, &bearer(&token), NOW), Err("malformed_proof"), "{header}");
    }
}

#[test]
fn malformed_tokens_open_nothing() {
    let (key, name) = (key(1), key_name(&key(1)));
    let good = sign(&key, HEADER, &claims(&key));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let iss = format!(r#""iss":"{name}""#);
    let rest = format!(r#""aud":"{AUDIENCE}","iat":{NOW},"exp":{}"#, NOW + 600);
    let with = |claims: String| sign(&key, HEADER, &claims);
    for token in [
        with(format!("{{{iss},{iss},{rest}}}")),
        with(format!("{{{iss},{rest},\"exp\":{}}}", NOW + 1)),
        with(format!("{{{iss},{rest},\"admin\":true}}")),
        with(format!("{{{rest}}}")),
        with(format!("{{{iss},{rest},\"ops\":null}}")),
        with(format!(r#"["{name}","{AUDIENCE}",{NOW},{NOW}]"#)),
        with(format!("{{\"iss\":\"bob\",{rest}}}")),
        with(format!("{{\"iss\":\"{}\",{rest}}}", secret_name(&[1; 32]))),
        with(format!("{{{iss},{rest},\"ops\":[\"everything\"]}}")),
        with(format!("{{{iss},\"aud\":[\"{AUDIENCE}\"],\"iat\":{NOW},\"exp\":{NOW}}}")),
        with(format!("{{{iss},\"aud\":\"{AUDIENCE}\",\"iat\":-1,\"exp\":1e3}}")),
        format!("{signed}."),
        format!("{signed}.{}", &signature[1..]),
        format!("{signed}.{signature}A"),
        format!("{signed}.{signature}="),
        format!("{good}.{signature}"),
        "a.b".to_owned(),
        "...".to_owned(),
        format!("{signed}.{signature}").replace('.', ". "),
    ] {
        assert_eq!(pull(&policy(), &name, &bearer(&token), NOW), Err("malformed_proof"), "{token}");
    }
    let huge = with(format!("{{{iss},{rest},\"ops\":[{}\"pull\"]}}", "\"pull\",".repeat(1000)));
    assert_eq!(pull(&policy(), &name, &bearer(&huge), NOW), Err("malformed_proof"));
}

#[test]
fn a_token_of_another_key_opens_nothing() {
    let (mine, other) = (key(1), key(2));
    let name = key_name(&mine);
    // Signed by another key in the name of this one; one of another name; a swapped signature.
    let forged = sign(&other, HEADER, &claims(&mine));
    assert_eq!(pull(&policy(), &name, &bearer(&forged), NOW), Err("wrong_signature"));
    let replayed = sign(&other, HEADER, &claims(&other));
    assert_eq!(pull(&policy(), &name, &bearer(&replayed), NOW), Err("wrong_proof"));
    let (signed, _) = forged.rsplit_once('.').unwrap();
    let (_, signature) = replayed.rsplit_once('.').unwrap();
    assert_eq!(
        pull(&policy(), &name, &bearer(&format!("{signed}.{signature}")), NOW),
        Err("wrong_signature")
    );
    // An HMAC over the public key, as for HS256.
    let zero = format!("{signed}.{}", encode([0; 64]));
    assert_eq!(pull(&policy(), &name, &bearer(&zero), NOW), Err("wrong_signature"));
}

#[test]
fn keys_of_small_order_open_nothing() {
    // The identity and the zero point verify anything in lax implementations.
    for bytes in [
        [0; 32],
        {
            let mut one = [0; 32];
            one[0] = 1;
            one
        },
        [0xff; 32],
    ] {
        let name = format!("ed25519:{}", encode(bytes));
        let claims = format!(r#"{{"iss":"{name}","aud":"{AUDIENCE}","iat":{NOW},"exp":{NOW}}}"#);
        let signed = format!("{}.{}", encode(HEADER), encode(claims));
        for signature in [[0; 64], {
            let mut one = [0; 64];
            one[0] = 1;
            one
        }] {
            let token = format!("{signed}.{}", encode(signature));
            assert_eq!(pull(&policy(), &name, &bearer(&token), NOW), Err("wrong_signature"));
        }
    }
}

#[test]
fn a_token_allows_its_operations_only() {
    let (policy, key) = (policy(), key(1));
    let name = key_name(&key);
    let claims = claims(&key).replace('}', r#","ops":["pull"]}"#);
    let token = bearer(&sign(&key, HEADER, &claims));
    assert_eq!(pull(&policy, &name, &token, NOW), Ok(()));
    assert_eq!(policy.may(Operation::Ack, &name, &token, NOW * 1000), Err(Refusal::WrongOperation));
    assert!(!policy.may(Operation::Push, &name, &token, NOW * 1000).unwrap().sees_usage);
}

#[test]
fn nothing_secret_is_shown() {
    let (key, policy) = (key(1), policy());
    let token = sign(&key, HEADER, &claims(&key));
    let shown = format!("{policy:?} {:?} {:?}", bearer(&token), bearer(&encode([1; 32])));
    assert!(!shown.contains(&token[..20]) && !shown.contains(&encode([1; 32])), "{shown}");
}

proptest! {
    /// No input panics, and whatever is not the canonical lock of a name does not open it.
    #[test]
    fn only_the_right_secret_opens(secret: [u8; 32], other: [u8; 32], name in ".{0,100}", value: Vec<u8>) {
        let policy = policy();
        let proof = Proof::parse([&*value].into_iter());
        let _ = policy.may(Operation::Pull, &name, &proof, NOW);
        let locked = secret_name(&secret);
        prop_assert!(policy.may(Operation::Pull, &locked, &proof, NOW).is_err());
        prop_assert_eq!(
            policy.may(Operation::Pull, &locked, &bearer(&encode(other)), NOW).is_ok(),
            secret == other
        );
        prop_assert!(policy.may(Operation::Pull, &locked, &bearer(&encode(secret)), NOW).is_ok());
        prop_assert_eq!(Locks::of(&locked).unwrap().to_string(), locked);
    }

    /// A changed byte of a token makes it open nothing.
    #[test]
    fn a_changed_token_opens_nothing(at: prop::sample::Index, bit in 0..7_u32) {
        let key = key(1);
        let token = sign(&key, HEADER, &claims(&key));
        let mut bytes = token.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(pull(&policy(), &key_name(&key), &bearer(&changed), NOW).is_err());
    }
}

/// The file is for authors of clients; a program in another language has computed it.
#[test]
fn the_published_vectors_hold() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    let list = |name: &str| vectors[name].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let policy = policy();
    for vector in list("secrets") {
        let name = text(&vector["recipient"]);
        assert_eq!(pull(&policy, &name, &bearer(&text(&vector["secret"])), NOW), Ok(()));
        if let Some(secret) = vector["send_secret"].as_str() {
            assert!(policy.may(Operation::Push, &name, &bearer(secret), 0).is_ok());
            assert!(policy.may(Operation::Push, &name, &Proof::None, 0).is_err());
        }
    }
    for vector in list("tokens") {
        let (name, token) = (text(&vector["recipient"]), bearer(&text(&vector["token"])));
        for time in ["valid_from", "valid_until"] {
            assert_eq!(pull(&policy, &name, &token, vector[time].as_u64().unwrap()), Ok(()));
        }
        let seed = URL_SAFE_NO_PAD.decode(text(&vector["private_key"])).unwrap();
        assert_eq!(key_name(&SigningKey::from_bytes(&seed.try_into().unwrap())), name);
    }
    assert!(list("malformed_recipients").iter().all(|name| Locks::of(&text(name)).is_err()));
    assert!(list("plain_recipients").iter().all(|name| Locks::of(&text(name)) == Ok(Locks::NONE)));
}
