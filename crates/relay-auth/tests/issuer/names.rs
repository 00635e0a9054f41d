//! Who may read plain names and who may push to them, by token or by certificate.

use base64::Engine as _;
use ed25519_dalek::{Signer as _, SigningKey};
use relay_auth::{Digest, Operation, PlainNames, Proof, PushPlain, Refusal};
use serde_json::json;

use crate::support::{
    AUDIENCE, EC, ED, NOW, RSA, bearer, certificate, claims, claims_with, encode, issuer, may, policy,
    policy_of, pull,
};

#[test]
fn a_token_reads_the_names_that_it_lists() {
    let policy = policy();
    for (key, kid) in [(&*ED, "ed"), (&*EC, "ec"), (&*RSA, "rsa")] {
        let token =
            key.token(kid, &claims_with(&json!({"relay": {"read": ["alice", "bob", "J\u{fc}rgen"]}})));
        for name in ["alice", "bob", "J\u{fc}rgen"] {
            // Again from the cache.
            for _ in 0..2 {
                assert_eq!(pull(&policy, name, &token), Ok(()));
            }
            assert_eq!(may(&policy, Operation::Ack, name, &token), Ok(true));
        }
        for name in ["carol", "Bob", "bo", "bobb", "", "bob ", "J\u{75}\u{308}rgen"] {
            assert_eq!(pull(&policy, name, &token), Err("wrong_proof"), "{name}");
        }
    }
}

#[test]
fn wildcards_are_names_like_others() {
    let policy = policy();
    let token = ED.token("ed", &claims_with(&json!({"relay": {"read": ["*", "b*", ".*"], "send": ["*"]}})));
    assert_eq!(pull(&policy, "*", &token), Ok(()));
    for operation in [Operation::Pull, Operation::Push] {
        assert_eq!(may(&policy, operation, "bob", &token), Err("wrong_proof"));
    }
}

#[test]
fn who_may_push_is_a_setting_of_its_own() {
    let token = |relay| ED.token("ed", &claims_with(&json!({ "relay": relay })));
    let (reads, sends) = (token(json!({"read": ["bob"]})), token(json!({"send": ["bob"]})));
    let (sends_all, nothing) = (token(json!({"send": true})), token(json!({})));
    let (closed, open) = (policy(), policy_of(PlainNames::Token, PushPlain::Open, Some(issuer())));
    let half = policy_of(PlainNames::Open, PushPlain::Token, Some(issuer()));
    let push = |policy, proof: &str| may(policy, Operation::Push, "bob", proof);
    // Only the reader learns how full the queue is, unless everybody may read.
    for (proof, sees_usage) in [(&reads, true), (&sends, false), (&sends_all, false)] {
        assert_eq!(push(&closed, proof), Ok(sees_usage));
        assert_eq!(push(&open, proof), Ok(sees_usage));
        assert_eq!(push(&half, proof), Ok(true));
    }
    assert_eq!(push(&open, "x"), Ok(false));
    for (proof, reason) in
        [(nothing.as_str(), "wrong_proof"), ("x", "malformed_proof"), (&encode([1; 32]), "wrong_proof")]
    {
        assert_eq!(push(&closed, proof), Err(reason));
        assert_eq!(push(&half, proof), Err(reason));
    }
    for policy in [&closed, &half] {
        assert_eq!(policy.may(Operation::Push, "bob", &Proof::None, 0), Err(Refusal::NoProof));
    }
    assert!(half.may(Operation::Pull, "bob", &Proof::None, 0).unwrap().sees_usage);
    assert_eq!(may(&half, Operation::Pull, "bob", "x"), Ok(true), "it is ignored");
    for (name, proof) in [("carol", &sends), ("carol", &reads)] {
        assert_eq!(may(&closed, Operation::Push, name, proof), Err("wrong_proof"));
    }
    assert_eq!(may(&closed, Operation::Push, "carol", &sends_all), Ok(false));
    for proof in [&sends, &sends_all, &nothing] {
        assert_eq!(pull(&closed, "bob", proof), Err("wrong_proof"));
    }
}

#[test]
fn closed_plain_names_open_to_nobody() {
    let policy = policy_of(PlainNames::Deny, PushPlain::Token, Some(issuer()));
    let token = ED.token("ed", &claims_with(&json!({"relay": {"read": ["bob"], "send": true}})));
    for operation in [Operation::Push, Operation::Pull, Operation::Ack] {
        assert_eq!(may(&policy, operation, "bob", &token), Err("plain_names_denied"));
        let certified =
            policy.may_with_certificate(operation, "bob", &Proof::None, &certificate(&["relay:bob"]), 0);
        assert_eq!(certified, Err(Refusal::PlainDenied));
    }
}

#[test]
fn a_lock_opens_to_its_own_proof_only() {
    let (policy, secret, key) = (policy(), [1; 32], SigningKey::from_bytes(&[1; 32]));
    let locked = format!("sha256:{}", encode(Digest::of_read_secret(&secret).as_bytes()));
    let keyed = format!("ed25519:{}", encode(key.verifying_key().as_bytes()));
    let send = format!("{locked}+sha256:{}", encode(Digest::of_send_secret(&[2; 32]).as_bytes()));
    let names = [&locked, &keyed, &send];
    let token = ED.token("ed", &claims_with(&json!({"relay": {"read": names, "send": true}})));
    let certified = certificate(&names.map(|name| format!("relay:{name}")).each_ref().map(String::as_str));
    for name in names {
        assert!(certified.contains(name));
        assert_eq!(pull(&policy, name, &token), Err("wrong_proof"), "{name}");
        let pulled = policy.may_with_certificate(Operation::Pull, name, &Proof::None, &certified, NOW * 1000);
        assert_eq!(pulled, Err(Refusal::NoProof), "{name}");
    }
    assert_eq!(may(&policy, Operation::Push, &send, &token), Err("wrong_proof"));
    assert_eq!(may(&policy, Operation::Push, &locked, &token), Ok(false), "anybody may push");
    // Their own proofs work as ever, and open no plain name.
    let header = encode(r#"{"alg":"EdDSA","typ":"relay-read+jwt"}"#);
    let read = json!({"iss": keyed, "aud": AUDIENCE, "iat": NOW, "exp": NOW + 600});
    let signed = format!("{header}.{}", encode(read.to_string()));
    let read = format!("{signed}.{}", encode(key.sign(signed.as_bytes()).to_bytes()));
    for (name, proof) in [(&locked, &encode(secret)), (&keyed, &read)] {
        assert_eq!(pull(&policy, name, proof), Ok(()));
        for operation in [Operation::Push, Operation::Pull] {
            assert_eq!(may(&policy, operation, "bob", proof), Err("wrong_proof"));
        }
    }
}

#[test]
fn without_locks_a_token_opens_what_looks_like_one() {
    let settings = relay_auth::Settings {
        locks: false,
        plain_names: PlainNames::Token,
        audiences: vec![AUDIENCE.to_owned()],
        issuer: Some(issuer()),
        ..relay_auth::Settings::default()
    };
    let policy = relay_auth::Policy::new(settings);
    let token = ED.token("ed", &claims_with(&json!({"relay": {"read": ["sha256:x"]}})));
    assert_eq!(pull(&policy, "sha256:x", &token), Ok(()));
    assert_eq!(pull(&policy, "sha256:y", &token), Err("wrong_proof"));
}

#[test]
fn a_relay_without_an_issuer_takes_its_tokens_for_malformed() {
    let token = ED.token("ed", &claims());
    let key = format!("ed25519:{}", encode([1; 32]));
    for (policy, name) in [
        (policy_of(PlainNames::Token, PushPlain::Token, None), "bob"),
        (policy_of(PlainNames::Open, PushPlain::Open, None), &*key),
    ] {
        assert_eq!(pull(&policy, name, &token), Err("malformed_proof"));
        let refusal = policy.may(Operation::Pull, name, &bearer(&token), 0).unwrap_err();
        assert!(refusal.to_string().contains("relay-read+jwt"), "{refusal}");
    }
    let open = policy_of(PlainNames::Open, PushPlain::Open, None);
    assert_eq!(may(&open, Operation::Pull, "bob", &token), Ok(true));
}

#[test]
fn a_certificate_reads_its_names() {
    let policy = policy_of(PlainNames::Token, PushPlain::Token, None);
    let two = certificate(&["https://example.org", "relay:bob", "relay:J%C3%BCrgen", "relay:%", "relay:*"]);
    let with = |operation, name, proof: &Proof| {
        let granted = policy.may_with_certificate(operation, name, proof, &two, NOW * 1000);
        granted.map(|granted| granted.sees_usage).map_err(|refusal| refusal.reason())
    };
    for operation in [Operation::Push, Operation::Pull, Operation::Ack] {
        for name in ["bob", "J\u{fc}rgen", "*"] {
            // What else the request shows does not matter.
            for proof in [Proof::None, bearer("x"), bearer(&encode([1; 32]))] {
                assert_eq!(with(operation, name, &proof), Ok(true));
            }
        }
        for name in ["carol", "J%C3%BCrgen", "relay:bob", "", "%", "bob\0", "BOB"] {
            assert_eq!(with(operation, name, &Proof::None), Err("wrong_proof"), "{name:?}");
        }
        let nameless = policy.may_with_certificate(operation, "bob", &Proof::None, &certificate(&[]), 0);
        assert_eq!(nameless, Err(Refusal::NoProof));
    }
}

#[test]
fn nothing_of_a_token_is_shown() {
    let token = ED.token("ed", &claims());
    let proof = bearer(&token);
    assert!(matches!(proof, Proof::IssuerToken(_)));
    let shown = format!("{:?} {proof:?} {:?}", policy(), certificate(&["relay:bob"]));
    assert!(
        !shown.contains("bob") && !shown.contains("accounts") && !shown.contains(&token[..20]),
        "{shown}"
    );
    let x = ED.jwk("ed")["x"].as_str().unwrap().to_owned();
    assert!(!shown.contains(&x) && !shown.contains(&base64::prelude::BASE64_STANDARD.encode(&ED.der)));
}
